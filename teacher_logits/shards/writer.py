"""Writing a shard: the encodings that suit 16-bit numbers, and bytes that depend on the rows alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from teacher_logits.shards.schema import shard_schema, with_metadata

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
    """Write the rows to `path`. The same rows and metadata with the same pyarrow give the same bytes.

    Rows read back from a file differ from new ones in what isn't data: the inner names of lists, validity bits. The
    cast to the schema and the way bytes are counted see to it that they give the same bytes again.
    """
    table = table.combine_chunks().cast(shard_schema("input_ids" in table.column_names))
    table = with_metadata(table, metadata)
    _write(table, path)


def encoded_footer(table: pa.Table) -> pq.FileMetaData:
    """The footer that rows with any of the format's columns have, encoded as a shard's are: what each column takes."""
    sink = pa.BufferOutputStream()
    _write(table.combine_chunks(), sink)
    return pq.read_metadata(pa.BufferReader(sink.getvalue()))


def _write(table: pa.Table, sink: Path | pa.NativeFile) -> None:
    pq.write_table(
        table,
        sink,
        row_group_size=_row_group_rows(table),
        compression="zstd",
        compression_level=1,
        use_dictionary=["top_counts.list.element"],
        column_encoding=_encodings(table.column_names),
        store_schema=True,
        write_page_checksum=True,
    )


def _row_group_rows(table: pa.Table) -> int:
    """Rows a row group, so that it holds about `ROW_GROUP_BYTES` and at most `ROW_GROUP_ROWS` rows."""
    content = sum(_content_bytes(column) for column in table.columns)
    bytes_per_row = max(1, content // max(1, table.num_rows))
    return max(1, min(ROW_GROUP_ROWS, ROW_GROUP_BYTES // bytes_per_row))


def _content_bytes(column: pa.ChunkedArray) -> int:
    """Bytes of a column's values alone, without offsets and validity bits."""
    if pa.types.is_binary(column.type):
        return pc.sum(pc.binary_length(column)).as_py() or 0
    values = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    return len(values) * values.type.bit_width // 8


def _encodings(columns: list[str]) -> dict[str, str]:
    encodings = {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in _BYTE_STREAM_SPLIT if name in columns}
    if "positions" in columns:
        encodings["positions.list.element"] = "DELTA_BINARY_PACKED"
    return encodings
