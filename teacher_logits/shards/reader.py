"""Reading shards with pyarrow and numpy alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from teacher_logits.codec import CONTRACT_COLUMNS, Entries, decode_rows
from teacher_logits.errors import FormatError
from teacher_logits.records import Int64
from teacher_logits.shards.schema import FORMAT_VERSION, metadata_of, shard_schema

Shard = Path | str | IO[bytes]

_CONTRACT = pa.schema([shard_schema().field(name) for name in CONTRACT_COLUMNS])


def shard_footer(shard: Shard) -> pq.FileMetaData:
    """The footer of a shard. Raises FormatError where it isn't a Parquet file."""
    with _open(shard) as file:
        return file.metadata


def read_metadata(shard: Shard) -> dict[str, Any]:
    """The run's metadata in a shard. Raises FormatError where there is none, or it is of another format version."""
    with _open(shard) as file:
        metadata = metadata_of(file.schema_arrow)
    if metadata is None:
        raise FormatError(f"{_name(shard)} carries no teacher_logits metadata: extract_logits.py didn't write it.")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{_name(shard)} has format version {metadata.get('format_version')!r}, and this reader knows version "
            f"{FORMAT_VERSION}. Update teacher-logits."
        )
    return metadata


def read_indices(shard: Shard) -> Int64:
    """The source numbers (`index`) of a shard's rows, reading that column alone."""
    with _open(shard) as file:
        return file.read(columns=["index"]).column("index").to_numpy().astype(np.int64)


def read_table(shard: Shard, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a shard. Raises FormatError where it is damaged."""
    with _open(shard) as file:
        return file.read(columns=None if columns is None else list(columns))


def read_entries(shard: Shard) -> Entries:
    """All entries of a shard, decoded: ids and logits as numpy arrays, rounded to the teacher's logits type.

    Raises FormatError where columns are missing, of other types, or don't belong together.
    """
    metadata = read_metadata(shard)
    table = read_table(shard, CONTRACT_COLUMNS)
    with _damage_named(shard):
        return decode_rows(table.cast(_CONTRACT), metadata["logits_dtype"])


@contextmanager
def _open(shard: Shard) -> Iterator[pq.ParquetFile]:
    with _damage_named(shard), pq.ParquetFile(shard, page_checksum_verification=True) as file:
        yield file


@contextmanager
def _damage_named(shard: Shard) -> Iterator[None]:
    """Turn what pyarrow, the codec and json raise for damaged files into FormatError."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise FormatError(f"{_name(shard)} can't be read as a Parquet shard ({error}).") from error


def _name(shard: Shard) -> str:
    return str(shard) if isinstance(shard, str | Path) else "the shard"
