"""What the format keeps of a distribution, worked out again from the teacher's logits: by docs/format.md, in float64.

It shares no code with the sampling room. Legend: P rows, V vocabulary in use, K width of the stored nuclei,
S samples a row.
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from teacher_logits.records import Float64, Int64

if TYPE_CHECKING:
    from torch import Tensor

_REACH = 700.0
"""A logit so far below the row's largest counts as impossible."""
_NUMBERS_AT_ONCE = 1 << 21
"""Logits that are worked on at a time: 16 MB each of some float64 copies."""


@dataclass(frozen=True)
class StoredIds:
    """The ids whose logits are asked for."""

    top_P_K: Int64
    """[P, K] nuclei; past their sizes the first id again."""
    counts: Int64
    """[P] nucleus sizes."""
    sampled: Int64
    """[P, S]"""
    tokens: Int64
    """[P] the tokens that stand in the conversation."""


@dataclass(frozen=True)
class Truth:
    """What the teacher says, row by row. Log-sum-exps and logits are in nats."""

    finite: NDArray[np.bool_]
    """[P] false where the row holds NaN, +inf or nothing finite; the other fields are then undefined."""
    logsumexp: Float64
    logsumexp_t2: Float64
    logsumexp_t4: Float64
    """[P] each"""
    top_logits: Float64
    """[P, K] of the stored nuclei."""
    sampled_logits: Float64
    """[P, S]"""
    token_logprob: Float64
    """[P] -inf for an id past the vocabulary in use."""
    nucleus_mass: Float64
    """[P] of the stored nuclei."""
    own_mass: Float64
    """[P] of the nuclei that these logits have."""
    same_nucleus: NDArray[np.bool_]
    """[P] whether stored and own nucleus are the same ids in the same order."""
    rounding_needed: Float64
    """[P] how far logits must be off at least for the stored nucleus to be right; inf: it can't be."""
    tail_mass: Float64
    """[P] outside the stored nucleus."""
    tail_odd_mass: Float64
    """[P] of these, the tokens with odd ids."""
    tail_entropy: Float64
    """[P] -sum of p log p outside the stored nucleus."""
    spread_kl: Float64
    """[P] KL divergence from the teacher to: stored tokens exact, the rest's mass spread evenly over the other ids."""


def recompute(logits_PV: "Tensor", stored: StoredIds, vocab_used: int, top_p: float, cap: int) -> Truth:
    """The truth of some rows of logits, of any float type and on any device. They may be wider than the vocabulary in
    use, or narrower: ids without a logit are impossible."""
    if logits_PV.device.type == "mps":  # has no float64
        logits_PV = logits_PV.cpu()
    rows = max(1, _NUMBERS_AT_ONCE // vocab_used)
    parts = [
        _rows(logits_PV[first : first + rows], _part(stored, slice(first, first + rows)), vocab_used, top_p, cap)
        for first in range(0, len(logits_PV), rows)
    ]
    return joined(parts)


def joined(parts: list[Truth]) -> Truth:
    """The truths of rows one after another."""
    return Truth(**{each.name: np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Truth)})


def _part(stored: StoredIds, rows: slice) -> StoredIds:
    return StoredIds(stored.top_P_K[rows], stored.counts[rows], stored.sampled[rows], stored.tokens[rows])


def _rows(logits_PV: "Tensor", stored: StoredIds, vocab_used: int, top_p: float, cap: int) -> Truth:
    import torch

    device = logits_PV.device
    top_PK, sampled_PS, counts_P, token_P = (
        torch.from_numpy(ids).to(device) for ids in (stored.top_P_K, stored.sampled, stored.counts, stored.tokens)
    )
    x_PV, finite_P = _defined(logits_PV, vocab_used)
    lse_P = torch.logsumexp(x_PV, 1)
    p_PV = (x_PV - lse_P[:, None]).exp()

    kept_PV = torch.zeros_like(x_PV, dtype=torch.bool).scatter_(1, top_PK, True)
    mass_P = p_PV.where(kept_PV, 0).sum(1)
    own_ids_PK, own_P, own_mass_P = _nucleus(x_PV, p_PV, top_p, cap)
    tail_PV = p_PV.masked_fill(kept_PV, 0)
    needed_P = _rounding_needed(x_PV, p_PV, kept_PV, top_PK, counts_P, top_p, cap)

    stored_PV = kept_PV.scatter(1, sampled_PS, True)
    rest_PV = p_PV.masked_fill(stored_PV, 0)
    rest_P, others_P = rest_PV.sum(1), (~stored_PV).sum(1).clamp(min=1).double()
    even_P = rest_P * others_P.log() + torch.special.entr(rest_P)

    known_P = token_P < vocab_used
    token_logit_P = x_PV.gather(1, token_P.where(known_P, 0)[:, None])[:, 0].where(known_P, -torch.inf)
    found: dict[str, Tensor] = {
        "finite": finite_P,
        "logsumexp": lse_P,
        "logsumexp_t2": torch.logsumexp(x_PV / 2, 1),
        "logsumexp_t4": torch.logsumexp(x_PV / 4, 1),
        "top_logits": x_PV.gather(1, top_PK),
        "sampled_logits": x_PV.gather(1, sampled_PS),
        "token_logprob": token_logit_P - lse_P,
        "nucleus_mass": mass_P,
        "own_mass": own_mass_P,
        "same_nucleus": _same(own_ids_PK, own_P, top_PK, counts_P),
        "rounding_needed": needed_P,
        "tail_mass": tail_PV.sum(1),
        "tail_odd_mass": tail_PV[:, 1::2].sum(1),
        "tail_entropy": torch.special.entr(tail_PV).sum(1),
        "spread_kl": (even_P - torch.special.entr(rest_PV).sum(1)).clamp(min=0),
    }
    return Truth(**{name: values.cpu().numpy() for name, values in found.items()})


def _defined(logits_PV: "Tensor", vocab_used: int) -> tuple["Tensor", "Tensor"]:
    """float64 [P, V] as the format defines logits, and [P] whether the row can be used; zeros where it can't."""
    import torch

    x_PV = (logits_PV[:, :vocab_used].float() + 0.0).double()
    missing = vocab_used - x_PV.shape[1]
    x_PV = torch.nn.functional.pad(x_PV, (0, missing), value=-torch.inf) if missing else x_PV
    largest_P1 = x_PV.amax(1, keepdim=True)  # NaN where there is one
    finite_P1 = largest_P1.isfinite()
    x_PV = x_PV.masked_fill(x_PV - largest_P1 < -_REACH, -torch.inf)
    return x_PV.where(finite_P1, 0.0), finite_P1[:, 0]


def _nucleus(x_PV: "Tensor", p_PV: "Tensor", top_p: float, cap: int) -> tuple["Tensor", "Tensor", "Tensor"]:
    """Ids [P, cap] by falling logit, ties by rising id; how many of them are the nucleus [P]; their mass [P]."""
    wide = min(cap + 1, x_PV.shape[1])
    values, ids = x_PV.topk(wide, 1)
    ids, by_id = ids.sort(1)
    values, by_value = values.gather(1, by_id).sort(dim=1, descending=True, stable=True)
    ids = ids.gather(1, by_value)
    if wide > cap:
        # Which of several equal logits at the cap's edge topk gives is not said.
        tied = (values[:, cap - 1] == values[:, cap]).nonzero()[:, 0]
        ids[tied] = x_PV[tied].sort(dim=1, descending=True, stable=True).indices[:, :wide]
    ids = ids[:, :cap]
    p = p_PV.gather(1, ids)
    member = x_PV.gather(1, ids).isfinite()
    if top_p < 1:
        member &= p.cumsum(1) - p < top_p
    member[:, 0] = True
    return ids, member.sum(1), p.where(member, 0).sum(1)


def _same(own_PK: "Tensor", own_P: "Tensor", top_PK: "Tensor", counts_P: "Tensor") -> "Tensor":
    """[P] whether two nuclei are the same ids in the same order."""
    import torch

    width = min(own_PK.shape[1], top_PK.shape[1])
    beyond = torch.arange(width, device=own_PK.device) >= counts_P[:, None]
    return (own_P == counts_P) & ((own_PK[:, :width] == top_PK[:, :width]) | beyond).all(1)


def _rounding_needed(
    x_PV: "Tensor", p_PV: "Tensor", kept_PV: "Tensor", top_PK: "Tensor", counts_P: "Tensor", top_p: float, cap: int
) -> "Tensor":
    """[P] the least r such that logits within r of these have the stored nucleus.

    Two logits trade places if each is off by half their distance, and the nucleus' probability m moves by at most
    2 r m.
    """
    import torch

    top = x_PV.gather(1, top_PK)
    later = torch.arange(1, top.shape[1], device=top.device) < counts_P[:, None]
    rises = (top[:, 1:] - top[:, :-1]).nan_to_num(nan=0.0, posinf=torch.inf).where(later, 0).clamp(min=0)
    order = rises.amax(1) if rises.shape[1] else torch.zeros_like(top[:, 0])
    last = top.gather(1, counts_P[:, None] - 1)[:, 0]
    intruder = (x_PV.masked_fill(kept_PV, -torch.inf).amax(1) - last).nan_to_num(nan=0.0, posinf=torch.inf).clamp(min=0)

    mass = p_PV.where(kept_PV, 0).sum(1)
    before_last = mass - p_PV.gather(1, top_PK).gather(1, counts_P[:, None] - 1)[:, 0]
    most = x_PV.isfinite().sum(1).clamp(max=cap)
    short = counts_P < most
    if top_p < 1:
        crossing = torch.maximum((before_last - top_p).clamp(min=0), (top_p - mass).clamp(min=0).where(short, 0))
    else:
        crossing = torch.where(short, torch.inf, 0.0).double()
    needed = torch.maximum(torch.maximum(order, intruder), crossing) / 2
    return needed.where(counts_P <= most, torch.inf)
