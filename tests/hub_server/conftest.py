"""A server and a client for it, in one process."""

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, close_session, constants

from tests.hub_server import HubServer


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as running:
        yield running


@pytest.fixture
def api(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    """The real client with the server's token. Xet is switched off as HF_HUB_DISABLE_XET=1 would."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    close_session()  # it is shared in the process, and runs bound its patience
    return HfApi(endpoint=server.endpoint, token=server.token)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds the client meant to wait before each of its retries, which come at once here."""
    seconds: list[float] = []
    hasty = SimpleNamespace(**{**vars(time), "sleep": seconds.append})
    monkeypatch.setattr("huggingface_hub.utils._http.time", hasty)
    monkeypatch.setattr("huggingface_hub.file_download.time", hasty)
    return seconds
