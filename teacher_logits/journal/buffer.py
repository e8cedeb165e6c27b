"""Rows that wait to fill a shard: in memory while the run works, under `pending/` when it stops."""

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from teacher_logits.errors import FormatError
from teacher_logits.files import atomic_path
from teacher_logits.journal.cache import RunCache
from teacher_logits.journal.own import read_own
from teacher_logits.records import Int64
from teacher_logits.shards import MAX_SHARD_BYTES, write_shard

WriteShard = Callable[[pa.Table], None]


class RowBuffer:
    """First in, first out. Hands full shards to `write`, which must have them on disk when it returns."""

    def __init__(self, cache: RunCache, write: WriteShard, rows_per_shard: int, shard_mb: float | None) -> None:
        self._cache, self._write = cache, write
        self._rows_per_shard = rows_per_shard
        self._bytes_per_shard = int(min(MAX_SHARD_BYTES, (shard_mb or MAX_SHARD_BYTES) * (1 << 20)))
        self._tables: deque[pa.Table] = deque()
        self.rows = 0
        """Rows waiting. Any thread may look, which it may not at the tables."""
        self._pending_files: list[Path] = []
        """Files whose rows stand at the front of the buffer."""
        self._pending_rows = 0
        """How many of the rows at the front come from them."""

    def add(self, table: pa.Table) -> None:
        """Append rows, and write as many full shards as there are."""
        if table.num_rows:
            self._tables.append(table)
            self.rows += table.num_rows
        while (count := self._full()) is not None:
            self._write_front(count)

    def flush(self) -> None:
        """Write what is left as a last, smaller shard."""
        if self.rows:
            self._write_front(self.rows)

    def save(self, metadata: Mapping[str, Any]) -> int:
        """Keep what is left under `pending/`, and return how many rows that is. The buffer is empty afterwards."""
        rows = self.rows
        if rows:
            # A name of its own first, then the old files go: at no instant are the rows nowhere.
            number = 1 + max(
                (_number(path) for path in self._cache.pending_folder.glob("pending-*.parquet")), default=-1
            )
            with atomic_path(self._cache.pending_folder / f"pending-{number:05d}.parquet") as temporary:
                write_shard(pa.concat_tables(self._tables), temporary, metadata)
        self._tables.clear()
        self.rows = 0
        self._drop_pending_files()
        return rows

    def load(self, done: Int64, schema: pa.Schema, fingerprint: str) -> Int64:
        """Take in the rows under `pending/` that are in no shard yet, and return their source numbers.

        done: source numbers that stand in shards.   schema, fingerprint: of this run.

        A file that is damaged, or another run's, is set aside; its rows will be computed again.
        """
        loaded = np.zeros(0, np.int64)
        for path in sorted(self._cache.pending_folder.glob("pending-*.parquet")):
            try:
                table = read_own(path, fingerprint)
                if not table.schema.equals(schema):
                    raise FormatError(f"{path} has other columns than this run.")
            except FormatError:
                self._cache.set_aside(path)
                continue
            index = table.column("index").to_numpy().astype(np.int64)
            new = ~np.isin(index, done) & ~np.isin(index, loaded)
            loaded = np.concatenate([loaded, index[new]])
            self._pending_files.append(path)
            if new.any():
                self._tables.append(table.filter(pa.array(new)))
                self.rows += int(new.sum())
        self._pending_rows = self.rows
        if not self._pending_rows:
            self._drop_pending_files()
        return loaded

    def _full(self) -> int | None:
        """Rows of the next shard, where enough are waiting for one."""
        rows, size = 0, 0
        for table in self._tables:
            bytes_per_row = table.nbytes / table.num_rows
            fitting = max(1 if rows == 0 else 0, int((self._bytes_per_shard - size) // bytes_per_row))
            taken = min(table.num_rows, self._rows_per_shard - rows, fitting)
            rows, size = rows + taken, size + taken * bytes_per_row
            if rows == self._rows_per_shard or taken < table.num_rows:
                return rows
        return None

    def _write_front(self, count: int) -> None:
        taken, left = [], count
        while left:
            table = self._tables.popleft()
            taken.append(table.slice(0, left))
            if table.num_rows > left:
                self._tables.appendleft(table.slice(left))
            left -= taken[-1].num_rows
        try:
            self._write(pa.concat_tables(taken))
        except BaseException:
            self._tables.extendleft(reversed(taken))
            raise
        self.rows -= count
        self._pending_rows -= count
        if self._pending_rows <= 0:
            self._drop_pending_files()

    def _drop_pending_files(self) -> None:
        for path in self._pending_files:
            path.unlink(missing_ok=True)
        self._pending_files.clear()
        self._pending_rows = 0


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("pending-")
    return int(digits) if digits.isdecimal() else -1
