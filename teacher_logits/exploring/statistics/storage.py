"""What a stored token costs, column by column."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from teacher_logits.errors import FormatError
from teacher_logits.exploring.statistics.tables import ShardTables, Tables, tables_of
from teacher_logits.progress import track
from teacher_logits.shards import encoded_footer, read_table, shard_footer, shard_schema

_ROW_GROUP_ENTRIES = 64_000
_ROW_GROUP_ROWS = 1000


@dataclass(frozen=True)
class ColumnBytes:
    """What a column takes."""

    stored: int
    """Compressed, as in the file."""
    uncompressed: int
    """Encoded, before compression."""


@dataclass(frozen=True)
class BytesPerToken:
    """What a dataset's stored tokens take."""

    tokens: int
    conversations: int
    columns: dict[str, ColumnBytes]
    """In the order of the format."""
    other: int
    """Bytes of the files that are no column's: footers with the metadata."""
    from_files: bool
    """Whether these are the bytes of files. An opened dataset has none: its rows were encoded as a shard's would be."""

    @property
    def stored(self) -> int:
        """Bytes of everything."""
        return sum(column.stored for column in self.columns.values()) + self.other

    @property
    def per_token(self) -> float:
        """Bytes a stored token; NaN without tokens."""
        return self.expected(1)

    def expected(self, tokens: int) -> float:
        """Bytes that so many tokens of this kind take."""
        return self.stored / self.tokens * tokens if self.tokens else float("nan")


def compute_bytes_per_token_stats(
    dataset: Any, *, split: str | None = None, revision: str | None = None
) -> BytesPerToken:
    """The bytes that each column takes, from the footers of the shards; of the rows only `num_tokens` is read.

    dataset, split, revision: see `tables_of`. A `Dataset` or `IterableDataset` has no shards any more: its rows are
    encoded again, which tells what they would take, to a few per cent.
    Raises FormatError where a shard is damaged.
    """
    tables = tables_of(dataset, split, revision)
    columns: dict[str, ColumnBytes] = {}
    tokens = rows = total = 0
    for footer, size, count in _shards(tables) if isinstance(tables, ShardTables) else _encoded(tables):
        for name, column in _columns(footer).items():
            before = columns.get(name, ColumnBytes(0, 0))
            columns[name] = ColumnBytes(before.stored + column.stored, before.uncompressed + column.uncompressed)
        tokens, rows, total = tokens + count, rows + footer.num_rows, total + size
    other = total - sum(column.stored for column in columns.values())
    return BytesPerToken(tokens, rows, columns, max(0, other), isinstance(tables, ShardTables))


def _shards(tables: ShardTables) -> Iterator[tuple[Any, int, int]]:
    """Footer, bytes and tokens of each shard."""
    source = tables.source
    for shard in track(tables.shards, "reading footers", len(tables.shards), "shards"):
        with source.shard(shard) as stream:
            footer = shard_footer(stream)
            tables.present(["num_tokens"], footer.schema.to_arrow_schema().names)
            stream.seek(0)
            tokens = _tokens(tables, read_table(stream, ["num_tokens"]))
        yield footer, source.size(shard), tokens


def _tokens(tables: Tables, table: pa.Table) -> int:
    """The tokens of a table's rows. Raises FormatError where a row doesn't say how many."""
    counts = table["num_tokens"]
    if counts.null_count or not pa.types.is_integer(counts.type):
        raise FormatError(f"{tables.name} is damaged (num_tokens holds more than whole numbers). `verify` tells where.")
    return int(counts.to_numpy().sum())


def _encoded(tables: Tables) -> Iterator[tuple[Any, int, int]]:
    """Footer, bytes of the columns and tokens of each row group that the rows make."""
    waiting: list[pa.Table] = []
    tokens = 0
    for table, _ in tables.each(shard_schema().names, "encoding rows", lambda table: table):
        waiting.append(table)
        tokens += _tokens(tables, table)
        if tokens >= _ROW_GROUP_ENTRIES or sum(map(len, waiting)) >= _ROW_GROUP_ROWS:
            yield encoded_footer(pa.concat_tables(waiting)), 0, tokens
            waiting, tokens = [], 0
    if waiting:
        yield encoded_footer(pa.concat_tables(waiting)), 0, tokens


def _columns(footer: Any) -> dict[str, ColumnBytes]:
    """What each column takes in one file."""
    found: dict[str, ColumnBytes] = {}
    for group in map(footer.row_group, range(footer.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            name = chunk.path_in_schema.split(".")[0]
            before = found.get(name, ColumnBytes(0, 0))
            found[name] = ColumnBytes(
                before.stored + chunk.total_compressed_size, before.uncompressed + chunk.total_uncompressed_size
            )
    return found
