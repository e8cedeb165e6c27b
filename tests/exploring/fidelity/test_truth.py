"""The definitions worked out again, against the slow reference and against plain loops."""

import math

import numpy as np
import pytest
import torch

from teacher_logits.exploring.fidelity.measures import des_raj
from teacher_logits.exploring.fidelity.truth import StoredIds, Truth, recompute
from teacher_logits.sampling.reference import ReferenceEntry, reference_entry

CAP, DRAWS = 12, 5


def rows(vocabulary: int, count: int = 40) -> torch.Tensor:
    """Flat, peaked, tied and cut-off rows."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(count, vocabulary, generator=generator) * torch.linspace(0.0, 9.0, count)[:, None]
    logits[3] = logits[3].round()
    logits[4, 5:] = logits[4, 5]
    logits[5, ::2] = -torch.inf
    logits[6] -= 701.0
    logits[6, 7] = 3.0
    logits[6, 9] = 2.0
    logits[7] = -0.0
    return logits


def references(logits: torch.Tensor, top_p: float) -> list[ReferenceEntry]:
    return [
        reference_entry(row.tolist(), place % 50, 3, place + 1, top_p, CAP, DRAWS, seed=7)
        for place, row in enumerate(logits)
    ]


def stored_of(entries: list[ReferenceEntry]) -> StoredIds:
    counts = np.array([len(entry.top_ids) for entry in entries])
    top = np.array([entry.top_ids + [entry.top_ids[0]] * (counts.max() - len(entry.top_ids)) for entry in entries])
    tokens = np.arange(len(entries)) % 50
    return StoredIds(top, counts, np.array([entry.sampled_ids for entry in entries]), tokens)


def truth_of(logits: torch.Tensor, entries: list[ReferenceEntry], top_p: float) -> Truth:
    return recompute(logits, stored_of(entries), logits.shape[1], top_p, CAP)


@pytest.mark.parametrize("top_p", [0.3, 0.98, 1.0])
@pytest.mark.parametrize("vocabulary", [60, 400])
def test_against_the_reference(vocabulary: int, top_p: float):
    logits = rows(vocabulary)
    entries = references(logits, top_p)
    truth = truth_of(logits, entries, top_p)
    assert truth.finite.all() and truth.same_nucleus.all() and (truth.rounding_needed < 1e-15).all()
    for name in ("logsumexp", "logsumexp_t2", "logsumexp_t4", "token_logprob"):
        wanted = [getattr(entry, name) for entry in entries]
        np.testing.assert_allclose(getattr(truth, name), wanted, rtol=1e-13, atol=1e-13)
    for place, (row, entry) in enumerate(zip(logits.tolist(), entries, strict=True)):
        largest = max(row)
        x = [value if value - largest >= -700 else -math.inf for value in row]
        p = [math.exp(value - entry.logsumexp) for value in x]
        tail = [token for token in range(vocabulary) if token not in entry.top_ids]
        rest = [token for token in tail if token not in entry.sampled_ids]
        assert truth.top_logits[place, : len(entry.top_ids)].tolist() == [x[token] for token in entry.top_ids]
        assert truth.sampled_logits[place].tolist() == [x[token] for token in entry.sampled_ids]
        mass = math.fsum(p[token] for token in entry.top_ids)
        remainder = math.fsum(p[token] for token in rest)
        spread = math.fsum(p[t] * math.log(p[t] * len(rest) / remainder) for t in rest if p[t])
        wanted = {
            "nucleus_mass": mass,
            "own_mass": mass,
            "tail_mass": math.fsum(p[token] for token in tail),
            "tail_odd_mass": math.fsum(p[token] for token in tail if token % 2),
            "tail_entropy": -math.fsum(p[token] * math.log(p[token]) for token in tail if p[token]),
            "spread_kl": max(0.0, spread),
        }
        for name, value in wanted.items():
            assert getattr(truth, name)[place] == pytest.approx(value, rel=1e-10, abs=1e-12), (place, name)


def test_rows_in_parts_are_the_same_rows(monkeypatch: pytest.MonkeyPatch):
    logits = rows(60)
    entries = references(logits, 0.98)
    whole = truth_of(logits, entries, 0.98)
    monkeypatch.setattr("teacher_logits.exploring.fidelity.truth._NUMBERS_AT_ONCE", 200)
    for one, other in zip(vars(whole).values(), vars(truth_of(logits, entries, 0.98)).values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_vocabulary_in_use():
    """Logits behind it don't count; ids without a logit are impossible."""
    logits = rows(60)
    entries = references(logits, 0.98)
    wide = torch.cat([logits, torch.full((len(logits), 9), 50.0)], 1)
    np.testing.assert_array_equal(
        truth_of(logits, entries, 0.98).logsumexp, recompute(wide, stored_of(entries), 60, 0.98, CAP).logsumexp
    )
    narrow = recompute(logits[:, :50], stored_of(entries), 60, 0.98, CAP)
    np.testing.assert_allclose(narrow.logsumexp, logits[:, :50].double().logsumexp(1), rtol=1e-12)
    assert np.isneginf(narrow.sampled_logits[stored_of(entries).sampled >= 50]).all()


def test_rows_without_numbers():
    logits = rows(60)
    entries = references(logits, 0.98)
    logits[1, 4], logits[2, 4], logits[8] = torch.nan, torch.inf, -torch.inf
    truth = truth_of(logits, entries, 0.98)
    assert np.flatnonzero(~truth.finite).tolist() == [1, 2, 8]
    assert np.isfinite(truth.logsumexp).all()


@pytest.mark.parametrize("rounding", [1e-3, 0.05, 0.5])
def test_rounding_explains_nuclei_of_moved_logits_and_no_others(rounding: float):
    """Of logits moved by at most r, the nuclei need a rounding of at most r; many of them need more than nothing."""
    logits = rows(400, 200)[10:]
    generator = torch.Generator().manual_seed(1)
    moved = logits + (torch.rand(logits.shape, generator=generator) * 2 - 1) * rounding
    truth = truth_of(logits, references(moved, 0.9), 0.9)
    assert truth.rounding_needed.max() <= rounding * (1 + 1e-5)
    differing = ~truth.same_nucleus
    assert differing.sum() > 1 and (truth.rounding_needed[~differing] < 1e-15).all()
    assert (truth.rounding_needed[differing] > 0).all()


def test_what_no_rounding_explains():
    logits = torch.tensor([[5.0, 4.0, 3.0, 2.0] + [-3.0] * 56]).repeat(5, 1)
    good = [0, 1, 2, 3]
    stored = {"order": [1, 0, 2, 3], "intruder": [0, 1, 2, 9], "short": [0, 1], "long": [*good, 4, 5, 6]}
    needed = {"order": 0.5, "intruder": 2.5, "short": None, "long": None}
    for name, ids in stored.items():
        ids_of_rows = StoredIds(np.array([ids]), np.array([len(ids)]), np.array([[20, 21]]), np.array([0]))
        truth = recompute(logits[:1], ids_of_rows, 60, 0.98, CAP)
        assert not truth.same_nucleus[0]
        wanted = needed[name]
        if wanted is None:
            p = torch.softmax(logits[0].double(), 0)
            held = float(p[ids].sum())
            wanted = (0.98 - held) / 2 if name == "short" else (held - float(p[ids[-1]]) - 0.98) / 2
            assert wanted > 1e-4
        assert truth.rounding_needed[0] == pytest.approx(wanted)
    for ids, top_p, cap in ((good, 1.0, CAP), (good, 0.98, 3)):
        ids_of_rows = StoredIds(np.array([ids]), np.array([len(ids)]), np.array([[20, 21]]), np.array([0]))
        assert recompute(logits[:1], ids_of_rows, 60, top_p, cap).rounding_needed[0] == np.inf


def test_des_raj_averaged_over_all_orders_of_draws_is_the_sum():
    """Every ordered pair of draws with its probability, by hand."""
    p, g = np.array([0.05, 0.2, 0.1, 0.15]), np.array([3.0, -1.0, 7.0, 0.5])
    w = p.sum()
    expected = 0.0
    for one in range(4):
        for other in set(range(4)) - {one}:
            chance = p[one] / w * p[other] / (w - p[one])
            pair = [one, other]
            expected += chance * des_raj(p[None, pair], np.array([w]), g[None, pair])[0]
    assert expected == pytest.approx((p * g).sum(), rel=1e-12)
    # Where the tail ran out the last draw stands again: still the sum, whatever came first.
    estimates = [des_raj(p[None, [a, b, b]], np.array([0.35]), g[None, [a, b, b]])[0] for a, b in ((1, 3), (3, 1))]
    assert np.average(estimates, weights=[0.2, 0.15]) == pytest.approx((p * g)[[1, 3]].sum(), rel=1e-12)
