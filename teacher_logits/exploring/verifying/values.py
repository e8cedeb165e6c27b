"""The numbers of whole rows, entry by entry: what no teacher's distribution can be.

Everything is compared with room for the rounding that the format has: half a step of quantization, float32.

Legend: C rows, P entries, K width of the nucleus part, S samples an entry.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from teacher_logits.codec import Distributions, FlatColumns, decode_distributions, flat_columns
from teacher_logits.codec.flat import FlatTokens
from teacher_logits.codec.indices import ends_of
from teacher_logits.codec.quantize import STEPS
from teacher_logits.exploring.possible import FARTHEST
from teacher_logits.exploring.verifying.structure import Bounds, Mask, rows_with
from teacher_logits.records import Float64, Int32, Int64

_ROUNDING = 1e-5
"""Room for float32 in sums of probabilities and in numbers near zero."""
_FLOAT32 = 2.0**-22
"""Room for a few roundings to float32, relative to the number."""
_TEMPERATURES = {"logsumexp": 1.0, "logsumexp_t2": 2.0, "logsumexp_t4": 4.0}

Fault = tuple[str, Mask]
"""What is wrong, and with which entries: [P]."""


@dataclass(frozen=True)
class _Entries:
    """Rows of a table, decoded."""

    columns: FlatColumns
    decoded: Distributions
    logsumexps: dict[str, Float64]
    """[P] each, by column."""
    token_logprob: Float64
    """[P]"""
    top_room: Float64
    """[P] how far a nucleus logit may be from the teacher's."""
    sampled_room: Float64
    """[P] the same of the samples."""
    usable: Mask
    """[P] bounds and log-sum-exps are finite, and no smallest logit is above the largest."""
    tokens: Int64 | None
    """[P] the text's own tokens; None where they are not stored, -1 where one can't be told."""

    @property
    def in_nucleus(self) -> Mask:
        """[P, K]"""
        return np.arange(self.decoded.nucleus_width) < self.decoded.counts[:, None]

    @property
    def top_ids(self) -> Int32:
        """[P, K]"""
        return self.decoded.ids[:, : self.decoded.nucleus_width]

    @property
    def sampled_ids(self) -> Int32:
        """[P, S]"""
        return self.decoded.ids[:, self.decoded.nucleus_width :]

    @property
    def top_p(self) -> Float64:
        """[P, K] probabilities of the nucleus; 0 where it is padded."""
        return np.exp(self.decoded.log_probabilities[:, : self.decoded.nucleus_width].astype(np.float64))

    @property
    def sampled_p(self) -> Float64:
        """[P, S] probabilities of the samples."""
        return np.exp(self.decoded.log_probabilities[:, self.decoded.nucleus_width :].astype(np.float64))


def entry_faults(table: pa.Table, bounds: Bounds) -> Iterator[Fault]:
    """What is wrong with which entries of rows without `row_faults`.

    Comparisons with NaN are false, so a number that isn't finite is named once, as that.
    """
    columns = flat_columns(table)
    if not len(columns.counts):
        return
    with np.errstate(all="ignore"):
        places = None
        if "positions" in table.column_names:
            places = _Places.of(table, columns)
            yield "positions don't rise from 1 on inside input_ids", places.wrong
            yield f"an id of input_ids is below 0, or not below {bounds.input_ids:,}", places.foreign(bounds.input_ids)
        for name, values in _bounds(table, columns).items():
            yield f"{name} is not finite", ~np.isfinite(values)
        entries = _decoded(table, columns, None if places is None else places.tokens(bounds.input_ids))
        for faults in (_of_logits, _of_ids, _of_sums, _of_tokens):
            yield from faults(entries, bounds)


def _bounds(table: pa.Table, columns: FlatColumns) -> dict[str, np.ndarray]:
    """[P] each: what must be finite, by column."""
    return {
        "top_min": columns.top.smallest,
        "top_max": columns.top.largest,
        "sampled_min": columns.sampled.smallest,
        "sampled_max": columns.sampled.largest,
        **{name: _flat(table, name) for name in _TEMPERATURES},
    }


def _decoded(table: pa.Table, columns: FlatColumns, tokens: Int64 | None) -> _Entries:
    values = _bounds(table, columns)
    return _Entries(
        columns=columns,
        decoded=decode_distributions(columns),
        logsumexps={name: values[name].astype(np.float64) for name in _TEMPERATURES},
        token_logprob=_flat(table, "token_logprob").astype(np.float64),
        top_room=_half_step(columns.top),
        sampled_room=_half_step(columns.sampled),
        usable=np.logical_and.reduce([np.isfinite(each) for each in values.values()])
        & (columns.top.smallest <= columns.top.largest)
        & (columns.sampled.smallest <= columns.sampled.largest),
        tokens=tokens,
    )


def _of_logits(entries: _Entries, bounds: Bounds) -> Iterator[Fault]:
    """Order and quantization of what is stored."""
    top, sampled = entries.columns.top, entries.columns.sampled
    yield "top_min is above top_max", top.smallest > top.largest
    yield "sampled_min is above sampled_max", sampled.smallest > sampled.largest
    yield "a sampled logit is above the nucleus", entries.usable & (sampled.largest > top.smallest)
    starts = ends_of(entries.decoded.counts)[:-1]
    first, last = top.quantized[starts], top.quantized[starts + entries.decoded.counts - 1]
    rising = np.diff(top.quantized.astype(np.int32), prepend=0) > 0
    rising[starts] = False
    rises = np.asarray(np.logical_or.reduceat(rising, starts), np.bool_)
    bad = rises | (first != _highest(top)) | (last != 0)
    yield "the nucleus' logits don't fall from top_max to top_min", entries.usable & bad
    drawn = sampled.quantized.reshape(entries.columns.drawn)
    bad = (drawn.max(1) != _highest(sampled)) | (drawn.min(1) != 0)
    yield "the samples' logits don't reach from sampled_min to sampled_max", entries.usable & bad


def _of_ids(entries: _Entries, bounds: Bounds) -> Iterator[Fault]:
    """Ids that can't be, or stand twice."""
    outside = entries.decoded.ids.max(1) >= bounds.vocab_used
    yield f"a token id is not below vocab_used, {bounds.vocab_used:,}", outside
    nucleus = np.where(entries.in_nucleus, entries.top_ids, -1)
    twice = _repeats(nucleus)
    yield "a token stands twice in the nucleus", twice
    first = _first_of_end(entries.sampled_ids)
    ended = np.arange(entries.sampled_ids.shape[1]) > first[:, None]
    distinct = np.where(ended, -1, entries.sampled_ids)
    yield "a token stands twice in the sample", _repeats(distinct)

    # Where the tail had none at all, the nucleus' last token stands in for every draw.
    last = entries.top_ids[np.arange(len(first)), entries.decoded.counts - 1]
    none = (entries.sampled_ids == last[:, None]).all(1)
    overlap = _repeats(np.concatenate([nucleus, np.where(none[:, None], -1, distinct)], 1))
    yield "a sampled token is in the nucleus", overlap & ~twice & ~_repeats(distinct)
    mass = entries.top_p.sum(1) + np.where(ended | none[:, None], 0, entries.sampled_p).sum(1)
    room = np.expm1(np.maximum(entries.top_room, entries.sampled_room)) + _ROUNDING
    ran_out = ended.any(1) | none
    bad = entries.usable & ran_out & (mass < 1 - room)
    yield "the last token is repeated though there are others to draw", bad


def _of_sums(entries: _Entries, bounds: Bounds) -> Iterator[Fault]:
    """Log-sum-exps and the probabilities they give."""
    largest = entries.columns.top.largest.astype(np.float64)
    for name, temperature in _TEMPERATURES.items():
        above = entries.logsumexps[name] - largest / temperature
        room = _ROUNDING + _FLOAT32 * np.abs(entries.logsumexps[name])
        bad = (above < -room) | (above > np.log(bounds.vocab_used) + room)
        yield f"{name} can't be the sum over logits up to top_max", entries.usable & bad
    mass = entries.top_p.sum(1)
    room = np.expm1(entries.top_room) + _ROUNDING
    yield "the nucleus has a probability above 1", entries.usable & (mass > 1 + room)
    short = (entries.decoded.counts < bounds.cap) & (mass < bounds.top_p - room)
    yield f"the nucleus has less than top_p, {bounds.top_p:g}, and is not at the cap", entries.usable & short


def _of_tokens(entries: _Entries, bounds: Bounds) -> Iterator[Fault]:
    """The log-probability of the text's own token; -inf says that its id or its logit is out of reach."""
    found = entries.token_logprob
    yield "token_logprob is no log-probability", np.isnan(found) | (found > _ROUNDING)
    lowest = -(FARTHEST + np.log(bounds.vocab_used)) * (1 + _FLOAT32) - _ROUNDING
    yield "token_logprob is below what a token can have", np.isfinite(found) & (found < lowest)
    if entries.tokens is None:
        return
    beyond = entries.tokens >= bounds.vocab_used
    yield "token_logprob is not -inf for a token outside vocab_used", beyond & ~np.isneginf(found)
    known = entries.usable & ~np.isnan(found) & (entries.tokens >= 0)
    room = _ROUNDING + _FLOAT32 * np.abs(np.where(np.isfinite(found), found, 0))
    nucleus = entries.in_nucleus & (entries.top_ids == entries.tokens[:, None])
    sample = entries.sampled_ids == entries.tokens[:, None]
    for name, same, least, distance in (
        ("nucleus", nucleus, 0, entries.top_room),
        ("sample", sample, entries.decoded.nucleus_width, entries.sampled_room),
    ):
        column = least + same.argmax(1)
        stored = entries.decoded.log_probabilities[np.arange(len(column)), column].astype(np.float64)
        bad = same.any(1) & (np.abs(found - stored) > distance + room)
        yield f"token_logprob is not what the {name} says of the token", known & bad
    outside = ~nucleus.any(1) & ~sample.any(1)
    least_kept = entries.columns.top.smallest - entries.logsumexps["logsumexp"]
    bad = known & outside & (found > least_kept + room)
    yield "token_logprob is above the nucleus, and the token not in it", bad


def _half_step(tokens: FlatTokens) -> Float64:
    """[P] the largest error of quantization."""
    return (tokens.largest.astype(np.float64) - tokens.smallest) / (2 * STEPS)


def _highest(tokens: FlatTokens) -> Int64:
    """[P] what an entry's largest logit is quantized to."""
    return np.where(tokens.largest > tokens.smallest, STEPS, 0)


def _repeats(ids: Int32) -> Mask:
    """[P] entries in whose ids [P, ...] one from 0 on stands twice."""
    ordered = np.sort(ids, 1)
    return ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(1)


def _first_of_end(ids: Int32) -> Int64:
    """[P] from which column on all ids [P, S] equal the last one."""
    other = ids[:, ::-1] != ids[:, -1:]
    return np.where(other.any(1), ids.shape[1] - other.argmax(1), 0)


def _flat(table: pa.Table, name: str) -> np.ndarray:
    return table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)


@dataclass(frozen=True)
class _Places:
    """Where the entries stand in the text."""

    input_ids: Int32
    """The texts' tokens, one row after another."""
    starts: Int64
    """[C + 1] where the rows begin and end among them."""
    rows: Int64
    """[P] the row of each entry."""
    positions: Int64
    """[P]"""
    wrong: Mask
    """[P] outside the row's text, or not behind the entry before."""

    @classmethod
    def of(cls, table: pa.Table, columns: FlatColumns) -> "_Places":
        lengths = table.column("input_ids").combine_chunks().value_lengths().to_numpy().astype(np.int64)
        positions = _flat(table, "positions").astype(np.int64)
        rows = np.repeat(np.arange(len(lengths)), np.diff(columns.ends))
        before = np.concatenate([[0], positions[:-1]])
        before[columns.ends[:-1][np.diff(columns.ends) > 0]] = 0
        wrong = (positions <= before) | (positions >= lengths[rows])
        return cls(_flat(table, "input_ids"), ends_of(lengths), rows, positions, wrong)

    def tokens(self, width: int) -> Int64:
        """[P] what stands there; -1 where the position is wrong, or the id outside the vocabulary."""
        found = np.full(len(self.rows), -1, np.int64)
        places = (self.starts[self.rows] + self.positions)[~self.wrong]
        found[~self.wrong] = self.input_ids[places]
        return np.where(found < width, found, -1)

    def foreign(self, width: int) -> Mask:
        """[P] entries of rows that hold an id outside the vocabulary."""
        outside = (self.input_ids < 0) | (self.input_ids >= width)
        return rows_with(outside, self.starts)[self.rows]
