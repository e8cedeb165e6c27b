"""The source dataset: rows from the Hub or from local files, memory-mapped, numbered, with what identifies them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from teacher_logits.conversations.clear_errors import first_line
from teacher_logits.conversations.masks import Unusable
from teacher_logits.conversations.messages import read_conversation
from teacher_logits.conversations.places import Place, load_rows
from teacher_logits.conversations.shapes import Columns, find_columns, require_column
from teacher_logits.conversations.spooling import Spool
from teacher_logits.errors import DatasetError
from teacher_logits.records import Conversation, Int64
from teacher_logits.settings import SourceOptions

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

_MAX_INDEX = 2**31 - 1
_ORIGINAL_INDEX = "original_index"
_SYSTEM_COLUMNS = ("system", "system_prompt")


@dataclass(frozen=True)
class Source:
    """An opened source dataset."""

    dataset: "datasets.Dataset"
    name: str
    """As given: a Hub id, or the file's or folder's own name without its path."""
    revision: str | None
    """The commit on the Hub; None for local files."""
    content: str
    """What the rows are, for the fingerprint: Hub id and commit, or a hash of the files."""
    split: str
    """The split's own name, without a slice."""
    rows: Int64
    """Rows of the split that its slice selects, ascending."""
    columns: Columns
    index: Int64
    """[rows of the split] each row's number: `original_index`, `--index-col`, or the row's place in the split."""
    index_column: str | None
    system_prompt: str | None = None
    """What conversations begin with that have no system message of their own."""
    files: int | None = None
    """How many files of a pattern the rows are from."""

    def describe(self) -> str:
        """What is read, and as what, in words."""
        first = self._values(self.rows[:1].tolist() or [0])
        row = first[0] if first and not isinstance(first[0], Unusable) else {}
        text = f"{self.columns.describe(row)}, from {self.name}"
        if self.files is not None:
            text += f" ({self.files:,} file{'s' * (self.files != 1)}, {len(self.dataset):,} rows)"
        unread = next((name for name in _SYSTEM_COLUMNS if name in self.dataset.column_names), None)
        if unread is None or self.columns.system is not None:
            return text
        return f"{text} (`{unread}` is not read; --system-col {unread} would)"

    def conversations(self, rows: Sequence[int] | Int64) -> Iterator[Conversation | Unusable]:
        """The conversations of some rows, in that order; in place of one that can't be used, the reason."""
        places = np.asarray(rows).tolist()
        for row, values in zip(places, self._values(places), strict=True):
            try:
                if isinstance(values, Unusable):
                    raise values
                messages, tools = read_conversation(values, self.columns, self.system_prompt)
                yield Conversation(int(self.index[row]), messages, tools)
            except Unusable as reason:
                yield reason

    def _values(self, rows: list[int]) -> list[Mapping[str, Any] | Unusable]:
        """The values of some rows, by column."""
        wanted = self.columns.read()
        try:
            chosen = self.dataset.select_columns(wanted)[rows]
        except (ValueError, RecursionError) as error:
            if len(rows) > 1:  # one row spoils the reading of all; alone, only itself
                return [values for row in rows for values in self._values([row])]
            if isinstance(error, UnicodeDecodeError):
                return [Unusable(f"not UTF-8: {error.reason}")]
            return [Unusable(f"can't be read: {first_line(error)}")]
        return [{name: chosen[name][place] for name in wanted} for place in range(len(rows))]

    def column(self, name: str, option: str) -> "pa.ChunkedArray":
        """A column of all rows of the split, as Arrow holds it. Raises DatasetError where there is none."""
        require_column(name, self.dataset.column_names, option)
        return arrow_column(self.dataset, name)


def prepare_dataset(config: SourceOptions) -> Source:
    """Open the source that the options name. Raises DatasetError where it can't be used."""
    return open_source(config)


def open_source(config: SourceOptions, revision: str | None = None, spool: Path | None = None) -> Source:
    """Open the source that the options name, at `revision` (a stored commit) where given.

    spool: a folder for a copy of its rows, which are then read one after another, and no more of them than the options
    can select; by default the library makes the whole split ready in its cache.
    Raises DatasetError where the dataset, the split or a column isn't there, or the numbers are not unique int32.
    """
    assert config.dataset is not None
    base_split = config.split.split("[")[0]
    numbers = (config.index_col, getattr(config, "length_col", None), _ORIGINAL_INDEX)
    rows = load_rows(
        Place(
            address=config.dataset,
            split=base_split,
            config_name=config.dataset_config,
            revision=revision or config.dataset_revision,
            pattern=config.data_files,
            numbers=tuple(name for name in numbers if name is not None),
            spool=None if spool is None else Spool(spool, _most_rows(config)),
        )
    )
    dataset = rows.dataset
    if len(dataset) == 0:
        raise DatasetError(f"Split {base_split!r} of {config.dataset} has no rows.")
    columns = find_columns(dataset.column_names, config, len(dataset))
    index_column = config.index_col
    if index_column is None and _ORIGINAL_INDEX in dataset.column_names:
        index_column = _ORIGINAL_INDEX
    return Source(
        dataset=dataset,
        name=rows.name,
        revision=rows.revision,
        content=rows.content,
        split=base_split,
        rows=_slice_rows(config.split, base_split, len(dataset)),
        columns=columns,
        index=_read_index(dataset, index_column),
        index_column=index_column,
        system_prompt=config.system_prompt,
        files=rows.files,
    )


def _most_rows(config: SourceOptions) -> int | None:
    """How many rows from the front can be selected; None where that isn't known before they are read."""
    anywhere = config.random_sample or config.subject_col is not None or "[" in config.split
    return None if anywhere or config.limit is None else config.start_offset + config.limit


def _slice_rows(split: str, base: str, total: int) -> Int64:
    """The rows that a split such as 'train[10:20]' or 'train[:5%]' selects."""
    from datasets import ReadInstruction

    if split == base:
        return np.arange(total, dtype=np.int64)
    try:
        (part,) = ReadInstruction.from_spec(split).to_absolute({base: total})
    except (ValueError, AssertionError) as error:
        raise DatasetError(f"--split {split!r} is not a slice of split {base!r} ({first_line(error)}).") from error
    return np.arange(part.from_ or 0, total if part.to is None else part.to, dtype=np.int64)


def _read_index(dataset: "datasets.Dataset", column: str | None) -> Int64:
    if column is None:
        return np.arange(len(dataset), dtype=np.int64)
    require_column(column, dataset.column_names, "--index-col")
    import pyarrow as pa
    import pyarrow.compute as pc

    values = arrow_column(dataset, column)
    if not pa.types.is_integer(values.type) or values.null_count:
        raise DatasetError(
            f"Column {column!r} numbers the conversations and must hold whole numbers without gaps; it holds "
            f"{values.type} with {values.null_count} missing. Name another with --index-col."
        )
    least, largest = pc.min_max(values).as_py().values()
    if least < 0 or largest > _MAX_INDEX:
        raise DatasetError(
            f"Column {column!r} holds {least if least < 0 else largest}; numbers of conversations are "
            f"stored as int32, from 0 to {_MAX_INDEX:,}. Name another with --index-col."
        )
    index = values.to_numpy().astype(np.int64)
    sorted_index = np.sort(index)
    twice = sorted_index[1:][sorted_index[1:] == sorted_index[:-1]]
    if len(twice):
        raise DatasetError(
            f"Column {column!r} holds {twice[0]} more than once; each conversation needs a number of its own. Name "
            "another with --index-col."
        )
    return index


def arrow_column(dataset: "datasets.Dataset", name: str) -> "pa.ChunkedArray":
    """One column of a dataset as Arrow holds it."""
    return dataset.select_columns([name]).with_format("arrow")[:].column(name)
