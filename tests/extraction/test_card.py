"""What the card of an output tells, and its picture."""

import html
import io
import re
import sys
from pathlib import Path
from typing import Any

import datasets
import matplotlib.image
import numpy as np
import pytest
import yaml

from teacher_logits.command_line.explore import main as explore
from teacher_logits.exploring import compute_dataset_stats
from teacher_logits.extraction import card_files
from teacher_logits.hub import Checkpoint
from teacher_logits.shards import ShardFigures, read_entries, size_class_names
from tests.extraction.runs import Place, StopAfter
from tests.tiny import question_rows, save_teacher

PICTURE = "assets/nucleus_sizes.png"


def card_of(place: Place) -> str:
    return (place.folder / "README.md").read_text()


def shards_of(folder: Path) -> list[Path]:
    return sorted((folder / "data").iterdir())


def cell(card: str, name: str) -> str:
    (line,) = [line for line in card.splitlines() if line.startswith(f"| {name} |")]
    return line.split("|")[2].strip()


def test_figures_are_those_of_the_entries(reference: Place) -> None:
    """Recomputed from the shards, one entry after another."""
    sizes, mass = [], []
    for shard in shards_of(reference.folder):
        entries, first = read_entries(shard), 0
        for count, total in zip(entries.counts.tolist(), entries.logsumexp.tolist(), strict=True):
            sizes.append(count)
            mass.append(float(np.exp(entries.top_logits[first : first + count] - total).sum()))
            first += count
    card = card_of(reference)
    assert cell(card, "mean nucleus") == f"{np.mean(sizes):.1f} tokens"
    assert cell(card, "the nuclei hold") == f"{100 * np.mean(mass):.2f} % of the probability, on average"
    stored = sum(path.stat().st_size for path in shards_of(reference.folder))
    assert cell(card, "bytes a token") == f"{stored / len(sizes):.0f}"
    figures = Checkpoint.parse((reference.folder / "checkpoint.json").read_bytes(), "here").figures
    assert figures is not None and figures.entries == len(sizes)
    classes = [int(np.ceil(np.log2(size))) for size in sizes]
    assert list(figures.nucleus_sizes) == np.bincount(classes, minlength=9).tolist()
    assert compute_dataset_stats(reference.folder).nucleus.mean == pytest.approx(np.mean(sizes))


def test_the_picture(reference: Place) -> None:
    assert f"]({PICTURE})" in card_of(reference)
    picture = matplotlib.image.imread(io.BytesIO((reference.folder / PICTURE).read_bytes()))
    assert picture.shape[1] > 600 and picture.std() > 0.05
    assert datasets.load_dataset(str(reference.folder), split="train").num_rows == 30, "it is no data"


def test_an_unfinished_run_has_none(place: Place) -> None:
    place.run(StopAfter(10), max_batch_size=1)
    assert not (place.folder / PICTURE).exists() and PICTURE not in card_of(place)
    assert cell(card_of(place), "complete") == "not yet" and "| mean nucleus |" in card_of(place)
    place.run(resume=True)
    assert (place.folder / PICTURE).exists() and cell(card_of(place), "complete") == "yes"


def test_without_what_draws(place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    from teacher_logits.exploring.plots import style

    style._picture_class.cache_clear()
    assert place.run(limit=3).complete
    assert PICTURE not in card_of(place) and "picture" not in caplog.text


def test_a_picture_is_not_worth_a_run(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(card_files, "plot_size_classes", broken)
    assert place.run(limit=3).complete
    assert "the card gets no picture: no fonts" in caplog.text and PICTURE not in card_of(place)


@pytest.mark.parametrize(
    ("options", "which"),
    [
        ({}, "at every assistant token of **chat.jsonl**"),
        ({"turns": "last"}, "at every token of the assistant's last turn in each conversation of"),
        ({"exclude_end_tokens": True}, "at every assistant token, without end tokens, of"),
        (
            {"exclude_end_tokens": True, "exclude_think_tokens": True},
            "at every assistant token, without think tokens and end tokens, of",
        ),
    ],
)
def test_which_tokens_have_entries(options: dict[str, Any], which: str, place: Place) -> None:
    place.run(limit=3, **options)
    assert which in card_of(place)


def test_how_it_was_read(place: Place) -> None:
    prompt = "Be brief | and `kind`.\n\n# No title " + "very " * 60
    place.run(limit=3, mask_source="sentinel", system_prompt=prompt)
    card = card_of(place)
    assert cell(card, "read from") == "`question`, `answer`"
    assert cell(card, "assistant tokens by").startswith("where the chat template prints an answer")
    assert "| `Be brief \\| and 'kind'. # No title very" in card and "\n# No title" not in card
    yaml.safe_load(card.split("---\n")[1])


@pytest.mark.parametrize("store_tokens", [True, False])
def test_its_snippets_run(store_tokens: bool, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.run(limit=4, store_tokens=store_tokens)
    code = card_of(place).split("```python\n")[1:]
    names: dict[str, Any] = {}
    # The card names folders without where they lie.
    monkeypatch.chdir(place.folder.parent)
    (place.folder.parent / place.teacher.name).symlink_to(place.teacher)
    for part in code:
        exec(part.split("```")[0], names)
    assert names["dataset"].num_rows == 4 and len(names["probabilities"]) == names["sample"]["num_tokens"]
    assert ("input_ids" in names["sample"]) and len(names["sample"]["positions"]) == names["sample"]["num_tokens"]


def test_it_is_what_the_teacher_says(reference: Place, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Both ways of naming the command; and a teacher that it is not."""
    there, teacher = str(reference.folder), str(reference.teacher)
    for arguments in (["compare", there], [there, "compare"]):
        assert explore([*arguments, "--model", teacher, "--conversations", "2", "--device", "cpu"]) == 0
        said = capsys.readouterr().out
        assert "2 of 30 conversations" in said and said.rstrip().endswith("sound") and "NOT" not in said
    assert explore([there, "compare", "--model", str(save_teacher(place.folder / "other", vocab_size=401))]) == 2


def test_tokens_that_were_not_stored_are_shown(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place.run(limit=3, store_tokens=False)
    there, page = str(place.folder), tmp_path / "page.html"
    assert explore([there, "show", "--index", "1"]) == 2
    assert "--retokenize" in capsys.readouterr().err
    assert explore([there, "show", "--index", "1", "--retokenize"]) == 0
    shown = capsys.readouterr().out
    answer = question_rows(2)[1]["answer"]
    assert answer in shown and question_rows(2)[1]["question"] in shown
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(place.data.read_bytes())
    arguments = [there, "show", "--index", "1", "--retokenize", "--dataset"]
    assert explore([*arguments, str(tmp_path / "nowhere.jsonl")]) == 2
    assert "say where it is now with dataset= in Python" in capsys.readouterr().err
    assert explore([*arguments, str(moved)]) == 0 and capsys.readouterr().out == shown
    assert explore([there, "html", "--index", "1", "--retokenize", "-o", str(page)]) == 0
    assert answer in html.unescape(re.sub("<[^>]*>", "", page.read_text()))


def test_classes_of_sizes() -> None:
    assert size_class_names(100) == ["1", "2", "3-4", "5-8", "9-16", "17-32", "33-64", "65-100"]
    assert size_class_names(255)[-1] == "129-255" and size_class_names(1) == ["1"] and size_class_names(3)[-1] == "3"


@pytest.mark.parametrize(
    "figures",
    [None, 3, {}, {"bytes": -1}, {"nucleus_sizes": [1]}, {"nucleus_mass": float("nan")}, {"nucleus_tokens": 1e9}],
)
def test_figures_that_are_not_there_or_none(figures: Any) -> None:
    whole = ShardFigures(3, 70, 12, 2.5, (1, 0, 2, 0, 0, 0, 0, 0, 0)).as_dict()
    known = {"rows": 1, "tokens": 3, "sha256": "", "figures": whole}
    assert ShardFigures.of_entries([known, known]) == ShardFigures(6, 140, 24, 5.0, (2, 0, 4, 0, 0, 0, 0, 0, 0))
    damaged = whole | figures if isinstance(figures, dict) and figures else figures
    assert ShardFigures.of_entries([known, known | {"figures": damaged}]) is None
    assert ShardFigures.of_entries([]) is None
