"""Rows that are read one after another."""

from pathlib import Path
from typing import Any

import datasets
import pytest

from teacher_logits.conversations import spooling
from teacher_logits.conversations.spooling import Spool

ROWS = [{"messages": [{"role": "user", "content": f"number {n}"}], "n": n} for n in range(25)]


@pytest.mark.parametrize("at_a_time", [1, 4, 25, 1000])
@pytest.mark.parametrize("most", [None, 1, 4, 24, 25, 26])
def test_the_first_rows(most: int | None, at_a_time: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooling, "_ROWS_AT_A_TIME", at_a_time)
    stream = datasets.Dataset.from_list(ROWS).to_iterable_dataset(num_shards=3)
    found = Spool(tmp_path, most).take(stream)
    assert found.to_list() == ROWS[:most]
    assert found.cache_files and Path(found.cache_files[0]["filename"]).parent == tmp_path, "mapped from there"


def test_no_more_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooling, "_ROWS_AT_A_TIME", 4)
    asked: list[int] = []

    def rows() -> Any:
        for row in ROWS:
            asked.append(row["n"])
            yield row

    found = Spool(tmp_path, 3).take(datasets.IterableDataset.from_generator(rows))
    assert found.to_list() == ROWS[:3]
    assert len(asked) <= 8, "two batches, as the library looks one ahead"


def test_none(tmp_path: Path) -> None:
    with pytest.raises(IndexError):
        Spool(tmp_path).take(datasets.IterableDataset.from_generator(lambda: iter([])))
