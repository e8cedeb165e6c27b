"""Whole batches of entries to the columns of the format, without a loop over tokens or conversations.

Legend: P entries, K nucleus cap, S samples, C conversations (rows of the table).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from teacher_logits.codec.indices import ends_of, pack_indices
from teacher_logits.codec.quantize import quantize
from teacher_logits.records import Int64, JoinedExamples, SparseDistribution

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


def encode_rows(entries: SparseDistribution, examples: JoinedExamples, contents: Contents) -> pa.Table:
    """One row a conversation from the entries of all of them, one conversation after another.

    The entries' number must be the sum of the examples' positions.
    """
    lengths = examples.entry_counts
    assert lengths.sum() == len(entries), "entries and examples don't belong together"
    ends = ends_of(lengths)
    columns: dict[str, pa.Array] = {
        "index": pa.array(examples.index, pa.int32()),
        "num_tokens": pa.array(lengths, pa.int32()),
        **_nucleus_columns(entries, ends),
        **_sample_columns(entries, ends),
        "logsumexp": _lists(entries.logsumexp, ends),
        "logsumexp_t2": _lists(entries.logsumexp_t2, ends),
        "logsumexp_t4": _lists(entries.logsumexp_t4, ends),
        "token_logprob": _lists(entries.token_logprob, ends),
    }
    if contents.store_tokens:
        columns["input_ids"] = _lists(examples.input_ids, ends_of(examples.token_counts))
        columns["positions"] = _lists(examples.positions, ends)
    return pa.table(columns)


def _nucleus_columns(entries: SparseDistribution, ends: Int64) -> dict[str, pa.Array]:
    counts = entries.top_counts.astype(np.int64)
    assert entries.top_ids.shape[1] <= 255, "top_counts is a byte"
    # Comparing bytes is four times as fast as comparing numbers.
    members = np.arange(entries.top_ids.shape[1], dtype=np.uint8) < counts.astype(np.uint8)[:, None]
    high = entries.top_logits[:, 0]
    low = entries.top_logits[np.arange(len(counts)), counts - 1]
    # Sizes of the conversations' nuclei, all their entries together.
    token_ends = ends_of(counts)[ends]
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
    count, samples = entries.sampled_ids.shape
    # Rows this short are reduced faster as parts of one flat array than along an axis.
    flat, starts = entries.sampled_logits.reshape(-1), np.arange(count) * samples
    low, high = np.minimum.reduceat(flat, starts), np.maximum.reduceat(flat, starts)
    token_ends = ends * samples
    packed = pack_indices(entries.sampled_ids.reshape(-1), np.diff(token_ends))
    quantized = quantize(entries.sampled_logits, low[:, None], high[:, None])
    return {
        "sampled_indices_low": _lists(packed[0], token_ends),
        "sampled_indices_high": _binary(packed[1], packed[2]),
        "sampled_logits_quantized": _lists(quantized.reshape(-1), token_ends),
        "sampled_min": _lists(low, ends),
        "sampled_max": _lists(high, ends),
    }


def _lists(values: NDArray, ends: Int64) -> pa.ListArray:
    """A list column whose row i is `values[ends[i]:ends[i + 1]]`."""
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(np.ascontiguousarray(values)))


def _binary(values: NDArray[np.uint8], ends: Int64) -> pa.BinaryArray:
    offsets = pa.py_buffer(ends.astype(np.int32))
    return pa.Array.from_buffers(pa.binary(), len(ends) - 1, [None, offsets, pa.py_buffer(values)])
