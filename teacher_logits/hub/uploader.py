"""Rows to shards to commits, in the background, while the teacher works on."""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from teacher_logits.errors import UploadError
from teacher_logits.hub.checkpoint import CARD_FILE, CHECKPOINT_FILE, SKIPPED_FILE, Checkpoint
from teacher_logits.hub.repository import Addition, Repository, Snapshot
from teacher_logits.hub.retries import keep_trying
from teacher_logits.journal import RowBuffer, RunCache, SkippedLog, Spool, SpooledShard
from teacher_logits.records import Int64
from teacher_logits.shards import shard_name

log = logging.getLogger(__name__)

SHARDS_PER_COMMIT = 50
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
    """Takes rows, spools full shards and commits them from a thread of its own, several at a time.

    A shard leaves the spool only after the commit that holds it. A failure of the thread is raised, with its
    traceback, by the next call from outside.
    """

    def __init__(
        self,
        repository: Repository,
        cache: RunCache,
        checkpoint: Checkpoint,
        skipped: SkippedLog,
        card: Callable[[Checkpoint], bytes],
        settings: UploadSettings,
        next_number: int,
    ) -> None:
        """checkpoint: what the output holds already.   card: makes README.md.   next_number: of the first shard."""
        self._repository, self._checkpoint, self._skipped, self._card = repository, checkpoint, skipped, card
        self._settings, self._number = settings, next_number
        self._spool = Spool(cache)
        self._buffer = RowBuffer(cache, self._write_shard, settings.rows_per_shard, settings.shard_mb)
        self._queue: list[SpooledShard] = self._spool.shards()
        self._changed = threading.Condition()
        self._closing = False
        self._stopping: Callable[[], bool] = lambda: False
        self._complete = False
        self._hurry = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)
        self._bytes = self._tokens = 0
        self.uploading = False
        """Whether a commit is under way."""

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
        return bool(self._buffer.rows or self._queue or self._checkpoint.shards)

    @property
    def waiting(self) -> list[SpooledShard]:
        """Shards that are written and not committed."""
        return list(self._queue)

    @property
    def checkpoint(self) -> Checkpoint:
        """What the output holds."""
        return self._checkpoint

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
        return self._buffer.load(done, schema)

    def save_pending_locally(self) -> int:
        """Keep the rows that fill no shard in the cache folder; returns how many they are."""
        return self._buffer.save(self._checkpoint.shard_metadata)

    def finish(self, interrupted: Callable[[], bool] = lambda: False, seconds: float = 10.0) -> bool:
        """Write the last rows, commit everything and mark the output complete; returns whether that is done.

        interrupted: asked while a commit is waited for; once it is true, this gives up after about `seconds`, and
        what isn't committed stays in the spool for --resume. Raises what the thread failed with.
        """
        self._buffer.flush()
        self._close(complete=True)
        while self._thread.is_alive() and not interrupted():
            self._thread.join(_POLL_SECONDS)
        return self.stop(seconds if self._thread.is_alive() else 0)

    def stop(self, seconds: float) -> bool:
        """Commit what is spooled within about `seconds`, and stop; returns whether all of it is committed.

        What is not stays in the spool for --resume. Raises what the thread failed with before.
        """
        self._close(self._complete)
        self._thread.join(seconds)
        self.check()
        self._hurry.set()
        return not self._thread.is_alive()

    def _close(self, complete: bool) -> None:
        with self._changed:
            self._closing, self._complete = True, complete
            self._changed.notify_all()

    def _write_shard(self, table: pa.Table) -> None:
        self._wait_for_room()
        name = shard_name(self._settings.split, self._checkpoint.fingerprint, self._number)
        shard = self._spool.write(table, name, self._checkpoint.shard_metadata)
        self._number += 1
        self._bytes += shard.size
        self._tokens += shard.tokens
        with self._changed:
            self._queue.append(shard)
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
        return sum(shard.size for shard in self._queue) >= self._settings.spool_bytes

    def _work(self) -> None:
        last = time.monotonic() - self._repository.seconds_between_commits
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._closing or self._queue)
                    due = last + self._repository.seconds_between_commits
                    self._changed.wait_for(
                        lambda: self._closing or self._full, timeout=max(0.0, due - time.monotonic())
                    )
                    shards, closing = self._queue[:SHARDS_PER_COMMIT], self._closing
                    final = closing and self._complete and len(shards) == len(self._queue)
                if shards or final:
                    self._commit(shards, complete=final)
                    last = time.monotonic()
                with self._changed:
                    del self._queue[: len(shards)]
                    self._changed.notify_all()
                    if closing and not self._queue:
                        return
        except BaseException as error:
            self._failure = error
            log.debug("uploading failed", exc_info=True)

    def _commit(self, shards: list[SpooledShard], complete: bool) -> None:
        """Commit some shards with the card, the checkpoint and the list of what was left out; then drop the shards."""
        held = self._checkpoint.shards | {shard.name: shard.entry() for shard in shards}
        checkpoint = dataclasses.replace(self._checkpoint, shards=held, complete=complete)
        additions: dict[str, Addition] = {shard.name: shard.path for shard in shards}
        additions[CARD_FILE] = self._card(checkpoint)
        if self._skipped.worth_listing:
            additions[SKIPPED_FILE] = self._skipped.content()
        additions[CHECKPOINT_FILE] = checkpoint.content()
        title = f"Add {len(shards)} shards, {checkpoint.total_samples:,} conversations" + (
            " (complete)" if complete else ""
        )

        gone = self._repository.missing(self._checkpoint.shards)
        if gone:
            raise UploadError(
                f"{gone[0]} is not in {self._repository.address} any more ({len(gone)} shards are gone). Go on with "
                "--resume, which computes their conversations again."
            )

        def send() -> None:
            for shard in shards:
                self._repository.upload(shard.name, shard.path)
            self._repository.commit(additions, [], title)

        def settle(_: BaseException) -> bool:
            found = self._repository.snapshot()
            self._refuse_foreign(found, held)
            return found.checkpoint == additions[CHECKPOINT_FILE] and all(shard.name in found.files for shard in shards)

        self.uploading = True
        try:
            keep_trying(send, settle, self._settings.retry_seconds, self._hurry)
        finally:
            self.uploading = False
        self._checkpoint = checkpoint
        for shard in shards:
            self._spool.remove(shard)

    def _refuse_foreign(self, found: Snapshot, ours: dict[str, dict[str, object]]) -> None:
        """Raise UploadError where the output has shards that this run didn't write: by their names, or, since another
        machine with the same run gives the same names, by their content."""
        known = ours | {shard.name: shard.entry() for shard in self._queue}
        foreign = [
            path for path in found.shards if path not in known or found.files[path] not in (None, known[path]["sha256"])
        ]
        if foreign:
            raise UploadError(
                f"Another run writes to {self._repository.address}: {foreign[0]} appeared meanwhile. Stop one of them, "
                "then go on with --resume, which takes over what the other has done."
            )
