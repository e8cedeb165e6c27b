"""Rounding or error: what is held against what."""

import numpy as np
import pytest

from teacher_logits.exploring.fidelity.figures import Figure, Gathered, TailEstimate
from teacher_logits.exploring.fidelity.measures import EXTREMES
from teacher_logits.exploring.fidelity.verdict import FACTORS, ROUNDING, allowed_rounding, nucleus_tolerance, problems


def figure(*differences: float, of: int = 1000) -> Figure:
    """These differences, and zeros."""
    gathered = Gathered("nats")
    gathered.add(3, np.arange(of), np.array([*differences] + [0.0] * (of - len(differences))))
    return gathered.figure()


def wrong(dtype: str, extremes: Figure, **figures: Figure) -> set[str]:
    return set(problems({EXTREMES: extremes, **figures}, {}, allowed_rounding(dtype, dtype)))


@pytest.mark.parametrize("dtype", ROUNDING)
def test_extreme_logits_are_held_against_the_type(dtype: str):
    allowed = ROUNDING[dtype]
    assert not wrong(dtype, figure(*[-0.9 * allowed.mean] * 1000))
    assert wrong(dtype, figure(*[1.1 * allowed.mean] * 1000)) == {EXTREMES}
    assert not wrong(dtype, figure(0.9 * allowed.worst))
    assert wrong(dtype, figure(1.1 * allowed.worst)) == {EXTREMES}
    assert wrong(dtype, figure(np.inf)) == wrong(dtype, figure(0.0, np.nan)) == {EXTREMES}


def test_types_are_in_the_order_of_their_rounding():
    means = [rounding.mean for rounding in ROUNDING.values()]
    assert means == sorted(means) and all(each.mean < each.worst for each in ROUNDING.values())
    assert allowed_rounding("bfloat16", "bfloat16") == ROUNDING["bfloat16"]
    for one, other in (("bfloat16", "float32"), ("float32", "bfloat16")):
        mixed = allowed_rounding(one, other)
        assert (mixed.mean, mixed.worst) == pytest.approx((0.3, 6.0))


def test_the_others_are_held_against_the_extreme_logits():
    moved = figure(*[1e-5] * 1000)
    assert not wrong("float32", moved, logsumexp=figure(*[2.9e-5] * 1000))
    assert wrong("float32", moved, logsumexp=figure(*[5e-5] * 1000)) == {"logsumexp"}
    still = figure()
    assert wrong("float32", still, logsumexp=figure(*[5e-5] * 1000)) == {"logsumexp"}
    # As wrong as that, they explain nothing.
    assert wrong("float32", figure(*[0.5] * 1000), logsumexp=figure(*[0.5] * 1000)) == {EXTREMES, "logsumexp"}


def test_a_single_logit_that_moved_is_no_error_in_16_bits():
    """Of a short conversation, whose extreme logits have all stayed."""
    few = {"sampled logits": figure(0.0625, of=240), "actual token": figure(0.0625, of=10)}
    assert not wrong("bfloat16", figure(of=40), **few)
    assert wrong("float32", figure(of=40), **few) == {"sampled logits", "actual token"}


def test_a_single_number_far_off_is_seen():
    assert wrong("float32", figure(2e-5), logsumexp=figure(0.01)) == {"logsumexp"}
    assert wrong("bfloat16", figure(0.2), logsumexp=figure(3.0)) == {"logsumexp"}


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_wrong_and_named(number: float):
    allowed = allowed_rounding("bfloat16", "bfloat16")
    for name in FACTORS:
        found = problems({EXTREMES: figure(), name: figure(0.0, 0.0, number)}, {}, allowed)
        assert set(found) == {name} and "conversation 3, position 2" in found[name]
    assert "conversation 3, position 1" in problems({EXTREMES: figure(0.0, number)}, {}, allowed)[EXTREMES]


def test_nuclei_are_not_explained_by_logits_that_are_wrong():
    allowed = ROUNDING["float32"]
    tolerances = [nucleus_tolerance(figure(*[size] * 1000), allowed) for size in (0.0, 1e-5, 1.0, 1e9)]
    assert tolerances[0] < tolerances[1] < tolerances[2] == tolerances[3] < 0.01


def test_estimates():
    allowed = ROUNDING["float32"]

    def biased(**values: float) -> bool:
        sound = {"estimated": 0.11, "exact": 0.1, "standard_error": 0.001, "room": 0.0}
        return bool(problems({EXTREMES: figure()}, {"tail": TailEstimate(**(sound | values))}, allowed))

    assert biased() and biased(estimated=0.09)
    for numbers in ({"estimated": np.nan}, {"standard_error": np.nan}, {"estimated": np.nan, "standard_error": 0.0}):
        assert biased(**numbers)
    assert not biased(standard_error=0.0021)
    assert not biased(room=0.0101)
    assert not biased(estimated=0.10009, standard_error=1e-6), "less than a thousandth of it"
