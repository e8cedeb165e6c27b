"""Logits as the format defines them, and the one pass over the vocabulary that everything else rests on.

Legend: P positions, V vocabulary (padded to whole blocks), N blocks, W block width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 64
"""Tokens a block. Sums are taken block by block, so that a row's result doesn't depend on how many rows are
summed at once, and a token can be found by its block first."""
REACH = 700.0
"""Nats below the row's largest logit from which on a logit counts as -inf: exp(-700) is still a normal float64."""


@dataclass(frozen=True)
class Rows:
    """Some rows of logits with their exponentials."""

    logits_PV: Tensor
    """float32, -0.0 as 0.0, -inf where impossible (and in the padding of the last block)."""
    weights_PV: Tensor
    """float64, exp(logit - row maximum)."""
    maximum_P: Tensor
    """float64"""
    logsumexp_P: Tensor
    """float64, at temperature 1"""
    logsumexp_t2_P: Tensor
    """float64, of logit / 2"""
    logsumexp_t4_P: Tensor
    """float64, of logit / 4"""
    invalid_P: Tensor
    """bool: NaN, +inf, or nothing finite. Such rows are replaced by zeros."""


def read_rows(raw_PV: Tensor, vocab_used: int) -> Rows:
    """The rows as the format defines them: float32, the vocabulary's limit and the reach of 700 nats applied.

    raw_PV: [P, width], any float type; columns from `vocab_used` on are ignored.
    The pass computes exp((x - maximum) / 4), its square and its fourth power, which are the terms of the
    log-sum-exps at T = 4, 2 and 1.
    """
    logits = raw_PV[:, :vocab_used].to(torch.float32) + 0.0
    padding = -vocab_used % BLOCK
    if padding:
        logits = torch.nn.functional.pad(logits, (0, padding), value=-torch.inf)
    maximum = logits.amax(-1)
    invalid = ~torch.isfinite(maximum)
    if invalid.any():
        logits = logits.masked_fill(invalid[:, None], 0.0)
        maximum = maximum.masked_fill(invalid, 0.0)
    maximum64 = maximum.double()
    below = logits.double() - maximum64[:, None]
    impossible = below < -REACH
    logits = logits.masked_fill(impossible, -torch.inf)
    fourth_root = below.masked_fill_(impossible, -torch.inf).mul_(0.25).exp_()
    sums_t4 = block_sums(fourth_root)
    square = fourth_root.square_()
    sums_t2 = block_sums(square)
    weights = square.square_()
    sums = block_sums(weights)
    return Rows(
        logits_PV=logits,
        weights_PV=weights,
        maximum_P=maximum64,
        logsumexp_P=maximum64 + sums.sum(-1).log(),
        logsumexp_t2_P=maximum64 / 2 + sums_t2.sum(-1).log(),
        logsumexp_t4_P=maximum64 / 4 + sums_t4.sum(-1).log(),
        invalid_P=invalid,
    )


def block_sums(values_PV: Tensor) -> Tensor:
    """[P, N] sums of every block of `BLOCK` tokens."""
    return values_PV.view(values_PV.shape[0], -1, BLOCK).sum(-1)
