"""Every benchmark runs to its end on the smallest figures, and its tables have a figure in every cell."""

import importlib
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from benchmarks.conversation_page import NAMES
from tests.conversations.unmarked import CALLING, KINDS, without_marks
from tests.exploring.made import made_dataset
from tests.tiny import tiny_tokenizer

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a benchmark's main in this process and give its output."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def run(name: str, *arguments: str, **replaced: object) -> str:
        module = importlib.import_module(name)
        assert isinstance(module, ModuleType) and Path(str(module.__file__)).parent == FOLDER
        for attribute, value in replaced.items():
            monkeypatch.setattr(module, attribute, value)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        module.main()
        return capsys.readouterr().out

    return run


def table_rows(text: str) -> list[list[str]]:
    """The cells of all tables, without headers. Raises where a row hasn't the cells of its header."""
    rows, width, begun = [], 0, False
    for line in text.splitlines():
        cells = line.strip("|").split("|")
        if not line.startswith("|"):
            width = 0
        elif not width:
            width, begun = len(cells), False
        elif set(line) <= set("|-"):
            begun = True
        else:
            assert begun and len(cells) == width
            rows.append([cell.strip() for cell in cells])
    return rows


def test_lengths(printed):
    rows = table_rows(printed("lengths", "--conversations", "40", "--tokens", "20"))
    assert len(rows) == 5 and all(float(row[4]) > 50 for row in rows)
    assert [bool(row[3]) for row in rows] == [True, True, True, True, False], "what --tokenized-dataset saves"


def test_sampling(printed):
    rows = table_rows(printed("sampling", "--rows", "4", "--repeats", "1", VOCABULARIES=(320, 1000)))
    assert len(rows) == 8 and all(cell for row in rows for cell in row)
    assert all(float(row[3]) >= 1 and float(row[-1]) > 0 for row in rows), "nuclei and bytes"


def test_codec(printed):
    rows = table_rows(printed("codec", "--entries", "2000", "--repeats", "1"))
    assert len(rows) == 18 and float(rows[9][-1]) < float(rows[-1][-1])


def test_exploring(printed):
    rows = table_rows(printed("exploring", "--entries", "2000", "--repeats", "1"))
    assert len(rows) == 14 and all(cell for row in rows for cell in row)
    assert [row[3] for row in rows[:2]] == ["the yardstick"] * 2


def tiny() -> object:
    return importlib.import_module("models").TINY


def test_overhead(printed):
    rows = table_rows(printed("overhead", "--tokens", "128", "--repeats", "1", HALF_BILLION=tiny(), SMALL=(tiny(),)))
    assert len(rows) == 3 and all(cell for row in rows for cell in row)


def test_end_to_end(printed, tmp_path: Path):
    arguments = ("--conversations", "4", "--tokens", "32", "--repeats", "1", "--threads", "1")
    shown = printed("end_to_end", *arguments, CASES=((tiny(), "float32"),))
    rows = table_rows(shown)
    assert [row[0] for row in rows] == list(importlib.import_module("end_to_end").STATIONS)
    shares = {row[0]: float(row[1].split()[0]) for row in rows}
    assert 0 < shares["forward"] < 100 and shares["sampling"] > 0 and shares["writing"] > 0


def test_scaling(printed):
    rows = table_rows(printed("scaling", "--conversations", "8", "16"))
    assert [row[0] for row in rows] == ["8", "16"] and all(rows[1])


def test_resuming(printed):
    arguments = ("--shards", "3", "--rows", "2", "--large-tokens", "1", "--repeats", "1")
    rows = table_rows(printed("resuming", *arguments))
    assert [row[1] for row in rows] == ["3", "3", "1", "1"] and all(cell for row in rows for cell in row)
    assert [float(row[6]) == 0 for row in rows] == [False, True, False, True], "the cache folder spares fetching"


def test_templates(printed, tmp_path: Path):
    """What the judge calls right, and that it sees what is wrong."""
    unmarked = without_marks(KINDS["prefix"])
    templates = {
        "marked": KINDS["prefix"],
        "more": KINDS["prefix"].replace("{% generation %}", "{% generation %}<think></think>"),
        "greedy": "{% generation %}" + unmarked + "{% endgeneration %}",
        "unmarked": unmarked,
        "changed": unmarked.replace("m.content", "m.content | upper"),
        "calling": without_marks(CALLING),
        "calling greedily": "{% generation %}" + without_marks(CALLING) + "{% endgeneration %}",
    }
    for name, text in templates.items():
        (tmp_path / f"{name}.jinja").write_text(text, encoding="utf-8")
    index = [{"path": f"{name}.jinja"} for name in templates] + [{"file": "x", "dup_of": "marked.jinja"}]
    (tmp_path / "index.json").write_text(json.dumps(index))
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    shown = printed("templates", "--templates", str(tmp_path), "--tokenizer", str(tmp_path / "tokenizer"))
    totals, verdicts, remarks = ({row[0]: row[1:] for row in table_rows(table)} for table in shown.split("\n\n"))
    assert totals["three turns"] == ["3", "1", "1", "2"]
    assert verdicts["marked"][0].startswith("template: ") and verdicts["unmarked"][0].startswith("prefix: ")
    assert verdicts["more"][0].endswith("as marked") and verdicts["unmarked"][0].endswith("right")
    assert verdicts["unmarked"][-2].endswith("right, thoughts not printed") and verdicts["unmarked"][-1] == "refused"
    assert [verdict.partition(", ")[2] for verdict in verdicts["calling"]] == ["right"] * 4 + ["right, whole turns"] * 2
    assert all(verdict.endswith("wrong") for verdict in verdicts["calling greedily"])
    assert remarks["changed"][1].startswith("0 assistant tokens") and verdicts["greedy"][0].endswith("wrong")


@pytest.mark.browser
@pytest.mark.skipif(not any(map(shutil.which, NAMES)), reason="no Chromium is installed")
def test_conversation_page(printed, tmp_path: Path):
    made = made_dataset(tmp_path / "logits", tmp_path / "teacher")
    rows = table_rows(printed("conversation_page", str(made.folder), "--tokens", "30", "60"))
    assert [row[0] for row in rows] == ["30", "60"]
    assert all(re.fullmatch(r"\d+ \(\d+-\d+\)", cell) for row in rows for cell in row[4:])


@pytest.mark.skipif(torch.cuda.is_available(), reason="measures for minutes where there is a GPU")
def test_cuda_without_a_gpu(printed):
    assert printed("cuda") == "no CUDA device: nothing measured\n"
