"""What the sampler costs: rows a second, against the slow reference and against what truncating systems do.

    python benchmarks/sampling.py [--rows 64] [--repeats 7]

The yardstick is log-softmax and the 128 largest, in the logits' own type: it keeps less and is not exact. Everything
is a ratio within one run, on one thread, since machines are shared and noisy; medians and the spread from the fastest
to the slowest repeat are shown. Extra memory is what the sampler allocates beside the logits of 32 rows, at its peak.
"""

import dataclasses
import os
import statistics
from collections.abc import Callable, Iterator

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler, which counts memory, would talk between the rows

import numpy as np
import torch
import tyro
from measuring import machine_line, print_table, seconds, seconds_in_turn, spread

from teacher_logits.records import SparseDistribution
from teacher_logits.sampling import SamplingSettings, sample
from teacher_logits.sampling.reference import reference_entry

VOCABULARIES = (6_144, 32_000, 151_936, 262_144)
TOP = 128
HEADER = (
    "vocabulary",
    "type",
    "rows are",
    "mean nucleus",
    "rows/s",
    "ms a row (fastest-slowest)",
    "over log-softmax + top-128",
    "reference over it",
    "extra MB for 32 rows",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure the sampler."""

    rows: int = 64
    """Rows at a time."""
    repeats: int = 7
    """Of each measurement."""


def settings_for(vocabulary: int) -> SamplingSettings:
    """What extraction does unless told otherwise."""
    return SamplingSettings(0.98, 100, 24, 42, vocabulary)


def made_logits(rows: int, vocabulary: int, kind: str, dtype: torch.dtype) -> torch.Tensor:
    """Logits like a teacher's: peaked (a few hundred candidates above a low floor) or flat."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(rows, vocabulary, generator=generator)
    if kind == "peaked":
        places = torch.randperm(vocabulary, generator=generator)[:300]
        logits[:, places] += 6 + 6 * torch.randn(rows, 300, generator=generator)
    return logits.to(dtype)


def extra_bytes(work: Callable[[], object]) -> int:
    """Most bytes that torch held at one time, beside what it held before, by its own account of allocations."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    held = most = 0
    events = sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    for event in events:
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def main() -> None:
    """Print the table."""
    options = tyro.cli(Options, prog="sampling.py")
    torch.set_num_threads(1)
    print(machine_line("torch"))
    print(f"{options.rows} rows, median of {options.repeats}, one thread\n")
    print_table(HEADER, _rows(options))


def _rows(options: Options) -> Iterator[list[object]]:
    for vocabulary in VOCABULARIES:
        for dtype in (torch.bfloat16, torch.float32):
            for kind in ("peaked", "flat"):
                yield _row(vocabulary, dtype, kind, options)


def _row(vocabulary: int, dtype: torch.dtype, kind: str, options: Options) -> list[object]:
    count = options.rows
    logits = made_logits(count, vocabulary, kind, dtype)
    key = torch.arange(count)
    settings = settings_for(vocabulary)

    def ours() -> SparseDistribution:
        return sample(logits, key, key, key, settings)

    def plain() -> None:
        for part in logits.split(8):
            torch.log_softmax(part, -1).topk(TOP, -1)

    def reference() -> None:
        reference_entry(logits[0].float().tolist(), 0, 0, 1, 0.98, 100, 24, 42)

    taken = seconds_in_turn({"ours": ours, "plain": plain}, options.repeats)
    a_row = [duration / count for duration in taken["ours"]]
    middle = statistics.median(a_row)
    return [
        f"{vocabulary:,}",
        str(dtype).removeprefix("torch."),
        kind,
        f"{float(np.mean(ours().top_counts)):.1f}",
        f"{1 / middle:,.0f}",
        spread([duration * 1e3 for duration in a_row], ".3f"),
        f"{middle * count / statistics.median(taken['plain']):.2f}",
        f"{seconds(reference, 1)[0] / middle:,.0f}",
        f"{extra_bytes(lambda: sample(logits[:32], key[:32], key[:32], key[:32], settings)) / 1e6:.1f}",
    ]


if __name__ == "__main__":
    main()
