"""Rows of logits of every kind a teacher can give, and the comparison of `sample` with its slow twin."""

import math
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from teacher_logits.records import SparseDistribution
from teacher_logits.sampling import SamplingSettings, sample
from teacher_logits.sampling.reference import reference_entry

KINDS = ("peaked", "flat", "equal", "tied", "padded", "deep", "negative zero", "one token", "steep")
DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def made_rows(kind: str, rows: int, width: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """[rows, width] logits.

    peaked: a few tokens hold nearly all the probability.   flat: nearly equal.   equal: all the same.
    tied: few distinct values.   padded: a third is -inf.   deep: down to 950 below the largest.
    negative zero: 0.0, -0.0 and their neighbours.   one token: the nucleus holds all that float64 can tell.
    steep: each token far below the one before, so that the race takes many rounds.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    order = torch.rand(rows, width, generator=generator, dtype=torch.float64).argsort(-1)
    if kind == "peaked":
        x = x * 4
        x.scatter_add_(1, order[:, :3], torch.full((rows, 3), 12.0, dtype=torch.float64))
    elif kind == "flat":
        x = x * 0.01 - 7
    elif kind == "equal":
        x = torch.full_like(x, 3.25)
    elif kind == "tied":
        x = (x * 1.5).round()
    elif kind == "padded":
        x = (x * 3).masked_fill(order < width // 3, -torch.inf)
    elif kind == "deep":
        x = 20 - 950 * torch.rand(rows, width, generator=generator, dtype=torch.float64) ** 2
        x.scatter_(1, order[:, :2], 20.0)
    elif kind == "negative zero":
        x = torch.tensor([0.0, -0.0, -1.0, -0.0])[order % 4].double()
    elif kind == "one token":
        x = x - 60
        x.scatter_(1, order[:, :1], 5.0)
    elif kind == "steep":
        x = -40.0 * order.double()
    return x.to(dtype)


def assert_like_reference(
    logits: Tensor, settings: SamplingSettings, tokens: Tensor, indices: Tensor, positions: Tensor
) -> SparseDistribution:
    """`sample` gives in every field what the slow twin gives for each row; returns what it gave."""
    stored = sample(logits, tokens, indices, positions, settings)
    keys = torch.stack([tokens, indices, positions], 1).tolist()
    for place, (row, (token, index, position)) in enumerate(zip(logits.double().tolist(), keys, strict=True)):
        x = row[: settings.vocab_used]
        truth = reference_entry(
            x, token, index, position, settings.top_p, settings.cap, settings.sampled_n, settings.seed
        )
        count = stored.top_counts[place]
        assert stored.top_ids[place, :count].tolist() == truth.top_ids
        assert stored.sampled_ids[place].tolist() == truth.sampled_ids
        assert_stored_logits(stored.top_logits[place, :count], x, truth.top_ids)
        assert_stored_logits(stored.sampled_logits[place], x, truth.sampled_ids)
        assert math.isclose(stored.logsumexp[place], truth.logsumexp, rel_tol=1e-14, abs_tol=1e-12)
        assert_float32(stored.logsumexp_t2[place], truth.logsumexp_t2)
        assert_float32(stored.logsumexp_t4[place], truth.logsumexp_t4)
        assert_float32(stored.token_logprob[place], truth.token_logprob)
        assert not stored.invalid[place]
        drawn = stored.sampled_ids[place, : truth.distinct_draws].tolist()
        assert len(set(drawn)) == len(drawn) and not set(drawn) & set(truth.top_ids)
    return stored


def assert_stored_logits(stored: np.ndarray, row: list[float], ids: list[int]) -> None:
    """The very float32 of each id, and no -0.0 or -inf among them."""
    assert stored.dtype == np.float32
    assert stored.tolist() == [float(np.float32(row[v])) for v in ids]
    assert np.isfinite(stored).all() and not np.signbit(stored[stored == 0]).any()


def assert_float32(stored: np.float32, truth: float) -> None:
    """The float32 nearest to `truth`, or its neighbour where `truth` lies between the two."""
    assert type(stored) is np.float32
    if math.isfinite(truth):
        assert abs(float(stored) - truth) <= 0.501 * float(np.spacing(np.float32(abs(truth)))) + 1e-12
    else:
        assert stored == truth


def field_bytes(stored: SparseDistribution, places: slice | list[int] = slice(None)) -> dict[str, bytes]:
    """Every field's bits at the entries `places`, nucleus fields up to the nucleus' size."""
    within = np.arange(stored.top_ids.shape[1]) < stored.top_counts[:, None]
    clean = {
        field.name: np.where(within, value, 0) if field.name in ("top_ids", "top_logits") else value
        for field in fields(stored)
        for value in [getattr(stored, field.name)]
    }
    return {name: np.ascontiguousarray(value[places]).tobytes() for name, value in clean.items()}
