"""Which differences are the teacher's own rounding, and which are errors.

A teacher that reads a conversation alone, on another device or in another type, rounds otherwise than it did in the
run's padded batches: its logits move. How much shows in the extreme logits, which are stored in float32 without
quantization. They are held against what the type may round (`ROUNDING`); everything else is held against them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from teacher_logits.exploring.fidelity.figures import Figure, TailEstimate
from teacher_logits.exploring.fidelity.measures import EXTREMES


@dataclass(frozen=True)
class Rounding:
    """What a teacher's logits may be off by its rounding, in nats."""

    mean: float
    worst: float


ROUNDING = {
    "float64": Rounding(mean=1e-6, worst=1e-4),
    "float32": Rounding(mean=1e-4, worst=1e-2),
    "float16": Rounding(mean=0.015, worst=0.5),
    "bfloat16": Rounding(mean=0.1, worst=2.0),
}
"""By the coarser of the types of run and comparison, the finest first. Padded batches were seen to move the logits of
float32 teachers by up to 4e-5, those of bfloat16 teachers by up to 0.4."""
_OTHER_TYPE = 3.0
"""How many times as much where run and comparison are of different types: then the weights are rounded, too."""
FACTORS = {
    "nucleus logits": 3.0,
    "sampled logits": 3.0,
    "logsumexp": 3.0,
    "logsumexp_t2": 3.0,
    "logsumexp_t4": 3.0,
    "nucleus mass": 4.0,
    "tail mass": 4.0,
    "actual token": 4.0,
}
"""How many times the rounding of the extreme logits each may be off: on average, and twice that at worst. Log-sum-exps
move with the logits they are made of, a probability by what its logit and the log-sum-exp move together."""
_SLACK = 1e-7
"""nats or probability: less than this matters to nobody."""
_MOST_Z = 5.0
"""Standard errors that an unbiased estimate may be off."""
_NUCLEUS = 4.0
"""How many times the rounding of 99 % of the extreme logits may decide between two tokens."""
_LEAST_NUCLEUS = 2.0
"""The same in what the type may round on average: most logits may have come out as they were."""
_RELATIVE_BIAS = 1e-3
"""A bias that is a smaller share of the estimated sum matters to nobody."""


def allowed_rounding(run_dtype: str, dtype: str) -> Rounding:
    """What the teacher may round otherwise in one type than in the other, or in the same one."""
    coarser = ROUNDING[max(run_dtype, dtype, key=list(ROUNDING).index)]
    factor = 1.0 if run_dtype == dtype else _OTHER_TYPE
    return Rounding(mean=factor * coarser.mean, worst=factor * coarser.worst)


def nucleus_tolerance(extremes: Figure, allowed: Rounding) -> float:
    """Nats by which the logits of a nucleus may be off. Not more than the type explains, however wrong they are."""
    return _NUCLEUS * min(extremes.error.p99, _NUCLEUS * allowed.mean) + _LEAST_NUCLEUS * allowed.mean


def problems(figures: Mapping[str, Figure], estimates: Mapping[str, TailEstimate], allowed: Rounding) -> dict[str, str]:
    """What is wrong, by the name of the figure that shows it."""
    return _of_extremes(figures[EXTREMES], allowed) | _of_figures(figures, allowed) | _of_estimates(estimates)


def _of_extremes(extremes: Figure, allowed: Rounding) -> dict[str, str]:
    found = extremes.error
    if found.mean <= allowed.mean and found.worst <= allowed.worst:
        return {}
    return {
        EXTREMES: f"{EXTREMES}: off by {found.mean:.2g} nats on average and {found.worst:.2g} at worst (conversation "
        f"{found.index}, position {found.position}); rounding "
        f"explains {allowed.mean:g} and {allowed.worst:g}"
    }


def _of_figures(figures: Mapping[str, Figure], allowed: Rounding) -> dict[str, str]:
    found = {}
    extremes = figures[EXTREMES].error
    # Where these are themselves wrong, they explain nothing.
    mean, worst = min(extremes.mean, allowed.mean), min(extremes.worst, allowed.worst)
    for name, factor in FACTORS.items():
        if name not in figures:
            continue
        unit, beyond = figures[name].unit, figures[name].beyond
        # Few values can be moved where none of the extreme ones is, and the worst of many is worse than that of a few.
        by_chance = allowed.mean / np.sqrt(max(1, figures[name].count))
        explained = {
            "on average": factor * (mean + by_chance) + _SLACK,
            "at worst": 2 * factor * max(worst, allowed.mean) + _SLACK,
        }
        sizes = {"on average": beyond.mean, "at worst": beyond.worst}
        for words, size in sizes.items():
            if not size <= explained[words]:
                found[name] = (
                    f"{name}: off by {size:.2g} {unit} {words} beyond the format's own rounding, most at conversation "
                    f"{beyond.index}, position {beyond.position}; the teacher's explains {explained[words]:.2g}"
                )
    return found


def _of_estimates(estimates: Mapping[str, TailEstimate]) -> dict[str, str]:
    found = {}
    for name, each in estimates.items():
        bias = abs(each.estimated - each.exact)
        # NaN is beyond every bound, and a single entry has a z of 0 whatever its bias.
        explained = bias <= each.room + _RELATIVE_BIAS * abs(each.exact) or abs(each.z) <= _MOST_Z
        if np.isnan(bias) or not explained:
            found[name] = (
                f"{name}: the estimate from the samples is biased, {each.estimated:.6g} for {each.exact:.6g}, "
                f"{each.z:+.1f} standard errors"
            )
    return found
