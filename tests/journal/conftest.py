"""A cache folder that is held, as a run holds it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from teacher_logits.journal import RunCache


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[RunCache]:
    found = RunCache(tmp_path / "cache")
    with found.locked():
        yield found
