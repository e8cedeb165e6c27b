"""The loopback Hub with the real client in this process, a held cache folder, and no waiting between attempts."""

import pytest

from teacher_logits.hub import retries
from tests.hub_server.conftest import api, server, waits
from tests.journal.conftest import cache

__all__ = ["api", "cache", "server", "waits"]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    """Our own retries and the client's come at once."""
    monkeypatch.setattr(retries, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(retries, "_LONGEST_WAIT", 0.02)
    monkeypatch.setattr(retries, "_PATIENT_WAITS", (0.01, 0.01))
