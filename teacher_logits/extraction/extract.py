"""`run_extraction`: the one place that shows the whole way."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from teacher_logits.batching import TokenBudgetBatchSampler, collate
from teacher_logits.codec import Contents
from teacher_logits.conversations import ConversationDataset, Unusable
from teacher_logits.errors import NonFiniteLogitsError
from teacher_logits.extraction.batches import (
    NOT_FINITE,
    OUT_OF_MEMORY,
    FiniteGuard,
    GPUBatchResult,
    cpu_postprocess_batch,
    process_or_split,
)
from teacher_logits.extraction.postprocess import AsyncPostProcessor, prefetch
from teacher_logits.extraction.prepare import Plan, PreparedRun, plan_rows, prepare_run, stored_options
from teacher_logits.extraction.resume import StoredRun, find_stored_run, require_same_run, take_stock
from teacher_logits.extraction.stop import GracefulInterrupt, TimedShutdown
from teacher_logits.extraction.summary import RunSummary
from teacher_logits.hub import (
    Checkpoint,
    Repository,
    Snapshot,
    StreamingHFUploader,
    UploadSettings,
    open_repository,
    render_card,
)
from teacher_logits.journal import RunCache, SkippedLog
from teacher_logits.progress import Progress, progress
from teacher_logits.records import Batch
from teacher_logits.sampling import SamplingSettings
from teacher_logits.settings import ExtractionConfig
from teacher_logits.shards import shard_schema
from teacher_logits.teacher import Teacher, default_batch_tokens, load_teacher

log = logging.getLogger(__name__)

_MANY_SHARDS = 5000
_UPLOAD_GRACE_SECONDS = 10.0

Confirm = Callable[[str], bool]


def run_extraction(
    config: ExtractionConfig, stop: GracefulInterrupt | None = None, confirm: Confirm | None = None
) -> RunSummary:
    """Extract the teacher's logits for every selected conversation that the output doesn't hold yet.

    stop: asked between batches whether to stop.   confirm: with --verify-mask, shown a marked conversation; returns
    whether to go on. Raises TeacherLogitsErrors; what was computed until then is kept for --resume.
    """
    stop = stop or GracefulInterrupt()
    clock = TimedShutdown(config.max_runtime_minutes)
    cache = RunCache(Path(config.require_complete().cache_dir).expanduser())
    with cache.locked():
        assert config.output is not None
        repository = open_repository(config.output, config.private)
        found = repository.snapshot()
        stored = find_stored_run(config, cache, repository, found)
        run = prepare_run(config, stored)
        if stored is not None:
            require_same_run(stored, run.metadata, repository.address)
        if confirm is not None and config.verify_mask and not confirm(_marked_example(run)):
            return RunSummary(repository.address)
        repository.create()
        found = _cleared_for(run, stored, cache, repository)

        checkpoint = Checkpoint(run.fingerprint, stored_options(config), dict(run.metadata))
        if found.checkpoint is not None:
            held = Checkpoint.parse(found.checkpoint, repository.address)
            checkpoint.shards, checkpoint.complete = held.shards, held.complete
        stock = take_stock(cache, repository, found, checkpoint, run.source.split)
        checkpoint.shards = stock.shards
        skipped = SkippedLog(cache.skipped_file)
        skipped.merge((found.skipped or b"").decode())
        cache.write_checkpoint(_local_state(checkpoint, config, complete=False))

        uploader = StreamingHFUploader(
            repository,
            cache,
            checkpoint,
            skipped,
            partial(render_card, loading_name=repository.loading_name),
            UploadSettings(run.source.split, config.upload_every, config.upload_size_mb, config.hub_retry_seconds),
            stock.next_number,
        )
        done = np.concatenate([stock.done, uploader.load_pending_into_buffer(stock.done, _schema(config))])
        skipped.drop(done.tolist())
        plan = plan_rows(run, done, skipped)
        skipped.save()
        summary = RunSummary(repository.address, left=len(plan.rows))
        if len(plan.rows):
            teacher = load_teacher_for(run)
            checkpoint.metadata.update(_teacher_metadata(teacher))
            cache.write_checkpoint(_local_state(checkpoint, config, complete=False))
            extraction = Extraction(run, plan, teacher, uploader, skipped, summary)
            stop.begin_work()
            finished = extraction.run(stop, clock)
        else:
            checkpoint.metadata.update({} if stored is None else stored.metadata)
            finished = True
            uploader.start()
        _close(uploader, finished, summary)
        cache.write_checkpoint(_local_state(uploader.checkpoint, config, complete=summary.complete))
        skipped.save()
        summary.skipped = skipped.counts()
        return summary


@dataclass
class Extraction:
    """The loop over batches and what runs beside it."""

    run_: PreparedRun
    plan: Plan
    teacher: Teacher
    uploader: StreamingHFUploader
    skipped: SkippedLog
    summary: RunSummary

    def run(self, stop: GracefulInterrupt, clock: TimedShutdown) -> bool:
        """Work through the plan; returns whether it came to its end. On failure the rows so far are kept."""
        self.uploader.start()
        self._guard = FiniteGuard()
        started = time.monotonic()
        try:
            with (
                progress("extracting", len(self.plan.rows), "conversations") as bar,
                AsyncPostProcessor(self._pack) as packer,
            ):
                finished = self._work(packer, bar, stop, clock)
        except BaseException:
            self.uploader.save_pending_locally()
            self.skipped.save()
            raise
        finally:
            self.summary.seconds = time.monotonic() - started
        return finished

    def _work(
        self,
        packer: AsyncPostProcessor[GPUBatchResult],
        bar: Progress,
        stop: GracefulInterrupt,
        clock: TimedShutdown,
    ) -> bool:
        settings = sampling_settings(self.run_.config, self.teacher)
        started = time.monotonic()
        batches = prefetch(self._batches())
        try:
            for batch in batches:
                if stop.requested or clock.due:
                    return False
                began = time.monotonic()
                for result in process_or_split(self.teacher, batch, settings):
                    if isinstance(result, GPUBatchResult):
                        packer.submit(result)
                    else:
                        self._skip(result.index, OUT_OF_MEMORY)
                clock.batch_took(time.monotonic() - began)
                self.summary.left -= len(batch.examples)
                bar.advance(len(batch.examples), self._note(batch, started, clock))
        finally:
            batches.close()
        return True

    def _batches(self) -> Iterator[Batch]:
        """The plan's batches, rendered and padded, longest first."""
        config = self.run_.config
        budget = config.batch_tokens
        if budget is None and config.batch_thresholds is None:
            budget = default_batch_tokens(self.teacher)
        thresholds = None if budget is not None else {int(k): v for k, v in (config.batch_thresholds or {}).items()}
        sampler = TokenBudgetBatchSampler(self.plan.lengths, budget, thresholds, config.max_batch_size)
        dataset = ConversationDataset(self.run_.source, self.plan.rows, self.run_.spec.build())
        longest = min(config.max_seq_len or np.inf, self.run_.identity.context or np.inf)
        for places in sampler:
            examples = []
            for place, example in zip(places, dataset.__getitems__(places), strict=True):
                # Lengths from a column are only believed for making batches.
                if not isinstance(example, Unusable) and len(example.input_ids) > longest:
                    example = Unusable(f"longer than {longest:,} tokens")
                if isinstance(example, Unusable):
                    self._skip(int(self.run_.source.index[self.plan.rows[place]]), str(example))
                    self.summary.left -= 1
                else:
                    examples.append(example)
            if examples:
                yield collate(examples, self.run_.pad_id)

    def _pack(self, result: GPUBatchResult) -> None:
        """Runs in another thread: entries to rows to the uploader's buffer."""
        packed = cpu_postprocess_batch(result, Contents(self.run_.config.store_tokens))
        for index in packed.refused:
            self._skip(index, NOT_FINITE)
        problem = self._guard.count(packed.table.num_rows, len(packed.refused))
        self.uploader.add_rows(packed.table)
        self.summary.conversations += packed.table.num_rows
        self.summary.tokens += packed.tokens
        self.summary.nucleus_tokens += packed.nucleus_tokens
        if problem is not None:
            raise NonFiniteLogitsError(
                f"The teacher gave NaN or infinite logits for {problem}, first for conversation {packed.refused[0]}. "
                "Try another --dtype (float16 overflows where bfloat16 doesn't) or check the model's weights."
            )

    def _skip(self, index: int, reason: str) -> None:
        self.skipped.add(index, reason)

    def _note(self, batch: Batch, started: float, clock: TimedShutdown) -> str:
        speed = self.summary.tokens / max(1e-9, time.monotonic() - started)
        parts = [
            f"{speed:,.0f} tok/s",
            f"batch {batch.input_ids.shape[0]}x{batch.input_ids.shape[1]}",
            f"buffer {self.uploader.buffered_rows}",
        ]
        if self.uploader.uploading:
            parts.append("⬆")
        if clock.remaining is not None:
            parts.append(f"{max(0.0, clock.remaining) / 60:.1f} min left")
        return ", ".join(parts)


def load_teacher_for(run: PreparedRun) -> Teacher:
    """The teacher of a prepared run."""
    log.info("loading %s", run.identity.name)
    largest = max(run.tokenizer.get_vocab().values(), default=0)
    return load_teacher(run.config, run.identity, len(run.tokenizer), largest, str(run.metadata["model_dtype"]))


def sampling_settings(config: ExtractionConfig, teacher: Teacher) -> SamplingSettings:
    """The sampler's part of the options."""
    return SamplingSettings(config.top_p, config.top_p_max_elements, config.sampled_n, config.seed, teacher.vocab_used)


def _marked_example(run: PreparedRun) -> str:
    """The first usable conversation with its assistant tokens marked."""
    renderer = run.spec.build()
    for conversation in run.source.conversations(run.source.rows[:100]):
        if not isinstance(conversation, Unusable):
            try:
                return renderer.show(conversation)
            except Unusable:
                continue
    return "none of the first 100 conversations has assistant tokens"


def _cleared_for(run: PreparedRun, stored: StoredRun | None, cache: RunCache, repository: Repository) -> Snapshot:
    """The output as the run begins: with --force-restart without its old rows, which one commit removes."""
    if stored is None:
        cache.restart()
    found = repository.snapshot()
    if run.config.force_restart and (found.shards or found.checkpoint is not None):
        old = [*found.shards, *(name for name in ("checkpoint.json", "skipped.jsonl") if name in found.files)]
        repository.commit({}, old, f"Remove {len(found.shards)} shards to begin anew")
        found = repository.snapshot()
    return found


def _teacher_metadata(teacher: Teacher) -> dict[str, Any]:
    return {
        "vocab_size": teacher.vocab_size,
        "vocab_used": teacher.vocab_used,
        "logits_dtype": str(teacher.logits_dtype).removeprefix("torch."),
    }


def _local_state(checkpoint: Checkpoint, config: ExtractionConfig, complete: bool) -> dict[str, Any]:
    """What the cache folder keeps of a run, enough to continue it without the output."""
    return {
        "output": config.output,
        "complete": complete,
        "fingerprint": checkpoint.fingerprint,
        "config": checkpoint.config,
        "metadata": checkpoint.metadata,
    }


def _schema(config: ExtractionConfig) -> Any:
    return shard_schema(config.store_tokens)


def _close(uploader: StreamingHFUploader, finished: bool, summary: RunSummary) -> None:
    """Commit everything, or keep what a stopped run has left."""
    if finished:
        uploader.finish()
    else:
        summary.waiting = uploader.save_pending_locally()
        uploader.stop(_UPLOAD_GRACE_SECONDS)
        summary.waiting += sum(shard.rows for shard in uploader.waiting)
    summary.complete = uploader.checkpoint.complete
    summary.total_conversations = uploader.checkpoint.total_samples
    summary.total_tokens = uploader.checkpoint.total_tokens
    summary.bytes_per_token = uploader.bytes_per_token
