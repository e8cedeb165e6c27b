"""The slow, obvious twin of `sample`: one row at a time, Python floats, one loop a definition. Read this first.

It shares no code with the fast path; tests compare the two, benchmarks divide by it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

REACH = 700.0
ARRIVALS = 32


@dataclass(frozen=True)
class ReferenceEntry:
    """What is kept of one distribution, before packing."""

    top_ids: list[int]
    sampled_ids: list[int]
    """In the order of their draw, filled up to `sampled_n` as the format says."""
    distinct_draws: int
    perturbed: list[float]
    """Perturbed log-probabilities of the distinct draws."""
    logsumexp: float
    logsumexp_t2: float
    logsumexp_t4: float
    token_logprob: float


def reference_entry(
    logits: Sequence[float], token: int, index: int, position: int, top_p: float, cap: int, sampled_n: int, seed: int
) -> ReferenceEntry:
    """One distribution by the book. logits: [V], the vocabulary in use. Raises ValueError where none is finite."""
    x = [float(np.float32(value)) + 0.0 for value in logits]
    largest = max(x)
    if any(math.isnan(value) for value in x) or not math.isfinite(largest):
        raise ValueError("no finite logit, or one that is NaN or +inf")
    x = [value if value - largest >= -REACH else -math.inf for value in x]

    def log_sum_exp(temperature: float) -> float:
        return largest / temperature + math.log(math.fsum(math.exp((value - largest) / temperature) for value in x))

    lse = log_sum_exp(1)
    by_logit = sorted((v for v in range(len(x)) if x[v] > -math.inf), key=lambda v: (-x[v], v))
    top: list[int] = []
    mass = 0.0
    for v in by_logit[:cap]:
        if top and top_p < 1 and mass >= top_p:
            break
        top.append(v)
        mass += math.exp(x[v] - lse)

    drawn, perturbed = _race(
        {v: math.exp(x[v] - lse) for v in set(by_logit) - set(top)}, index, position, seed, sampled_n
    )
    filler = drawn[-1] if drawn else top[-1]
    return ReferenceEntry(
        top_ids=top,
        sampled_ids=drawn + [filler] * (sampled_n - len(drawn)),
        distinct_draws=len(drawn),
        perturbed=perturbed,
        logsumexp=lse,
        logsumexp_t2=log_sum_exp(2),
        logsumexp_t4=log_sum_exp(4),
        token_logprob=x[token] - lse if token < len(x) else -math.inf,
    )


def _race(
    tail: dict[int, float], index: int, position: int, seed: int, sampled_n: int
) -> tuple[list[int], list[float]]:
    """First occurrences of a Poisson process over the tail's tokens, and minus the logs of their times."""
    drawn: list[int] = []
    perturbed: list[float] = []
    clock, arrival, remaining = 0.0, 0, dict(sorted(tail.items()))
    while len(drawn) < sampled_n and remaining:
        tokens, sums = list(remaining), list(accumulate(remaining.values()))
        for _ in range(ARRIVALS):
            mark, wait = reference_uniforms(seed, index, position, arrival)
            arrival += 1
            clock += -math.log(wait) / sums[-1]
            token = next((v for v, total in zip(tokens, sums, strict=True) if total > mark * sums[-1]), tokens[-1])
            if token in remaining and len(drawn) < sampled_n:
                drawn.append(token)
                perturbed.append(-math.log(clock))
            remaining.pop(token, None)
    return drawn, perturbed


def reference_uniforms(seed: int, index: int, position: int, arrival: int) -> tuple[float, float]:
    """Mark and waiting-time uniforms of one arrival: Philox4x32-10 in Python's whole numbers."""
    words = reference_philox((index % 2**32, position, arrival, 0), (seed % 2**32, seed >> 32))
    mark, wait = (((high << 20) | (low >> 12)) + 0.5 for high, low in (words[:2], words[2:]))
    return mark / 2**52, wait / 2**52


def reference_philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 (Salmon et al. 2011): four 32-bit words for a counter of four and a key of two."""
    a, b, c, d = counter
    k, m = key
    for _ in range(10):
        left, right = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = (right >> 32) ^ b ^ k, right % 2**32, (left >> 32) ^ d ^ m, left % 2**32
        k, m = (k + 0x9E3779B9) % 2**32, (m + 0xBB67AE85) % 2**32
    return a, b, c, d


def reference_gumbel_top_k(log_probabilities: np.ndarray, k: int, generator: np.random.Generator) -> list[int]:
    """The law the race must have: one Gumbel number a token, the k largest sums in falling order."""
    perturbed = log_probabilities + generator.gumbel(size=len(log_probabilities))
    return [int(v) for v in np.argsort(-perturbed)[:k]]
