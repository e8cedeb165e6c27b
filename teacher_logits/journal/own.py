"""Reading back what this run has written."""

from pathlib import Path

import pyarrow as pa

from teacher_logits.errors import FormatError
from teacher_logits.shards import read_metadata, read_table, shard_schema


def read_own(path: Path, fingerprint: str) -> pa.Table:
    """The rows of a file of the cache folder, all of them, so that no damage goes on to the output.

    Raises FormatError where it is damaged, has other columns, or was written by a run of another fingerprint.
    """
    if read_metadata(path).get("fingerprint") != fingerprint:
        raise FormatError(f"{path} was written by another run.")
    table = read_table(path).replace_schema_metadata(None)
    if not table.schema.equals(shard_schema("input_ids" in table.column_names)):
        raise FormatError(f"{path} has other columns than a shard.")
    return table
