"""A run's output while the run works: what is done already, where new rows go, and how it ends."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from teacher_logits.errors import TeacherLogitsError
from teacher_logits.extraction.prepare import PreparedRun, refuse_all, stored_options
from teacher_logits.extraction.resume import StoredRun, take_stock
from teacher_logits.extraction.summary import RunSummary
from teacher_logits.hub import (
    SKIPPED_FILE,
    Checkpoint,
    Repository,
    Snapshot,
    StreamingHFUploader,
    UploadSettings,
    patiently,
    render_card,
)
from teacher_logits.hub.checkpoint import CHECKPOINT_FILE
from teacher_logits.journal import RunCache, SkippedLog
from teacher_logits.records import Int64
from teacher_logits.settings import same_output
from teacher_logits.shards import shard_schema

log = logging.getLogger(__name__)

_UPLOAD_GRACE_SECONDS = 10.0
"""How long a run that was asked to stop waits for an upload under way."""


class RunOutput:
    """The repository and the cache folder of one run."""

    def __init__(self, run: PreparedRun, stored: StoredRun | None, cache: RunCache, repository: Repository) -> None:
        """Create the output where it isn't there, clear it with --force-restart, and take stock of what is done."""
        self._run, self._cache, self._repository = run, cache, repository
        kept = None if stored is None else cache.checkpoint()
        if stored is None or (kept is not None and not same_output(kept["output"], str(run.config.output))):
            cache.restart()
        patiently(repository.create)
        found = self._cleared()
        self._checkpoint = self._begun(found, stored)
        stock = take_stock(cache, repository, found, self._checkpoint, run.source.split)
        self._checkpoint.shards = stock.shards
        self.skipped = SkippedLog(cache.skipped_file)
        self.skipped.merge((found.skipped or b"").decode())
        config = run.config
        self.uploader = StreamingHFUploader(
            repository,
            cache,
            self._checkpoint,
            self.skipped,
            partial(render_card, loading_name=repository.loading_name),
            UploadSettings(run.source.split, config.upload_every, config.upload_size_mb, config.hub_retry_seconds),
            stock.next_number,
        )
        pending = self.uploader.load_pending_into_buffer(stock.done, shard_schema(config.store_tokens))
        self.done: Int64 = np.concatenate([stock.done, pending])
        """Source numbers that need no computing: in committed and spooled shards, or waiting for one."""
        self.skipped.drop(self.done.tolist())

    def begin(self, teacher_metadata: Mapping[str, Any]) -> None:
        """Rows are about to come; `teacher_metadata` is what only the loaded teacher knew."""
        self._checkpoint.metadata.update(teacher_metadata)
        self._keep(complete=False)
        self.skipped.save()
        self.uploader.start()

    @contextlib.contextmanager
    def keeping_rows_on_failure(self) -> Iterator[None]:
        """Where the block fails, the rows that fill no shard go to the cache folder, and uploading ends."""
        try:
            yield
        except BaseException:
            waiting = self.uploader.save_pending_locally()
            self.skipped.save()
            with contextlib.suppress(TeacherLogitsError):  # the failure that is seen is the block's
                self.uploader.stop(_UPLOAD_GRACE_SECONDS)
            waiting += sum(shard.rows for shard in self.uploader.waiting)
            log.info("%s conversations wait in %s for --resume", f"{waiting:,}", self._cache.folder)
            raise

    def require_rows(self) -> None:
        """Raise DatasetError where nothing is stored and nothing waits: no conversation could be used."""
        if not (len(self.done) or self.uploader.holds_rows):
            self._keep(complete=True)  # there is nothing to resume
            refuse_all(self.skipped.counts())

    def finish(self, summary: RunSummary, interrupted: Callable[[], bool]) -> None:
        """Commit everything and mark the output complete. What isn't committed when `interrupted` turns true is kept
        for --resume."""
        self._summarize(summary, self.uploader.finish(interrupted, _UPLOAD_GRACE_SECONDS))

    def suspend(self, summary: RunSummary) -> None:
        """Keep what is not committed for --resume."""
        summary.waiting = self.uploader.save_pending_locally()
        self.uploader.stop(_UPLOAD_GRACE_SECONDS)
        self._summarize(summary, complete=False)

    def _summarize(self, summary: RunSummary, complete: bool) -> None:
        self._checkpoint = self.uploader.checkpoint
        summary.complete = complete
        summary.waiting += sum(shard.rows for shard in self.uploader.waiting)
        summary.total_conversations = self._checkpoint.total_samples
        summary.total_tokens = self._checkpoint.total_tokens
        summary.bytes_per_token = self.uploader.bytes_per_token
        summary.skipped = self.skipped.counts()
        self._keep(summary.complete)
        self.skipped.save()

    def _cleared(self) -> Snapshot:
        """The output as the run begins: with --force-restart without its old rows, which one commit removes."""
        found = patiently(self._repository.snapshot)
        old = [*found.shards, *(name for name in (CHECKPOINT_FILE, SKIPPED_FILE) if name in found.files)]
        if self._run.config.force_restart and old:
            title = f"Remove {len(found.shards)} shards to begin anew"
            patiently(lambda: self._repository.commit({}, old, title))
            found = patiently(self._repository.snapshot)
        return found

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
                "output": self._run.config.output,
                "complete": complete,
                "fingerprint": self._checkpoint.fingerprint,
                "config": self._checkpoint.config,
                "metadata": self._checkpoint.metadata,
            }
        )
