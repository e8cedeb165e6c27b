"""What no teacher's distribution can be, told before anything is worked out from it: exp of such numbers overflows.

`verifying` holds entries against all that the format promises; this is the part that figures and views rely on.

Legend: P entries.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teacher_logits.errors import FormatError
from teacher_logits.settings import MAX_VOCABULARY

_BOUNDS = ("logsumexp", "top_min", "top_max", "sampled_min", "sampled_max")
_TEMPERATURES = {"logsumexp": 1, "logsumexp_t2": 2, "logsumexp_t4": 4}
FARTHEST = 700
"""Logits farther below the largest count as -inf and are never stored."""
_ROOM = 1.0
"""Nats that a number may be off for rounding and more: this is about overflows, not about exactness."""


def first_impossible(columns: Mapping[str, NDArray[np.floating]]) -> tuple[str, int] | None:
    """What is wrong with the first entry that can't be, and which one it is; None where all of them can.

    columns: [P] each, top_min, top_max, sampled_min, sampled_max, logsumexp, and logsumexp_t2 and _t4 where they are
    stored.
    """
    values = {name: np.asarray(each, np.float64) for name, each in columns.items()}
    for name, found in values.items():
        wrong = np.flatnonzero(~np.isfinite(found))
        if len(wrong):
            return f"{name} is {found[wrong[0]]}", int(wrong[0])
    largest = values["top_max"]
    checks = {
        f"{kind}_{end}": (found := values[f"{kind}_{end}"], (found < largest - FARTHEST - _ROOM) | (found > top))
        for kind, end, top in (
            ("top", "min", largest),
            ("sampled", "max", largest),
            ("sampled", "min", values["sampled_max"]),
        )
    }
    for name in _TEMPERATURES.keys() & values.keys():
        above = values[name] - largest / _TEMPERATURES[name]
        room = _ROOM + np.abs(largest) * np.finfo(np.float32).eps
        checks[name] = values[name], (above < -room) | (above > np.log(MAX_VOCABULARY) + room)
    for name, (found, bad) in checks.items():
        wrong = np.flatnonzero(bad)
        if len(wrong):
            return f"{name} can't be {found[wrong[0]]:g} where top_max is {largest[wrong[0]]:g}", int(wrong[0])
    return None


def require_possible(sample: Mapping[str, Any], *tempered: str) -> None:
    """Raises FormatError where an entry of a sample can't be.

    tempered: which of logsumexp_t2 and _t4 to look at, too. Few views need them, and compare tells what is wrong there.
    """
    found = first_impossible({name: sample[name] for name in (*_BOUNDS, *tempered)})
    if found is not None:
        what, entry = found
        raise FormatError(
            f"Row {sample['index']} is damaged: {what} at its entry {entry}. Look at the dataset with verify."
        )
