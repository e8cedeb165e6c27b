"""The nucleus: the fewest most probable tokens whose probability reaches a threshold.

Legend: P positions, V vocabulary (whole blocks), N blocks, W block width, K nucleus cap.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from teacher_logits.sampling.rows import BLOCK, Rows

_ID_BITS = 18
_ID_MASK = (1 << _ID_BITS) - 1


@dataclass(frozen=True)
class Nucleus:
    """Nuclei of P rows, by falling logit; entries past `counts_P` are not part of them."""

    ids_PK: Tensor
    """int64"""
    logits_PK: Tensor
    """float32"""
    counts_P: Tensor
    """int64, at least 1"""

    @property
    def members_PK(self) -> Tensor:
        """bool: which entries count."""
        return torch.arange(self.ids_PK.shape[1], device=self.ids_PK.device) < self.counts_P[:, None]


def nucleus(rows: Rows, top_p: float, cap: int) -> Nucleus:
    """Per row, the tokens by falling logit before which less than `top_p` of the probability stands, at most `cap`.

    So the token that crosses the threshold belongs to it (a rule "cumulative sum <= top_p" would leave it out and
    hold less than it promises), and there is always at least one. Ties go to the lower id. `top_p` 1 means the cap.
    Source: Holtzman et al. 2020, arXiv 1904.09751.
    """
    ids = largest(rows.logits_PV, cap)
    logits = rows.logits_PV.gather(1, ids)
    probabilities = (logits.double() - rows.logsumexp_P[:, None]).exp()
    before = probabilities.cumsum(-1) - probabilities
    member = torch.isfinite(logits)
    if top_p < 1:
        member &= before < top_p
    return Nucleus(ids, logits, member.sum(-1).clamp(min=1))


def largest(logits_PV: Tensor, count: int) -> Tensor:
    """Ids (int64, [P, count]) of the largest logits of each row, by falling value, ties by rising id.

    They lie in the `count` blocks with the largest maxima, ties by rising block number: were one of them in another
    block, each of those `count` blocks would hold a token that stands before it. So only those blocks are searched.
    """
    rows, width = logits_PV.shape
    count = min(count, width)
    blocks = logits_PV.view(rows, -1, BLOCK)
    maxima = blocks.amax(-1)
    numbers = torch.arange(blocks.shape[1], device=logits_PV.device).expand_as(maxima)
    chosen = _id(_keys(maxima, numbers).topk(min(count, blocks.shape[1]), sorted=False).values)
    candidates = blocks.gather(1, chosen[:, :, None].expand(-1, -1, BLOCK)).flatten(1)
    ids = (chosen[:, :, None] * BLOCK + torch.arange(BLOCK, device=logits_PV.device)).flatten(1)
    return _id(_keys(candidates, ids).topk(count).values)


def _keys(values: Tensor, ids: Tensor) -> Tensor:
    """Whole numbers (int64) that order like (value rising, id falling): float32 values and ids below 2^18 in one."""
    bits = values.view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # as integers these compare like the floats they came from
    return (ordered.long() << _ID_BITS) | (_ID_MASK - ids)


def _id(keys: Tensor) -> Tensor:
    return _ID_MASK - (keys & _ID_MASK)
