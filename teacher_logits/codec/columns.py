"""Whole batches of entries to the columns of the format, and back, without a loop over tokens or conversations.

Legend: P entries, K nucleus cap, S samples, C conversations (rows of the table).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from teacher_logits.codec.indices import pack_indices, unpack_indices
from teacher_logits.codec.quantize import dequantize, quantize, round_to_dtype
from teacher_logits.records import Example, Float64, Int64, SparseDistribution

CONTRACT_COLUMNS = (
    "index",
    "num_tokens",
    "top_indices_low",
    "top_indices_high",
    "top_logits_quantized",
    "top_counts",
    "top_min",
    "top_max",
    "sampled_indices_low",
    "sampled_indices_high",
    "sampled_logits_quantized",
    "sampled_min",
    "sampled_max",
    "logsumexp",
)
"""The fixed contract with readers: these names in this order begin every shard of format version 1."""


@dataclass(frozen=True)
class Contents:
    """What the columns beside the contract hold."""

    store_tokens: bool = True
    """Whether `input_ids` and `positions` are written."""


def encode_rows(entries: SparseDistribution, examples: Sequence[Example], contents: Contents) -> pa.Table:
    """One row a conversation from the entries of all of them, one conversation after another.

    The entries' number must be the sum of the examples' positions.
    """
    lengths = np.array([len(example.positions) for example in examples], np.int64)
    assert lengths.sum() == len(entries), "entries and examples don't belong together"
    ends = np.concatenate([[0], np.cumsum(lengths)])
    columns: dict[str, pa.Array] = {
        "index": pa.array([example.index for example in examples], pa.int32()),
        "num_tokens": pa.array(lengths, pa.int32()),
        **_nucleus_columns(entries, ends),
        **_sample_columns(entries, ends),
        "logsumexp": _lists(entries.logsumexp, ends),
        "logsumexp_t2": _lists(entries.logsumexp_t2, ends),
        "logsumexp_t4": _lists(entries.logsumexp_t4, ends),
        "token_logprob": _lists(entries.token_logprob, ends),
    }
    if contents.store_tokens:
        tokens = np.concatenate([[0], np.cumsum([len(example.input_ids) for example in examples])])
        columns["input_ids"] = _lists(_joined([example.input_ids for example in examples]), tokens)
        columns["positions"] = _lists(_joined([example.positions for example in examples]), ends)
    return pa.table(columns)


def _nucleus_columns(entries: SparseDistribution, ends: Int64) -> dict[str, pa.Array]:
    counts = entries.top_counts.astype(np.int64)
    members = np.arange(entries.top_ids.shape[1]) < counts[:, None]
    high = entries.top_logits[:, 0]
    low = entries.top_logits[np.arange(len(counts)), counts - 1]
    # Sizes of the conversations' nuclei, all their entries together.
    token_ends = np.concatenate([[0], np.cumsum(counts)])[ends]
    packed = pack_indices(entries.top_ids[members], np.diff(token_ends))
    quantized = quantize(entries.top_logits[members], np.repeat(low, counts), np.repeat(high, counts))
    return {
        "top_indices_low": _lists(packed[0], token_ends),
        "top_indices_high": _binary(packed[1], packed[2]),
        "top_logits_quantized": _lists(quantized, token_ends),
        "top_counts": _lists(counts.astype(np.uint8), ends),
        "top_min": _lists(low, ends),
        "top_max": _lists(high, ends),
    }


def _sample_columns(entries: SparseDistribution, ends: Int64) -> dict[str, pa.Array]:
    low, high = entries.sampled_logits.min(axis=1), entries.sampled_logits.max(axis=1)
    token_ends = ends * entries.sampled_ids.shape[1]
    packed = pack_indices(entries.sampled_ids.reshape(-1), np.diff(token_ends))
    quantized = quantize(entries.sampled_logits, low[:, None], high[:, None])
    return {
        "sampled_indices_low": _lists(packed[0], token_ends),
        "sampled_indices_high": _binary(packed[1], packed[2]),
        "sampled_logits_quantized": _lists(quantized.reshape(-1), token_ends),
        "sampled_min": _lists(low, ends),
        "sampled_max": _lists(high, ends),
    }


@dataclass(frozen=True)
class Entries:
    """Decoded entries of one or more rows. Nucleus fields are flat, one entry after another."""

    counts: Int64
    """[P] nucleus sizes."""
    top_ids: Int64
    """[sum of counts]"""
    top_logits: Float64
    """[sum of counts]"""
    sampled_ids: Int64
    """[P, S] in the order of their draw."""
    sampled_logits: Float64
    """[P, S]"""
    logsumexp: Float64
    """[P]"""

    def __len__(self) -> int:
        return len(self.counts)


def decode_rows(table: pa.Table, logits_dtype: str = "float32") -> Entries:
    """The entries of a table with the contract's columns, all rows one after another.

    logits_dtype: the type the teacher's logits had (in the shards' metadata); logits are rounded to it.
    Raises ValueError where the columns don't belong together.
    """
    table = table.combine_chunks()
    counts = _flat(table, "top_counts").astype(np.int64)
    entries_per_row = _row_lengths(table, "top_counts")
    sampled_low = _flat(table, "sampled_indices_low")
    width = len(sampled_low) // len(counts) if len(counts) else 0
    _check_row_lengths(table, counts, entries_per_row, width)

    def logits(kind: str, repeats: Int64 | int) -> Float64:
        low, high = (np.repeat(_flat(table, f"{kind}_{end}"), repeats) for end in ("min", "max"))
        return round_to_dtype(dequantize(_flat(table, f"{kind}_logits_quantized"), low, high), logits_dtype)

    return Entries(
        counts=counts,
        top_ids=unpack_indices(
            _flat(table, "top_indices_low"), _bytes(table, "top_indices_high"), _row_lengths(table, "top_indices_low")
        ),
        top_logits=logits("top", counts),
        sampled_ids=unpack_indices(sampled_low, _bytes(table, "sampled_indices_high"), entries_per_row * width).reshape(
            len(counts), width
        ),
        sampled_logits=logits("sampled", width).reshape(len(counts), width),
        logsumexp=_flat(table, "logsumexp"),
    )


def _check_row_lengths(table: pa.Table, counts: Int64, entries_per_row: Int64, width: int) -> None:
    """Raise ValueError where a column's rows haven't the lengths that `top_counts` asks for."""
    ends = np.concatenate([[0], np.cumsum(entries_per_row)])
    nucleus = np.diff(np.concatenate([[0], np.cumsum(counts)])[ends])
    expected = {
        "top_indices_low": nucleus,
        "top_logits_quantized": nucleus,
        "sampled_indices_low": entries_per_row * width,
        "sampled_logits_quantized": entries_per_row * width,
        **dict.fromkeys(("top_min", "top_max", "sampled_min", "sampled_max", "logsumexp"), entries_per_row),
    }
    for name, lengths in expected.items():
        if not np.array_equal(_row_lengths(table, name), lengths):
            raise ValueError(
                f"the rows of {name} and of top_counts differ in length; the columns don't belong together."
            )


def _lists(values: NDArray, ends: Int64) -> pa.ListArray:
    """A list column whose row i is `values[ends[i]:ends[i + 1]]`."""
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(np.ascontiguousarray(values)))


def _binary(values: NDArray[np.uint8], ends: Int64) -> pa.BinaryArray:
    offsets = pa.py_buffer(ends.astype(np.int32))
    return pa.Array.from_buffers(pa.binary(), len(ends) - 1, [None, offsets, pa.py_buffer(values)])


def _joined(arrays: list[NDArray]) -> NDArray:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int32)


def _column(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _flat(table: pa.Table, name: str) -> NDArray:
    """The values of a list column, all rows one after another, without a copy where there are no nulls."""
    return _column(table, name).flatten().to_numpy(zero_copy_only=False)


def _row_lengths(table: pa.Table, name: str) -> Int64:
    column = _column(table, name)
    return np.diff(column.offsets.to_numpy()).astype(np.int64)


def _bytes(table: pa.Table, name: str) -> NDArray[np.uint8]:
    """The content of a binary column, all rows one after another."""
    column = _column(table, name).cast(pa.binary())  # Polars hands over 64-bit offsets
    _, offsets, content = column.buffers()
    if content is None:
        return np.zeros(0, np.uint8)
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    return np.frombuffer(content, np.uint8)[ends[0] : ends[-1]]
