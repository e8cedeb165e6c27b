"""What an entry tells of its whole distribution: the mass of its nucleus, the entropy between two bounds.

Legend: P entries, N nucleus tokens of all entries, S samples an entry. Logs are natural, entropies in nats.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from teacher_logits.codec import Entries, FlatColumns
from teacher_logits.codec.indices import ends_of
from teacher_logits.codec.quantize import STEPS
from teacher_logits.exploring.entropy import (
    FLOAT32,
    ROUNDING,
    entropy_if_even,
    entropy_in_fewest,
    entropy_of_roots,
)
from teacher_logits.exploring.possible import first_impossible
from teacher_logits.records import Float64, Int64

Numbers = NDArray[np.floating]


@dataclass(frozen=True)
class EntryBlock:
    """Some entries, at least one, with what is stored beside their logits; all but `entries` are [P]."""

    entries: Entries
    top_min: Numbers
    top_max: Numbers
    sampled_min: Numbers
    sampled_max: Numbers
    tempered: Mapping[int, Numbers]
    """The log-sum-exp at temperature 2 and 4, as far as it is stored."""

    @cached_property
    def log_probabilities(self) -> Float64:
        """[N] of the nucleus tokens, as are the next two."""
        return self.entries.top_logits - np.repeat(self.entries.logsumexp, self.entries.counts)

    @cached_property
    def probabilities(self) -> Float64:
        return np.exp(self.log_probabilities)

    @cached_property
    def roots(self) -> Float64:
        return np.sqrt(self.probabilities)

    @cached_property
    def ends(self) -> Int64:
        """[P + 1] entry i has the nucleus tokens `ends[i]` to `ends[i + 1]`."""
        return ends_of(self.entries.counts)

    def sums(self, values: Float64) -> Float64:
        """[P] the sums of [N] values over each nucleus."""
        return np.add.reduceat(values, self.ends[:-1])

    @cached_property
    def mass(self) -> Float64:
        """[P] the probability of each nucleus."""
        return self.sums(self.probabilities)

    @cached_property
    def root_sums(self) -> Float64:
        """[P]"""
        return self.sums(self.roots)

    def whole_roots(self, temperature: int) -> Float64:
        """[P] the sum over the whole vocabulary of p to the power of 1 / temperature."""
        return np.exp(self.tempered[temperature] - self.entries.logsumexp / temperature)

    def mass_at(self, temperature: int) -> Float64:
        """[P] what each nucleus holds of the distribution at temperature 2 or 4."""
        roots = self.root_sums if temperature == 2 else self.sums(np.sqrt(self.roots))
        return roots / self.whole_roots(temperature)


def require_possible(columns: FlatColumns, tempered: Mapping[int, Numbers]) -> None:
    """Raises ValueError, which names the conversation, where a log-sum-exp or a bound of the logits can't be.

    tempered: as in `EntryBlock`.
    """
    found = first_impossible(
        {
            "logsumexp": columns.logsumexp,
            "top_min": columns.top.smallest,
            "top_max": columns.top.largest,
            "sampled_min": columns.sampled.smallest,
            "sampled_max": columns.sampled.largest,
            **{f"logsumexp_t{temperature}": values for temperature, values in tempered.items()},
        }
    )
    if found is not None:
        what, entry = found
        row = int(np.searchsorted(columns.ends, entry, "right")) - 1
        raise ValueError(f"{what} in the conversation with index {columns.index[row]}")


@dataclass(frozen=True)
class Entropies:
    """Of each entry, all [P]. With r the probability that is not stored, and q the smallest in the nucleus:"""

    nucleus: Float64
    """The part of the nucleus: minus the sum of p log p over its tokens."""
    lowest: Float64
    """With r on as few tokens as can hold it: none of them is more probable than q."""
    highest: Float64
    """With r spread evenly over the M tokens that are not stored, r log(M / r); or, where the sum s of their
    probabilities' square roots is known (logsumexp_t2), 2 r log(s / r) where that is less. Both bounds are moved apart
    by what the quantization of the logits may be off."""
    estimate: Float64
    """Unbiased, from the draws (Des Raj). Trust its mean over many entries; a single one may be outside the bounds."""


def entropies(block: EntryBlock, vocabulary: int) -> Entropies:
    """The entropies of a block, as `exploring.entropy` defines them for one sample.

    vocabulary: tokens that may have a probability.
    """
    entries = block.entries
    drawn_log = entries.sampled_logits - entries.logsumexp[:, None]
    drawn = np.exp(drawn_log)
    parts = -drawn * drawn_log
    nucleus = -block.sums(block.probabilities * block.log_probabilities)
    fresh = _fresh(entries, block.ends[1:] - 1)
    drawn_once = drawn * fresh
    drawn_mass = drawn_once.sum(1)
    known = nucleus + (parts * fresh).sum(1)
    top_step = (block.top_max.astype(np.float64) - block.top_min) / STEPS
    sampled_step = (block.sampled_max.astype(np.float64) - block.sampled_min) / STEPS
    slack = top_step * block.sums(block.probabilities * np.abs(1 + block.log_probabilities))
    slack += sampled_step * (drawn_once * np.abs(1 + drawn_log)).sum(1)
    rest = 1 - block.mass - drawn_mass
    doubt = block.mass * top_step + drawn_mass * sampled_step + ROUNDING
    least, most = np.clip(rest - doubt, 0, 1), np.clip(rest + doubt, 0, 1)
    smallest = np.minimum(np.exp(block.top_min.astype(np.float64) - entries.logsumexp), 1.0)
    others = np.maximum(vocabulary - entries.counts - fresh.sum(1), 1.0)
    highest = entropy_if_even(most, others)
    if 2 in block.tempered:
        roots = np.sqrt(drawn_once)
        rest_roots = _rest_roots(block, roots.sum(1), block.root_sums * top_step + roots.sum(1) * sampled_step)
        highest = np.minimum(highest, entropy_of_roots(most, rest_roots))
    return Entropies(
        nucleus=nucleus,
        # -x log x of a rest that is one large token may fall with its mass, by no more than the mass.
        lowest=np.maximum(known - slack + entropy_in_fewest(least, smallest) - (most - least), 0.0),
        highest=known + slack + highest,
        estimate=nucleus + _tail_estimate(1 - block.mass, drawn, drawn_log, parts),
    )


def _fresh(entries: Entries, last: Int64) -> NDArray[np.bool_]:
    """[P, S] whether a draw is a token that was not seen before: where the tail ends, its last one is repeated.

    last: [P] each nucleus's last token, which is drawn where there is no tail.
    """
    before = np.concatenate([entries.top_ids[last][:, None], entries.sampled_ids[:, :-1]], 1)
    return entries.sampled_ids != before


def _rest_roots(block: EntryBlock, drawn: Float64, doubt: Float64) -> Float64:
    """[P] the sum of the square roots of the probabilities that are not stored, at most."""
    whole = block.whole_roots(2)
    doubt = doubt + whole * np.abs(block.tempered[2].astype(np.float64)) * FLOAT32
    return np.maximum(whole - block.root_sums - drawn + doubt, 0.0)


def _tail_estimate(tail: Float64, drawn: Float64, drawn_log: Float64, parts: Float64) -> Float64:
    """[P] the mean over the draws r of [sum over s < r of p_s g_s + (W - C_r) g_r], where g is -log p.

    tail: [P] W.   drawn, drawn_log, parts: [P, S] p, log p and p g of the draws.
    """
    samples = drawn.shape[1]
    seen = parts @ (np.arange(samples - 1, -1, -1) / samples)
    before = np.cumsum(drawn, 1) - drawn
    return seen - ((tail[:, None] - before) * drawn_log).mean(1)
