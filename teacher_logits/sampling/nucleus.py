"""The nucleus: the fewest most probable tokens whose probability reaches a threshold.

Legend: P positions, N blocks, W block width, K nucleus cap.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from teacher_logits.sampling.rows import BLOCK, Rows

_ID_BITS = 18
_ID_MASK = (1 << _ID_BITS) - 1
_FIRST_LOOK = 16
"""Tokens that most nuclei stay within; only the others are searched for the whole cap."""
_LOGITS_AT_ONCE = 1 << 17
"""Logits searched at a time on a CPU, one megabyte of keys. More are several times slower, since memory for them is
fetched anew each time."""


@dataclass(frozen=True)
class Nucleus:
    """Nuclei of P rows, by falling logit; entries past `counts_P` are not part of them."""

    ids_PK: Tensor
    """int64"""
    logits_PK: Tensor
    """float32"""
    counts_P: Tensor
    """int64, at least 1"""


def nucleus(rows: Rows, top_p: float, cap: int) -> Nucleus:
    """Per row, the tokens by falling logit before which less than `top_p` of the probability stands, at most `cap`.

    So the token that crosses the threshold belongs to it (a rule "cumulative sum <= top_p" would leave it out and
    hold less than it promises), and there is always at least one. Ties go to the lower id. `top_p` 1 means the cap.
    Source: Holtzman et al. 2020, arXiv 1904.09751.
    """
    total, blocks = rows.block_maxima_PN.shape
    cap = min(cap, blocks * BLOCK)
    device = rows.maximum_P.device
    ids = torch.zeros(total, cap, dtype=torch.int64, device=device)
    logits = torch.full((total, cap), -torch.inf, dtype=torch.float32, device=device)
    counts = torch.zeros(total, dtype=torch.int64, device=device)
    open_rows = torch.arange(total, device=device)
    for width in (min(_FIRST_LOOK, cap), cap):
        at_once = len(open_rows) if device.type == "cuda" else max(1, _LOGITS_AT_ONCE // (width * BLOCK))
        looks = [largest(rows, part, width) for part in open_rows.split(at_once)]
        found_ids, found_logits = (torch.cat(each) for each in zip(*looks, strict=True))
        probabilities = (found_logits.double() - rows.logsumexp_P[open_rows, None]).exp()
        member = torch.isfinite(found_logits)
        if top_p < 1:
            member &= probabilities.cumsum(-1) - probabilities < top_p
        ids[open_rows, :width], logits[open_rows, :width] = found_ids, found_logits
        counts[open_rows] = member.sum(-1).clamp(min=1)
        open_rows = open_rows[member.all(-1)]
        if not len(open_rows):
            break
    return Nucleus(ids, logits, counts)


def largest(rows: Rows, which: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Ids (int64) and logits (float32), [P', count], of the largest logits of the rows `which`, ties by rising id.

    They lie in the `count` blocks with the largest maxima, ties by rising block number: were one of them in another
    block, each of those `count` blocks would hold a token that stands before it. So only those blocks are searched.
    """
    maxima = rows.block_maxima_PN[which] + 0.0
    numbers = torch.arange(maxima.shape[1], device=maxima.device)
    chosen = _id(_keys(maxima, numbers).topk(min(count, maxima.shape[1]), sorted=False).values)
    logits = rows.logits(which, chosen).flatten(1)
    ids = (chosen[:, :, None] * BLOCK + torch.arange(BLOCK, device=maxima.device)).flatten(1)
    best = _keys(logits, ids).topk(count)
    return _id(best.values), logits.gather(1, best.indices)


def _keys(values: Tensor, ids: Tensor) -> Tensor:
    """Whole numbers (int64) that order like (value rising, id falling): float32 values and ids below 2^18 in one.

    ids: of a shape that broadcasts to that of the values.
    """
    bits = values.view(torch.int32)
    # As integers these compare like the floats they came from.
    ordered = (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits)
    return ordered.long().bitwise_left_shift_(_ID_BITS).bitwise_or_(_ID_MASK - ids)


def _id(keys: Tensor) -> Tensor:
    return _ID_MASK - (keys & _ID_MASK)
