"""What the server knows: its settings, its repositories, and the addresses it has signed."""

import itertools
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import quote

from .messages import Call, HubError
from .repository import Repository

URL_PREFIX = {"model": "", "dataset": "datasets/"}


@dataclass
class Settings:
    """How the server behaves. A test may change these while it runs.

    token: the one that is accepted; every other gets 401.
    user, organizations: the namespaces in which the token may write; 403 elsewhere.
    page_size: the most entries in one answer of a listing (50 for expanded ones, as on the Hub).
    redirects: large files are answered with 302 to the storage, on another port, as the Hub does.
    signed_seconds: how long addresses of the storage are good for; None: for ever.
    multipart_bytes: objects above this go up in parts of this size; None: in one piece.
    commit_seconds: how long each commit takes. Another one meanwhile, on the same repository, gets 409.
    """

    token: str = "hub-server-token"
    user: str = "tester"
    organizations: tuple[str, ...] = ("team",)
    page_size: int = 1000
    redirects: bool = True
    signed_seconds: float | None = None
    multipart_bytes: int | None = None
    commit_seconds: float = 0.0


@dataclass
class Ticket:
    """A signed address: leave to put or get one object (or one part of it) without a token."""

    repository: Repository
    oid: str
    size: int
    expires: float
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass
class HubState:
    """Everything the endpoints read and write, under one lock, which they hold while they run."""

    settings: Settings
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    tickets: dict[str, Ticket] = field(default_factory=dict)
    lock: threading.Condition = field(default_factory=threading.Condition)
    stopping: bool = False
    endpoint: str = ""
    storage_endpoint: str = ""
    _ticket_numbers: itertools.count = field(default_factory=itertools.count)

    def wait(self, seconds: float) -> None:
        """Let `seconds` pass without holding the lock, or less when the server stops."""
        with self.lock:
            self.lock.wait_for(lambda: self.stopping, timeout=seconds)

    def create(self, repo_id: str, repo_type: str, private: bool = False, gated: bool = False) -> Repository:
        """A new repository; 409 with its address where there is one."""
        if repo_type not in URL_PREFIX:
            raise HubError(400, f"repositories of type {repo_type!r} are not served: only dataset and model")
        if (repo_type, repo_id) in self.repositories:
            raise HubError(409, f"You already created this {repo_type} repo: {repo_id}")
        repository = Repository(repo_id, repo_type, self.settings.user, private, gated)
        self.repositories[repo_type, repo_id] = repository
        return repository

    def readable(self, call: Call) -> Repository:
        """The repository a call names; 404 where there is none, or where it is private and no token came."""
        repo_type, repo_id = named_repository(call)
        repository = self.repositories.get((repo_type, repo_id))
        if repository is None or (repository.private and not call.authorized):
            raise HubError(404, "Repository not found", "RepoNotFound")
        return repository

    def writable(self, call: Call) -> Repository:
        """The repository a call names, if its token may write there: 401, 404 or 403."""
        self.require_token(call)
        repository = self.readable(call)
        self.require_namespace(repository.repo_id)
        return repository

    def require_token(self, call: Call) -> None:
        if not call.authorized:
            raise HubError(401, "Invalid username or password.")

    def require_namespace(self, repo_id: str) -> None:
        namespace = repo_id.split("/")[0]
        if namespace not in (self.settings.user, *self.settings.organizations):
            raise HubError(403, f"You don't have the rights to write in the namespace {namespace!r}")

    def url(self, repository: Repository) -> str:
        """The web address of a repository."""
        return f"{self.endpoint}/{URL_PREFIX[repository.repo_type]}{repository.repo_id}"

    def sign(self, repository: Repository, oid: str, size: int, action: str, suffix: str = "") -> str:
        """An address of the storage that needs no token: `/storage/{action}/{repo}/{oid}?ticket=...`."""
        expires = time.monotonic() + (self.settings.signed_seconds or 0)
        if self.settings.signed_seconds is None:
            expires = float("inf")
        ticket = f"t{next(self._ticket_numbers)}"
        self.tickets[ticket] = Ticket(repository, oid, size, expires)
        return f"{self.storage_endpoint}/storage/{action}/{quote(repository.repo_id)}/{oid}?ticket={ticket}{suffix}"

    def redeem(self, call: Call) -> Ticket:
        """The ticket of a call to the storage; 403 where it is unknown, for another object, or expired."""
        ticket = self.tickets.get(call.query.get("ticket", [""])[-1])
        if ticket is None or ticket.oid != call.parts["oid"]:
            raise HubError(403, "SignatureDoesNotMatch")
        if time.monotonic() >= ticket.expires:
            raise HubError(403, "Request has expired")
        return ticket


def named_repository(call: Call) -> tuple[str, str]:
    """(type, id) from the groups of a route: `kind` is plural in API paths, and absent for models elsewhere."""
    kind = (call.parts.get("kind") or "models").removesuffix("/").removesuffix("s")
    return kind, call.parts["repo"]
