"""How property tests run here: the same examples every time, nothing kept on disk, no clock."""

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings


def quick(examples: int) -> Callable[[Any], Any]:
    """A decorator for property tests of `examples` examples."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
