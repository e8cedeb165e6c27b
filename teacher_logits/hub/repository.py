"""What an output must be able to do, whether it lies on the Hub or in a folder."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from teacher_logits.records import Int64
from teacher_logits.settings import is_folder, local_folder

Addition = Path | bytes


@dataclass(frozen=True)
class Snapshot:
    """An output at one instant."""

    files: Mapping[str, str | None]
    """Every file by its path, with the SHA-256 of its content where that is known without reading it."""
    checkpoint: bytes | None
    """Content of checkpoint.json."""
    skipped: bytes | None
    """Content of skipped.jsonl."""

    @property
    def shards(self) -> list[str]:
        """Paths of the Parquet files under data/."""
        return sorted(path for path in self.files if path.startswith("data/") and path.endswith(".parquet"))


class Repository(Protocol):
    """An output. Failures that pass by are retried by the uploader; those that don't are raised as UploadError."""

    seconds_between_commits: float
    """How far apart commits are, where nothing presses."""
    whole_commits: bool
    """Whether all files of a commit appear at one instant."""

    @property
    def address(self) -> str:
        """Where it is, for messages."""

    @property
    def loading_name(self) -> str:
        """What `load_dataset` takes."""

    def create(self) -> None:
        """Make it exist, find out whether it can be written, and claim it for this run where that is possible."""

    def close(self) -> None:
        """Give up the claim."""

    def snapshot(self) -> Snapshot:
        """What it holds now; empty where it doesn't exist. Commits that follow expect it to be so still."""

    def read_indices(self, shard: str, rows: int) -> Int64:
        """Source numbers of a shard's rows, as they were in the last snapshot.

        rows: how many there should be, by which damage on the way is noticed. Where the shard has in fact another
        number of rows, these are given. Raises FormatError where it can't be read.
        """

    def read_bytes(self, path: str) -> bytes:
        """The content of a file, as it was in the last snapshot."""

    def missing(self, shards: Iterable[str]) -> list[str]:
        """Those of the committed shards that are gone, as far as that is cheap to know."""

    def upload(self, path: str, local: Path) -> None:
        """Bring a shard's bytes to the output ahead of its commit, where that is possible."""

    def commit(self, additions: Mapping[str, Addition], deletions: Sequence[str], message: str) -> None:
        """Add and remove files in one step. Doing it again with the same content is harmless."""


def open_repository(output: str, private: bool = False, minutes_between_commits: float = 0.0) -> Repository:
    """The output that `--output` names. Commits to a folder cost nothing and are made as soon as there is a shard."""
    from teacher_logits.hub.folder import FolderRepository
    from teacher_logits.hub.hub_repository import HubRepository

    if is_folder(output):
        return FolderRepository(local_folder(output))
    return HubRepository(output, private, 60 * minutes_between_commits)
