"""Logits as the format defines them, and the one pass over the vocabulary that everything else rests on.

The pass keeps a few numbers for every block of 64 tokens. Nucleus and sample then look only into the blocks they need,
and compute those again from the logits.

Legend: P positions, V vocabulary, N blocks, W block width, T blocks looked into, X excluded tokens.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from teacher_logits.sampling.compiled import Compiled

BLOCK = 64
"""Tokens a block. Sums are taken block by block, so that a row's result doesn't depend on how many rows are
summed at once, and a token can be found by its block first."""
REACH = 700.0
"""Nats below the row's largest logit from which on a logit counts as -inf: exp(-700) is still a normal float64."""

_BEYOND_REACH = math.nextafter(-REACH, -math.inf)
_MARGIN = -REACH + 50.0
"""exp(-50) of something is less than float64 can add to it."""
_LOG2_E = math.log2(math.e)
"""exp(x) is taken as 2 ** (x * log2(e)), several times faster than exp on a CPU. The product's rounding makes a term
wrong by |x| * 2^-53 of itself, so by less the more it counts."""
_NUMBERS_AT_ONCE = 1 << 19
"""Numbers the pass works on at a time where it isn't compiled: four megabytes of float64, about what caches hold."""


@dataclass(frozen=True)
class Rows:
    """Rows of logits with what the pass found in them."""

    logits_PV: Tensor
    """The teacher's logits in their own type (float32 in place of float64), the vocabulary in use."""
    last_PW: Tensor | None
    """The last block filled up with -inf, where the vocabulary isn't whole blocks."""
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
        logits = self._raw(rows[:, None], blocks).to(torch.float32) + 0.0
        return logits.masked_fill_(logits - self.maximum_P[rows, None, None] < -REACH, -torch.inf)

    def weights(self, rows_U: Tensor, blocks_U: Tensor) -> Tensor:
        """exp(logit - row maximum) of single blocks, float64 [U, W]. rows_U, blocks_U: int64."""
        below = self._raw(rows_U, blocks_U).double().sub_(self.maximum_P[rows_U, None])
        return torch.threshold_(below, _BEYOND_REACH, -torch.inf).mul_(_LOG2_E).exp2_()

    def _raw(self, rows: Tensor, blocks: Tensor) -> Tensor:
        """Logits of single blocks in the teacher's own type, [..., W] where the arguments broadcast to [...]."""
        whole_PNW = _whole_blocks(self.logits_PV)
        if self.last_PW is None:
            return whole_PNW[rows, blocks]
        whole = whole_PNW.shape[1]
        found = whole_PNW[rows, blocks.clamp(max=whole - 1)]
        return torch.where((blocks == whole)[..., None], self.last_PW[rows], found)


def read_rows(logits_PV: Tensor) -> Rows:
    """Pass over rows of logits.

    logits_PV: [P, V], any float type; rows may lie apart, and nothing is copied but the last block of each.
    """
    if logits_PV.dtype == torch.float64:
        logits_PV = logits_PV.to(torch.float32)
    if logits_PV.shape[1] < BLOCK:
        logits_PV = _filled(logits_PV)
    found = Found(*_pass(logits_PV))
    invalid = ~torch.isfinite(found.maximum_P)
    maximum = found.maximum_P.masked_fill_(invalid, 0.0)
    sums = found.sums_PN.masked_fill_(invalid[:, None], 0.0)
    return Rows(
        logits_PV=logits_PV,
        last_PW=_last_block(logits_PV),
        block_maxima_PN=found.maxima_PN.masked_fill_(invalid[:, None], 0.0),
        block_sums_PN=sums,
        maximum_P=maximum,
        logsumexp_P=maximum + sums.sum(-1).log(),
        logsumexp_t2_P=maximum / 2 + found.sums_t2_P.log(),
        logsumexp_t4_P=maximum / 4 + found.sums_t4_P.log(),
        invalid_P=invalid,
    )


class Found(NamedTuple):
    """What the pass finds. It computes exp((x - maximum) / 4), its square and its fourth power, which are the terms
    of the log-sum-exps at T = 4, 2 and 1."""

    maxima_PN: Tensor
    """float32, of the blocks"""
    maximum_P: Tensor
    """float64"""
    sums_t4_P: Tensor
    sums_t2_P: Tensor
    """float64, of exp((logit - row maximum) / T)"""
    sums_PN: Tensor
    """float64, of exp(logit - row maximum), block by block"""


def pass_at_once(logits_PV: Tensor) -> Found:
    """The pass in a form that a compiler can make two kernels of, which read the logits and write the result alone."""
    blocks = _filled(logits_PV).view(len(logits_PV), -1, BLOCK).to(torch.float32)
    maxima = blocks.amax(-1)
    maximum = maxima.amax(-1).double()
    below = blocks.double() - maximum[:, None, None]
    t4 = torch.exp2(torch.where(below < -REACH, -torch.inf, below) * (_LOG2_E / 4))
    t2 = t4 * t4
    return Found(maxima, maximum, t4.sum(-1).sum(-1), t2.sum(-1).sum(-1), (t2 * t2).sum(-1))


def pass_by_parts(logits_PV: Tensor) -> Found:
    """The pass step by step, over as few rows at a time as a core's cache holds, in memory that is used again."""
    rows, width = logits_PV.shape
    padded = width + -width % BLOCK
    at_once = max(1, min(rows, _NUMBERS_AT_ONCE // padded))
    shorter = torch.empty(at_once, width, dtype=torch.float32, device=logits_PV.device)
    longer = torch.empty(at_once, padded, dtype=torch.float64, device=logits_PV.device)
    parts = [_pass_over(part, shorter[: len(part)], longer[: len(part)]) for part in logits_PV.split(at_once)]
    return Found(*(torch.cat(each) for each in zip(*parts, strict=True)))


_pass = Compiled(pass_at_once, otherwise=pass_by_parts)


def _pass_over(logits_PV: Tensor, float32_PV: Tensor, float64_PV: Tensor) -> Found:
    logits = logits_PV if logits_PV.dtype == torch.float32 else float32_PV.copy_(logits_PV)
    width = logits.shape[1]
    maxima = _whole_blocks(logits).amax(-1)
    if width % BLOCK:
        maxima = torch.cat([maxima, logits[:, width - width % BLOCK :].amax(-1, keepdim=True)], 1)
    maximum = maxima.amax(-1).double()
    float64_PV[:, width:] = -torch.inf
    float64_PV[:, :width].copy_(logits)
    below = float64_PV.sub_(maximum[:, None])  # after the copy, since arithmetic between types is slow
    # Beside a block maximum above the margin, logits beyond the reach don't count in float64: they need no removing.
    if ((maxima - maximum[:, None] < _MARGIN) & (maxima > -torch.inf)).any():
        torch.threshold_(below, _BEYOND_REACH, -torch.inf)
    terms = below.mul_(_LOG2_E / 4).exp2_()
    blocks = terms.view(len(terms), -1, BLOCK)
    sums_t4 = blocks.sum(-1).sum(-1)
    terms.mul_(terms)
    sums_t2 = blocks.sum(-1).sum(-1)
    terms.mul_(terms)
    return Found(maxima, maximum, sums_t4, sums_t2, blocks.sum(-1))


def _whole_blocks(logits_PV: Tensor) -> Tensor:
    """[P, N, W] view without what is left over at the end of each row."""
    return logits_PV[:, : logits_PV.shape[1] // BLOCK * BLOCK].unflatten(1, (-1, BLOCK))


def _last_block(logits_PV: Tensor) -> Tensor | None:
    over = logits_PV.shape[1] % BLOCK
    return _filled(logits_PV[:, -over:]) if over else None


def _filled(logits_PV: Tensor) -> Tensor:
    """Filled up with -inf to whole blocks."""
    return torch.nn.functional.pad(logits_PV, (0, -logits_PV.shape[1] % BLOCK), value=-torch.inf)
