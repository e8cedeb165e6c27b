"""Parquet shards of format version 1: schema, writing, reading. Never imports torch."""

from teacher_logits.shards.figures import ShardFigures, size_class_names
from teacher_logits.shards.names import shard_name, shard_number
from teacher_logits.shards.reader import (
    Shard,
    column_ranges,
    damage_named,
    iter_distributions,
    iter_row_groups,
    read_distributions,
    read_entries,
    read_indices,
    read_metadata,
    read_schema,
    read_table,
    shard_figures,
    shard_footer,
    threads_may_read,
)
from teacher_logits.shards.schema import FORMAT_VERSION, METADATA_KEY, shard_schema
from teacher_logits.shards.writer import MAX_SHARD_BYTES, encoded_footer, write_shard

__all__ = [
    "FORMAT_VERSION",
    "MAX_SHARD_BYTES",
    "METADATA_KEY",
    "Shard",
    "ShardFigures",
    "column_ranges",
    "damage_named",
    "encoded_footer",
    "iter_distributions",
    "iter_row_groups",
    "read_distributions",
    "read_entries",
    "read_indices",
    "read_metadata",
    "read_schema",
    "read_table",
    "shard_figures",
    "shard_footer",
    "shard_name",
    "shard_number",
    "shard_schema",
    "size_class_names",
    "threads_may_read",
    "write_shard",
]
