"""Gumbel-max samples of what the nucleus leaves, without a random number for every token of the vocabulary.

Adding Gumbel noise to log-probabilities and taking the k largest is a race: token v arrives after an exponential
time of rate p(v), and the first k distinct arrivals are the sample; the perturbed log-probability is minus the log
of the arrival time. All arrivals together are one Poisson process of rate W = sum p(v), each of them token v with
probability p(v) / W. So it suffices to draw a few arrivals by inverse CDF and keep first occurrences. Where too few
distinct tokens arrived, the seen ones are taken out and the race goes on from where the clock stands: waiting times
have no memory, so this is exact.

Legend: P positions, V vocabulary (whole blocks), N blocks, W block width, S samples, R arrivals a round,
A rows still racing.
Sources: Maddison et al. 2014, "A* sampling"; Kool et al. 2019, arXiv 1903.06059.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from teacher_logits.sampling.noise import arrival_uniforms
from teacher_logits.sampling.rows import BLOCK, block_sums

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
    weights_PV: Tensor, log_scale_P: Tensor, index_P: Tensor, position_P: Tensor, seed: int, sampled_n: int
) -> TailSample:
    """`sampled_n` distinct tokens of each row, by the Gumbel-max trick.

    weights_PV: float64, the tokens' weights, 0 for tokens that must not be drawn; **overwritten**.
    log_scale_P: float64, log of probability / weight.   index_P, position_P: int64, the keys of the noise.
    """
    rows = len(weights_PV)
    device = weights_PV.device
    ids = torch.full((rows, sampled_n), -1, dtype=torch.int64, device=device)
    perturbed = torch.full((rows, sampled_n), -torch.inf, dtype=torch.float64, device=device)
    counts = torch.zeros(rows, dtype=torch.int64, device=device)
    log_clock = torch.full((rows,), -torch.inf, dtype=torch.float64, device=device)
    blocks_PNW = weights_PV.view(rows, -1, BLOCK)
    sums_PN = block_sums(weights_PV)
    active = (sums_PN.sum(-1) > 0).nonzero()[:, 0]
    arrival = 0
    while len(active):
        marks, waits = arrival_uniforms(seed, index_P[active], position_P[active], arrival, ARRIVALS)
        arrived = _choose(blocks_PNW, sums_PN[active], active, marks)
        log_rate = sums_PN[active].sum(-1).log() + log_scale_P[active]
        log_times = torch.logaddexp(log_clock[active, None], (-waits.log()).cumsum(-1).log() - log_rate[:, None])

        repeated = (arrived[:, :, None] == arrived[:, None, :]).tril(-1).any(-1)
        place = counts[active, None] + (~repeated).cumsum(-1) - 1
        row, column = (~repeated & (place < sampled_n)).nonzero(as_tuple=True)
        slot = place[row, column]
        ids[active[row], slot] = arrived[row, column]
        perturbed[active[row], slot] = -log_times[row, column]
        counts[active] = (counts[active] + (~repeated).sum(-1)).clamp(max=sampled_n)

        weights_PV[active[:, None], arrived] = 0.0
        touched = (active[:, None], arrived // BLOCK)
        sums_PN[touched] = blocks_PNW[touched].sum(-1)
        log_clock[active] = log_times[:, -1]
        active = active[(counts[active] < sampled_n) & (sums_PN[active].sum(-1) > 0)]
        arrival += ARRIVALS
    return TailSample(ids, perturbed, counts)


def _choose(blocks_PNW: Tensor, sums_AN: Tensor, active_A: Tensor, marks_AR: Tensor) -> Tensor:
    """Token ids [A, R] of the active rows by inverse CDF: first the block, then the token in it."""
    cumulative = sums_AN.cumsum(-1)
    target = marks_AR * cumulative[:, -1:]
    block = torch.searchsorted(cumulative, target, right=True)
    block = torch.minimum(block, _last_positive(sums_AN)[:, None])  # a target may round up to the whole sum
    before = torch.where(block > 0, cumulative.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks_PNW[active_A[:, None], block]
    token = (inside.cumsum(-1) <= (target - before)[:, :, None]).sum(-1)
    token = torch.minimum(token, _last_positive(inside))
    return block * BLOCK + token


def _last_positive(values: Tensor) -> Tensor:
    """Index, along the last dimension, of the last value above zero."""
    places = torch.arange(values.shape[-1], device=values.device)
    return torch.where(values > 0, places, -1).amax(-1)
