"""Gumbel-max samples of what the nucleus leaves, without a random number for every token of the vocabulary.

Adding Gumbel noise to log-probabilities and taking the k largest is a race: token v arrives after an exponential
time of rate p(v), and the first k distinct arrivals are the sample; the perturbed log-probability is minus the log
of the arrival time. All arrivals together are one Poisson process of rate W = sum p(v), each of them token v with
probability p(v) / W. So it suffices to draw a few arrivals by inverse CDF and keep first occurrences. Where too few
distinct tokens arrived, the seen ones are taken out and the race goes on from where the clock stands: waiting times
have no memory, so this is exact.

Legend: P positions, N blocks, W block width, S samples, X excluded tokens, R arrivals a round, A rows still racing,
T blocks looked into, U of them different.
Sources: Maddison et al. 2014, "A* sampling"; Kool et al. 2019, arXiv 1903.06059.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from teacher_logits.sampling.noise import arrival_uniforms
from teacher_logits.sampling.rows import BLOCK, Rows

ARRIVALS = 32
"""Arrivals a round. Part of the definition of the draw: another number would give other samples."""


@dataclass(frozen=True)
class TailSample:
    """Draws of P rows in their order; entries past `counts_P` are empty (id -1, perturbed log-probability -inf)."""

    ids_PS: Tensor
    """int64"""
    perturbed_PS: Tensor
    """float64: log p + Gumbel noise, falling, p relative to the whole vocabulary"""
    counts_P: Tensor
    """int64, S unless the tail holds fewer tokens"""


def tail_sample(
    rows: Rows, excluded_PX: Tensor, index_P: Tensor, position_P: Tensor, seed: int, sampled_n: int
) -> TailSample:
    """`sampled_n` distinct tokens of each row, by the Gumbel-max trick.

    excluded_PX: int64, ids that must not be drawn (an id may stand there twice).   index_P, position_P: int64, the
    keys of the noise. Rows that are invalid get no draws.
    """
    total = len(rows.maximum_P)
    device = rows.maximum_P.device
    ids = torch.full((total, sampled_n), -1, dtype=torch.int64, device=device)
    perturbed = torch.full((total, sampled_n), -torch.inf, dtype=torch.float64, device=device)
    counts = torch.zeros(total, dtype=torch.int64, device=device)
    log_clock = torch.full((total,), -torch.inf, dtype=torch.float64, device=device)
    active = (~rows.invalid_P).nonzero()[:, 0]
    sums, excluded = rows.block_sums_PN[active], excluded_PX[active]
    taken = excluded
    arrival = 0
    while len(active):
        _take_out(rows, sums, active, excluded, taken)
        cumulative = sums.cumsum(-1)
        left = cumulative[:, -1] > 0
        if not left.all():  # else nothing need be copied
            active, sums, excluded, cumulative = active[left], sums[left], excluded[left], cumulative[left]
        marks, waits = arrival_uniforms(seed, index_P[active], position_P[active], arrival, ARRIVALS)
        arrived = _choose(rows, cumulative, active, excluded, marks)
        log_rate = cumulative[:, -1].log() + (rows.maximum_P - rows.logsumexp_P)[active]
        log_times = torch.logaddexp(log_clock[active, None], (-waits.log()).cumsum(-1).log() - log_rate[:, None])

        repeated = (arrived[:, :, None] == arrived[:, None, :]).tril(-1).any(-1)
        place = counts[active, None] + (~repeated).cumsum(-1) - 1
        row, column = (~repeated & (place < sampled_n)).nonzero(as_tuple=True)
        slot = place[row, column]
        ids[active[row], slot] = arrived[row, column]
        perturbed[active[row], slot] = -log_times[row, column]
        counts[active] = (counts[active] + (~repeated).sum(-1)).clamp(max=sampled_n)
        log_clock[active] = log_times[:, -1]

        short = counts[active] < sampled_n
        active, sums, taken = active[short], sums[short], arrived[short]
        excluded = torch.cat([excluded[short], taken], 1)
        arrival += ARRIVALS
    return TailSample(ids, perturbed, counts)


def _take_out(rows: Rows, sums_AN: Tensor, active: Tensor, excluded_AX: Tensor, taken: Tensor) -> None:
    """Compute the sums of the blocks of `taken` tokens again, without the excluded ones. (Subtracting them would leave
    rounding errors larger than a small tail.)"""
    seen = _look(rows, active, excluded_AX, taken // BLOCK)
    sums_AN[seen.row_U, seen.block_U] = seen.weights_UW.sum(-1)


def _choose(rows: Rows, cumulative_AN: Tensor, active: Tensor, excluded_AX: Tensor, marks_AR: Tensor) -> Tensor:
    """Token ids [A, R] of the active rows by inverse CDF: first the block, then the token in it."""
    target = _within(marks_AR * cumulative_AN[:, -1:], cumulative_AN[:, -1:])
    block = torch.searchsorted(cumulative_AN, target, right=True)
    before = torch.where(block > 0, cumulative_AN.gather(1, (block - 1).clamp(min=0)), 0.0)
    seen = _look(rows, active, excluded_AX, block)
    inside = seen.weights_UW.cumsum(-1)[seen.places_AT]
    target = _within(target - before, inside[:, :, -1])
    return block * BLOCK + torch.searchsorted(inside, target[:, :, None], right=True)[:, :, 0]


class _Seen(NamedTuple):
    """Blocks of the active rows, each once, however often it was named."""

    weights_UW: Tensor
    """float64, 0 for excluded tokens"""
    row_U: Tensor
    """which of the active rows"""
    block_U: Tensor
    places_AT: Tensor
    """where the blocks that were named stand among these"""


def _look(rows: Rows, active: Tensor, excluded_AX: Tensor, blocks_AT: Tensor) -> _Seen:
    """Compute the weights in some blocks of the active rows."""
    blocks = rows.block_sums_PN.shape[1]
    first_A = torch.arange(len(active), device=active.device)[:, None] * blocks
    keys_U, places = (first_A + blocks_AT).unique(return_inverse=True)
    row, block = keys_U // blocks, keys_U % blocks
    weights = rows.weights(active[row], block)
    keys_X = (first_A + excluded_AX // BLOCK).flatten()
    place = torch.searchsorted(keys_U, keys_X).clamp_(max=len(keys_U) - 1)
    there = keys_U[place] == keys_X
    weights[place[there], excluded_AX.flatten()[there] % BLOCK] = 0.0
    return _Seen(weights, row, block, places)


def _within(target: Tensor, total: Tensor) -> Tensor:
    """Targets below the whole sum, which they may reach by rounding: searching then finds a weight above zero."""
    return torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
