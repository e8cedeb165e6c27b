"""A crash, or a full disk, at steps of the spool and the uploader. `benchmarks/endurance` strikes at every one."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.crash_points import Live, crash_points, strike
from tests.hub.lives import STEPS, lives
from tests.hub_server import HubServer

EACH = 7
"""One of so many points is tried here."""


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with lives() as found:
        yield found


@pytest.mark.parametrize("place", ["folder", "hub"])
def test_nothing_is_lost_or_doubled(live: Live, place: str, tmp_path: Path, server: HubServer):
    hub = server if place == "hub" else None
    points = list(crash_points(live, tmp_path / "whole", hub))
    assert len(points) > 150 and {point.step for point in points} == set(STEPS)
    chosen = random.Random(1).sample(points, len(points) // EACH)
    struck = [strike(live, point, tmp_path / f"struck-{number}", hub) for number, point in enumerate(chosen)]
    assert sum(struck) > 0.5 * len(chosen), "others were not reached, or passed by"
