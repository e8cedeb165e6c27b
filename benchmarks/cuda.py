"""Sampler, overhead and whole runs on a GPU, by the GPU's own clock.

    python benchmarks/cuda.py [--rows 4096] [--tokens 16384] [--repeats 10]

Three tables: the sampler against log-softmax + top-128 and against the floor, one read of the logits (their maximum);
extraction against the bare forward pass; a whole run against the forward passes of its batches. Without a CUDA device
nothing is measured.
"""

import dataclasses
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import end_to_end
import overhead
import torch
import tyro
from measuring import machine_line, print_table, spread
from models import HALF_BILLION, Shape, made_teacher, save_teacher
from sampling import TOP, VOCABULARIES, made_logits, settings_for

from teacher_logits.command_line.shell import quiet_libraries
from teacher_logits.sampling import sample

SEVEN_BILLION = Shape(3584, 28, 151_936, 28, 18_944)
HEADER = (
    "vocabulary",
    "type",
    "rows are",
    "µs a row (fastest-slowest)",
    "over log-softmax + top-128",
    "over one read of the logits",
    "extra MB for 32 rows",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure on a GPU."""

    rows: int = 4096
    """Rows of logits at a time."""
    tokens: int = 16_384
    """Tokens of a batch of the forward pass."""
    conversations: int = 2_000
    """Conversations of a whole run."""
    repeats: int = 10
    """Of each measurement."""


def gpu_seconds(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Sorted durations between two events on the GPU, of works that take turns; two runs first that aren't counted."""
    for work in works.values():
        work(), work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            work()
            ended.record()
            torch.cuda.synchronize()
            taken[name].append(began.elapsed_time(ended) / 1e3)
    return {name: sorted(durations) for name, durations in taken.items()}


def extra_bytes(work: Callable[[], object]) -> int:
    """Most bytes allocated on the GPU at one time, beside what was before."""
    work()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return torch.cuda.max_memory_allocated() - before


def main() -> None:
    """Print the tables."""
    options = tyro.cli(Options, prog="cuda.py")
    if not torch.cuda.is_available():
        print("no CUDA device: nothing measured")
        return
    quiet_libraries()
    print(machine_line("torch", "transformers"), torch.cuda.get_device_name(), sep=", ")
    print(f"\n{options.rows} rows, median of {options.repeats}\n")
    print_table(HEADER, _sampling(options))
    print(f"\nbatches of {options.tokens} tokens\n")
    print_table(overhead.HEADER, _overhead(options))
    with tempfile.TemporaryDirectory() as folder:
        teacher = save_teacher(Path(folder), HALF_BILLION, torch.bfloat16)
        chosen = end_to_end.Options(options.conversations, 512, 3)
        end_to_end.show(HALF_BILLION, "bfloat16", list(end_to_end.measured(teacher, chosen, "bfloat16", "cuda")))


def _sampling(options: Options) -> Iterator[list[str]]:
    for vocabulary in VOCABULARIES:
        for dtype in (torch.bfloat16, torch.float32):
            for kind in ("peaked", "flat"):
                yield _sampled(vocabulary, dtype, kind, options)


def _sampled(vocabulary: int, dtype: torch.dtype, kind: str, options: Options) -> list[str]:
    logits = made_logits(64, vocabulary, kind, dtype).cuda().repeat(max(1, options.rows // 64), 1)
    key = torch.arange(len(logits), device="cuda")
    settings = settings_for(vocabulary)
    taken = gpu_seconds(
        {
            "ours": lambda: sample(logits, key, key, key, settings),
            "plain": lambda: [torch.log_softmax(part, -1).topk(TOP, -1) for part in logits.split(512)],
            "read": lambda: logits.amax(-1),
        },
        options.repeats,
    )
    middle = {name: statistics.median(durations) for name, durations in taken.items()}
    return [
        f"{vocabulary:,}",
        str(dtype).removeprefix("torch."),
        kind,
        spread([duration / len(logits) * 1e6 for duration in taken["ours"]], ".2f"),
        f"{middle['ours'] / middle['plain']:.2f}",
        f"{middle['ours'] / middle['read']:.1f}",
        f"{extra_bytes(lambda: sample(logits[:32], key[:32], key[:32], key[:32], settings)) / 1e6:.1f}",
    ]


def _overhead(options: Options) -> Iterator[list[object]]:
    for shape in (HALF_BILLION, SEVEN_BILLION):
        teacher = made_teacher(shape, torch.bfloat16, "cuda")
        batch = overhead.batch_of(options.tokens, shape.vocabulary, "cuda")
        taken = gpu_seconds(overhead.ways(teacher, batch), options.repeats)
        nucleus = overhead.mean_nucleus(teacher, batch)
        yield overhead.row(str(shape), torch.bfloat16, nucleus, taken, int(batch[2].sum()))


if __name__ == "__main__":
    main()
