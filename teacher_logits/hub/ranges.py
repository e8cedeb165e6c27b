"""One column of a Parquet file that lies elsewhere: its footer and that column's pages travel, and nothing else."""

import io
from collections.abc import Callable, Iterable

from teacher_logits.errors import FormatError
from teacher_logits.records import Int64
from teacher_logits.shards import Shard, column_ranges, read_indices, read_metadata

FOOTER_BYTES = 1 << 16
"""What is fetched for the footer: as much as pyarrow reads for it, which is more than a shard's footer has."""
_SMALL_GAP = 1 << 16
"""Ranges that lie closer together are fetched as one: a request costs more than these bytes."""
_LENGTH_BYTES = 8
"""What a Parquet file ends with: the footer's length and PAR1."""

Fetch = Callable[[int, int], tuple[int, bytes]]
"""Gives the bytes from `start` up to `stop`, or more around them, and the place of the first. May raise FormatError."""


class PartialFile(io.RawIOBase):
    """A file of which some stretches are here. To read any other byte raises OSError.

    The network is asked by `bring` alone, never while pyarrow reads: its errors would come out as damages of the file.
    """

    def __init__(self, size: int, fetch: Fetch) -> None:
        self._size, self._fetch, self._place = size, fetch, 0
        self._stretches: list[tuple[int, bytes]] = []

    def bring(self, start: int, stop: int) -> None:
        """Fetch the bytes from `start` up to `stop` where they aren't here. Raises FormatError outside the file."""
        if not 0 <= start < stop <= self._size:
            raise FormatError(f"bytes {start} to {stop} are outside of a file of {self._size:,} bytes.")
        if self._held(start, stop) is None:
            self._stretches.append(self._fetch(start, stop))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        start, stop = self._place, self._size if size < 0 else min(self._size, self._place + size)
        content = self._held(start, stop) if start < stop else b""
        if content is None:
            raise OSError(f"bytes {start} to {stop} weren't fetched")
        self._place = max(start, stop)
        return content

    def _held(self, start: int, stop: int) -> bytes | None:
        for first, content in self._stretches:
            if first <= start and stop <= first + len(content):
                return content[start - first : stop - first]
        return None


def fetch_column(size: int, fetch: Fetch, column: str) -> PartialFile:
    """A shard of `size` bytes as far as it is needed for its metadata and one column without nesting.

    Raises FormatError where it isn't a Parquet file with this column, and what `fetch` raises.
    """
    file = PartialFile(size, fetch)
    file.bring(max(0, size - FOOTER_BYTES), size)
    file.seek(-min(size, _LENGTH_BYTES), io.SEEK_END)
    length, mark = file.read(4), file.read(4)
    if mark == b"PAR1":
        file.bring(size - _LENGTH_BYTES - int.from_bytes(length, "little"), size)
    for start, stop in _merged(column_ranges(file, column)):
        file.bring(start, stop)
    return file


def agreeing_indices(shard: Shard, rows: int) -> Int64:
    """The numbers in a shard. Raises FormatError where its footer, which has no checksum, doesn't fit to the rest."""
    index, metadata = read_indices(shard), read_metadata(shard)
    told = (rows, metadata.get("min_index"), metadata.get("max_index"))
    found = (len(index), int(index.min()), int(index.max())) if len(index) else (0, None, None)
    if found != told:
        raise FormatError(f"it should have rows, smallest and largest index {told}, and has {found}.")
    return index


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges in their order in the file, those with small gaps between them as one."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start - merged[-1][1] <= _SMALL_GAP:
            start, stop = merged[-1][0], max(stop, merged.pop()[1])
        merged.append((start, stop))
    return merged
