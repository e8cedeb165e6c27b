"""The contract's columns back to entries, without a loop over tokens or conversations.

Legend: C rows, P entries, K width of the nucleus part, S samples an entry.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from teacher_logits.codec.flat import FlatColumns, flat_columns
from teacher_logits.codec.indices import ends_of, unpack_indices, unpack_int32
from teacher_logits.codec.quantize import dequantize, round_to_dtype
from teacher_logits.errors import SettingsError
from teacher_logits.records import Float32, Float64, Int32, Int64

BLOCK_ENTRIES = 4096
"""Entries decoded at a time: what lies between columns and result then stays in the processor's caches."""


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


@dataclass(frozen=True)
class Distributions:
    """Decoded entries of one or more rows as arrays of one width: K columns for the nucleus, S for the samples.

    `index` and `logsumexp` are views of what was read, and read-only. Without any rows, S is 0.
    """

    index: Int32
    """[C] source numbers of the rows."""
    num_tokens: Int32
    """[C] entries of each row: those of the first row come first."""
    counts: Int64
    """[P] nucleus sizes."""
    nucleus_width: int
    """K"""
    ids: Int32
    """[P, K + S] the nucleus by falling logit, padded with 0; then the samples in the order of their draw."""
    log_probabilities: Float32
    """[P, K + S] logit - logsumexp of these ids, worked out in float64; -inf where the nucleus is padded."""
    logsumexp: Float64
    """[P]"""

    def __len__(self) -> int:
        return len(self.counts)


def decode_rows(table: pa.Table, logits_dtype: str = "float32") -> Entries:
    """The entries of a table with the contract's columns, all rows one after another.

    logits_dtype: the type the teacher's logits had (in the shards' metadata); logits are rounded to it.
    Raises ValueError where the columns have nulls or don't belong together.
    """
    return decode_entries(flat_columns(table), logits_dtype)


def decode_entries(columns: FlatColumns, logits_dtype: str = "float32") -> Entries:
    """The entries of `flat_columns`; see `decode_rows`."""
    top, sampled = columns.top, columns.sampled
    return Entries(
        counts=columns.counts.astype(np.int64),
        top_ids=unpack_indices(top.low, top.high, np.diff(top.ends)),
        top_logits=_top_logits(columns, logits_dtype),
        sampled_ids=unpack_indices(sampled.low, sampled.high, np.diff(sampled.ends)).reshape(columns.drawn),
        sampled_logits=_sampled_logits(columns, logits_dtype),
        logsumexp=columns.logsumexp,
    )


def decode_distributions(
    columns: FlatColumns, logits_dtype: str = "float32", width: int | None = None
) -> Distributions:
    """The entries of `flat_columns`, all rows one after another, as arrays.

    logits_dtype: as for `decode_rows`.   width: K; by default the largest nucleus there.
    Raises SettingsError where a nucleus is larger than `width`.
    """
    largest = int(columns.counts.max(initial=0))
    nucleus_width = largest if width is None else width
    if largest > nucleus_width:
        raise SettingsError(
            f"A nucleus has {largest} tokens, more than the width {width}. Leave width out, or give the run's "
            "--top-p-max."
        )
    shape = (len(columns.counts), nucleus_width + columns.drawn[1])
    ids, log_probabilities = np.empty(shape, np.int32), np.empty(shape, np.float32)
    first = 0
    for part in columns.parts(BLOCK_ENTRIES):
        block = slice(first, first + len(part.counts))
        first = block.stop
        places = _places(part, shape[1])
        _fill_ids(part, places, nucleus_width, ids[block])
        _fill_log_probabilities(part, places, nucleus_width, logits_dtype, log_probabilities[block])
    return Distributions(
        index=columns.index,
        num_tokens=np.diff(columns.ends).astype(np.int32),
        counts=columns.counts.astype(np.int64),
        nucleus_width=nucleus_width,
        ids=ids,
        log_probabilities=log_probabilities,
        logsumexp=columns.logsumexp,
    )


def nucleus_mass(columns: FlatColumns, logits_dtype: str = "float32") -> Float64:
    """[P] the probability that each entry's nucleus holds. logits_dtype: as for `decode_rows`."""
    if not len(columns.counts):
        return np.zeros(0)
    probabilities = np.exp(_top_logits(columns, logits_dtype) - np.repeat(columns.logsumexp, columns.counts))
    mass: Float64 = np.add.reduceat(probabilities, ends_of(columns.counts)[:-1])
    return mass


def _places(columns: FlatColumns, width: int) -> Int64:
    """Where each nucleus token goes in a flat array of `width` columns an entry: [sum of counts].

    Token t of entry p, whose first token is number first[p], goes to p * width + t - first[p].
    """
    ahead = np.arange(len(columns.counts)) * width - ends_of(columns.counts)[:-1]
    places = np.repeat(ahead, columns.counts)
    places += np.arange(len(places))
    return places


def _fill_ids(columns: FlatColumns, places: Int64, nucleus_width: int, ids: Int32) -> None:
    """Write the ids of all entries into `ids` [P, K + S]."""
    top, sampled = columns.top, columns.sampled
    ids[:] = 0
    ids.reshape(-1)[places] = unpack_int32(top.low, top.high, np.diff(top.ends))
    ids[:, nucleus_width:] = unpack_int32(sampled.low, sampled.high, np.diff(sampled.ends)).reshape(columns.drawn)


def _fill_log_probabilities(
    columns: FlatColumns, places: Int64, nucleus_width: int, logits_dtype: str, log_probabilities: Float32
) -> None:
    """Write the log-probabilities of all entries into `log_probabilities` [P, K + S]."""
    top = _top_logits(columns, logits_dtype)
    top -= np.repeat(columns.logsumexp, columns.counts)
    sampled = _sampled_logits(columns, logits_dtype)
    sampled -= columns.logsumexp[:, None]
    log_probabilities[:] = -np.inf
    log_probabilities.reshape(-1)[places] = top.astype(np.float32)
    log_probabilities[:, nucleus_width:] = sampled


def _top_logits(columns: FlatColumns, logits_dtype: str) -> Float64:
    """[sum of counts]"""
    top = columns.top
    smallest, largest = (np.repeat(ends, columns.counts) for ends in (top.smallest, top.largest))
    return round_to_dtype(dequantize(top.quantized, smallest, largest), logits_dtype)


def _sampled_logits(columns: FlatColumns, logits_dtype: str) -> Float64:
    """[P, S]"""
    sampled = columns.sampled
    quantized = sampled.quantized.reshape(columns.drawn)
    return round_to_dtype(dequantize(quantized, sampled.smallest[:, None], sampled.largest[:, None]), logits_dtype)
