"""The contract's columns as flat numpy views of their Arrow buffers, checked to belong together.

Legend: C rows, P entries, N tokens of one kind (nucleus or sample) of all entries, S samples an entry.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from teacher_logits.codec.indices import ends_of, packed_ends
from teacher_logits.records import Float32, Float64, Int32, Int64

Uint8 = NDArray[np.uint8]
Uint16 = NDArray[np.uint16]


@dataclass(frozen=True)
class FlatTokens:
    """Ids and logits of one kind, all rows one after another, as they are stored."""

    ends: Int64
    """[C + 1] row i has the tokens `ends[i]` to `ends[i + 1]`."""
    low: Uint16
    """[N] low bits of the ids."""
    high: Uint8
    """The rows' packed high bits."""
    high_ends: Int64
    """[C + 1] where in `high` the rows begin and end."""
    quantized: Uint16
    """[N]"""
    smallest: Float32
    """[P] of each entry's logits."""
    largest: Float32
    """[P]"""

    def rows(self, first: int, last: int, entries: slice) -> "FlatTokens":
        """Rows `first` to `last`, which have those entries."""
        tokens = slice(self.ends[first], self.ends[last])
        return FlatTokens(
            ends=self.ends[first : last + 1] - self.ends[first],
            low=self.low[tokens],
            high=self.high[self.high_ends[first] : self.high_ends[last]],
            high_ends=self.high_ends[first : last + 1] - self.high_ends[first],
            quantized=self.quantized[tokens],
            smallest=self.smallest[entries],
            largest=self.largest[entries],
        )


@dataclass(frozen=True)
class FlatColumns:
    """The contract's columns of some rows."""

    index: Int32
    """[C]"""
    ends: Int64
    """[C + 1] row i has the entries `ends[i]` to `ends[i + 1]`."""
    counts: Uint8
    """[P] nucleus sizes."""
    top: FlatTokens
    sampled: FlatTokens
    logsumexp: Float64
    """[P]"""

    @property
    def drawn(self) -> tuple[int, int]:
        """P, S; S is 0 where there are no entries."""
        return len(self.counts), len(self.sampled.low) // max(1, len(self.counts))

    def rows(self, first: int, last: int) -> "FlatColumns":
        """Rows `first` to `last`, without a copy of what they hold."""
        entries = slice(self.ends[first], self.ends[last])
        return FlatColumns(
            index=self.index[first:last],
            ends=self.ends[first : last + 1] - self.ends[first],
            counts=self.counts[entries],
            top=self.top.rows(first, last, entries),
            sampled=self.sampled.rows(first, last, entries),
            logsumexp=self.logsumexp[entries],
        )

    def parts(self, entries: int) -> Iterator["FlatColumns"]:
        """All rows, in parts that have at most so many entries or are one row."""
        first = 0
        while first < len(self.index):
            last = int(np.searchsorted(self.ends, self.ends[first] + entries, "right")) - 1
            last = max(last, first + 1)
            yield self.rows(first, last)
            first = last


def flat_columns(table: pa.Table) -> FlatColumns:
    """The views of a table, which hold as long as its buffers do.

    Raises ValueError where there are nulls, or the columns' rows haven't the lengths that `top_counts` asks for.
    """
    table = table.combine_chunks()
    counts, ends = flat_list(table, "top_counts")
    samples = len(flat_list(table, "sampled_indices_low")[0]) // max(1, len(counts))
    nucleus_ends = ends_of(counts)[ends]
    columns = FlatColumns(
        index=_column(table, "index").to_numpy(),
        ends=ends,
        counts=counts,
        top=_tokens(table, "top", ends, nucleus_ends),
        sampled=_tokens(table, "sampled", ends, ends * samples),
        logsumexp=flat_values(table, "logsumexp", ends),
    )
    _require("num_tokens", np.array_equal(_column(table, "num_tokens").to_numpy(), np.diff(ends)))
    return columns


def _tokens(table: pa.Table, kind: str, ends: Int64, token_ends: Int64) -> FlatTokens:
    high, high_ends = _binary(table, f"{kind}_indices_high")
    _require(f"{kind}_indices_high", np.array_equal(high_ends, packed_ends(np.diff(token_ends))))
    return FlatTokens(
        ends=token_ends,
        low=flat_values(table, f"{kind}_indices_low", token_ends),
        high=high,
        high_ends=high_ends,
        quantized=flat_values(table, f"{kind}_logits_quantized", token_ends),
        smallest=flat_values(table, f"{kind}_min", ends),
        largest=flat_values(table, f"{kind}_max", ends),
    )


def flat_values(table: pa.Table, name: str, ends: Int64) -> NDArray:
    """The values of a list column, all rows one after another, whose rows must end at `ends` [C + 1].

    table: in one piece. Raises ValueError where there are nulls, or the rows end elsewhere.
    """
    values, found = flat_list(table, name)
    _require(name, np.array_equal(found, ends))
    return values


def _require(name: str, right: bool) -> None:
    if not right:
        raise ValueError(f"the rows of {name} and of top_counts differ in length; the columns don't belong together.")


def flat_list(table: pa.Table, name: str) -> tuple[NDArray, Int64]:
    """The values of a list column, all rows one after another, and where the rows end among them: [C + 1], from 0.

    table: in one piece. Raises ValueError where there are nulls.
    """
    column = _column(table, name)
    ends = column.offsets.to_numpy().astype(np.int64)
    values = column.values.slice(ends[0], ends[-1] - ends[0])
    if values.null_count:
        raise ValueError(f"{name} has nulls.")
    return values.to_numpy(), ends - ends[0]


def _binary(table: pa.Table, name: str) -> tuple[Uint8, Int64]:
    """The bytes of a binary column, all rows one after another, and where the rows end among them: [C + 1], from 0."""
    column = _column(table, name).cast(pa.binary())  # Polars hands over 64-bit offsets
    _, offsets, content = column.buffers()
    if content is None or not len(column):
        return np.zeros(0, np.uint8), np.zeros(len(column) + 1, np.int64)
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    return np.frombuffer(content, np.uint8)[ends[0] : ends[-1]], ends - ends[0]


def _column(table: pa.Table, name: str) -> pa.Array:
    """A column in one piece and without nulls. Raises ValueError where it can't be had."""
    column = table.column(name)
    if column.null_count or column.num_chunks > 1:
        raise ValueError(f"{name} has nulls, or more than Arrow can hold in one piece.")
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)
