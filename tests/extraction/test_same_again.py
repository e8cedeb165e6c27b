"""What a resumed run takes over from its beginning: the day's date, and the choice of conversations."""

import dataclasses
import datetime
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from teacher_logits.command_line.extract import parse_args
from teacher_logits.errors import OutputError
from teacher_logits.extraction.extract import run_extraction
from teacher_logits.extraction.preview import preview_mask
from tests.extraction.runs import Place, StopAfter, stored_rows
from tests.tiny import CHATML

DATED = "{{ strftime_now('%d %B %Y') }}|" + CHATML
FIRST_DAY, NEXT_DAY = datetime.date(2001, 9, 30), datetime.date(2001, 10, 1)
"""Their names differ in length, and so the conversations' lengths."""


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime.date], None]:
    """Sets the day that a run begins on."""

    def set_day(day: datetime.date) -> None:
        class Calendar(datetime.date):
            @classmethod
            def today(cls) -> datetime.date:
                return day

        monkeypatch.setattr("teacher_logits.conversations.chat.date", Calendar)

    return set_day


@pytest.fixture
def dated(place: Place, save_tiny_teacher: Callable[..., Path]) -> Place:
    return dataclasses.replace(place, teacher=save_tiny_teacher(template=DATED))


def days(place: Place) -> Counter[str]:
    """The dates that the stored conversations begin with."""
    tokenizer = AutoTokenizer.from_pretrained(place.teacher)
    texts = [tokenizer.decode(ids) for ids in stored_rows(place.folder)["input_ids"].to_pylist()]
    return Counter(text.partition("|")[0] for text in texts)


@pytest.mark.parametrize("machine", ["same", "new"])
def test_the_date_of_the_beginning(machine: str, dated: Place, on: Callable[[datetime.date], None], tmp_path: Path):
    on(FIRST_DAY)
    whole = dataclasses.replace(dated, output=tmp_path / "whole", cache=tmp_path / "whole-cache")
    assert whole.run(max_batch_size=1).complete
    dated.run(StopAfter(16), max_batch_size=1)
    if machine == "new":
        shutil.rmtree(dated.cache)

    on(NEXT_DAY)
    arguments = ["--resume", "--output", str(dated.output), "--cache-dir", str(dated.cache)]
    assert "30 September 2001|" in preview_mask(parse_args([*arguments, "--verify-mask-only"])).text()
    assert run_extraction(parse_args(arguments)).complete
    assert days(dated) == {"30 September 2001": 30}
    assert stored_rows(dated.folder).equals(stored_rows(whole.folder))
    assert dated.checkpoint["fingerprint"] == whole.checkpoint["fingerprint"]
    assert dated.checkpoint["metadata"]["pinned_date"] == "2001-09-30"

    dated.run(force_restart=True)
    assert days(dated) == {"01 October 2001": 30}, "a new run has a date of its own"
    assert dated.checkpoint["fingerprint"] != whole.checkpoint["fingerprint"]


def test_a_template_without_a_date_has_none(place: Place, on: Callable[[datetime.date], None]):
    on(FIRST_DAY)
    place.run(limit=3)
    on(NEXT_DAY)
    assert place.checkpoint["metadata"]["pinned_date"] is None
    assert place.run(resume=True, limit=4).total_conversations == 4


@pytest.mark.parametrize(
    ("choice", "counts"),
    [
        ({"limit": 4, "subject_col": "subject"}, {"maths": 4, "history": 4, "art": 4}),
        ({"sample_subject": {"maths": 7, "*": 2}, "subject_col": "subject"}, {"maths": 7, "history": 2, "art": 2}),
        ({"limit": 11}, None),
    ],
)
def test_the_same_choice_at_random(
    choice: dict[str, Any],
    counts: dict[str, int] | None,
    place: Place,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    """It is made again from the seed, here and on a machine that knows the output alone."""
    options = {**choice, "random_sample": True, "seed": 5, "max_batch_size": 1}
    whole = dataclasses.replace(place, output=tmp_path / "whole", cache=tmp_path / "whole-cache")
    with caplog.at_level("INFO", "teacher_logits"):
        whole.run(**options)
    rows = [json.loads(line) for line in place.data.read_text().splitlines()]
    indices = stored_rows(whole.folder)["index"].to_pylist()
    assert indices != list(range(len(indices)))
    if counts is not None:
        assert Counter(rows[index]["subject"] for index in indices) == counts
        said = re.findall(r"subject '(\w+)': (\d+) conversations?", "\n".join(caplog.messages))
        assert {name: int(count) for name, count in said} == counts

    place.run(StopAfter(8), **options)
    shutil.rmtree(place.cache)
    resumed = run_extraction(parse_args(["--resume", "--output", str(place.output), "--cache-dir", str(place.cache)]))
    assert 0 < resumed.conversations < len(indices)
    assert stored_rows(place.folder).equals(stored_rows(whole.folder))


def test_another_method_is_another_run(place: Place):
    place.run(limit=3)
    with pytest.raises(OutputError, match=r"differs in: mask_method \(stored 'template', now 'sentinel'\)\."):
        place.run(resume=True, mask_source="sentinel")
