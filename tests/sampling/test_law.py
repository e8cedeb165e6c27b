"""The law of the draw, as a law: which tokens, in which order, at which times. And that wrong laws are seen."""

import numpy as np
import pytest
import torch
from torch import Tensor

from teacher_logits.sampling import SamplingSettings, sample, tail
from teacher_logits.sampling.reference import reference_gumbel_top_k
from teacher_logits.sampling.rows import BLOCK, Rows, read_rows
from teacher_logits.sampling.tail import TailSample
from tests.sampling.statistics import (
    ALPHA,
    chi_square_p,
    draws,
    gumbel_orders,
    hidden_weights,
    order_probabilities,
    ranks,
    rates_p,
    uniform_p,
)

KEYS = 16_000
EVEN = [0.02 * weight / 36 for weight in (9, 7, 5, 4, 3, 2, 2, 1, 1, 1, 0.5, 0.5)]
STEEP = [0.9, 4e-21, 3e-21, 2e-21, 1e-21, 1e-21, 1e-21]
"""The first round of arrivals brings the first token alone; the others need a second."""
CLIFFS = [0.5, 3e-30, 2e-60, 1.5e-90, 1e-90, 0.5e-90]
"""A round for each of the first three, and one for the rest."""

SLOW = [0.9, 0.012, 0.01, 0.008, 0.007, 0.006, 0.005]
"""Most rows need a second round or a third, while the clock of the first still counts."""


def shares(tail_weights: list[float]) -> Tensor:
    weights = torch.tensor(tail_weights, dtype=torch.float64)
    return weights / weights.sum()


def order_p_values(orders: Tensor, weights: list[float]) -> dict[str, float]:
    """p-values of draws, given as places in `weights` in the order of their draw [N, at least 3]."""
    count = len(weights)
    share = shares(weights)
    pairs = order_probabilities(weights, 2)
    firsts, seconds, thirds = (torch.bincount(orders[:, r], minlength=count) for r in range(3))
    book = gumbel_orders(weights, len(orders), orders.shape[1], seed=1)
    included = [torch.bincount(drawn.flatten(), minlength=count) for drawn in (orders, book)]
    pair_cells = torch.bincount(orders[:, 0] * count + orders[:, 1], minlength=count**2)
    return {
        "first": chi_square_p(firsts, share),
        "second": chi_square_p(seconds, pairs.sum(0)),
        "third": chi_square_p(thirds, order_probabilities(weights, 3).sum((0, 1))),
        "pairs": chi_square_p(pair_cells, pairs.flatten()),
        "included": rates_p(included[0], len(orders), included[1], len(orders)),
    }


def time_p_values(sampled: TailSample, orders: Tensor, weights: list[float]) -> dict[str, float]:
    """p-values of the times -log of which are the perturbed log-probabilities.

    Between one first arrival and the next lies an exponential time, of the rate that the tokens not yet seen add up
    to, whatever came before; the first perturbed log-probability is Gumbel with location log W.
    """
    left = torch.tensor(weights, dtype=torch.float64).repeat(len(orders), 1)
    times = (-sampled.perturbed_PS).exp()
    spacings = torch.diff(times, prepend=torch.zeros(len(times), 1))
    uniforms = torch.empty_like(spacings)
    for r in range(orders.shape[1]):
        uniforms[:, r] = (-spacings[:, r] * left.sum(-1)).exp()
        left.scatter_(1, orders[:, r : r + 1], 0.0)
    location = torch.tensor(weights, dtype=torch.float64).sum().log()
    commonest = orders[:, 0].mode().values
    return {
        "spacings": uniform_p(uniforms),
        "last spacing": uniform_p(uniforms[:, -1]),
        "gumbel": uniform_p((-(location - sampled.perturbed_PS[:, 0]).exp()).exp()),
        "time unrelated to token": uniform_p(uniforms[orders[:, 0] == commonest, 0]),
        "time unrelated to next": squares_p(uniforms[:, 0], uniforms[:, 1]),
    }


def squares_p(first: Tensor, second: Tensor) -> float:
    """p-value of pairs that lie evenly in the unit square, over 6 x 6 cells."""
    cells = (first * 6).long().clamp(0, 5) * 6 + (second * 6).long().clamp(0, 5)
    return chi_square_p(torch.bincount(cells, minlength=36), torch.full((36,), 1 / 36))


def all_p_values(weights: list[float], sampled_n: int = 5) -> dict[str, float]:
    hidden, ids = hidden_weights(weights)
    sampled = draws(hidden, KEYS, sampled_n)
    orders = ranks(sampled.ids_PS, ids)
    return order_p_values(orders, weights) | time_p_values(sampled, orders, weights)


def failed(p_values: dict[str, float]) -> set[str]:
    return {name for name, p in p_values.items() if p < ALPHA}


@pytest.mark.parametrize("weights", [EVEN, STEEP, CLIFFS, SLOW], ids=["even", "steep", "cliffs", "slow"])
def test_draws_obey_the_law(weights: list[float]):
    p_values = all_p_values(weights)
    assert not failed(p_values), p_values


def test_whole_order_of_a_short_tail():
    """All 120 orders of five tokens, with their exact probabilities; then the tail is empty."""
    weights = [0.3, 0.1, 0.05, 0.03, 0.02]
    hidden, ids = hidden_weights(weights, blocks=2)
    sampled = draws(hidden, KEYS, 8)
    assert (sampled.counts_P == 5).all()
    assert (sampled.ids_PS[:, 5:] == -1).all() and (sampled.perturbed_PS[:, 5:] == -torch.inf).all()
    orders = ranks(sampled.ids_PS[:, :5], ids)
    cells = orders @ torch.tensor([625, 125, 25, 5, 1])
    assert chi_square_p(torch.bincount(cells, minlength=3125), order_probabilities(weights, 5)) > ALPHA
    perturbed = sampled.perturbed_PS[:, :5]
    assert (perturbed.diff(dim=1) < 0).all() and torch.isfinite(perturbed).all()


def test_book_agrees_with_the_exact_law():
    """The simulation that frequencies are compared with is itself right, as is the reference's own."""
    pairs = order_probabilities(EVEN, 2)
    orders = gumbel_orders(EVEN, KEYS, 2, seed=3)
    assert chi_square_p(torch.bincount(orders @ torch.tensor([12, 1]), minlength=144), pairs) > ALPHA
    generator = np.random.default_rng(3)
    single = torch.tensor([reference_gumbel_top_k(np.log(EVEN), 2, generator) for _ in range(KEYS)])
    assert torch.equal(single, orders)


def test_sample_draws_from_the_tail_alone():
    """The public face: nucleus out, the rest by its true probabilities relative to one another."""
    logits = torch.linspace(4, -1, 30).repeat(6000, 1)[:, torch.randperm(30, generator=torch.manual_seed(1))]
    key = torch.arange(len(logits))
    stored = sample(logits, key * 0, key // 7, key % 7, SamplingSettings(0.75, 100, 3, 9, 30))
    count = stored.top_counts[0]
    rest = sorted(set(range(30)) - set(stored.top_ids[0, :count].tolist()))
    assert 5 < count < 15
    weights = logits[0, rest].double().exp().tolist()
    orders = ranks(torch.from_numpy(stored.sampled_ids).long(), torch.tensor(rest))
    p_values = order_p_values(orders, weights)
    assert not failed(p_values), p_values


def ignoring_weights(weights: list[float], generator: torch.Generator) -> Tensor:
    return torch.rand(KEYS, len(weights), generator=generator).argsort(-1)[:, :5]


def with_replacement(weights: list[float], generator: torch.Generator) -> Tensor:
    return torch.multinomial(shares(weights), KEYS * 5, replacement=True, generator=generator).view(KEYS, 5)


def second_draw_not_renormalised(weights: list[float], generator: torch.Generator) -> Tensor:
    """A repeat is replaced by the next token, instead of all others sharing its probability."""
    orders = with_replacement(weights, generator)
    repeated = orders[:, 1] == orders[:, 0]
    orders[repeated, 1] = (orders[repeated, 0] + 1) % len(weights)
    return orders


def in_order_of_probability(weights: list[float], generator: torch.Generator) -> Tensor:
    return gumbel_orders(weights, KEYS, 5, seed=2).sort(-1).values


def in_reverse(weights: list[float], generator: torch.Generator) -> Tensor:
    return gumbel_orders(weights, KEYS, 5, seed=2).flip(-1)


@pytest.mark.parametrize(
    ("wrong", "seen_by"),
    [
        (ignoring_weights, {"first", "second", "third", "pairs", "included"}),
        (with_replacement, {"second", "pairs"}),
        (second_draw_not_renormalised, {"second", "pairs"}),
        (in_order_of_probability, {"first", "second", "pairs"}),
        (in_reverse, {"first", "second", "pairs"}),
    ],
)
def test_wrong_orders_are_seen(wrong, seen_by: set[str]):
    orders = wrong(EVEN, torch.Generator().manual_seed(1))
    assert failed(order_p_values(orders, EVEN)) >= seen_by


def test_right_orders_by_the_book_are_not_blamed():
    assert not failed(order_p_values(gumbel_orders(EVEN, KEYS, 5, seed=2), EVEN))


def weightless_choice(patch: pytest.MonkeyPatch) -> None:
    right = Rows.weights

    def even(self: Rows, rows: Tensor, blocks: Tensor) -> Tensor:
        return (right(self, rows, blocks) > 0).double()

    patch.setattr(Rows, "weights", even)
    choose = tail._choose

    def from_even_sums(rows: Rows, cumulative: Tensor, active: Tensor, excluded: Tensor, marks: Tensor) -> Tensor:
        sums = torch.zeros_like(cumulative)
        tail._take_out(rows, sums, active, excluded, torch.arange(0, sums.shape[1] * BLOCK, BLOCK).expand_as(sums))
        return choose(rows, sums.cumsum(-1), active, excluded, marks)

    patch.setattr(tail, "_choose", from_even_sums)


def noise_again_each_round(patch: pytest.MonkeyPatch) -> None:
    right = tail.arrival_uniforms
    patch.setattr(tail, "arrival_uniforms", lambda seed, i, p, first, count: right(seed, i, p, 0, count))


def one_uniform_for_both(patch: pytest.MonkeyPatch) -> None:
    right = tail.arrival_uniforms
    patch.setattr(tail, "arrival_uniforms", lambda *key: (right(*key)[0],) * 2)


def clock_set_back_each_round(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "logaddexp", lambda clock, now: now + 0 * clock.isfinite())


def position_forgotten(patch: pytest.MonkeyPatch) -> None:
    right = tail.arrival_uniforms
    patch.setattr(tail, "arrival_uniforms", lambda seed, i, p, first, count: right(seed, i, p * 0, first, count))


def coarse_marks(patch: pytest.MonkeyPatch) -> None:
    right = tail.arrival_uniforms

    def rounded(*key):
        marks, waits = right(*key)
        return (marks * 32).floor() / 32, waits

    patch.setattr(tail, "arrival_uniforms", rounded)


@pytest.mark.parametrize(
    ("broken", "weights", "seen_by"),
    [
        (weightless_choice, EVEN, {"first", "pairs", "included"}),
        (noise_again_each_round, STEEP, {"time unrelated to next"}),
        (one_uniform_for_both, EVEN, {"time unrelated to token"}),
        (clock_set_back_each_round, SLOW, {"spacings"}),
        (position_forgotten, EVEN, {"first", "gumbel"}),
        (coarse_marks, EVEN, {"first"}),
    ],
)
def test_broken_races_are_seen(broken, weights: list[float], seen_by: set[str], monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        broken(patch)
        p_values = all_p_values(weights)
    assert failed(p_values) >= seen_by, p_values


def test_wrong_scale_of_the_perturbed_is_seen():
    """Log-probabilities relative to the tail instead of to the whole vocabulary."""
    hidden, ids = hidden_weights(EVEN)
    sampled = draws(hidden, KEYS, 3)
    shifted = TailSample(sampled.ids_PS, sampled.perturbed_PS - shares(EVEN).sum().log() + 0.1, sampled.counts_P)
    assert failed(time_p_values(shifted, ranks(sampled.ids_PS, ids), EVEN)) >= {"spacings", "gumbel"}


def test_only_differences_of_logits_matter():
    """The same distribution from shifted logits: the same draws, and the same perturbed log-probabilities."""
    logits = torch.randint(-20, 5, (50, 192), generator=torch.manual_seed(3)).float()
    key, excluded = torch.arange(50), torch.zeros(50, 1, dtype=torch.int64)
    plain = tail.tail_sample(read_rows(logits), excluded, key, key, 1, 5)
    shifted = tail.tail_sample(read_rows(logits + 512), excluded, key, key, 1, 5)
    assert torch.equal(plain.ids_PS, shifted.ids_PS)
    torch.testing.assert_close(shifted.perturbed_PS, plain.perturbed_PS, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(
    ("mark", "token"),
    [(2.0**-53, 3), (0.25, 5), (0.5 - 2.0**-53, 5), (0.5, 70), (0.75, 75), (1 - 2.0**-53, 75), (1.0, 75)],
)
def test_marks_at_the_edges_choose_tokens_of_weight(mark: float, token: int):
    """A mark on the edge between two tokens means the next; one that rounds up to the whole sum means the last."""
    logits = torch.full((1, 256), -torch.inf)
    logits[0, [3, 5, 70, 75]] = 0.0
    rows, nothing = read_rows(logits), torch.zeros(1, 0, dtype=torch.int64)
    marks = torch.tensor([[mark]], dtype=torch.float64)
    assert tail._choose(rows, rows.block_sums_PN.cumsum(-1), torch.tensor([0]), nothing, marks).tolist() == [[token]]
