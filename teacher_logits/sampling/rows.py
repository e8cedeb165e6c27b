"""Logits as the format defines them, and the one pass over the vocabulary that everything else rests on.

The pass keeps a few numbers for every block of 64 tokens. Nucleus and sample then look only into the blocks they need,
and compute those again from the logits.

Legend: P positions, V vocabulary, N blocks, W block width, T blocks looked into, X excluded tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 64
"""Tokens a block. Sums are taken block by block, so that a row's result doesn't depend on how many rows are
summed at once, and a token can be found by its block first."""
REACH = 700.0
"""Nats below the row's largest logit from which on a logit counts as -inf: exp(-700) is still a normal float64."""

_NUMBERS_AT_ONCE = 1 << 18
"""float64 numbers the pass works on at a time: two megabytes, about what a core's cache holds."""


@dataclass(frozen=True)
class Rows:
    """Rows of logits with what the pass found in them."""

    blocks_PNW: Tensor
    """The teacher's logits in their own type, whole blocks; -inf past the vocabulary in use."""
    block_maxima_PN: Tensor
    """float32"""
    block_sums_PN: Tensor
    """float64, of exp(logit - row maximum)"""
    maximum_P: Tensor
    """float64"""
    logsumexp_P: Tensor
    """float64, at temperature 1"""
    logsumexp_t2_P: Tensor
    """float64, of logit / 2"""
    logsumexp_t4_P: Tensor
    """float64, of logit / 4"""
    invalid_P: Tensor
    """bool: NaN, +inf, or nothing finite. What else is said of such rows means nothing."""

    def logits(self, rows: Tensor, blocks: Tensor) -> Tensor:
        """Logits of some blocks as the format defines them: float32, -0.0 as 0.0, -inf beyond the reach.

        rows: int64 [P'].   blocks: int64 [P', T].   Returns [P', T, W].
        """
        logits = self.blocks_PNW[rows[:, None], blocks].to(torch.float32) + 0.0
        below = logits - self.maximum_P[rows, None, None]
        return logits.masked_fill_(below < -REACH, -torch.inf)

    def weights(self, rows: Tensor, blocks: Tensor, excluded: Tensor) -> Tensor:
        """exp(logit - row maximum) of some blocks, float64 [P', T, W], 0 for excluded tokens.

        rows: int64 [P'].   blocks: int64 [P', T].   excluded: token ids, int64 [P', X].
        """
        weights = (self.logits(rows, blocks) - self.maximum_P[rows, None, None]).exp_()
        row, place, number = (blocks[:, :, None] == (excluded // BLOCK)[:, None, :]).nonzero(as_tuple=True)
        weights[row, place, excluded[row, number] % BLOCK] = 0.0
        return weights


def read_rows(logits_PV: Tensor) -> Rows:
    """Pass over rows of logits, a few at a time.

    logits_PV: [P, N * W], any float type, contiguous. The pass computes exp((x - maximum) / 4), its square and its
    fourth power, which are the terms of the log-sum-exps at T = 4, 2 and 1.
    """
    rows, width = logits_PV.shape
    at_once = max(1, min(rows, _NUMBERS_AT_ONCE // width))
    scratch = torch.empty(at_once, width, dtype=torch.float64, device=logits_PV.device)
    parts = [_pass(part, scratch[: len(part)]) for part in logits_PV.split(at_once)]
    maxima, maximum, sums_t4, sums_t2, sums = (torch.cat(each) for each in zip(*parts, strict=True))
    invalid = ~torch.isfinite(maximum)
    if invalid.any():
        maxima[invalid], maximum[invalid], sums[invalid] = 0.0, 0.0, 0.0
    return Rows(
        blocks_PNW=logits_PV.view(rows, -1, BLOCK),
        block_maxima_PN=maxima,
        block_sums_PN=sums,
        maximum_P=maximum,
        logsumexp_P=maximum + sums.sum(-1).log(),
        logsumexp_t2_P=maximum / 2 + sums_t2.log(),
        logsumexp_t4_P=maximum / 4 + sums_t4.log(),
        invalid_P=invalid,
    )


def _pass(logits_PV: Tensor, scratch_PV: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Block maxima, row maximum, the rows' sums at T = 4 and 2, block sums at T = 1."""
    logits = logits_PV.to(torch.float32)
    maxima = logits.view(len(logits), -1, BLOCK).amax(-1)
    maximum = maxima.amax(-1).double()
    below = torch.sub(logits, maximum[:, None], out=scratch_PV)
    if (logits.amin(-1) - maximum < -REACH).any():
        below.masked_fill_(below < -REACH, -torch.inf)
    blocks = below.view(len(below), -1, BLOCK)
    below.mul_(0.25).exp_()
    sums_t4 = blocks.sum(-1).sum(-1)
    below.square_()
    sums_t2 = blocks.sum(-1).sum(-1)
    below.square_()
    return maxima, maximum, sums_t4, sums_t2, blocks.sum(-1)
