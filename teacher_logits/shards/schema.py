"""The columns, their types and order, and the metadata a shard carries in its schema."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

FORMAT_VERSION = 1
METADATA_KEY = b"teacher_logits"

_FIELDS = (
    ("index", pa.int32()),
    ("num_tokens", pa.int32()),
    ("top_indices_low", pa.list_(pa.uint16())),
    ("top_indices_high", pa.binary()),
    ("top_logits_quantized", pa.list_(pa.uint16())),
    ("top_counts", pa.list_(pa.uint8())),
    ("top_min", pa.list_(pa.float32())),
    ("top_max", pa.list_(pa.float32())),
    ("sampled_indices_low", pa.list_(pa.uint16())),
    ("sampled_indices_high", pa.binary()),
    ("sampled_logits_quantized", pa.list_(pa.uint16())),
    ("sampled_min", pa.list_(pa.float32())),
    ("sampled_max", pa.list_(pa.float32())),
    ("logsumexp", pa.list_(pa.float64())),
    ("logsumexp_t2", pa.list_(pa.float32())),
    ("logsumexp_t4", pa.list_(pa.float32())),
    ("token_logprob", pa.list_(pa.float32())),
)
_TOKEN_FIELDS = (("input_ids", pa.list_(pa.int32())), ("positions", pa.list_(pa.int32())))


def shard_schema(store_tokens: bool = True) -> pa.Schema:
    """The schema of a shard; the last two columns only where tokens are stored."""
    return pa.schema(_FIELDS + (_TOKEN_FIELDS if store_tokens else ()))


def with_metadata(table: pa.Table, metadata: Mapping[str, Any]) -> pa.Table:
    """The table with the run's metadata and its own smallest and largest `index` in the schema."""
    bounds = pc.min_max(table.column("index")).as_py()
    content = {**metadata, "min_index": bounds["min"], "max_index": bounds["max"]}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return table.replace_schema_metadata({METADATA_KEY: text.encode()})


def metadata_of(schema: pa.Schema) -> dict[str, Any] | None:
    """The metadata that `with_metadata` put there, or None. Raises ValueError for anything else under its name."""
    text = (schema.metadata or {}).get(METADATA_KEY)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("its metadata is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"its metadata is {content!r:.40}, not an object")
    return content
