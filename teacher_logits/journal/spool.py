"""Shards on disk that wait for being committed, under the names they will have in the output."""

import enum
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from teacher_logits.errors import FormatError
from teacher_logits.files import atomic_path, sha256_file
from teacher_logits.journal.cache import RunCache
from teacher_logits.journal.own import read_own
from teacher_logits.shards import ShardFigures, read_metadata, shard_number, write_shard


class ShardState(enum.StrEnum):
    """How far a shard has come. It leaves the spool only when it is committed."""

    WRITTEN = "written"
    """On this machine's disk."""
    UPLOADED = "uploaded"
    """Its bytes are where the output lies, which doesn't list it yet. Forgotten when the process ends."""
    COMMITTED = "committed"
    """The output has it."""


@dataclass
class SpooledShard:
    """A shard in the spool."""

    name: str
    """Its path inside the output: data/....parquet"""
    path: Path
    rows: int
    tokens: int
    sha256: str
    size: int
    """bytes"""
    figures: ShardFigures
    state: ShardState = ShardState.WRITTEN

    def entry(self) -> dict[str, Any]:
        """What checkpoint.json says of it."""
        return {
            "rows": self.rows,
            "tokens": self.tokens,
            "sha256": self.sha256,
            "figures": self.figures.as_dict(),
        }


class Spool:
    """The shards of a cache folder. Rows may be added and shards removed by different threads."""

    def __init__(self, cache: RunCache, fingerprint: str) -> None:
        """Take up what the run left before. A shard that is damaged or another run's is set aside, and its rows are
        computed again."""
        self._cache = cache
        self._folder = cache.spool_folder
        self._lock = threading.Lock()
        self._shards: dict[str, SpooledShard] = {}
        for path in sorted(self._folder.glob("*.parquet")):
            try:
                if shard_number(f"data/{path.name}") is None:
                    raise FormatError(f"{path} isn't called as a shard is.")
                table = read_own(path, fingerprint)
                self._shards[path.name] = _describe(f"data/{path.name}", path, table, read_metadata(path))
            except FormatError:
                cache.set_aside(path)

    @property
    def shards(self) -> list[SpooledShard]:
        """The shards there are, in the order they were written."""
        with self._lock:
            return list(self._shards.values())

    @property
    def size(self) -> int:
        """Bytes they take."""
        return sum(shard.size for shard in self.shards)

    def write(self, table: pa.Table, name: str, metadata: Mapping[str, Any]) -> SpooledShard:
        """Write rows as the shard `name`, whole or not at all."""
        path = self._folder / Path(name).name
        with atomic_path(path) as temporary:
            write_shard(table, temporary, metadata)
        shard = _describe(name, path, table, metadata)
        with self._lock:
            self._shards[path.name] = shard
        return shard

    def remove(self, shard: SpooledShard) -> None:
        """Forget a shard whose rows are in the output, or in other shards here."""
        shard.path.unlink(missing_ok=True)
        with self._lock:
            self._shards.pop(shard.path.name, None)


def _describe(name: str, path: Path, table: pa.Table, metadata: Mapping[str, Any]) -> SpooledShard:
    size = path.stat().st_size
    figures = ShardFigures.of_table(table, metadata["logits_dtype"], size)
    return SpooledShard(name, path, table.num_rows, figures.entries, sha256_file(path), size, figures)
