"""The cache folder of a run: its options, its lock, and the places of what is not committed yet."""

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from teacher_logits.errors import OutputError
from teacher_logits.files import private_folder, remove_leftovers, write_bytes, write_json

log = logging.getLogger(__name__)

_CHECKPOINT, _LOCK, _OWNER = "checkpoint.json", "run.lock", "run.pid"


class RunCache:
    """A cache folder. One run at a time may use it; see `locked`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def spool_folder(self) -> Path:
        """Shards that are written and not yet committed."""
        return self.folder / "spool"

    @property
    def pending_folder(self) -> Path:
        """Rows that did not fill a shard when a run stopped."""
        return self.folder / "pending"

    @property
    def skipped_file(self) -> Path:
        """Conversations that were left out, until the output lists them."""
        return self.folder / "skipped.jsonl"

    @property
    def known_file(self) -> Path:
        """What was read of the output's shards; see `KnownShards`."""
        return self.folder / "committed.parquet"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process. Raises OutputError, naming the other process, where it is held already."""
        try:
            private_folder(self.folder)
            lock = FileLock(self.folder / _LOCK, timeout=0, mode=0o600)
            lock.acquire()
        except Timeout:
            raise OutputError(
                f"Another run (process {self._owner()}) is using the cache folder {self.folder}. Wait for it, or give "
                "this run a folder of its own with --cache-dir."
            ) from None
        except OSError as error:
            raise OutputError(
                f"The cache folder {self.folder} can't be written ({error}). Choose another with --cache-dir."
            ) from error
        try:
            write_bytes(self.folder / _OWNER, str(os.getpid()).encode())
            for folder in (self.folder, self.spool_folder, self.pending_folder):
                remove_leftovers(private_folder(folder))
            yield
        finally:
            (self.folder / _OWNER).unlink(missing_ok=True)
            lock.release()

    def _owner(self) -> str:
        try:
            return (self.folder / _OWNER).read_text()
        except OSError:
            return "unknown"

    def checkpoint(self) -> dict[str, Any] | None:
        """The run this folder belongs to (output, options, metadata, whether complete), or None."""
        path = self.folder / _CHECKPOINT
        try:
            content = json.loads(path.read_text())
            kinds = {"output": str, "complete": bool, "config": dict, "metadata": dict}
            if not all(isinstance(content[name], kind) for name, kind in kinds.items()):
                raise ValueError(f"expected {', '.join(kinds)}")
            return content
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"{path} can't be read ({error}). Begin anew with --force-restart, or continue from the output with "
                "--resume --output O --cache-dir NEW."
            ) from error

    def write_checkpoint(self, content: dict[str, Any]) -> None:
        """Keep what `checkpoint` returns."""
        write_json(self.folder / _CHECKPOINT, content)

    def set_aside(self, *paths: Path) -> None:
        """Move files or folders into a new `backup_<time>`, which nothing here reads again."""
        existing = [path for path in paths if path.exists()]
        if existing:
            backup = private_folder(self._free_backup())
            for path in existing:
                shutil.move(path, backup / path.name)
            log.warning("moved %s to %s", ", ".join(path.name for path in existing), backup)

    def _free_backup(self) -> Path:
        """A name that no earlier backup has, also of the same second."""
        name = f"backup_{time.strftime('%Y%m%d-%H%M%S')}_{os.getpid()}"
        taken = len(list(self.folder.glob(f"{name}*")))
        return self.folder / (f"{name}_{taken}" if taken else name)

    def restart(self) -> None:
        """Begin with an empty folder. What an unfinished run left is set aside, what a finished one left is removed."""
        leftovers = (self.folder / _CHECKPOINT, self.spool_folder, self.pending_folder, self.skipped_file)
        try:
            kept = self.checkpoint()
            unfinished = kept is not None and not kept["complete"]
        except OutputError:
            unfinished = True
        if self.holds_rows() or unfinished:
            self.set_aside(*leftovers)
        for file in (self.folder / _CHECKPOINT, self.skipped_file, self.known_file):
            file.unlink(missing_ok=True)
        private_folder(self.spool_folder)
        private_folder(self.pending_folder)

    def holds_rows(self) -> bool:
        """Whether rows wait here that the output may not have."""
        return any(self.spool_folder.glob("*.parquet")) or any(self.pending_folder.glob("*.parquet"))
