"""Places for runs, and a process that starts them quickly."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from teacher_logits.extraction.compute_lengths import compute_lengths
from teacher_logits.hub import retries
from tests.extraction.runs import ForkServer, Place, fork_server
from tests.extraction.sorting import lengths_config
from tests.hub_server import HubServer, hub_environment
from tests.hub_server.conftest import api, server, waits

__all__ = ["api", "server", "waits"]


@pytest.fixture
def place(tiny_teacher: Path, tiny_chat: Path, tmp_path: Path) -> Place:
    """Thirty conversations, into a folder."""
    return Place(tiny_teacher, tiny_chat, tmp_path / "logits", tmp_path / "cache")


@pytest.fixture(scope="session")
def reference(tiny_teacher: Path, tiny_chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The run of `place` that nothing disturbed, a conversation at a time. Not to be changed."""
    folder = tmp_path_factory.mktemp("reference")
    found = Place(tiny_teacher, tiny_chat, folder / "logits", folder / "cache")
    found.run(max_batch_size=1)
    return found


@pytest.fixture(scope="session")
def sorted_chat(tiny_teacher: Path, tiny_chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of `place`, sorted by length. Not to be changed."""
    folder = tmp_path_factory.mktemp("sorted")
    compute_lengths(lengths_config(Place(tiny_teacher, tiny_chat, folder, folder), folder / "chat"))
    return folder / "chat"


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with fork_server(tmp_path_factory.mktemp("forks")) as found:
        yield found


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own retries come at once."""
    monkeypatch.setattr(retries, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(retries, "_LONGEST_WAIT", 0.02)
    monkeypatch.setattr(retries, "_PATIENT_WAITS", (0.01, 0.01))


@pytest.fixture
def hub_in_process(server: HubServer, api: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process find the loopback Hub, with its token in the environment as users have it."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    monkeypatch.setenv("HF_TOKEN", server.token)


@pytest.fixture(scope="session")
def hub_forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HubServer, ForkServer]]:
    """A Hub, and a process whose runs find it."""
    folder = tmp_path_factory.mktemp("hub")
    with HubServer() as server, fork_server(folder / "forks", hub_environment(server, folder / "home")) as forks:
        yield server, forks
