"""Bounds and estimates of the entropy against that of the whole distributions."""

import numpy as np
import pytest
import torch

from explore_logits import get_sample, load_logit_dataset
from teacher_logits.exploring import entropy_bounds, entropy_estimate
from teacher_logits.exploring.entropy import stored_mass
from teacher_logits.records import Example
from tests.exploring.made import TEXTS, VOCABULARY, Made
from tests.exploring.page.samples import stored_sample


def exact_entropy(logits: torch.Tensor) -> np.ndarray:
    """[n], nats, of logits [n, vocabulary]."""
    return torch.distributions.Categorical(logits=logits.double()).entropy().numpy()


def sample_of(logits: torch.Tensor, **settings):
    n = len(logits)
    return stored_sample(Example(3, np.zeros(n + 1, np.int32), np.arange(1, n + 1, dtype=np.int32)), logits, **settings)


def without_temperatures(sample: dict) -> dict:
    return {name: values for name, values in sample.items() if not name.startswith("logsumexp_")}


def unlike_rows(vocabulary: int) -> torch.Tensor:
    """[60, vocabulary]: from nearly certain to nearly even, smooth and with gaps."""
    generator = torch.Generator().manual_seed(vocabulary)
    rows = torch.randn(60, vocabulary, generator=generator) * torch.linspace(0.01, 12, 60)[:, None]
    rows[::3, : vocabulary // 2] -= 20
    rows[5, 1:] = -1e4  # one token, and nothing else within reach
    rows[6, 2:] = -torch.inf
    return rows


@pytest.mark.parametrize("index", TEXTS)
def test_bounds_hold_the_entropy_of_a_stored_dataset(made: Made, index: int):
    sample, exact = get_sample(load_logit_dataset(made.folder), index=index), exact_entropy(made.logits[index])
    for given in (sample, without_temperatures(sample)):
        lower, upper = entropy_bounds(given)
        assert lower.dtype == upper.dtype == np.float64
        assert (lower <= exact).all() and (exact <= upper).all()
        rest = 1 - stored_mass(given)
        assert (upper - lower <= rest * np.log(VOCABULARY / np.maximum(rest, 1e-9)) + 0.01).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("vocabulary", [3, 9, 50, 5000])
@pytest.mark.parametrize(("top_p", "cap", "draws"), [(0.98, 100, 24), (0.5, 2, 3), (1.0, 1, 1)])
def test_bounds_hold_any_entropy(dtype: torch.dtype, vocabulary: int, top_p: float, cap: int, draws: int):
    logits = unlike_rows(vocabulary).to(dtype)
    sample, exact = sample_of(logits, top_p=top_p, cap=cap, draws=draws), exact_entropy(logits)
    lower, upper = entropy_bounds(sample)
    assert (lower <= exact).all() and (exact <= upper).all()
    looser = entropy_bounds(without_temperatures(sample))
    assert (looser[0] <= exact).all() and (exact <= looser[1]).all() and (upper <= looser[1]).all()
    if vocabulary == 5000 and draws < 24:
        assert (upper < looser[1] - 0.1).any(), "the sums of the square roots are of use"
    everything = vocabulary <= cap + draws
    if everything:
        np.testing.assert_allclose(upper - lower, 0, atol=0.01)


def test_upper_bound_is_reached_by_an_even_rest():
    logits = torch.zeros(4, 3000)
    logits[:, 0] = torch.tensor([9.0, 8.5, 8.0, 7.0])
    sample = sample_of(logits, top_p=0.5, cap=1, draws=4)
    for given in (sample, without_temperatures(sample)):
        lower, upper = entropy_bounds(given)
        np.testing.assert_allclose(upper, exact_entropy(logits), rtol=1e-4)
        assert (lower < upper - 0.1).all()
    unknown = dict(without_temperatures(sample), run={})
    assert (entropy_bounds(unknown)[1] > upper + 0.1).all(), "without the vocabulary's size it may be the largest"


def test_lower_bound_is_reached_by_a_rest_of_few():
    logits = torch.full((1, 3000), -1e4)
    logits[0, :40] = 0
    lower, upper = entropy_bounds(sample_of(logits, cap=2, draws=4))
    np.testing.assert_allclose(lower, np.log(40), rtol=1e-6)
    np.testing.assert_allclose(upper, np.log(40), rtol=1e-4)


def test_estimate_is_unbiased():
    """One distribution at 6,000 positions, each with draws of its own."""
    row = torch.randn(1, 150, generator=torch.Generator().manual_seed(1)) * 1.5
    sample = sample_of(row.expand(6000, -1).contiguous(), top_p=0.3, cap=3, draws=4)
    estimates, exact = entropy_estimate(sample), exact_entropy(row)[0]
    error = estimates.std() / np.sqrt(len(estimates))
    assert abs(estimates.mean() - exact) < 4 * error
    assert 0 < error < 0.005 * exact


@pytest.mark.parametrize("vocabulary", [3, 4, 5])
def test_estimate_is_exact_where_the_tail_has_one_token_or_none(vocabulary: int):
    logits = unlike_rows(vocabulary)
    sample = sample_of(logits, top_p=1.0, cap=4, draws=8)
    np.testing.assert_allclose(entropy_estimate(sample), exact_entropy(logits), atol=2e-3)


def test_draws_count_once_in_the_mass():
    logits = unlike_rows(9)
    np.testing.assert_allclose(stored_mass(sample_of(logits, cap=4, draws=8)), 1, atol=2e-4)
    sample = sample_of(unlike_rows(5000), top_p=0.5, cap=2, draws=3)
    probabilities = torch.softmax(unlike_rows(5000).double(), 1).numpy()
    ids = [set(sample["top_indices"][i]) | set(sample["sampled_indices"][i]) for i in range(60)]
    wanted = [probabilities[i, sorted(stored)].sum() for i, stored in enumerate(ids)]
    np.testing.assert_allclose(stored_mass(sample), wanted, atol=2e-4)


def test_nothing_stored():
    empty = {"num_tokens": 0}
    assert entropy_bounds(empty)[0].shape == entropy_estimate(empty).shape == stored_mass(empty).shape == (0,)
