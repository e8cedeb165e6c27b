"""Ways to damage a real run's output on purpose. The hashes in checkpoint.json follow."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from teacher_logits.exploring import verify_dataset
from teacher_logits.shards import METADATA_KEY, read_metadata, read_table, write_shard

Row = dict[str, Any]


def shards_of(folder: Path) -> list[str]:
    return [f"data/{path.name}" for path in sorted((folder / "data").glob("*.parquet"))]


def read_checkpoint(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "checkpoint.json").read_text())


def change_checkpoint(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    checkpoint = read_checkpoint(folder)
    change(checkpoint)
    (folder / "checkpoint.json").write_text(json.dumps(checkpoint))


def relist(folder: Path, *names: str) -> None:
    """Put what the shards are now into checkpoint.json, which lists just those there are."""

    def change(checkpoint: dict[str, Any]) -> None:
        checkpoint["shards"] = {name: entry_of(folder / name) for name in names or shards_of(folder)}
        for total, each in (("total_samples", "rows"), ("total_tokens", "tokens")):
            checkpoint[total] = sum(entry[each] for entry in checkpoint["shards"].values())

    change_checkpoint(folder, change)


def entry_of(shard: Path) -> dict[str, Any]:
    tokens = pq.read_table(shard, columns=["num_tokens"])["num_tokens"].to_pylist()
    sha256 = hashlib.sha256(shard.read_bytes()).hexdigest()
    return {"rows": len(tokens), "tokens": sum(tokens), "sha256": sha256}


def rehash(folder: Path, name: str) -> None:
    """Put a shard's hash into checkpoint.json, and nothing else."""
    sha256 = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    change_checkpoint(folder, lambda checkpoint: checkpoint["shards"][name].update(sha256=sha256))


def change_rows(folder: Path, change: Callable[[list[Row]], Any], number: int = 0) -> str:
    """Write a shard again with other rows, as the writer would; returns its name."""
    name = shards_of(folder)[number]
    table, metadata = read_table(folder / name), read_metadata(folder / name)
    rows = table.to_pylist()
    rows = change(rows) or rows
    write_shard(pa.Table.from_pylist(rows, table.schema.remove_metadata()), folder / name, metadata)
    relist(folder)
    return name


def change_table(folder: Path, change: Callable[[pa.Table], pa.Table], number: int = 0) -> str:
    """Write a shard's table again as it is after `change`, of whatever types."""
    name = shards_of(folder)[number]
    table = pq.read_table(folder / name)
    pq.write_table(change(table), folder / name)
    rehash(folder, name)
    return name


def change_metadata(folder: Path, number: int = 0, **values: Any) -> str:
    """Give a shard's metadata other values."""

    def change(table: pa.Table) -> pa.Table:
        stored = json.loads(table.schema.metadata[METADATA_KEY])
        return table.replace_schema_metadata({METADATA_KEY: json.dumps({**stored, **values})})

    return change_table(folder, change, number)


def problems_of(folder: Path | str, **options: Any) -> list[str]:
    return verify_dataset(folder, **options).problems
