"""Memory beside the logits: bounded, whatever the number of rows."""

from collections.abc import Callable

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from teacher_logits.sampling import SamplingSettings, sample
from tests.sampling.rows import made_rows

WIDTH = 151_936
BOUND = 20e6
STORED = 4096
"""Bytes that what is kept of a row may take, in the groups' results and joined."""


def most_extra_bytes(work: Callable[[], object]) -> int:
    """Held by torch at one time, beside what it held before, by its own account of what it allocates."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = profiler.profiler.kineto_results.events()
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("used", [WIDTH, WIDTH - 15])
@pytest.mark.parametrize("kind", ["peaked", "flat"])
def test_thirty_two_rows(kind: str, used: int, dtype: torch.dtype):
    logits, key = made_rows(kind, 32, WIDTH, seed=1).to(dtype), torch.arange(32)
    settings = SamplingSettings(0.98, 100, 24, 42, used)
    assert 1e6 < most_extra_bytes(lambda: sample(logits, key, key, key, settings)) <= BOUND


def test_no_more_for_more_rows():
    settings = SamplingSettings(0.98, 100, 24, 42, WIDTH)

    def extra(count: int) -> int:
        logits = made_rows("peaked", 1, WIDTH, seed=1).bfloat16().expand(count, -1)
        key = torch.arange(count)
        return most_extra_bytes(lambda: sample(logits, key, key, key, settings))

    assert extra(512) <= extra(128) + (512 - 128) * STORED
