"""Rows that wait: in order, in shards of the right size, and neither lost nor doubled wherever a run is killed."""

import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from teacher_logits.journal import RowBuffer, RunCache
from teacher_logits.journal import buffer as buffer_module
from teacher_logits.shards import read_table, shard_schema
from tests.codec.made import made_table

FINGERPRINT = "ab" * 32
METADATA = {"format_version": 1, "fingerprint": FINGERPRINT, "logits_dtype": "float32"}
NONE_DONE = np.zeros(0, np.int64)
ALL_ROWS = made_table([1 + number % 5 for number in range(60)])


class Shards:
    """What a buffer has written."""

    def __init__(self) -> None:
        self.tables: list[pa.Table] = []

    def __call__(self, table: pa.Table) -> None:
        self.tables.append(table)

    @property
    def sizes(self) -> list[int]:
        return [table.num_rows for table in self.tables]

    @property
    def indices(self) -> list[int]:
        return [index for table in self.tables for index in table.column("index").to_pylist()]

    @property
    def rows(self) -> pa.Table:
        return pa.concat_tables(self.tables).cast(ALL_ROWS.schema).combine_chunks()


def buffer_of(
    cache: RunCache, write: Callable[[pa.Table], None], rows: int = 4, shard_mb: float | None = None
) -> RowBuffer:
    return RowBuffer(cache, write, rows, shard_mb)


def rows(first: int, count: int) -> pa.Table:
    return ALL_ROWS.slice(first, count)


def pending(cache: RunCache) -> list[int]:
    """Source numbers of the rows under `pending/`."""
    paths = sorted(cache.pending_folder.glob("*.parquet"))
    return [index for path in paths for index in read_table(path).column("index").to_pylist()]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 7))
def test_shards_have_exactly_the_rows_asked_for(cache: RunCache, counts: Sequence[int], per_shard: int):
    shards = Shards()
    buffer = buffer_of(cache, shards, per_shard)
    first = 0
    for count in counts:
        buffer.add(rows(first, count))
        first += count
        assert shards.sizes == [per_shard] * (first // per_shard), "full shards are written at once, and only those"
        assert buffer.rows == first % per_shard
    buffer.flush()
    assert buffer.rows == 0
    assert shards.sizes == [per_shard] * (first // per_shard) + [first % per_shard] * (first % per_shard > 0)
    if first:
        assert shards.rows.equals(rows(0, first).combine_chunks()), "every column, not the numbers alone"
    buffer.flush()
    assert sum(shards.sizes) == first, "nothing is written twice"


def test_rows_may_be_counted_while_they_come(cache: RunCache):
    """By the thread that shows them, while another takes them in."""
    buffer = buffer_of(cache, Shards(), 3)
    seen: list[int] = []
    before, done = sys.getswitchinterval(), threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(buffer.rows)

    looking = threading.Thread(target=look)
    sys.setswitchinterval(1e-6)
    try:
        looking.start()
        for first in range(400):
            buffer.add(rows(first % 9, 1))
    finally:
        sys.setswitchinterval(before)
        done.set()
        looking.join()
    assert set(seen) <= {0, 1, 2, 3} and buffer.rows == 400 % 3


def test_shards_close_at_a_size(cache: RunCache):
    shards = Shards()
    megabytes = ALL_ROWS.nbytes / 1e6 / 6
    buffer = buffer_of(cache, shards, 1000, megabytes)
    for first in range(0, 60, 5):
        buffer.add(rows(first, 5))
    buffer.flush()
    assert shards.indices == list(range(60))
    assert 6 <= len(shards.sizes) <= 8
    assert all(table.nbytes <= 1.3e6 * megabytes for table in shards.tables)
    one_each = Shards()
    tiny = buffer_of(cache, one_each, 1000, 1e-6)
    tiny.add(rows(0, 3))
    tiny.flush()
    assert one_each.sizes == [1, 1, 1], "a row larger than a shard is a shard"


def test_shards_never_pass_the_formats_bound(cache: RunCache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(buffer_module, "MAX_SHARD_BYTES", ALL_ROWS.nbytes // 3)
    for asked in (None, 1000.0):
        shards = Shards()
        buffer = buffer_of(cache, shards, 1000, asked)
        buffer.add(ALL_ROWS)
        buffer.flush()
        assert shards.sizes[0] < 60 and shards.indices == list(range(60))


def test_a_write_that_fails_keeps_the_rows(cache: RunCache):
    shards = Shards()

    def fail(table: pa.Table) -> None:
        raise OSError(28, "No space left on device")

    buffer = buffer_of(cache, fail, 4)
    buffer.add(rows(0, 3))
    with pytest.raises(OSError, match="No space"):
        buffer.add(rows(3, 3))
    assert buffer.rows == 6
    assert buffer.save(METADATA) == 6
    again = buffer_of(cache, shards, 4)
    assert again.load(NONE_DONE, shard_schema(), FINGERPRINT).tolist() == list(range(6))
    again.add(rows(6, 2))
    assert shards.sizes == [4, 4] and shards.rows.equals(rows(0, 8).combine_chunks())


def test_pending_rows_come_back_first(cache: RunCache):
    buffer = buffer_of(cache, Shards(), 10)
    assert buffer.save(METADATA) == 0 and pending(cache) == []
    buffer.add(rows(0, 3))
    assert buffer.save(METADATA) == 3 and buffer.rows == 0
    shards = Shards()
    resumed = buffer_of(cache, shards, 5)
    assert resumed.load(NONE_DONE, shard_schema(), FINGERPRINT).tolist() == [0, 1, 2]
    assert resumed.rows == 3
    resumed.add(rows(3, 1))
    assert pending(cache) == [0, 1, 2] and shards.sizes == []
    resumed.add(rows(4, 3))
    assert shards.sizes == [5] and pending(cache) == []
    resumed.flush()
    assert shards.rows.equals(rows(0, 7).combine_chunks())


def test_pending_files_stay_until_their_last_row_is_in_a_shard(cache: RunCache):
    first = buffer_of(cache, Shards(), 100)
    first.add(rows(0, 7))
    first.save(METADATA)
    seen: list[list[int]] = []
    shards = Shards()

    def write(table: pa.Table) -> None:
        seen.append(pending(cache))
        shards(table)

    resumed = buffer_of(cache, write, 3)
    resumed.load(NONE_DONE, shard_schema(), FINGERPRINT)
    resumed.add(rows(7, 1))
    assert shards.sizes == [3, 3] and pending(cache) == list(range(7)), "row 6 is in no shard yet"
    resumed.add(rows(8, 1))
    assert shards.sizes == [3, 3, 3] and pending(cache) == []
    assert seen == [list(range(7))] * 3, "a file goes after the shard is written, never before"


def test_saving_again_replaces_what_was_loaded(cache: RunCache):
    first = buffer_of(cache, Shards(), 100)
    first.add(rows(0, 3))
    first.save(METADATA)
    resumed = buffer_of(cache, Shards(), 100)
    resumed.load(NONE_DONE, shard_schema(), FINGERPRINT)
    resumed.add(rows(3, 2))
    assert resumed.save(METADATA) == 5
    assert pending(cache) == [0, 1, 2, 3, 4]
    assert len(list(cache.pending_folder.iterdir())) == 1


class Killed(BaseException):
    """The plug is pulled."""


@pytest.mark.parametrize("kill_at", ["save", "first unlink", "write"])
def test_killed_in_between(cache: RunCache, monkeypatch: pytest.MonkeyPatch, kill_at: str):
    """At the worst instants, with the state of the disk as it is then, every row is found once."""
    first = buffer_of(cache, Shards(), 100)
    first.add(rows(0, 3))
    first.save(METADATA)
    written = Shards()

    def write(table: pa.Table) -> None:
        written(table)
        if kill_at == "write":
            raise Killed

    resumed = buffer_of(cache, write, 4)
    resumed.load(NONE_DONE, shard_schema(), FINGERPRINT)

    def no_unlink(path: Path, missing_ok: bool = False) -> None:
        raise Killed

    with pytest.raises(Killed), monkeypatch.context() as patch:
        if kill_at == "save":
            resumed.add(rows(3, 0))
            patch.setattr(buffer_module, "write_shard", lambda *_: no_unlink(Path()))
            resumed.save(METADATA)
        elif kill_at == "first unlink":
            patch.setattr(RowBuffer, "_drop_pending_files", lambda _: no_unlink(Path()))
            resumed.save(METADATA)
        else:
            resumed.add(rows(3, 1))

    done = np.array(written.indices, np.int64)
    shards = Shards()
    again = buffer_of(cache, shards, 4)
    loaded = again.load(done, shard_schema(), FINGERPRINT)
    assert sorted([*done, *loaded]) == [0, 1, 2, 3][: 4 if kill_at == "write" else 3]
    again.flush()
    assert sorted([*done, *shards.indices]) == sorted([*done, *loaded])
    assert pending(cache) == []


def test_rows_that_are_in_shards_are_not_loaded(cache: RunCache):
    first = buffer_of(cache, Shards(), 100)
    first.add(rows(0, 5))
    first.save(METADATA)
    shards = Shards()
    resumed = buffer_of(cache, shards, 100)
    assert resumed.load(np.array([1, 2, 40]), shard_schema(), FINGERPRINT).tolist() == [0, 3, 4]
    resumed.flush()
    assert shards.indices == [0, 3, 4] and shards.rows.slice(1, 2).equals(rows(3, 2).combine_chunks())
    assert pending(cache) == []
    first.add(rows(0, 5))
    first.save(METADATA)
    assert buffer_of(cache, shards, 100).load(np.arange(5), shard_schema(), FINGERPRINT).tolist() == []
    assert pending(cache) == [], "a file with nothing new in it goes"


@pytest.mark.parametrize("kind", ["other columns", "damaged", "another run's", "of nobody"])
def test_files_that_cannot_be_used_are_set_aside(cache: RunCache, kind: str):
    if kind == "damaged":
        (cache.pending_folder / "pending-00000.parquet").write_bytes(b"PAR1 half a file")
    else:
        other = buffer_of(cache, Shards(), 100)
        other.add(made_table([2, 2], store_tokens=kind != "other columns"))
        foreign = {"another run's": {"fingerprint": "cd" * 32}, "of nobody": {"fingerprint": None}}
        other.save(METADATA | foreign.get(kind, {}))
    good = buffer_of(cache, Shards(), 100)
    good.add(rows(5, 2))
    good.save(METADATA)
    resumed = buffer_of(cache, Shards(), 100)
    assert resumed.load(NONE_DONE, shard_schema(), FINGERPRINT).tolist() == [5, 6]
    assert [path.name for path in cache.folder.glob("backup_*/*")] == ["pending-00000.parquet"]
    assert pending(cache) == [5, 6]
