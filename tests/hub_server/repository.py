"""A repository in memory: blobs, commits that snapshot every file, branches and tags.

Nothing here knows of HTTP but the errors, which carry the status the Hub answers with.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from .messages import HubError, status_phrase

LFS_SUFFIXES = (
    ".arrow", ".bin", ".ckpt", ".gguf", ".gz", ".h5", ".npy", ".npz", ".onnx", ".parquet", ".pickle", ".pkl",
    ".png", ".pt", ".pth", ".safetensors", ".tar", ".zip", ".zst",
)  # fmt: skip
LFS_MIN_BYTES = 10_000_000
ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()


def is_lfs(path: str, size: int, sample: bytes) -> bool:
    """Whether a file goes to large storage: by its suffix, its size, or a null byte in its first bytes."""
    return path.endswith(LFS_SUFFIXES) or size > LFS_MIN_BYTES or b"\0" in sample


def git_hash(content: bytes) -> str:
    """The git object id of a file: sha1 over `blob {size}`, a null byte, and the content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class Blob:
    """The content of one file. In git, an `lfs` blob is a small pointer text that names the sha256."""

    content: bytes
    lfs: bool

    @property
    def size(self) -> int:
        return len(self.content)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n"
        return text.encode()

    @cached_property
    def git_oid(self) -> str:
        return git_hash(self.pointer if self.lfs else self.content)

    @property
    def etag(self) -> str:
        """What the client compares and names its cache file by: sha256 for large files, else the git oid."""
        return self.sha256 if self.lfs else self.git_oid


@dataclass(frozen=True)
class Commit:
    """A snapshot of every file, and the commit it was made on (None for the first)."""

    oid: str
    parent: str | None
    title: str
    description: str
    author: str
    date: datetime
    files: Mapping[str, Blob]

    @property
    def timestamp(self) -> str:
        return self.date.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass
class Repository:
    """Named branches and tags over a store of commits, with the large objects uploaded so far.

    A new one starts, as on the Hub, with an "initial commit" that holds `.gitattributes`.
    """

    repo_id: str
    repo_type: str
    author: str
    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    committing: bool = False

    def __post_init__(self) -> None:
        self._append("main", None, "initial commit", "", {".gitattributes": Blob(ATTRIBUTES, lfs=False)})

    def resolve(self, revision: str, commits_behind: int = 0) -> Commit:
        """The commit that a branch, a tag or a full oid names, or an ancestor of it where reads lag behind."""
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        commit = self.commits[oid]
        for _ in range(commits_behind):
            commit = self.commits[commit.parent] if commit.parent else commit
        return commit

    def history(self, revision: str) -> Iterator[Commit]:
        """The commit and its ancestors, newest first."""
        commit: Commit | None = self.resolve(revision)
        while commit is not None:
            yield commit
            commit = self.commits[commit.parent] if commit.parent else None

    def last_change(self, commit: Commit, path: str) -> Commit:
        """The commit that gave `path`, a file or a folder, the content it has in `commit`."""
        present = contents_below(commit.files, path)
        for ancestor in self.history(commit.oid):
            if contents_below(ancestor.files, path) != present:
                break
            commit = ancestor
        return commit

    def commit(self, branch: str, title: str, description: str, files: dict[str, Blob]) -> Commit:
        """Make `files` the content of `branch`; the current head where nothing changes."""
        head = self.head(branch)
        if files == dict(head.files):
            return head
        return self._append(branch, head.oid, title, description, files)

    def head(self, branch: str, expected: str | None = None) -> Commit:
        """The newest commit of a branch, to which the next one is added.

        Raises 400 where `branch` names a tag or an oid, 412 where the head isn't the `expected` one.
        """
        commit = self.resolve(branch)
        if branch not in self.branches:
            raise HubError(400, f"{branch} is not a branch: commits go to branches only")
        if expected not in (None, commit.oid):
            raise HubError(412, status_phrase(412))
        return commit

    def store(self, content: bytes) -> None:
        """Keep a large object, so that commits can name it by its sha256."""
        self.objects[hashlib.sha256(content).hexdigest()] = content

    def _append(self, branch: str, parent: str | None, title: str, description: str, files: dict[str, Blob]) -> Commit:
        date = datetime.now(UTC)
        tree = sorted((path, blob.git_oid) for path, blob in files.items())
        seed = json.dumps([self.repo_id, parent, title, description, date.isoformat(), len(self.commits), tree])
        oid = hashlib.sha1(seed.encode()).hexdigest()
        commit = Commit(oid, parent, title, description, self.author, date, dict(files))
        self.commits[oid] = commit
        self.branches[branch] = oid
        return commit


def contents_below(files: Mapping[str, Blob], path: str) -> dict[str, str]:
    """The git oids of a file, or of every file of a folder, by path."""
    return {name: blob.git_oid for name, blob in files.items() if name == path or name.startswith(f"{path}/")}
