"""Time and memory of whole runs as the dataset grows, and of `--resume` where all is done.

    python benchmarks/scaling.py [--conversations 1000 10000 100000] [--tokens 16]

Each run is the command itself, in a process of its own: short conversations, a teacher of one tiny layer. Memory is
the largest resident size that the operating system saw. It must not grow with the dataset beyond what is kept of each
conversation: its number, its length, its place.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import tyro
from measuring import machine_line, print_table
from models import TINY, save_teacher, write_chats

from teacher_logits.command_line.shell import quiet_libraries

PROGRAM = Path(__file__).resolve().parent.parent / "extract_logits.py"
LAUNCHER = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A small process between: what a process held before its program was loaded, a copy of its parent, counts, too."""
HEADER = (
    "conversations",
    "run, s",
    "conversations/s",
    "largest memory, MB",
    "resume, s",
    "its largest memory, MB",
    "bytes of memory a conversation more",
    "resume: bytes",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure runs over datasets of several sizes."""

    conversations: tuple[int, ...] = (1_000, 10_000, 100_000)
    """Sizes of the datasets, rising."""
    tokens: int = 16
    """Tokens of a conversation, about; half of them are the assistant's."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one process."""

    seconds: float
    bytes: int


def run(folder: Path, teacher: Path, chats: Path, *more: str) -> Cost:
    """Run the command to its end and tell what it took."""
    output, cache = folder / f"logits-{chats.stem}", folder / f"cache-{chats.stem}"
    command = [sys.executable, str(PROGRAM), "--model", str(teacher), "--dataset", str(chats), "--device", "cpu"]
    command += ["--output", str(output), "--cache-dir", str(cache), "--upload-every", "5000", *more]
    environment = os.environ | {"HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    with (folder / "log").open("w") as log:
        launcher = [sys.executable, "-c", LAUNCHER, *command]
        ended = subprocess.run(launcher, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    if ended.returncode:
        raise SystemExit((folder / "log").read_text())
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(time.perf_counter() - began, int(ended.stdout) * unit)


def main() -> None:
    """Print the table."""
    options = tyro.cli(Options, prog="scaling.py")
    quiet_libraries()
    print(machine_line("torch", "datasets", "pyarrow"))
    print(f"conversations of about {options.tokens} tokens, one run each, one thread\n")
    with tempfile.TemporaryDirectory() as folder:
        print_table(HEADER, _rows(Path(folder), options))


def _rows(folder: Path, options: Options) -> Iterator[list[str]]:
    teacher = save_teacher(folder / "teacher", TINY, torch.float32)
    smallest: tuple[int, Cost, Cost] | None = None
    for count in options.conversations:
        chats = write_chats(folder / f"{count}.jsonl", count, options.tokens)
        whole, again = run(folder, teacher, chats), run(folder, teacher, chats, "--resume")
        smallest = smallest or (count, whole, again)
        more = count - smallest[0]
        yield [
            f"{count:,}",
            f"{whole.seconds:.1f}",
            f"{count / whole.seconds:,.0f}",
            f"{whole.bytes / 1e6:,.0f}",
            f"{again.seconds:.1f}",
            f"{again.bytes / 1e6:,.0f}",
            *(
                f"{(now.bytes - then.bytes) / more:,.0f}" if more else ""
                for now, then in zip((whole, again), smallest[1:], strict=True)
            ),
        ]


if __name__ == "__main__":
    main()
