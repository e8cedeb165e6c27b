"""Rows found in shards without reading those before them."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from explore_logits import get_sample, load_logit_dataset
from teacher_logits.errors import FormatError
from teacher_logits.exploring import open_source, read_sample
from teacher_logits.exploring.samples import count_samples, iter_samples
from teacher_logits.exploring.streams import (
    files_of_stream,
    find_number,
    find_place,
    open_address,
    read_row,
    read_rows,
    row_counts,
)
from tests.exploring.damage import shards_of
from tests.exploring.made import TEXTS, Made
from tests.extraction.runs import ROOT

ROWS = (3, 0, 1, 5)


@pytest.fixture
def shards(tmp_path: Path) -> list[str]:
    """Nine rows of index 100, 99, ... in four files, one of them empty, in row groups of two."""
    paths, first = [], 100
    for number, rows in enumerate(ROWS):
        path = tmp_path / f"{number}.parquet"
        index = pa.array(range(first, first - rows, -1), pa.int32())
        pq.write_table(pa.table({"index": index}), path, row_group_size=2)
        paths.append(str(path))
        first -= rows
    return paths


def test_every_place_and_number(shards: list[str]) -> None:
    for place in range(9):
        found = find_place(shards, place, open_address)
        assert isinstance(found, tuple) and read_row(*found, open_address) == {"index": 100 - place}
        assert find_number(shards, 100 - place, open_address) == found
    assert find_place(shards, 9, open_address) == 9, "so many rows there are"
    assert find_number(shards, 91, open_address) is None


def test_some_rows_of_a_shard(shards: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    plain = pq.ParquetFile.read_row_group

    def counted(file: pq.ParquetFile, group: int, **options: Any) -> pa.Table:
        read.append(group)
        return plain(file, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    for rows, groups in (((0, 1, 4), [0, 2]), ((2, 3), [1]), ((4,), [2]), ((0, 1, 2, 3, 4), [0, 1, 2])):
        read.clear()
        assert [row["index"] for row in read_rows(shards[3], rows, open_address)] == [96 - row for row in rows]
        assert read == groups, "each row group once, and no other"
    with pytest.raises(FormatError, match="fewer rows"):
        list(read_rows(shards[3], (1, 5), open_address))
    assert row_counts(shards, open_address) == dict(zip(shards, ROWS, strict=True))
    assert row_counts(shards, open_address, {shards[1]: 7})[shards[1]] == 7


def counting(opened: list[str]) -> Callable[[str], AbstractContextManager[IO[bytes]]]:
    def open_shard(name: str) -> AbstractContextManager[IO[bytes]]:
        opened.append(name)
        return open_address(name)

    return open_shard


def test_what_is_known_is_not_looked_up(shards: list[str]) -> None:
    opened: list[str] = []
    known = dict(zip(shards, ROWS, strict=True))
    assert find_place(shards, 8, counting(opened), known) == (shards[3], 4) and not opened
    del known[shards[1]]
    assert find_place(shards, 8, counting(opened), known) == (shards[3], 4) and opened == [shards[1]]


def test_only_the_shard_of_the_row_is_opened(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(made.folder)
    opened: list[str] = []
    plain = source.open
    monkeypatch.setattr(source, "open", lambda name: opened.append(name) or plain(name))
    assert read_sample(source, place=3)["index"] == list(TEXTS)[3]
    assert [name for name in opened if name.startswith("data/")] == [source.data_files()[1]]


def list_rows(folder: Path, rows: Callable[[int], int]) -> None:
    """Give all shards other numbers of rows in checkpoint.json."""
    path = folder / "checkpoint.json"
    checkpoint = json.loads(path.read_text())
    for entry in checkpoint["shards"].values():
        entry["rows"] = rows(entry["rows"])
    path.write_text(json.dumps(checkpoint))


@pytest.mark.parametrize("more", [1, -1])
@pytest.mark.parametrize("place", [0, 1])
def test_a_checkpoint_that_is_wrong(copy: Path, more: int, place: int) -> None:
    """No row is taken for another."""
    list_rows(copy, lambda rows: rows + more)
    source = open_source(copy)
    wrong = r"data/.*parquet has \d rows, where checkpoint\.json lists \d: .* verify"
    with pytest.raises(FormatError, match=wrong):
        read_sample(source, place=place)
    with pytest.raises(FormatError, match=wrong):
        list(iter_samples(source, None, [place]))


def test_numbers_of_rows_that_can_not_be_are_not_believed(copy: Path) -> None:
    list_rows(copy, lambda rows: -7)
    source = open_source(copy)
    assert count_samples(source) == len(TEXTS)
    assert [read_sample(source, place=place)["index"] for place in range(len(TEXTS))] == list(TEXTS)


class TestStreamedDatasets:
    @pytest.fixture
    def stream(self, made: Made) -> Any:
        return load_logit_dataset(made.folder, streaming=True)

    def test_are_read_by_their_files(self, made: Made, stream: Any) -> None:
        paths = [str(made.folder / name) for name in shards_of(made.folder)]
        assert files_of_stream(stream) == paths
        plain = datasets.load_dataset("parquet", data_files=paths, split="train", streaming=True)
        assert files_of_stream(plain) == paths

    def test_without_iterating(self, stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(datasets.IterableDataset, "__iter__", lambda _: pytest.fail("iterated"))
        assert get_sample(stream, 3)["index"] == list(TEXTS)[3]
        assert get_sample(stream, index=5)["logits_dtype"] == "bfloat16", "the run is known"
        assert get_sample(stream.with_format("numpy"), 3)["index"] == list(TEXTS)[3]

    @pytest.mark.parametrize(
        "change",
        [
            lambda stream: stream.skip(1),
            lambda stream: stream.take(2),
            lambda stream: stream.shuffle(seed=3, buffer_size=2),
            lambda stream: stream.filter(lambda row: row["index"] != 17),
            lambda stream: stream.map(lambda row: {"index": row["index"] + 1}),
            lambda stream: stream.shard(2, 1),
        ],
    )
    def test_that_were_changed_are_read_as_they_are(self, change: Callable[[Any], Any], stream: Any) -> None:
        changed = change(stream)
        expected = [row["index"] for row in changed]
        assert [get_sample(changed, place)["index"] for place in range(len(expected))] == expected
        assert get_sample(changed, index=expected[-1])["index"] == expected[-1]

    def test_what_is_no_stream(self, made: Made) -> None:
        assert files_of_stream(load_logit_dataset(made.folder)) is None
        assert files_of_stream(load_logit_dataset(made.folder).to_iterable_dataset()) is None

    def test_a_shard_that_is_gone(self, copy: Path) -> None:
        stream = load_logit_dataset(copy, streaming=True)
        (copy / shards_of(copy)[1]).unlink()
        with pytest.raises(FormatError, match="A shard of the streamed dataset is gone"):
            get_sample(stream, 3)


def test_the_interpreter_ends_well_afterwards(made: Made) -> None:
    """Threads that hold a Python file when it ends would abort it."""
    script = (
        "from explore_logits import *\n"
        f"dataset = load_logit_dataset({str(made.folder)!r}, streaming=True)\n"
        "for _ in range(5):\n"
        "    for place in range(4): get_sample(dataset, place)\n"
        "    get_sample(dataset, index=5)\n"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr


def test_a_name_will_do(made: Made) -> None:
    for name in (made.folder, str(made.folder)):
        assert get_sample(name, 2)["index"] == get_sample(name, index=5)["index"] == 5
