"""An output in a local folder."""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from teacher_logits.errors import OutputError, UploadError
from teacher_logits.files import PUBLIC_FILE, copy_file, remove_leftovers, write_bytes
from teacher_logits.hub.checkpoint import CARD_FILE, CHECKPOINT_FILE, SKIPPED_FILE
from teacher_logits.hub.repository import Addition, Snapshot
from teacher_logits.records import Int64
from teacher_logits.shards import read_indices

_LOCK = ".run.lock"
"""Held while a run writes into the folder; what it holds tells nothing, and it stays."""
_LAST = (CARD_FILE, SKIPPED_FILE, CHECKPOINT_FILE)
"""Written after the shards: checkpoint.json last of all, so that it never names a shard that isn't there."""


class FolderRepository:
    """A folder with the files of a dataset repository. To commit is to copy, flush and rename."""

    seconds_between_commits = 0.0
    whole_commits = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FileLock(folder / _LOCK, timeout=0)

    @property
    def address(self) -> str:
        return str(self._folder)

    @property
    def loading_name(self) -> str:
        return f"./{self._folder.resolve().name}"  # cards are sent to others, whose folders are others

    def require_creatable(self) -> None:
        """Find out whether it can be created and written. What isn't there yet is not there afterwards, either.

        By trying: what a system says of its folders beforehand is not what it does. Raises OutputError.
        """
        missing = [path for path in (self._folder, *self._folder.parents) if not path.exists()]
        if not missing:
            self._require_writable()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._not_creatable(error) from error
        finally:
            for path in missing:
                with contextlib.suppress(OSError):  # not there, or somebody has put something into it meanwhile
                    path.rmdir()

    def create(self) -> None:
        try:
            (self._folder / "data").mkdir(parents=True, exist_ok=True)
            remove_leftovers(self._folder)
            remove_leftovers(self._folder / "data")
        except OSError as error:
            raise self._not_creatable(error) from error
        self._require_writable()
        try:
            self._lock.acquire()
        except Timeout:
            raise OutputError(
                f"Another run is writing to {self._folder}. Wait for it, or choose another --output."
            ) from None

    def close(self) -> None:
        self._lock.release()

    def snapshot(self) -> Snapshot:
        if self._folder.exists() and not self._folder.is_dir():
            raise OutputError(f"--output {self._folder} is a file; name a folder.")
        # data/ may be a link to a larger disk, and rglob follows none.
        every = {*self._folder.rglob("*"), *self._folder.glob("data/*")}
        paths = sorted(path for path in every if path.is_file() and path.name != _LOCK)
        files = {path.relative_to(self._folder).as_posix(): None for path in paths}
        kept = {name: self.read_bytes(name) if name in files else None for name in (CHECKPOINT_FILE, SKIPPED_FILE)}
        return Snapshot(files, kept[CHECKPOINT_FILE], kept[SKIPPED_FILE])

    def read_indices(self, shard: str, rows: int) -> Int64:
        return read_indices(self._inside(shard))

    def read_bytes(self, path: str) -> bytes:
        return self._inside(path).read_bytes()

    def missing(self, shards: Iterable[str]) -> list[str]:
        return [shard for shard in shards if not self._inside(shard).is_file()]

    def upload(self, path: str, local: Path) -> None:
        """Nothing to do: a commit copies."""

    def commit(self, additions: Mapping[str, Addition], deletions: Sequence[str], message: str) -> None:
        try:
            for path in sorted(path for path in additions if path not in _LAST):
                self._put(path, additions[path])
            for path in deletions:  # not before what takes their place is there
                self._inside(path).unlink(missing_ok=True)
            for path in filter(additions.__contains__, _LAST):
                self._put(path, additions[path])
        except OSError as error:
            raise UploadError(
                f"Nothing more can be written to {self._folder} ({error}). Make room or mend it, then go on with "
                "--resume; what isn't there yet waits in the cache folder."
            ) from error

    def _not_creatable(self, error: OSError) -> OutputError:
        return OutputError(f"The output folder {self._folder} can't be created: {error}.")

    def _require_writable(self) -> None:
        if not os.access(self._folder, os.W_OK):
            raise OutputError(f"The output folder {self._folder} can't be written. Choose another --output.")

    def _put(self, path: str, content: Addition) -> None:
        final = self._inside(path)
        final.parent.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            write_bytes(final, content, PUBLIC_FILE)
        else:
            copy_file(content, final, PUBLIC_FILE)

    def _inside(self, path: str) -> Path:
        """The file that a path of the dataset means; a path that leads out of the folder is refused."""
        parts = PurePosixPath(path).parts
        if path.startswith("/") or ".." in parts:
            raise OutputError(
                f"{path!r} leads out of the output folder; the checkpoint or listing is not to be trusted."
            )
        return self._folder.joinpath(*parts)
