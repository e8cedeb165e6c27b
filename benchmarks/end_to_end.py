"""A whole run against the bare forward passes of its batches, and where its time goes.

    python benchmarks/end_to_end.py [--conversations 48] [--tokens 256] [--repeats 3] [--threads 2]

Every repeat is a whole extraction into a folder, in this process: dataset, template, batches, teacher, sampler, rows,
shards, commit. Right after each batch the same batch goes through the same teacher again, with the masked forward pass
alone, so that both meet the machine in the same state. The ratio is that of everything from the first batch to the last
commit, without those bare passes, over them. (What other threads do meanwhile is shown, and small.) What comes before
the first batch, reading, counting, loading the model, is shown apart. Half of the tokens are the assistant's; the model
has random weights.
"""

import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import tyro
from measuring import machine_line, print_table, spread
from models import HALF_BILLION, SMALL, Shape, save_teacher, write_chats

from teacher_logits.command_line.shell import quiet_libraries
from teacher_logits.extraction import batches, extract, stations
from teacher_logits.extraction.extract import run_extraction
from teacher_logits.hub import StreamingHFUploader
from teacher_logits.records import Batch
from teacher_logits.settings import ExtractionConfig
from teacher_logits.teacher import Teacher

CASES = ((HALF_BILLION, "bfloat16"), (SMALL[1], "float32"), (SMALL[0], "float32"))
STATIONS = {
    "waiting for batches": "reading, template, tokenizer and collation are done by another thread",
    "forward": "of the teacher, in the main thread",
    "sampling": "nucleus, samples, log-sum-exps, in the main thread",
    "waiting for packing": "packing and writing are done by another thread",
    "packing": "in its thread",
    "writing": "of shards, in the same thread",
    "finishing": "the last shard, its commit, the checkpoint",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure whole runs."""

    conversations: int = 48
    """Conversations a run."""
    tokens: int = 256
    """Tokens of a conversation, about."""
    repeats: int = 3
    """Runs of each model."""
    threads: int = 2
    """Threads of torch."""


class Watch:
    """Seconds by station, and of the bare passes."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.bare = 0.0
        self.teacher: Teacher | None = None
        self.first_batch = 0.0

    def timed(self, station: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, its time counted."""

        def watched(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*arguments, **named)
            finally:
                self.seconds[station] += time.perf_counter() - began

        return watched

    def timed_iterator(self, station: str, items: Iterator[Any]) -> Iterator[Any]:
        """The same items, the waiting for each counted."""
        following = self.timed(station, lambda: next(items, None))
        while (item := following()) is not None:
            yield item

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the run made inside the block."""
        prefetch, load = extract.prefetch, extract._load
        uploader, packer = StreamingHFUploader, extract.AsyncPostProcessor

        @contextlib.contextmanager
        def watched_prefetch(items: Iterator[Batch]) -> Iterator[Iterator[Batch]]:
            self.first_batch = time.perf_counter()
            with prefetch(items) as prepared:
                yield self._followed(self.timed_iterator("waiting for batches", prepared))

        def watched_load(*arguments: Any) -> Teacher:
            self.teacher = load(*arguments)
            return self.teacher

        with contextlib.ExitStack() as stack:
            for place, name, work in (
                (extract, "prefetch", watched_prefetch),
                (extract, "_load", watched_load),
                (Teacher, "logits", lambda *given: self.timed_iterator("forward", LOGITS(*given))),
                (batches, "sample", self.timed("sampling", batches.sample)),
                (stations, "cpu_postprocess_batch", self.timed("packing", stations.cpu_postprocess_batch)),
                (uploader, "_write_shard", self.timed("writing", uploader._write_shard)),
                (uploader, "finish", self.timed("finishing", uploader.finish)),
                (packer, "submit", self.timed("waiting for packing", packer.submit)),
                (packer, "close", self.timed("waiting for packing", packer.close)),
            ):
                stack.enter_context(patch.object(place, name, work))
            yield

    def _followed(self, prepared: Iterator[Batch]) -> Iterator[Batch]:
        """Each batch, and when the run is done with it, its bare pass."""
        assert self.teacher is not None
        for batch in prepared:
            yield batch
            self.bare += forward_seconds(self.teacher, batch)


LOGITS = Teacher.logits


def forward_seconds(teacher: Teacher, batch: Batch) -> float:
    """Of the masked forward pass."""
    arrays = (batch.input_ids, batch.attention_mask, batch.predicts)
    began = time.perf_counter()
    for _ in LOGITS(teacher, *(torch.from_numpy(array).to(teacher.device) for array in arrays)):
        pass
    if teacher.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def measured(folder: Path, options: Options, dtype: str, device: str = "cpu") -> Iterator[dict[str, Any]]:
    """Runs of the teacher in `folder`, one after another, with what they took. The first isn't counted."""
    chats = write_chats(folder / "chats.jsonl", options.conversations, options.tokens)
    for number in range(options.repeats + 1):
        config = ExtractionConfig(
            model=str(folder),
            dataset=str(chats),
            output=str(folder / f"logits-{number}"),
            cache_dir=str(folder / f"cache-{number}"),
            dtype=dtype,
            device=device,
            batch_tokens=2048 if device == "cpu" else None,
        )
        watch, began = Watch(), time.perf_counter()
        with watch.watching():
            summary = run_extraction(config)
        ended = time.perf_counter()
        assert summary.complete
        if number:
            yield {
                "before": watch.first_batch - began,
                "whole": ended - watch.first_batch - watch.bare,
                "bare": watch.bare,
                "tokens": summary.tokens,
                "nucleus": summary.mean_nucleus,
                "stations": watch.seconds,
            }


def show(shape: Shape, dtype: str, runs: list[dict[str, Any]]) -> None:
    """Print one model's figures."""
    ratios = sorted(run["whole"] / run["bare"] for run in runs)
    speeds = sorted((run["tokens"] / run["whole"] for run in runs), reverse=True)
    print(f"\n{shape}, {dtype}, mean nucleus {runs[0]['nucleus']:.1f}: {spread(speeds)} assistant tokens/s,")
    print(f"**{spread(ratios, '.3f')} times the bare masked forward passes**\n")
    print_table(("station", "share of the run's time", "what it is"), _stations(runs))
    print(f"\nbefore the first batch: {statistics.median(run['before'] for run in runs):.1f} s")


def _stations(runs: list[dict[str, Any]]) -> Iterator[list[str]]:
    for station, meaning in STATIONS.items():
        shares = sorted(run["stations"][station] / run["whole"] * 100 for run in runs)
        yield [station, f"{spread(shares, '.2f')} %", meaning]


def main() -> None:
    """Print the tables."""
    options = tyro.cli(Options, prog="end_to_end.py")
    torch.set_num_threads(options.threads)
    quiet_libraries()
    print(machine_line("torch", "transformers", "pyarrow"))
    print(f"{options.conversations} conversations of about {options.tokens} tokens, median of {options.repeats}")
    for shape, dtype in CASES:
        with tempfile.TemporaryDirectory() as folder:
            teacher = save_teacher(Path(folder), shape, getattr(torch, dtype))
            show(shape, dtype, list(measured(teacher, options, dtype)))


if __name__ == "__main__":
    main()
