"""Rows of shards by their place or number, without reading what stands before them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from teacher_logits.errors import FormatError
from teacher_logits.shards import read_indices, shard_footer, threads_may_read

_AT_ONCE = 16
"""Shards that are looked into at the same time: on the Hub each takes a few requests that wait for their answers."""
_READ_AHEAD = 65536
"""Bytes fetched at a time; columns are read in small pieces, and more would fetch whole shards."""

Open = Callable[[str], AbstractContextManager[IO[bytes]]]
Found = TypeVar("Found")


def files_of_stream(dataset: Any) -> list[str] | None:
    """The Parquet files that a streamed dataset reads from their first row to their last, in this order.

    None where it is something else: not streamed, shuffled, filtered, a part of the rows, of other files.
    """
    if getattr(dataset, "_distributed", None) is not None or getattr(dataset, "_starting_state_dict", None):
        return None
    iterable = getattr(dataset, "_ex_iterable", None)
    if type(iterable).__name__ != "ArrowExamplesIterable":
        return None
    given = getattr(iterable, "kwargs", None) or {}
    files, groups = given.get("files"), given.get("row_groups_list") or ()
    if not isinstance(files, list) or any(group is not None for group in groups):
        return None
    return files if all(isinstance(file, str) and file.endswith(".parquet") for file in files) else None


def open_address(address: str) -> AbstractContextManager[IO[bytes]]:
    """A local path, or hf://..., for reading at any place."""
    import fsspec  # type: ignore[import-untyped]

    if Path(address).is_file():
        return cast(AbstractContextManager[IO[bytes]], pa.OSFile(address))
    opened: AbstractContextManager[IO[bytes]] = fsspec.open(address, "rb", block_size=_READ_AHEAD)
    return opened


def find_place(
    shards: Sequence[str], place: int, open_shard: Open, rows: Mapping[str, int] | None = None
) -> tuple[str, int] | int:
    """The shard of a row and the row's place in it; where there is none, how many rows there are.

    rows: of each shard, as far as they are known; the others' footers are read.
    """
    known = row_counts(shards, open_shard, rows)
    first = 0
    for shard in shards:
        if first <= place < first + known[shard]:
            return shard, place - first
        first += known[shard]
    return first


def row_counts(shards: Sequence[str], open_shard: Open, rows: Mapping[str, int] | None = None) -> dict[str, int]:
    """How many rows each shard has.

    rows: as far as they are known; the others' footers are read.
    """
    known = dict(rows or {})
    unknown = [shard for shard in shards if shard not in known]
    return known | dict(zip(unknown, _map(lambda shard: _rows(shard, open_shard), unknown), strict=True))


def find_number(shards: Sequence[str], index: int, open_shard: Open) -> tuple[str, int] | None:
    """The shard of the row with this number in the source dataset, and the row's place in it."""
    return find_numbers(shards, [index], open_shard).get(index)


def find_numbers(shards: Sequence[str], wanted: Iterable[int], open_shard: Open) -> dict[int, tuple[str, int]]:
    """The same of several numbers, looking into each shard once. Numbers that are nowhere are left out."""
    numbers = np.unique(np.fromiter(wanted, np.int64))

    def look(shard: str) -> dict[int, tuple[str, int]]:
        with open_shard(shard) as stream:
            stored = read_indices(stream)
        places = np.flatnonzero(np.isin(stored, numbers))
        # Of a number that is there twice, the first row.
        return {int(stored[place]): (shard, int(place)) for place in places[::-1]}

    found: dict[int, tuple[str, int]] = {}
    for there in _map(look, shards):
        found = there | found
    return found


def read_row(shard: str, row: int, open_shard: Open) -> Mapping[str, Any]:
    """One row as plain Python values, reading its row group alone."""
    return next(read_rows(shard, [row], open_shard))


def read_rows(
    shard: str, rows: Sequence[int], open_shard: Open, listed: int | None = None
) -> Iterator[Mapping[str, Any]]:
    """Some rows of a shard, in rising order, as plain Python values. Memory holds one of its row groups.

    listed: how many rows the shard is said to have, by which these were chosen.
    Raises FormatError where the shard has fewer rows, or not as many as listed.
    """
    with open_shard(shard) as stream, pq.ParquetFile(stream) as file:
        if listed is not None and file.metadata.num_rows != listed:
            raise FormatError(
                f"{shard} has {file.metadata.num_rows:,} rows, where checkpoint.json lists {listed:,}: which row "
                "stands where is not known. Look at the dataset with verify."
            )
        left, first = list(rows), 0
        for group in range(file.metadata.num_row_groups):
            past = first + file.metadata.row_group(group).num_rows
            own = [row for row in left if row < past]
            if own:
                table = file.read_row_group(group, use_threads=threads_may_read(stream))
                for row in own:
                    yield table.slice(row - first, 1).to_pylist()[0]
            left, first = left[len(own) :], past
            if not left:
                return
    raise FormatError(f"{shard} has fewer rows than checkpoint.json says. Look at the dataset with verify.")


def _rows(shard: str, open_shard: Open) -> int:
    with open_shard(shard) as stream:
        return shard_footer(stream).num_rows


def _map(work: Callable[[str], Found], shards: Iterable[str]) -> Iterator[Found]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(work, shards)
