"""From the teacher's logits to what is stored of them: `sample` joins nucleus, tail and log-sum-exps.

Legend: P positions, V vocabulary, K nucleus cap, S samples.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from teacher_logits.records import SparseDistribution
from teacher_logits.sampling.nucleus import Nucleus, nucleus
from teacher_logits.sampling.rows import BLOCK, REACH, Rows, read_rows
from teacher_logits.sampling.side_by_side import side_by_side
from teacher_logits.sampling.tail import TailSample, tail_sample

_ROWS_AT_ONCE, _ROWS_AT_ONCE_GPU = 64, 2048
"""Rows that are worked on together: few enough for a core's cache, enough that the work outweighs starting its many
steps on a GPU. Memory is bounded by this (on a CPU times torch's threads), not by the number of rows."""


@dataclass(frozen=True)
class SamplingSettings:
    """What decides the stored part of a distribution."""

    top_p: float
    cap: int
    sampled_n: int
    seed: int
    vocab_used: int
    """Token ids from here on count as impossible."""


def sample(
    logits_PV: Tensor, token_P: Tensor, index_P: Tensor, position_P: Tensor, settings: SamplingSettings
) -> SparseDistribution:
    """What the format keeps of each row of logits; docs/format.md defines every field.

    logits_PV: [P, width >= vocab_used], any float type, any device.   token_P: int64, the tokens that follow.
    index_P, position_P: int64, conversation and position of each row, the keys of its noise.
    Rows that hold NaN, +inf or nothing finite are marked `invalid`; nothing is raised for them.
    """
    if not len(logits_PV):
        return _empty(settings)
    on_cpu = logits_PV.device.type == "cpu"
    size = _ROWS_AT_ONCE if on_cpu else _ROWS_AT_ONCE_GPU
    columns = (logits_PV[:, : settings.vocab_used], token_P, index_P, position_P)
    tasks = [
        partial(_sample_rows, logits, token, index, position, settings)
        for logits, token, index, position in zip(*(each.split(size) for each in columns), strict=True)
    ]
    groups = side_by_side(tasks) if on_cpu else [task() for task in tasks]
    return SparseDistribution(*(torch.cat(fields).cpu().numpy() for fields in zip(*groups, strict=True)))


@torch.no_grad()
def _sample_rows(
    logits_PV: Tensor, token_P: Tensor, index_P: Tensor, position_P: Tensor, settings: SamplingSettings
) -> tuple[Tensor, ...]:
    """The fields of `SparseDistribution`, in its order, for a few rows."""
    rows = read_rows(logits_PV)
    kept = nucleus(rows, settings.top_p, settings.cap)
    drawn = tail_sample(rows, _members(kept), index_P, position_P, settings.seed, settings.sampled_n)
    sampled_ids = _fill(drawn, kept)
    return (
        kept.ids_PK.int(),
        kept.logits_PK,
        kept.counts_P.int(),
        sampled_ids.int(),
        _logits_of(rows, sampled_ids),
        rows.logsumexp_P,
        rows.logsumexp_t2_P.float(),
        rows.logsumexp_t4_P.float(),
        _token_logprob(rows, token_P, settings.vocab_used),
        rows.invalid_P,
    )


def _members(kept: Nucleus) -> Tensor:
    """Ids of the nuclei's members, as wide as the largest; the first stands in for what is missing."""
    ids = kept.ids_PK[:, : int(kept.counts_P.max())]
    member = torch.arange(ids.shape[1], device=ids.device) < kept.counts_P[:, None]
    return torch.where(member, ids, ids[:, :1])


def _logits_of(rows: Rows, ids: Tensor) -> Tensor:
    """float32 [P, n]: the logits of some tokens of each row, as the format defines them."""
    last = rows.logits_PV.shape[1] - 1  # only rows that are invalid have ids behind it
    logits = rows.logits_PV.gather(1, ids.clamp(max=last)).to(torch.float32) + 0.0
    return logits.masked_fill_(logits - rows.maximum_P[:, None] < -REACH, -torch.inf)


def _fill(drawn: TailSample, kept: Nucleus) -> Tensor:
    """Sampled ids with the last draw repeated where the tail ran out (the last nucleus token where it was empty)."""
    last_kept = kept.ids_PK.gather(1, kept.counts_P[:, None] - 1)
    last_drawn = drawn.ids_PS.gather(1, (drawn.counts_P[:, None] - 1).clamp(min=0))
    filler = torch.where(drawn.counts_P[:, None] > 0, last_drawn, last_kept)
    return torch.where(drawn.ids_PS >= 0, drawn.ids_PS, filler)


def _token_logprob(rows: Rows, token_P: Tensor, vocab_used: int) -> Tensor:
    """float32 [P]: -inf for a token past the vocabulary in use."""
    known = token_P < vocab_used
    logit = _logits_of(rows, torch.where(known, token_P, 0)[:, None])[:, 0].double()
    return torch.where(known, logit - rows.logsumexp_P, -torch.inf).float()


def _empty(settings: SamplingSettings) -> SparseDistribution:
    """No rows, with the right widths and types."""
    ids, logits = np.int32, np.float32
    cap = min(settings.cap, settings.vocab_used + -settings.vocab_used % BLOCK)
    return SparseDistribution(
        top_ids=np.zeros((0, cap), ids),
        top_logits=np.zeros((0, cap), logits),
        top_counts=np.zeros(0, ids),
        sampled_ids=np.zeros((0, settings.sampled_n), ids),
        sampled_logits=np.zeros((0, settings.sampled_n), logits),
        logsumexp=np.zeros(0, np.float64),
        logsumexp_t2=np.zeros(0, logits),
        logsumexp_t4=np.zeros(0, logits),
        token_logprob=np.zeros(0, logits),
        invalid=np.zeros(0, np.bool_),
    )
