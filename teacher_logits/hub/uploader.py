"""Rows to shards to commits, in the background, while the teacher works on."""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from teacher_logits.hub.checkpoint import Checkpoint
from teacher_logits.hub.committer import Card, Committer
from teacher_logits.hub.repository import Repository
from teacher_logits.journal import RowBuffer, RunCache, ShardState, SkippedLog, Spool, SpooledShard
from teacher_logits.progress import progress
from teacher_logits.records import Int64
from teacher_logits.shards import shard_name

log = logging.getLogger(__name__)

SHARDS_PER_COMMIT = 50
PRESSED_SECONDS_BETWEEN_COMMITS = 30.0
"""How far apart commits are where shards have piled up: the Hub allows about 128 an hour in a repository."""
_POLL_SECONDS = 0.2
_POLLS_BEFORE_WORD = 10


@dataclass(frozen=True)
class UploadSettings:
    """How rows become shards and commits."""

    split: str
    rows_per_shard: int
    shard_mb: float | None
    spool_bytes: float
    """What waits for being committed takes at most so much of the disk, and one shard more."""
    retry_seconds: float


class StreamingHFUploader:
    """Takes rows, spools full shards, uploads each as soon as it is written and commits several at a time, from a
    thread of its own.

    A shard leaves the spool only after the commit that holds it. A failure of the thread is raised, with its
    traceback, by the next call from outside.
    """

    def __init__(
        self,
        repository: Repository,
        cache: RunCache,
        spool: Spool,
        checkpoint: Checkpoint,
        skipped: SkippedLog,
        card: Card,
        settings: UploadSettings,
        next_number: int,
    ) -> None:
        """spool: that of `cache`.   checkpoint: what the output holds already.   card: makes README.md and its
        pictures.   next_number: of the first shard."""
        self._settings, self._number, self._spool = settings, next_number, spool
        self._interval = repository.seconds_between_commits
        self._committer = Committer(repository, spool, checkpoint, skipped, card, settings.retry_seconds)
        self._buffer = RowBuffer(cache, self._write_shard, settings.rows_per_shard, settings.shard_mb)
        self._changed = threading.Condition()
        self._closing = False
        self._stopping: Callable[[], bool] = lambda: False
        self._complete = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)
        self._bytes = self._tokens = 0

    def start(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Begin to commit. The first commit is made as soon as there is a shard.

        stopping: asked while a full spool is waited for; once it is true, rows go to disk without waiting.
        """
        self._stopping = stopping
        self._thread.start()

    @property
    def buffered_rows(self) -> int:
        """Rows that wait to fill a shard."""
        return self._buffer.rows

    @property
    def holds_rows(self) -> bool:
        """Whether any row was taken: it waits in the buffer, in a shard, or is committed."""
        return bool(self._buffer.rows or self._spool.shards or self.checkpoint.shards)

    @property
    def waiting(self) -> list[SpooledShard]:
        """Shards that are written and not committed."""
        return self._spool.shards

    @property
    def uploading(self) -> bool:
        """Whether an upload or a commit is under way."""
        return self._committer.busy

    @property
    def checkpoint(self) -> Checkpoint:
        """What the output holds."""
        return self._committer.checkpoint

    @property
    def bytes_per_token(self) -> float | None:
        """Of the shards written since the start; None where there are none."""
        return self._bytes / self._tokens if self._tokens else None

    def add_rows(self, table: pa.Table) -> None:
        """Take rows, and write the shards they fill. Raises what the uploading thread failed with."""
        self._buffer.add(table)
        self.check()

    def check(self) -> None:
        """Raise what the uploading thread failed with, if it did."""
        if self._failure is not None:
            raise self._failure

    def load_pending_into_buffer(self, done: Int64, schema: pa.Schema) -> Int64:
        """Take in the rows a stopped run left, except those in `done`; returns their source numbers."""
        return self._buffer.load(done, schema, self.checkpoint.fingerprint)

    def save_pending_locally(self) -> int:
        """Keep the rows that fill no shard in the cache folder; returns how many they are."""
        return self._buffer.save(self.checkpoint.shard_metadata)

    def flush(self) -> None:
        """Write the rows that fill no shard as a smaller one."""
        self._buffer.flush()

    def finish(self, interrupted: Callable[[], bool] = lambda: False, seconds: float = 10.0) -> bool:
        """Write the last rows, commit everything and mark the output complete; returns whether that is done.

        interrupted: asked while a commit is waited for; once it is true, this gives up after about `seconds`, and
        what isn't committed stays in the spool for --resume. Raises what the thread failed with.
        """
        self.flush()
        self._close(complete=True)
        self._wait_for_thread(interrupted)
        return self.stop(seconds if self._thread.is_alive() else 0)

    def stop(self, seconds: float) -> bool:
        """Commit what is spooled within about `seconds`, and stop; returns whether all of it is committed.

        What is not stays in the spool for --resume. Raises what the thread failed with before.
        """
        self._close(self._complete)
        self._thread.join(seconds)
        self.check()
        self._committer.hurry.set()
        return not self._thread.is_alive()

    def _wait_for_thread(self, interrupted: Callable[[], bool]) -> None:
        """Show how many shards are still to come, until the thread has ended or nobody wants to wait any more."""
        left = len(self._spool.shards)
        with progress("uploading", left, "shards") as bar:
            while self._thread.is_alive() and not interrupted():
                self._thread.join(_POLL_SECONDS)
                now = len(self._spool.shards)
                bar.advance(left - now)
                left = now

    def _close(self, complete: bool) -> None:
        with self._changed:
            self._closing, self._complete = True, complete
            self._changed.notify_all()

    def _write_shard(self, table: pa.Table) -> None:
        self._wait_for_room()
        name = shard_name(self._settings.split, self.checkpoint.fingerprint, self._number)
        shard = self._spool.write(table, name, self.checkpoint.shard_metadata)
        self._number += 1
        self._bytes += shard.size
        self._tokens += shard.tokens
        with self._changed:
            self._changed.notify_all()

    def stop_waiting(self) -> None:
        """From now on rows go to disk even where the spool is full."""
        with self._changed:
            self._stopping = lambda: True
            self._changed.notify_all()

    def _wait_for_room(self) -> None:
        """Wait while the spool is full and somebody is at work on it."""
        with self._changed:
            waited = 0
            while self._full and self._thread.is_alive() and not (self._closing or self._stopping()):
                if waited == _POLLS_BEFORE_WORD:
                    log.warning("shards that wait for being committed fill --spool-limit-gb: waiting for commits")
                waited += 1
                self._changed.wait(_POLL_SECONDS)

    @property
    def _full(self) -> bool:
        return self._spool.size >= self._settings.spool_bytes

    def _work(self) -> None:
        last = -math.inf
        try:
            self._committer.announce()
            while True:
                closing, complete = self._wait_for_work(last)
                shards = self._spool.shards[:SHARDS_PER_COMMIT]
                for shard in shards:
                    if shard.state is ShardState.WRITTEN:
                        self._committer.upload(shard)
                final = closing and complete and len(shards) == len(self._spool.shards)
                if (shards and (closing or self._seconds_to_commit(last) <= 0)) or final:
                    self._committer.commit(shards, complete=final)
                    last = time.monotonic()
                    with self._changed:
                        self._changed.notify_all()
                if closing and not self._spool.shards:
                    return
        except BaseException as error:
            self._failure = error
            log.debug("uploading failed", exc_info=True)

    def _wait_for_work(self, last: float) -> tuple[bool, bool]:
        """Wait until a shard is to be uploaded, or a commit is due, or the uploader is closing; returns whether it is,
        and whether that completes the output.

        last: when the last commit was made.
        """
        with self._changed:
            while not self._closing:
                shards, seconds = self._spool.shards[:SHARDS_PER_COMMIT], self._seconds_to_commit(last)
                if any(shard.state is ShardState.WRITTEN for shard in shards) or (shards and seconds <= 0):
                    break
                self._changed.wait(seconds if shards else None)
            return self._closing, self._complete

    def _seconds_to_commit(self, last: float) -> float:
        """How long the next commit must wait. The first is made at once, so that people see something."""
        pressed = self._full or len(self._spool.shards) >= SHARDS_PER_COMMIT
        interval = min(self._interval, PRESSED_SECONDS_BETWEEN_COMMITS) if pressed else self._interval
        return last + interval - time.monotonic()
