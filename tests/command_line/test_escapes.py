"""What data holds never steers the terminal: not in errors, not in messages, not in results."""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher_logits.command_line import explore, extract, lengths
from teacher_logits.command_line.shell import exit_code_of, say, set_up_reporting
from teacher_logits.conversations.looking import MarkedConversation
from teacher_logits.errors import DatasetError
from teacher_logits.extraction.preview import MaskPreview
from tests.exploring.made import made_dataset
from tests.tiny import messages, save_teacher, write_jsonl

STEERING = "\x1b]0;owned\x07\x1b[31m\u202e"
SHOWN = r"\x1b]0;owned\x07\x1b[31m\u202e"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher"))


def image_row() -> list[dict[str, Any]]:
    """A conversation that can't be used, and whose reason has text of the data."""
    return [{"role": "user", "content": [{"type": STEERING}]}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DatasetError(f"a\n{STEERING}"), 2, f"error: a\n{SHOWN}\n"),
        (OSError(f"no {STEERING}"), 1, f"error: no {SHOWN}. Mend it.\n"),
        (RuntimeError(f"no home directory {STEERING}."), 2, f"error: no home directory {SHOWN}. Give a path "),
    ],
)
def test_errors(error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise error

    assert exit_code_of(fail, "Mend it.") == code
    assert capsys.readouterr().err.startswith(said)


def test_messages(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_reporting()
    logging.getLogger("teacher_logits.anything").info("read\t%s\n", STEERING)
    assert capsys.readouterr().err == f"read\t{SHOWN}\n\n"


def test_results(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"a\tb\n{STEERING}")
    say("\x1b[32ma\x1b[0m", coloured=True)
    assert capsys.readouterr().out == f"a\tb\n{SHOWN}\n\x1b[32ma\x1b[0m\n"


def test_marked_conversations_that_are_painted() -> None:
    seen = MarkedConversation(["a", STEERING], np.array([False, True]), ["user", "assistant"])
    assert seen.painted(lambda text, kind: f"\x1b[1m{text}") == f"\x1b[1ma\x1b[1m{SHOWN}"


def test_reasons_beside_them() -> None:
    shown = MaskPreview("template", 0.5, 1, Counter({STEERING: 1}), []).text()
    assert shown.endswith(f"1 of them can't be used: {SHOWN}")


@pytest.mark.parametrize("program", [lengths.main, extract.main])
@pytest.mark.parametrize("usable", [False, True])
def test_reasons_of_both_programs(
    program: Callable[[list[str]], int], usable: bool, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [image_row(), *[messages("a", "b")] * usable]
    data = write_jsonl(tmp_path / "rows.jsonl", [{"messages": json.dumps(row)} for row in rows])
    given = ["--model", str(teacher), "--dataset", str(data), "--output", str(tmp_path / "o")]
    if program is extract.main:
        given += ["--cache-dir", str(tmp_path / "cache"), "--device", "cpu"]
    assert program(given) == (0 if usable else 2)
    shown = capsys.readouterr()
    assert SHOWN in shown.out + shown.err and "\x1b" not in shown.out + shown.err


def test_names_of_columns(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({STEERING: ["a"]}), tmp_path / "rows.parquet")
    data = str(tmp_path / "rows.parquet")
    assert lengths.main(["--model", str(teacher), "--dataset", data, "--output", str(tmp_path / "o")]) == 2
    shown = capsys.readouterr()
    assert "owned" in shown.err and "\x1b" not in shown.out + shown.err


def test_what_a_dataset_says_of_its_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = made_dataset(tmp_path / "logits", tmp_path / "teacher")
    path = made.folder / "checkpoint.json"
    checkpoint = json.loads(path.read_text())
    named = str(tmp_path / STEERING)
    checkpoint["config"]["model"] = checkpoint["metadata"]["model"] = named
    path.write_text(json.dumps(checkpoint))
    assert explore.main([str(made.folder), "show"]) == 2
    assert f"{tmp_path}/{SHOWN} can't be loaded" in (shown := capsys.readouterr()).err
    shutil.copytree(tmp_path / "teacher", named)
    checkpoint["metadata"]["tokenizer_sha256"] = "00"
    path.write_text(json.dumps(checkpoint))
    assert explore.main([str(made.folder), "show"]) == 0
    shown = capsys.readouterr()
    assert f"The tokenizer of {tmp_path}/{SHOWN} is not the one" in shown.err and "\x1b" not in shown.err


@pytest.mark.parametrize("program", [lengths.main, extract.main])
def test_an_option_that_is_not_utf8(
    program: Callable[[list[str]], int], teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_jsonl(tmp_path / "rows.jsonl", [{"question": "a", "answer": "b"}])
    given = ["--model", str(teacher), "--dataset", str(data), "--output", str(tmp_path / "o")]
    assert program([*given, "--system-prompt", "a\udcff"]) == 2
    assert capsys.readouterr().err == "error: --system-prompt is 'a\\udcff'; expected text in UTF-8.\n"
    assert not (tmp_path / "o").exists()
