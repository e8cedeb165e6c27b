"""Rows whose columns belong together, and those whose don't: found before anything is decoded.

Legend: C rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from teacher_logits.codec.indices import ends_of
from teacher_logits.errors import FormatError
from teacher_logits.exploring.verifying.problems import shown
from teacher_logits.exploring.verifying.run import is_count
from teacher_logits.records import Int64
from teacher_logits.settings import MAX_VOCABULARY

_PER_ENTRY = (
    "top_counts",
    "top_min",
    "top_max",
    "sampled_min",
    "sampled_max",
    "logsumexp",
    "logsumexp_t2",
    "logsumexp_t4",
    "token_logprob",
)
_LARGEST_CAP = 255
_INT32 = 2**31 - 1

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Bounds:
    """What a run's metadata says that its numbers keep within."""

    vocab_used: int
    input_ids: int
    """Ids of the text are below this: the width of the logits, or the tokenizer's length where that is more."""
    top_p: float
    cap: int
    sampled_n: int

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> "Bounds":
        """Raises FormatError where they can't be told."""
        largest = {
            "vocab_size": _INT32,
            "vocab_used": MAX_VOCABULARY,
            "tokenizer_length": _INT32,
            "top_p_max_elements": _LARGEST_CAP,
            "sampled_n": _INT32,
        }
        found: dict[str, int] = {}
        for name, most in largest.items():
            value = metadata.get(name)
            if not is_count(value) or not 1 <= value <= most:
                raise FormatError(f"{name} is {shown(value)}, not a whole number from 1 to {most:,}")
            found[name] = value
        top_p = metadata.get("top_p")
        if isinstance(top_p, bool) or not isinstance(top_p, int | float) or not 0 < top_p <= 1:
            raise FormatError(f"top_p is {shown(top_p)}, not a number above 0 and up to 1")
        return cls(
            vocab_used=found["vocab_used"],
            input_ids=max(found["vocab_size"], found["tokenizer_length"]),
            top_p=float(top_p),
            cap=found["top_p_max_elements"],
            sampled_n=found["sampled_n"],
        )


def row_faults(table: pa.Table, bounds: Bounds) -> Iterator[tuple[str, Mask]]:
    """What is wrong with which rows [C], in the columns there are: nulls, nucleus sizes, lengths."""
    entries = table.column("num_tokens").fill_null(0).to_numpy().astype(np.int64)
    yield "num_tokens is not at least 1", entries < 1
    for name in table.column_names:
        yield f"{name} has nulls", _with_nulls(table.column(name))
    counts, ends = _values(table.column("top_counts"))
    outside = (counts < 1) | (counts > bounds.cap)
    yield f"a nucleus has not 1 to {bounds.cap} tokens", rows_with(outside, ends)
    nucleus = np.diff(ends_of(counts)[ends])
    for name, wanted in _lengths(entries, nucleus, entries * bounds.sampled_n).items():
        if name in table.column_names:
            yield f"{name} has not the length that belongs to the row", _row_lengths(table.column(name)) != wanted


def _lengths(entries: Int64, nucleus: Int64, samples: Int64) -> dict[str, Int64]:
    """How long each column's rows must be, for so many entries, nucleus tokens and samples a row."""
    wanted = dict.fromkeys((*_PER_ENTRY, "positions"), entries)
    for kind, tokens in (("top", nucleus), ("sampled", samples)):
        wanted |= {f"{kind}_indices_low": tokens, f"{kind}_logits_quantized": tokens}
        wanted[f"{kind}_indices_high"] = -(-tokens // 4)
    return wanted


def _row_lengths(column: pa.ChunkedArray) -> Int64:
    """[C] values of a list column's rows, bytes of a binary one's; 0 for null."""
    binary = pa.types.is_binary(column.type)
    lengths = pc.binary_length(column) if binary else pc.list_value_length(column)
    return lengths.fill_null(0).to_numpy().astype(np.int64)


def _values(column: pa.ChunkedArray) -> tuple[Int64, Int64]:
    """The values of a list column, all rows one after another, nulls as 0, and where the rows end: [C + 1]."""
    values = pc.list_flatten(column).fill_null(0).to_numpy().astype(np.int64)
    return values, ends_of(_row_lengths(column))


def _with_nulls(column: pa.ChunkedArray) -> Mask:
    """[C] rows that are null or hold a null."""
    found = column.is_null().to_numpy()
    if pa.types.is_list(column.type):
        values = pc.list_flatten(column)
        if values.null_count:
            found = found | rows_with(values.is_null().to_numpy(), ends_of(_row_lengths(column)))
    return found


def rows_with(marked: Mask, ends: Int64) -> Mask:
    """[C] rows with a marked value, where row i has the values `ends[i]` to `ends[i + 1]`."""
    before = ends_of(marked.astype(np.int64))[ends]
    return before[1:] > before[:-1]
