"""The rows of a logits dataset in Arrow tables, whatever it was given as: memory holds one of them at a time."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from teacher_logits.errors import FormatError, SettingsError
from teacher_logits.exploring.loading import require_rows, run_of_dataset
from teacher_logits.exploring.runs import run_of_source
from teacher_logits.exploring.sources import Source, open_source
from teacher_logits.progress import progress
from teacher_logits.shards import iter_row_groups, read_schema, shard_schema

Result = TypeVar("Result")

BATCH_ROWS = 64
"""Rows taken from an open dataset at a time: long conversations have thousands of entries, of 300 bytes each."""
_FIELDS = {field.name: field for field in shard_schema()}
_OPTIONAL = {"logsumexp_t2", "logsumexp_t4", "token_logprob", "input_ids", "positions"}


class Tables(ABC):
    """The rows of one split. `name`: what the user called it.   `run`: see `run_of_source`; {} where nothing tells."""

    name: str
    run: Mapping[str, Any]

    def each(
        self, columns: Sequence[str], title: str, work: Callable[[pa.Table], Result]
    ) -> Iterator[tuple[Result, int]]:
        """What `work` makes of each table, and the table's rows. A progress bar is called `title`.

        columns: those of the format to read. Optional ones that are not there are left out of the tables.
        Raises FormatError where others are missing, or the rows are damaged (`work` raises ValueError).
        """
        for table in self._tables(columns, title):
            try:
                result = work(_typed(table))
            except (pa.ArrowException, ValueError) as error:
                raise FormatError(f"{self.name} is damaged ({error}). `verify` tells where.") from error
            yield result, table.num_rows

    @abstractmethod
    def _tables(self, columns: Sequence[str], title: str) -> Iterator[pa.Table]:
        """The tables, as they are read."""

    def present(self, wanted: Sequence[str], there: Sequence[str]) -> list[str]:
        """Those of the wanted columns that are there."""
        missing = [name for name in wanted if name not in there and name not in _OPTIONAL]
        if missing:
            raise FormatError(f"{self.name} is not a logits dataset: it lacks the columns {', '.join(missing)}.")
        return [name for name in wanted if name in there]


class ShardTables(Tables):
    """Files of a folder or the Hub, one row group after another."""

    def __init__(self, source: Source, split: str | None) -> None:
        self.source, self.name, self.run = source, source.name, run_of_source(source)
        self.split, self.shards = source.shards(split)

    def _tables(self, columns: Sequence[str], title: str) -> Iterator[pa.Table]:
        rows = 0
        with progress(title, len(self.shards), "shards") as shown:
            for shard in self.shards:
                with self.source.shard(shard) as stream:
                    present = self.present(columns, read_schema(stream).names)
                    stream.seek(0)
                    for table in iter_row_groups(stream, present):
                        yield table
                        rows += table.num_rows
                        shown.advance(0, f"{rows:,} conversations")
                shown.advance()


class OpenTables(Tables):
    """A `datasets.Dataset` or `IterableDataset`, a few rows at a time."""

    def __init__(self, dataset: Any) -> None:
        self.run = run_of_dataset(dataset)
        self.name, self._dataset = "the dataset", dataset

    def _tables(self, columns: Sequence[str], title: str) -> Iterator[pa.Table]:
        total = len(self._dataset) if hasattr(self._dataset, "__len__") else None
        names = self._dataset.column_names
        chosen = self._dataset
        if names is not None:
            chosen = chosen.select_columns(self.present(columns, names))
        with progress(title, total, "conversations") as shown:
            for table in chosen.with_format("arrow").iter(BATCH_ROWS):
                yield table.select(self.present(columns, table.column_names))
                shown.advance(table.num_rows)


def tables_of(dataset: Any, split: str | None = None, revision: str | None = None) -> Tables:
    """The rows of a folder, a Hub dataset id, what `open_source` gives, a `Dataset` or an `IterableDataset`.

    split: by default the only one.   revision: branch, tag or commit on the Hub. Both are for the first three alone.
    Raises FormatError where there is nothing, SettingsError for anything else.
    """
    if isinstance(dataset, str | Path):
        return ShardTables(open_source(dataset, revision), split)
    if revision is not None:
        raise SettingsError("revision belongs to the id of a Hub dataset; an opened one is what it is.")
    if isinstance(dataset, Source):
        return ShardTables(dataset, split)
    require_rows(dataset, "Statistics are made")
    if split is not None:
        raise SettingsError("split belongs to a folder or a Hub dataset id; an opened dataset is one split.")
    return OpenTables(dataset)


def _typed(table: pa.Table) -> pa.Table:
    """The table in one piece and in the format's types: polars and datasets write lists with long offsets, too."""
    schema = pa.schema([_FIELDS[name] for name in table.column_names])
    return (table if table.schema.equals(schema) else table.cast(schema)).combine_chunks()
