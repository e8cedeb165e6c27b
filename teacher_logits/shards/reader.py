"""Reading shards with pyarrow and numpy alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from teacher_logits.codec import (
    CONTRACT_COLUMNS,
    Distributions,
    Entries,
    decode_distributions,
    decode_rows,
    flat_columns,
)
from teacher_logits.errors import DamagedShardError, FormatError, SettingsError
from teacher_logits.records import Int64
from teacher_logits.shards.figures import ShardFigures
from teacher_logits.shards.schema import FORMAT_VERSION, metadata_of, shard_schema

Shard = Path | str | IO[bytes] | RawIOBase

_LOGITS_DTYPES = ("float64", "float32", "bfloat16", "float16")
_CONTRACT = pa.schema([shard_schema().field(name) for name in CONTRACT_COLUMNS])


def shard_footer(shard: Shard) -> pq.FileMetaData:
    """The footer of a shard. Raises FormatError where it isn't a Parquet file."""
    with _open(shard) as file:
        return file.metadata


def read_schema(shard: Shard) -> pa.Schema:
    """Names and types of a shard's columns, without what else the file says. Raises FormatError as `shard_footer`."""
    with _open(shard) as file:
        return file.schema_arrow.remove_metadata()


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
    """The source numbers (`index`) of a shard's rows, reading that column alone.

    Raises FormatError where it is damaged, or one is missing.
    """
    with _open(shard) as file:
        column = _whole(
            file.read(columns=["index"], use_threads=threads_may_read(shard)), file.metadata.num_rows
        ).column("index")
        if column.null_count:
            raise ValueError("index has nulls.")
        return column.to_numpy().astype(np.int64)


def column_ranges(shard: Shard, column: str) -> list[tuple[int, int]]:
    """The first byte of a column's pages in each row group, and the one behind their last, from the footer alone.

    Raises FormatError where the footer can't be read, or has no such column without nesting.
    """
    with _open(shard) as file:
        footer = file.metadata
        number = [footer.schema.column(place).path for place in range(footer.num_columns)].index(column)
        ranges = []
        for group in map(footer.row_group, range(footer.num_row_groups)):
            if group.num_columns != footer.num_columns or group.column(number).path_in_schema != column:
                raise ValueError(f"a row group has other columns than {column} in its place")
            chunk = group.column(number)
            first = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
            if chunk.total_compressed_size:  # a group without rows has no pages
                ranges.append((first, first + chunk.total_compressed_size))
        return ranges


def read_table(shard: Shard, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a shard. Raises FormatError where it is damaged."""
    with _open(shard) as file:
        return _whole(
            file.read(columns=columns and list(columns), use_threads=threads_may_read(shard)), file.metadata.num_rows
        )


def iter_row_groups(shard: Shard, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a shard, one row group after another, so that memory holds no more than one.

    columns: those to read, by default all.
    Raises FormatError where it is damaged, when the row group in question is asked for.
    """
    with _opened(shard) as file:
        for group in range(file.num_row_groups):
            with damage_named(shard):
                table = _whole(
                    file.read_row_group(group, columns, use_threads=threads_may_read(shard)),
                    file.metadata.row_group(group).num_rows,
                )
            yield table


def read_entries(shard: Shard) -> Entries:
    """All entries of a shard, decoded: ids and logits as numpy arrays, rounded to the teacher's logits type.

    Raises FormatError where columns are missing, of other types, have nulls, or don't belong together.
    """
    dtype = _logits_dtype(shard)
    table = read_table(shard, CONTRACT_COLUMNS)
    with damage_named(shard):
        return decode_rows(_contract(table), dtype)


def read_distributions(shard: Shard, width: int | None = None) -> Distributions:
    """All entries of a shard as arrays of token ids and log-probabilities.

    width: columns of the arrays' nucleus part; by default the largest nucleus there.
    Raises FormatError as `read_entries` does, SettingsError where a nucleus is larger than `width`.
    """
    dtype = _logits_dtype(shard)
    table = read_table(shard, CONTRACT_COLUMNS)
    with damage_named(shard):
        return decode_distributions(flat_columns(_contract(table)), dtype, width)


def iter_distributions(shard: Shard, width: int | None = None, entries: int = 8192) -> Iterator[Distributions]:
    """`read_distributions` of one part of a shard after another, in the order of its rows.

    Memory holds a row group and a part of it, however long the shard is. Small parts are also faster: their memory is
    used again instead of being fetched anew.
    width: as for `read_distributions`, by default the largest nucleus of each part.   entries: most entries of a part,
    at least 1; a conversation that has more is a part of its own.
    Raises what `read_distributions` does, when the part in question is asked for.
    """
    if entries < 1:
        raise SettingsError(f"entries is {entries}; a part holds at least 1.")
    dtype = _logits_dtype(shard)
    with _opened(shard) as file:
        for group in range(file.num_row_groups):
            with damage_named(shard):
                table = file.read_row_group(group, columns=list(CONTRACT_COLUMNS), use_threads=threads_may_read(shard))
                columns = flat_columns(_contract(_whole(table, file.metadata.row_group(group).num_rows)))
            for part in columns.parts(entries):
                yield decode_distributions(part, dtype, width)


def shard_figures(shard: Shard, size: int) -> ShardFigures:
    """The sums over all entries of a shard. size: its bytes.

    Raises FormatError as `read_entries` does.
    """
    dtype, every = _logits_dtype(shard), ShardFigures.of_none(size)
    for table in iter_row_groups(shard):
        with damage_named(shard):
            every += ShardFigures.of_table(_contract(table.select(CONTRACT_COLUMNS)), dtype)
    return every


def _logits_dtype(shard: Shard) -> str:
    """What its logits are to be rounded to. Raises FormatError where that isn't known."""
    dtype = read_metadata(shard).get("logits_dtype")
    if dtype not in _LOGITS_DTYPES:
        raise FormatError(
            f"{_name(shard)} says that its logits are of type {dtype!r}; known are {', '.join(_LOGITS_DTYPES)}."
        )
    return str(dtype)


@contextmanager
def _open(shard: Shard) -> Iterator[pq.ParquetFile]:
    with damage_named(shard), _opened(shard) as file:
        yield file


def threads_may_read(shard: Shard) -> bool:
    """Whether Arrow may read it with threads of its own. They may still hold a Python file when the interpreter ends,
    which aborts it then."""
    return isinstance(shard, str | Path | pa.NativeFile)


def _opened(shard: Shard) -> pq.ParquetFile:
    """Raises FormatError for what isn't a Parquet file, or says two things of how many rows it has."""
    with damage_named(shard):
        file = pq.ParquetFile(shard, page_checksum_verification=True)
        footer = file.metadata
        rows = sum(footer.row_group(group).num_rows for group in range(footer.num_row_groups))
        if rows != footer.num_rows:
            file.close()
            raise ValueError(f"its row groups have {rows} rows, its footer says {footer.num_rows}")
        return file


def _whole(table: pa.Table, rows: int) -> pa.Table:
    """The table. Raises ValueError where it hasn't so many rows: a reader gives fewer for some damages."""
    if table.num_rows != rows:
        raise ValueError(f"{table.num_rows} rows can be read, its footer says {rows}")
    return table


def _contract(table: pa.Table) -> pa.Table:
    """The contract's columns in its types. Raises ValueError for others, but for lists with long offsets."""
    for field in _CONTRACT:
        found = table.schema.field(field.name).type
        if _plain(found) != _plain(field.type):
            raise ValueError(f"column {field.name} is {found}, not {field.type}")
    return table.cast(_CONTRACT)


def _plain(kind: pa.DataType) -> pa.DataType:
    """A type without what makes no difference: the width of offsets, names and nullability of items."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(kind.value_type)
    return pa.binary() if pa.types.is_large_binary(kind) else kind


@contextmanager
def damage_named(shard: Shard) -> Iterator[None]:
    """Turn what pyarrow, the codec and json raise for damaged files into DamagedShardError."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DamagedShardError(f"{_name(shard)} can't be read as a Parquet shard ({error}).") from error


def _name(shard: Shard) -> str:
    return str(shard) if isinstance(shard, str | Path) else "the shard"
