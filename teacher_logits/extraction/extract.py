"""`run_extraction`: the one place that shows the whole way."""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from teacher_logits.codec import Contents
from teacher_logits.errors import NotConfirmedError
from teacher_logits.extraction.batches import FittingBatches
from teacher_logits.extraction.output import RunOutput
from teacher_logits.extraction.postprocess import AsyncPostProcessor, prefetch
from teacher_logits.extraction.prepare import PreparedRun, plan_rows, prepare_run
from teacher_logits.extraction.preview import MaskPreview, mask_preview
from teacher_logits.extraction.resume import find_stored_run, require_same_run
from teacher_logits.extraction.stations import RowSink, batch_sampler, ready_batches
from teacher_logits.extraction.stop import GracefulInterrupt, TimedShutdown, grace_seconds
from teacher_logits.extraction.summary import RunSummary, resume_command
from teacher_logits.hub import StreamingHFUploader, open_repository, patiently
from teacher_logits.journal import RunCache
from teacher_logits.progress import progress
from teacher_logits.records import Batch
from teacher_logits.sampling import SamplingSettings
from teacher_logits.settings import ExtractionConfig, is_folder
from teacher_logits.teacher import Teacher, load_teacher

log = logging.getLogger(__name__)

MANY_SHARDS = 5000
"""From this many shards on, listing and loading a repository gets slow."""

Confirm = Callable[[MaskPreview], bool]


def run_extraction(
    config: ExtractionConfig, stop: GracefulInterrupt | None = None, confirm: Confirm | None = None
) -> RunSummary:
    """Extract the teacher's logits for every selected conversation that the output doesn't hold yet.

    stop: asked between batches whether to stop.   confirm: with --verify-mask, shown a few marked conversations;
    returns whether to go on. Raises TeacherLogitsErrors; what was computed until then is kept for --resume.
    """
    stop = stop or GracefulInterrupt()
    clock = TimedShutdown(config.max_runtime_minutes, _saving_seconds(config))
    if config.max_runtime_minutes is not None:
        log.info("stopping in time for --max-runtime-minutes %s", config.max_runtime_minutes)
    stop.limit_start(clock.remaining)
    cache = RunCache(Path(config.require_complete().cache_dir).expanduser())
    opened = open_repository(str(config.output), config.private, config.commit_interval_minutes)
    with cache.locked(), closing(opened) as repository:
        summary = RunSummary(repository.address, resume_command(config))
        stored = find_stored_run(config, cache, repository, patiently(repository.snapshot))
        run = prepare_run(config, stored)
        if stored is not None:
            require_same_run(stored, run.metadata, repository.address)
        if config.verify_mask and confirm is not None and not confirm(mask_preview(run)):
            raise NotConfirmedError("Stopped before anything was extracted: what is marked was not confirmed.")

        output = RunOutput(run, stored, cache, repository)
        plan = plan_rows(run, output.done, output.skipped)

        def stopping() -> bool:
            return stop.requested or clock.due

        if not len(plan.rows):
            output.begin({}, stopping)
            stop.begin_work()
            output.finish(summary, stopping)
            return summary

        summary.left = len(plan.rows)
        teacher = _load(run)
        fitting = FittingBatches(teacher, sampling_settings(config, teacher))
        sampler = batch_sampler(run, plan, teacher)
        sink = RowSink(output, Contents(config.store_tokens), summary)
        _warn_of_many_shards(len(plan.rows), config)
        output.begin(_teacher_metadata(teacher), stopping)
        stop.begin_work()
        finished, started = True, time.monotonic()
        with (
            output.keeping_rows_on_failure(),
            AsyncPostProcessor(sink.take) as packer,
            output.no_waiting_on_failure(),
            progress("extracting", len(plan.rows), "conversations") as bar,
            prefetch(ready_batches(run, plan, sampler, sink)) as batches,
        ):
            for batch in batches:
                if stopping():
                    finished = False
                    if clock.due and not summary.conversations:
                        log.warning("--max-runtime-minutes left no time for a batch: give more")
                    break
                with clock.batch():
                    results = list(fitting.process(batch))
                for result in results:
                    packer.submit(result)
                summary.seconds = time.monotonic() - started
                bar.advance(len(batch.index), _note(batch, summary, output.uploader, clock))
        if finished:
            output.require_rows()
            output.finish(summary, stopping)
        else:
            output.suspend(summary)
        return summary


def _saving_seconds(config: ExtractionConfig) -> float:
    """What the time limit keeps back for uploads. A folder takes what it gets at once."""
    return 0.0 if is_folder(str(config.output)) else grace_seconds(config.upload_on_stop)


def sampling_settings(config: ExtractionConfig, teacher: Teacher) -> SamplingSettings:
    """The sampler's part of the options."""
    return SamplingSettings(config.top_p, config.top_p_max_elements, config.sampled_n, config.seed, teacher.vocab_used)


def _load(run: PreparedRun) -> Teacher:
    log.info("loading %s", run.identity.name)
    largest = max(run.tokenizer.get_vocab().values(), default=0)
    return load_teacher(run.config, run.identity, len(run.tokenizer), largest, str(run.metadata["model_dtype"]))


def _teacher_metadata(teacher: Teacher) -> dict[str, Any]:
    return {
        "vocab_size": teacher.vocab_size,
        "vocab_used": teacher.vocab_used,
        "logits_dtype": str(teacher.logits_dtype).removeprefix("torch."),
    }


def _warn_of_many_shards(conversations: int, config: ExtractionConfig) -> None:
    shards = conversations // config.upload_every
    if shards > MANY_SHARDS:
        log.warning(
            "%s conversations in shards of %s make %s files; raise --upload-every to stay below %s",
            f"{conversations:,}",
            config.upload_every,
            f"{shards:,}",
            f"{MANY_SHARDS:,}",
        )


def _note(batch: Batch, summary: RunSummary, uploader: StreamingHFUploader, clock: TimedShutdown) -> str:
    rows, length = batch.input_ids.shape
    parts = [
        f"{summary.tokens / max(1e-9, summary.seconds):,.0f} tok/s",
        f"batch {rows}x{length}",
        f"buffer {uploader.buffered_rows}",
    ]
    if uploader.uploading:
        parts.append("⬆")
    if clock.remaining is not None:
        parts.append(f"time limit in {max(0.0, clock.remaining) / 60:.1f} min")
    return ", ".join(parts)
