"""A run's output while the run works: what is done already, where new rows go, and how it ends."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from teacher_logits.errors import TeacherLogitsError
from teacher_logits.extraction.card_files import PICTURE_FILE, card_files
from teacher_logits.extraction.prepare import PreparedRun, refuse_all, stored_options
from teacher_logits.extraction.resume import StoredRun, take_stock
from teacher_logits.extraction.stop import grace_seconds
from teacher_logits.extraction.summary import RunSummary
from teacher_logits.hub import (
    SKIPPED_FILE,
    Checkpoint,
    Repository,
    Snapshot,
    StreamingHFUploader,
    UploadSettings,
    patiently,
)
from teacher_logits.hub.checkpoint import CHECKPOINT_FILE
from teacher_logits.journal import KnownShards, RunCache, SkippedLog, Spool
from teacher_logits.records import Int64
from teacher_logits.settings import ExtractionConfig, absolute_output, same_output
from teacher_logits.shards import shard_schema

log = logging.getLogger(__name__)


class RunOutput:
    """The repository and the cache folder of one run."""

    uploader: StreamingHFUploader
    """Takes the rows, from `begin` on."""
    done: Int64
    """Source numbers that need no computing: in committed and spooled shards, or waiting for one."""

    def __init__(self, run: PreparedRun, stored: StoredRun | None, cache: RunCache, repository: Repository) -> None:
        """Create the output where it isn't there, and take stock of what is done. Nothing is removed before `begin`."""
        self._run, self._cache, self._repository, self._new = run, cache, repository, stored is None
        patiently(repository.create)
        found = patiently(repository.snapshot)
        self._old: list[str] = []
        if run.config.force_restart:
            others = (CHECKPOINT_FILE, SKIPPED_FILE, PICTURE_FILE)
            self._old = [*found.shards, *(name for name in others if name in found.files)]
            found = Snapshot({}, None, None)
        self._checkpoint = self._begun(found, stored)
        kept = None if self._new else cache.checkpoint()
        if kept is not None and not same_output(kept["output"], str(run.config.output)):
            cache.restart()  # it belongs to another run, which is finished
        self.skipped = SkippedLog(cache.skipped_file, empty=self._new)
        self.done = np.zeros(0, np.int64)
        self._pending = 0
        """Rows that were saved under `pending/` when the run stopped."""
        if stored is not None:
            self._take_over(found)

    def _take_over(self, found: Snapshot) -> None:
        """Go on from what the output and the cache folder hold."""
        split = self._run.source.split
        spool = self._spool()
        known = KnownShards(self._cache.known_file)
        stock = take_stock(known, spool, self._repository, found, self._checkpoint, split)
        self._checkpoint.shards = stock.shards
        self.skipped.merge((found.skipped or b"").decode(errors="replace"))
        self._open_uploader(spool, stock.next_number)
        schema = shard_schema(self._run.config.store_tokens)
        pending = self.uploader.load_pending_into_buffer(stock.done, schema)
        self.done = np.concatenate([stock.done, pending])
        self.skipped.drop(self.done.tolist())

    def _spool(self) -> Spool:
        return Spool(self._cache, self._checkpoint.fingerprint)

    def _open_uploader(self, spool: Spool, next_number: int) -> None:
        config = self._run.config
        self.uploader = StreamingHFUploader(
            self._repository,
            self._cache,
            spool,
            self._checkpoint,
            self.skipped,
            partial(card_files, loading_name=self._repository.loading_name),
            UploadSettings(
                self._run.source.split,
                config.upload_every,
                config.upload_size_mb,
                config.spool_limit_gb * 1e9,
                config.hub_retry_seconds,
            ),
            next_number,
        )

    def begin(self, teacher_metadata: Mapping[str, Any], stopping: Callable[[], bool]) -> None:
        """Rows are about to come; `teacher_metadata` is what only the loaded teacher knew. Where the spool is full they
        wait, until `stopping` turns true.

        A new run sets aside what the cache folder held, and with --force-restart removes the output's old rows, in
        one commit.
        """
        if self._new:
            self._cache.restart()
            if self._old:
                title = f"Remove {len(self._old)} files to begin anew"
                patiently(lambda: self._repository.commit({}, self._old, title))
                log.info("removed %d files from %s to begin anew", len(self._old), self._repository.address)
            self._open_uploader(self._spool(), next_number=0)
        self._checkpoint.metadata.update(teacher_metadata)
        self._keep(complete=False)
        self.skipped.save()
        self.uploader.start(stopping)

    @contextlib.contextmanager
    def keeping_rows_on_failure(self) -> Iterator[None]:
        """Where the block fails, the rows that fill no shard go to the cache folder, and uploading ends."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(TeacherLogitsError):  # the failure that is seen is the block's
                self._put_away()
            waiting = self._pending + sum(shard.rows for shard in self.uploader.waiting)
            log.info("%s conversations wait in %s for --resume", f"{waiting:,}", self._cache.folder)
            raise

    @contextlib.contextmanager
    def no_waiting_on_failure(self) -> Iterator[None]:
        """Where the block fails, whoever waits for room in the spool goes on: nobody knows when there will be some."""
        try:
            yield
        except BaseException:
            self.uploader.stop_waiting()
            raise

    def require_rows(self) -> None:
        """Raise DatasetError where nothing is stored and nothing waits: no conversation could be used."""
        if not (len(self.done) or self.uploader.holds_rows):
            self._keep(complete=True)  # there is nothing to resume
            refuse_all(self.skipped.counts())

    def finish(self, summary: RunSummary, interrupted: Callable[[], bool]) -> None:
        """Commit everything and mark the output complete. What isn't committed when `interrupted` turns true is kept
        for --resume."""
        self._summarize(summary, self.uploader.finish(interrupted, grace_seconds(False)))

    def suspend(self, summary: RunSummary) -> None:
        """Keep what is not committed for --resume; with --upload-on-stop there is little left to keep.

        Raises UploadError where the output takes nothing.
        """
        try:
            self._put_away()
        finally:
            self._summarize(summary, complete=False)

    def _put_away(self) -> None:
        """Save the rows that fill no shard, and commit what can be committed in a short time."""
        self.skipped.save()
        upload = self._run.config.upload_on_stop
        seconds = grace_seconds(upload)
        try:
            if upload:
                self.uploader.flush()
            else:
                self._pending = self.uploader.save_pending_locally()
        finally:
            if not self.uploader.stop(seconds):
                log.warning("what the output did not take within %.0f s waits in %s", seconds, self._cache.folder)

    def _summarize(self, summary: RunSummary, complete: bool) -> None:
        self._checkpoint = self.uploader.checkpoint
        summary.complete = complete
        summary.waiting = self._pending + sum(shard.rows for shard in self.uploader.waiting)
        summary.total_conversations = self._checkpoint.total_samples
        summary.total_tokens = self._checkpoint.total_tokens
        summary.bytes_per_token = self.uploader.bytes_per_token
        summary.skipped = self.skipped.counts()
        self._keep(summary.complete)
        self.skipped.save()

    def _begun(self, found: Snapshot, stored: StoredRun | None) -> Checkpoint:
        """The checkpoint to build on: this run's options, the output's shards."""
        metadata = {**(stored.metadata if stored else {}), **self._run.metadata}
        checkpoint = Checkpoint(self._run.fingerprint, stored_options(self._run.config), metadata)
        if found.checkpoint is not None:
            held = Checkpoint.parse(found.checkpoint, self._repository.address)
            checkpoint.shards, checkpoint.complete = held.shards, held.complete
        return checkpoint

    def _keep(self, complete: bool) -> None:
        """Keep in the cache folder what is needed to continue the run without its output."""
        self._cache.write_checkpoint(
            {
                "output": absolute_output(str(self._run.config.output)),
                "complete": complete,
                "fingerprint": self._checkpoint.fingerprint,
                "config": self._checkpoint.config,
                "paths": _absolute_paths(self._run.config),
                "metadata": self._checkpoint.metadata,
            }
        )


def _absolute_paths(config: ExtractionConfig) -> dict[str, str]:
    """The options that name files here, for who goes on from another working folder."""
    names = ("model", "dataset", "tokenized_dataset", "chat_template")
    given = {name: Path(value).expanduser() for name in names if (value := getattr(config, name))}
    return {name: str(path.absolute()) for name, path in given.items() if path.exists()}
