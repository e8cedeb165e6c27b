"""How uncertain the teacher was: the entropy of whole distributions, of which only a part is stored.

The stored tokens count with their own probabilities. What is left, the rest, has a known mass; how it is spread over
the tokens that aren't stored is not known, but can't be just any way: that gives the bounds. The draws give an
unbiased estimate between them.

Legend: n tokens of a sample, S draws each. Everything is float64 and in nats.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teacher_logits.codec.quantize import STEPS
from teacher_logits.exploring.decoding import Sample, dequantize_sampled_logits, dequantize_top_logits
from teacher_logits.exploring.possible import require_possible
from teacher_logits.exploring.runs import told
from teacher_logits.records import Float64
from teacher_logits.settings import MAX_VOCABULARY

ROUNDING = 1e-12
"""What float64 sums of probabilities may miss."""
FLOAT32 = 2.0**-24
"""What rounding to float32 may change, relative to the number."""


@dataclass(frozen=True)
class _Stored:
    """The distinct stored tokens of all entries, one after another: the nuclei, then the draws."""

    entry: NDArray[np.intp]
    log_probability: Float64
    step: Float64
    """How far a log-probability may be off: a step of the quantization."""

    def sums(self, values: Float64, entries: int) -> Float64:
        """[n]: the values added up by entry."""
        return np.bincount(self.entry, values, minlength=entries).astype(np.float64)


def entropy_bounds(sample: Sample) -> tuple[Float64, Float64]:
    """(lower, upper), [n] each: the entropy of each token's whole distribution lies between.

    With p the stored probabilities, r = 1 - sum p the mass of the rest, q the smallest probability of the nucleus:
      lower   the rest in as few tokens as can be: none of them is more probable than q
      upper   the rest spread evenly over the other M tokens of the vocabulary, r log(M / r); or, where the columns
              for temperatures are there, what the sum s of the square roots of the rest allows, 2 r log(s / r)
              (the entropy is at most that of order 1/2), which is less
    Both are moved apart by what the quantization of the logits may be off. M counts from `vocab_used` of the run;
    without it from the 262,144 ids of the format. Raises FormatError where `logsumexp_t2` can't be.
    """
    n = sample["num_tokens"]
    if not n:
        return np.zeros(0), np.zeros(0)
    stored = _stored(sample)
    p = np.exp(stored.log_probability)
    known = stored.sums(-p * stored.log_probability, n)
    slack = stored.sums(p * np.abs(1 + stored.log_probability) * stored.step, n)
    rest = 1 - stored.sums(p, n)
    doubt = stored.sums(p * stored.step, n) + ROUNDING
    least, most = np.clip(rest - doubt, 0, 1), np.clip(rest + doubt, 0, 1)

    # -x log x of a rest that is one large token may fall with its mass, by no more than the mass.
    lower = known - slack + entropy_in_fewest(least, _smallest_of_nucleus(sample)) - (most - least)
    tokens = vocabulary_of(sample.get("run") or {}) - stored.sums(np.ones_like(p), n)
    spread = entropy_if_even(most, np.maximum(tokens, 1.0))
    if "logsumexp_t2" in sample:
        require_possible(sample, "logsumexp_t2")
        spread = np.minimum(spread, entropy_of_roots(most, _roots_of_rest(sample, stored)))
    return np.maximum(lower, 0.0), known + slack + spread


def entropy_estimate(sample: Sample) -> Float64:
    """[n]: an unbiased estimate of each token's entropy, the mean of Des Raj's estimates from the draws.

    Judge it over many tokens: a single one may lie outside `entropy_bounds`, and clipping it there makes it biased.
    """
    if not sample["num_tokens"]:
        return np.zeros(0)
    totals = sample["logsumexp"]
    nuclei = [logits - total for logits, total in zip(dequantize_top_logits(sample), totals, strict=True)]
    within = np.array([-(np.exp(logp) * logp).sum() for logp in nuclei])
    tail = 1 - np.array([np.exp(logp).sum() for logp in nuclei])
    drawn = np.array(dequantize_sampled_logits(sample)) - totals[:, None]
    p = np.exp(drawn)
    terms = -p * drawn
    before, mass_before = np.cumsum(terms, axis=1) - terms, np.cumsum(p, axis=1) - p
    return within + (before - (tail[:, None] - mass_before) * drawn).mean(axis=1)


def stored_mass(sample: Sample) -> Float64:
    """[n]: the probability of all tokens stored of a distribution, the nucleus and the draws, each counted once."""
    if not sample["num_tokens"]:
        return np.zeros(0)
    stored = _stored(sample)
    return stored.sums(np.exp(stored.log_probability), sample["num_tokens"])


def _stored(sample: Sample) -> _Stored:
    totals, sizes = sample["logsumexp"], sample["top_counts"]
    drawn = np.array(sample["sampled_indices"])
    last_of_nucleus = np.array([ids[-1] for ids in sample["top_indices"]])
    # Where the tail ran out of tokens, the last draw is repeated, or the last token of the nucleus.
    new = drawn != np.concatenate([last_of_nucleus[:, None], drawn[:, :-1]], axis=1)
    nucleus, tail = np.arange(len(sizes)).repeat(sizes), np.nonzero(new)[0]
    steps = [(sample[f"{kind}_max"].astype(np.float64) - sample[f"{kind}_min"]) / STEPS for kind in ("top", "sampled")]
    entry = np.concatenate([nucleus, tail])
    logits = np.concatenate([*dequantize_top_logits(sample), np.array(dequantize_sampled_logits(sample))[new]])
    return _Stored(entry, logits - totals[entry], np.concatenate([steps[0][nucleus], steps[1][tail]]))


def _smallest_of_nucleus(sample: Sample) -> Float64:
    """[n]: no token outside the nucleus is more probable."""
    return np.minimum(np.exp(sample["top_min"].astype(np.float64) - sample["logsumexp"]), 1.0)


def vocabulary_of(run: Mapping[str, Any]) -> int:
    """Tokens that may have a probability; the most that the format holds where the run doesn't tell."""
    vocabulary = told(run, "vocab_used")
    return vocabulary if type(vocabulary) is int and 0 < vocabulary <= MAX_VOCABULARY else MAX_VOCABULARY


def entropy_in_fewest(mass: Float64, largest: Float64) -> Float64:
    """The least entropy of `mass` in tokens of at most `largest`: as many of these as fit, and what is over."""
    whole = np.floor(mass / largest)
    return whole * x_log_x(largest) + x_log_x(np.maximum(mass - whole * largest, 0.0))


def entropy_if_even(mass: Float64, tokens: Float64) -> Float64:
    """The entropy of `mass` spread evenly, m log(tokens / m); its largest value where that would fall with m."""
    return x_log_x(np.minimum(mass, tokens / np.e)) + np.minimum(mass, tokens / np.e) * np.log(tokens)


def entropy_of_roots(mass: Float64, roots: Float64) -> Float64:
    """The most entropy of `mass` whose square roots sum to `roots`: 2 m log(roots / m)."""
    mass = np.minimum(mass, roots / np.e)
    return 2 * (x_log_x(mass) + mass * np.log(np.maximum(roots, np.finfo(np.float64).tiny)))


def _roots_of_rest(sample: Sample, stored: _Stored) -> Float64:
    """[n]: the sum of the square roots of the probabilities that aren't stored, at most."""
    log_sum = sample["logsumexp_t2"].astype(np.float64)
    total = np.exp(log_sum - sample["logsumexp"] / 2)
    roots = np.exp(stored.log_probability / 2)
    doubt = total * np.abs(log_sum) * FLOAT32 + stored.sums(roots * stored.step, len(total))
    return np.maximum(total - stored.sums(roots, len(total)) + doubt, 0.0)


def x_log_x(x: Float64) -> Float64:
    """-x log x, and 0 at 0."""
    return -x * np.log(np.where(x > 0, x, 1.0))
