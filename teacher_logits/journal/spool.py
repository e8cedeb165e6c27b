"""Shards on disk that wait for being committed, under the names they will have in the output."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from teacher_logits.errors import FormatError
from teacher_logits.files import atomic_path, sha256_file
from teacher_logits.journal.cache import RunCache
from teacher_logits.shards import read_table, write_shard


@dataclass(frozen=True)
class SpooledShard:
    """A written shard."""

    name: str
    """Its path inside the output: data/....parquet"""
    path: Path
    rows: int
    tokens: int
    sha256: str
    size: int
    """bytes"""

    def entry(self) -> dict[str, Any]:
        """What checkpoint.json says of it."""
        return {"rows": self.rows, "tokens": self.tokens, "sha256": self.sha256}


class Spool:
    """The shards of a cache folder."""

    def __init__(self, cache: RunCache) -> None:
        self._cache = cache
        self._folder = cache.spool_folder

    def write(self, table: pa.Table, name: str, metadata: Mapping[str, Any]) -> SpooledShard:
        """Write rows as the shard `name`, whole or not at all."""
        path = self._folder / Path(name).name
        with atomic_path(path) as temporary:
            write_shard(table, temporary, metadata)
        return _describe(name, path, table)

    def shards(self) -> list[SpooledShard]:
        """The shards there are, by name. One that can't be read is set aside; its rows will be computed again."""
        found = []
        for path in sorted(self._folder.glob("*.parquet")):
            try:
                found.append(_describe(f"data/{path.name}", path, read_table(path, ["num_tokens"])))
            except FormatError:
                self._cache.set_aside(path)
        return found

    def remove(self, shard: SpooledShard) -> None:
        """Forget a shard that the output holds."""
        shard.path.unlink(missing_ok=True)


def _describe(name: str, path: Path, table: pa.Table) -> SpooledShard:
    tokens = pa.compute.sum(table.column("num_tokens")).as_py() or 0
    return SpooledShard(name, path, table.num_rows, tokens, sha256_file(path), path.stat().st_size)
