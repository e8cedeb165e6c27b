"""The estimator of the tail that the draw order is kept for: unbiased, and exact where the tail is short."""

from functools import cache

import numpy as np
import pytest
import torch

from teacher_logits.records import SparseDistribution
from teacher_logits.sampling import SamplingSettings, sample
from tests.sampling.statistics import ALPHA, mean_p

KEYS, WIDTH = 6000, 60


@cache
def stored_and_g(sampled_n: int, possible: int = WIDTH) -> tuple[SparseDistribution, np.ndarray, float]:
    """Draws of one row under many keys, a function g of the token, and the exact sum over the tail of p g."""
    generator = torch.Generator().manual_seed(2)
    row = torch.randn(WIDTH, generator=generator) * 1.5
    row[possible:] = -torch.inf
    g = torch.randn(WIDTH, generator=generator).double().numpy() + row.clamp(-5, 5).double().numpy()
    key = torch.arange(KEYS)
    settings = SamplingSettings(0.6, 100, sampled_n, 11, WIDTH)
    stored = sample(row.repeat(KEYS, 1), key * 0, key, key % 5, settings)
    p = torch.softmax(row.double(), 0).numpy()
    outside = np.ones(WIDTH, np.bool_)
    outside[stored.top_ids[0, : stored.top_counts[0]]] = False
    return stored, g, float((p * g)[outside].sum())


def parts(stored: SparseDistribution, g: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities [P, m] and g [P, m] of the first m draws, and W [P], from what is stored."""
    lse = stored.logsumexp[:, None]
    within = np.arange(stored.top_ids.shape[1]) < stored.top_counts[:, None]
    nucleus = np.where(within, np.exp(stored.top_logits.astype(np.float64) - lse), 0).sum(1)
    p = np.exp(stored.sampled_logits[:, :m].astype(np.float64) - lse)
    return p, g[stored.sampled_ids[:, :m]], 1 - nucleus


def des_raj(p: np.ndarray, g: np.ndarray, W: np.ndarray) -> np.ndarray:
    seen = np.cumsum(p, 1) - p
    found = np.cumsum(p * g, 1) - p * g
    return (found + (W[:, None] - seen) * g).mean(1)


def without_what_was_seen(p: np.ndarray, g: np.ndarray, W: np.ndarray) -> np.ndarray:
    return W * g.mean(1)


def renormalised(p: np.ndarray, g: np.ndarray, W: np.ndarray) -> np.ndarray:
    return W * (p * g).sum(1) / p.sum(1)


def out_of_order(p: np.ndarray, g: np.ndarray, W: np.ndarray) -> np.ndarray:
    order = np.argsort(-p, 1)
    return des_raj(np.take_along_axis(p, order, 1), np.take_along_axis(g, order, 1), W)


@pytest.mark.parametrize("m", [1, 2, 6, 12])
def test_unbiased_for_every_first_part_of_the_sample(m: int):
    stored, g, exact = stored_and_g(12)
    assert mean_p(torch.from_numpy(des_raj(*parts(stored, g, m))), exact) > ALPHA


@pytest.mark.parametrize("wrong", [without_what_was_seen, renormalised, out_of_order])
def test_wrong_estimators_are_seen(wrong):
    stored, g, exact = stored_and_g(12)
    assert mean_p(torch.from_numpy(wrong(*parts(stored, g, 12))), exact) < ALPHA


def test_exact_where_the_tail_is_short():
    """Repeats of the last draw change nothing: they are found and taken back."""
    stored, g, exact = stored_and_g(24, possible=16)
    distinct = len(set(stored.sampled_ids[0]))
    assert 3 < distinct < 16
    p, g_drawn, W = parts(stored, g, 24)
    seen = np.cumsum(p, 1) - p
    found = np.cumsum(p * g_drawn, 1) - p * g_drawn
    each = found + (W[:, None] - seen) * g_drawn
    np.testing.assert_allclose(each[:, distinct:], exact, rtol=0, atol=1e-12)


def test_nothing_where_the_tail_is_empty():
    row = torch.full((1, 50), -torch.inf)
    row[0, 4:7] = torch.tensor([1.0, 2.0, 3.0])
    one = torch.ones(1, dtype=torch.int64)
    stored = sample(row, one, one, one, SamplingSettings(1.0, 100, 24, 11, 50))
    estimate = des_raj(*parts(stored, np.arange(50.0), 24))
    assert abs(estimate[0]) < 1e-12
