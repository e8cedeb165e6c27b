"""Writing a shard: the encodings that suit 16-bit numbers, and bytes that depend on the rows alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from teacher_logits.shards.schema import with_metadata

MAX_SHARD_BYTES = 256 << 20
"""A shard closes at this size, counted in memory before compression."""
ROW_GROUP_ROWS = 1000
ROW_GROUP_BYTES = 16 << 20

_BYTE_STREAM_SPLIT = (
    "top_indices_low",
    "top_logits_quantized",
    "top_min",
    "top_max",
    "sampled_indices_low",
    "sampled_logits_quantized",
    "sampled_min",
    "sampled_max",
    "logsumexp",
    "logsumexp_t2",
    "logsumexp_t4",
    "token_logprob",
)
"""Parquet has no 16-bit type: this encoding puts the two empty bytes of each number together, where they vanish."""


def write_shard(table: pa.Table, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write the rows to `path`. The same rows and metadata with the same pyarrow give the same bytes."""
    table = with_metadata(table.combine_chunks(), metadata)
    pq.write_table(
        table,
        path,
        row_group_size=_row_group_rows(table),
        compression="zstd",
        compression_level=1,
        use_dictionary=["top_counts.list.element"],
        column_encoding=_encodings(table.column_names),
        store_schema=True,
    )


def _row_group_rows(table: pa.Table) -> int:
    """Rows a row group, so that it holds about `ROW_GROUP_BYTES` and at most `ROW_GROUP_ROWS` rows."""
    bytes_per_row = max(1, table.nbytes // max(1, table.num_rows))
    return max(1, min(ROW_GROUP_ROWS, ROW_GROUP_BYTES // bytes_per_row))


def _encodings(columns: list[str]) -> dict[str, str]:
    encodings = {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in _BYTE_STREAM_SPLIT}
    if "positions" in columns:
        encodings["positions.list.element"] = "DELTA_BINARY_PACKED"
    return encodings
