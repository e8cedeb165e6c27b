"""Statistics whose p-values are bounds or exact limits, and samples by the laws to be tested."""

import math
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from teacher_logits.sampling.rows import Rows, read_rows
from teacher_logits.sampling.tail import TailSample, tail_sample

ALPHA = 1e-6
"""A right implementation fails a test with less than this probability; a wrong one must fall below it."""
KEYS_AT_ONCE = 1000


def chi_square_p(counts: Tensor, probabilities: Tensor) -> float:
    """Chi-square p-value of observed counts. Cells that expect fewer than 10 are pooled; an impossible hit gives 0."""
    counts, expected = counts.double().flatten(), probabilities.double().flatten() * counts.sum()
    if counts[expected == 0].sum() > 0:
        return 0.0
    rare = expected < 10
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    counts, expected = counts[expected > 0], expected[expected > 0]
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = torch.tensor((len(counts) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, statistic / 2))


def uniform_p(values: Tensor) -> float:
    """Kolmogorov-Smirnov: how probable so uneven values are for uniforms in (0, 1), at most.

    The bound is that of Dvoretzky, Kiefer and Wolfowitz with Massart's constant.
    """
    ordered = values.double().flatten().sort().values
    n = len(ordered)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    distance = torch.maximum((steps[1:] - ordered).max(), (ordered - steps[:-1]).max())
    return min(1.0, 2 * math.exp(-2 * n * float(distance) ** 2))


def mean_p(values: Tensor, expected: float) -> float:
    """Two-sided p-value of the hypothesis that the values' mean is `expected`, by the normal limit."""
    values = values.double().flatten()
    error = float(values.std()) / math.sqrt(len(values))
    return math.erfc(abs(float(values.mean()) - expected) / error / math.sqrt(2))


def rates_p(hits: Tensor, trials: int, others: Tensor, other_trials: int) -> float:
    """p-value, times the number of rates compared, of the least alike pair of two groups of frequencies."""
    pooled = (hits + others).double() / (trials + other_trials)
    error = (pooled * (1 - pooled) * (1 / trials + 1 / other_trials)).sqrt().clamp(min=1e-12)
    z = ((hits / trials - others / other_trials).abs() / error).max()
    return min(1.0, len(hits) * math.erfc(float(z) / math.sqrt(2)))


def rows_of(weights: Tensor, copies: int) -> tuple[Rows, Tensor]:
    """`copies` rows with these probabilities [V] (V whole blocks), and what a draw from them must leave out: one token
    that had none, which takes the rest of the probability, as a nucleus does."""
    nucleus = int((weights == 0).nonzero()[0])
    logits = weights.double().log()
    logits[nucleus] = (1 - weights.double().sum()).log()
    return read_rows(logits.repeat(copies, 1)), torch.full((copies, 1), nucleus)


def draws(weights: Tensor, keys: int, sampled_n: int, seed: int = 5) -> TailSample:
    """`keys` independent draws from one tail: weights [V], V whole blocks, as probabilities."""
    parts = []
    for first in range(0, keys, KEYS_AT_ONCE):
        key = torch.arange(first, min(keys, first + KEYS_AT_ONCE))
        rows, excluded = rows_of(weights, len(key))
        parts.append(tail_sample(rows, excluded, key // 40, key % 40 + 1, seed, sampled_n))
    return TailSample(*(torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])))


def hidden_weights(tail: list[float], blocks: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Weights [blocks * 64] that are zero but at the tail's tokens, scattered in random order; and their ids."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randperm(blocks * 64, generator=generator)[: len(tail)]
    weights = torch.zeros(blocks * 64, dtype=torch.float64)
    weights[ids] = torch.tensor(tail, dtype=torch.float64)
    return weights, ids


def ranks(ids: Tensor, tokens: Tensor) -> Tensor:
    """Each id's place in `tokens`; an id that isn't there fails."""
    places = torch.full((int(max(ids.max(), tokens.max())) + 1,), -1)
    places[tokens] = torch.arange(len(tokens))
    found = places[ids]
    assert (found >= 0).all(), "drew a token of weight zero"
    return found


def order_probabilities(tail: list[float], length: int) -> Tensor:
    """Exact law of the first `length` draws without replacement, as a table with one axis a draw (Plackett-Luce)."""
    table = torch.zeros((len(tail),) * length, dtype=torch.float64)
    for order in permutations(range(len(tail)), length):
        left, probability = sorted(set(range(len(tail)))), 1.0
        for token in order:
            probability *= tail[token] / math.fsum(tail[v] for v in left)
            left.remove(token)
        table[order] = probability
    return table


def gumbel_orders(tail: list[float], trials: int, length: int, seed: int) -> Tensor:
    """[trials, length] draws by the book: one Gumbel number a token, the largest sums in falling order."""
    generator = np.random.default_rng(seed)
    perturbed = np.log(tail) + generator.gumbel(size=(trials, len(tail)))
    return torch.from_numpy(np.argsort(-perturbed, axis=1)[:, :length].copy())
