"""A Hub on the loopback address, for tests: the real client can't tell, and the network isn't needed."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from .faults import Fault, FaultPlan
from .handler import Listener, Request, RequestLog
from .repository import Blob, Commit, Repository, is_lfs
from .routes import ROUTES, STORAGE_ROUTES
from .state import HubState, Settings


class HubServer:
    """A Hub that lives in memory, from `with HubServer() as server:` to the end of the block.

    Options are those of `Settings`, and can be changed later in `server.settings`. Two sockets listen: the Hub
    at `endpoint`, and the object storage to which it signs addresses, so that redirects leave the Hub's origin
    as they do in the world. On leaving, a failure inside the server is raised.
    """

    def __init__(self, **settings: object) -> None:
        self.settings = Settings(**settings)
        self._state = HubState(self.settings)
        self._faults = FaultPlan()
        self._log = RequestLog()
        self._listeners: list[Listener] = []

    def __enter__(self) -> Self:
        hub = Listener(self._state, self._faults, self._log, ROUTES, judges_tokens=True)
        storage = Listener(self._state, self._faults, self._log, STORAGE_ROUTES, judges_tokens=False)
        self._state.endpoint, self._state.storage_endpoint = hub.endpoint, storage.endpoint
        self._listeners = [hub, storage]
        for listener in self._listeners:
            listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._state.lock:
            self._state.stopping = True
            self._state.lock.notify_all()
        for listener in self._listeners:
            listener.stop()
        failures = [failure for listener in self._listeners for failure in listener.failures]
        if failures and error is None:
            raise RuntimeError(f"the server failed in {len(failures)} of its requests") from failures[0]

    @property
    def endpoint(self) -> str:
        """Where the Hub is, without a trailing slash."""
        return self._state.endpoint

    @property
    def token(self) -> str:
        """The token that is accepted."""
        return self.settings.token

    @property
    def requests(self) -> list[Request]:
        """A copy of the log, in order of arrival, of the Hub and of its storage (`/storage/...`)."""
        return self._log.copies()

    def clear_requests(self) -> None:
        self._log.clear()

    def add_fault(self, fault: Fault) -> Fault:
        """Put a fault in force; of several that match, the one added first strikes."""
        return self._faults.add(fault)

    def clear_faults(self) -> None:
        self._faults.clear()

    def struck(self, fault: Fault) -> int:
        """How many requests a fault has struck so far."""
        return self._faults.struck(fault)

    def create_repository(
        self, repo_id: str, *, repo_type: str = "dataset", private: bool = False, gated: bool = False
    ) -> None:
        """A repository in any namespace, made without a request. Nobody may download from a gated one."""
        with self._state.lock:
            self._state.create(repo_id, repo_type, private, gated)

    def add_files(
        self, repo_id: str, files: dict[str, bytes], *, repo_type: str = "dataset", title: str = "Add files"
    ) -> Commit:
        """Commit `files` to main without a request, as someone else would; makes the repository if need be."""
        with self._state.lock:
            if (repo_type, repo_id) not in self._state.repositories:
                self._state.create(repo_id, repo_type)
            repository = self._repository(repo_id, repo_type)
            snapshot = dict(repository.head("main").files)
            for path, content in files.items():
                lfs = is_lfs(path, len(content), content[:512])
                snapshot[path] = Blob(content, lfs)
                if lfs:
                    repository.store(content)
            return repository.commit("main", title, "", snapshot)

    def files(self, repo_id: str, revision: str = "main", *, repo_type: str = "dataset") -> dict[str, bytes]:
        """Path and content of every file, `.gitattributes` of the initial commit included."""
        with self._state.lock:
            commit = self._repository(repo_id, repo_type).resolve(revision)
            return {path: blob.content for path, blob in commit.files.items()}

    def commits(self, repo_id: str, revision: str = "main", *, repo_type: str = "dataset") -> list[Commit]:
        """The history, newest first; its last is the initial commit."""
        with self._state.lock:
            return list(self._repository(repo_id, repo_type).history(revision))

    def objects(self, repo_id: str, *, repo_type: str = "dataset") -> dict[str, bytes]:
        """The large objects uploaded so far by their sha256, committed or not."""
        with self._state.lock:
            return dict(self._repository(repo_id, repo_type).objects)

    def exists(self, repo_id: str, *, repo_type: str = "dataset") -> bool:
        with self._state.lock:
            return (repo_type, repo_id) in self._state.repositories

    def is_private(self, repo_id: str, *, repo_type: str = "dataset") -> bool:
        with self._state.lock:
            return self._repository(repo_id, repo_type).private

    def _repository(self, repo_id: str, repo_type: str) -> Repository:
        try:
            return self._state.repositories[repo_type, repo_id]
        except KeyError:
            raise KeyError(f"the server has no {repo_type} {repo_id}") from None


def hub_environment(server: HubServer, home: Path, *, anonymous: bool = False) -> dict[str, str]:
    """The environment of a subprocess whose Hub is `server`.

    The client reads its endpoint and its switch for Xet when it is imported, so a process that has imported it
    can't be redirected. Settings of the caller's own Hub, its token and its caches don't come along: the cache
    is `home`, which should be a fresh folder. `anonymous` leaves out the token.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
    environment = {
        **inherited,
        "HF_ENDPOINT": server.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    return environment if anonymous else {**environment, "HF_TOKEN": server.token}
