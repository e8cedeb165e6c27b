"""Counting the tokens of many short conversations, and planning a run over them: time, and memory of all processes.

    python benchmarks/lengths.py [--conversations 1000000] [--model FOLDER]

Each row is a process of its own with its worker processes. Memory is the largest sum of what they hold at an instant,
seen twenty times a second; what several of them share counts once (on Linux; elsewhere once each).
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
import tyro
from measuring import machine_line, print_table
from models import TINY, save_teacher, write_chats

from teacher_logits.command_line.shell import quiet_libraries

ROOT = Path(__file__).resolve().parent.parent
SECONDS_BETWEEN_LOOKS = 0.05
PLAN = """
from pathlib import Path
from teacher_logits.batching import TokenBudgetBatchSampler
from teacher_logits.command_line.extract import parse_args
from teacher_logits.command_line.shell import set_up_reporting
from teacher_logits.extraction.prepare import plan_rows, prepare_run
from teacher_logits.journal import SkippedLog
import numpy as np
if __name__ == "__main__":
    set_up_reporting()
    run = prepare_run(parse_args(), None)
    plan = plan_rows(run, np.zeros(0, np.int64), SkippedLog(Path("skipped.jsonl")))
    batches = list(TokenBudgetBatchSampler(plan.lengths, 4096))
    assert sum(map(len, batches)) == len(plan.rows)
"""
"""All that `extract_logits.py` does before it loads the teacher, and the batches."""
HEADER = ("what", "seconds", "conversations/s", "of them counting", "largest memory, MB")


@dataclasses.dataclass(frozen=True)
class Options:
    """Count many short conversations and plan a run over them."""

    conversations: int = 1_000_000
    tokens: int = 40
    """Of a conversation with a tokenizer of single letters, about."""
    model: str | None = None
    """A folder with a tokenizer; by default a tiny teacher's, whose tokens are single letters."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of a process and its children."""

    seconds: float
    bytes: int
    said: str

    @property
    def counting(self) -> str:
        """Conversations a second while it counted, as it said."""
        lines = [line for line in self.said.splitlines() if line.startswith("counted ")]
        return lines[0].split(": ")[1].split()[0] if lines else ""


def measure(command: list[str], home: Path) -> Cost:
    """Run a command to its end."""
    environment = os.environ | {"HF_HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    began, most = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as log:
        process = psutil.Popen([sys.executable, *command], env=environment, stdout=subprocess.DEVNULL, stderr=log)
        while process.poll() is None:
            most = max(most, _held(process))
            time.sleep(SECONDS_BETWEEN_LOOKS)
        log.seek(0)
        said = log.read()
    if process.returncode:
        raise SystemExit(said)
    return Cost(time.perf_counter() - began, most, said)


def _held(process: psutil.Process) -> int:
    """Bytes of memory that a process and its children hold now."""
    total = 0
    try:
        for each in (process, *process.children(recursive=True)):
            memory = each.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
    except psutil.Error:  # one ended meanwhile
        return 0
    return total


def main() -> None:
    """Print the table."""
    options = tyro.cli(Options, prog="lengths.py")
    quiet_libraries()
    print(machine_line("transformers", "datasets", "pyarrow"))
    print(f"{options.conversations:,} conversations, one run each\n")
    with tempfile.TemporaryDirectory() as folder:
        print_table(HEADER, _rows(Path(folder), options))


def _rows(folder: Path, options: Options) -> Iterator[list[str]]:
    model = options.model or str(save_teacher(folder / "teacher", TINY, torch.float32))
    chats = write_chats(folder / "chats.jsonl", options.conversations, options.tokens)
    (folder / "plan.py").write_text(PLAN)
    source = ["--model", model, "--dataset", str(chats)]
    count = [str(ROOT / "compute_lengths.py"), *source]
    plan = [str(folder / "plan.py"), *source, "--output", str(folder / "logits"), "--device", "cpu"]
    commands = {
        "compute_lengths.py": [*count, "--output", str(folder / "sorted")],
        "compute_lengths.py --streaming": [*count, "--output", str(folder / "streamed"), "--streaming"],
        "compute_lengths.py --processes 0": [*count, "--output", str(folder / "alone"), "--processes", "0"],
        "planning a run, counting": plan,
        "planning a run, --tokenized-dataset": [*plan, "--tokenized-dataset", str(folder / "sorted")],
    }
    for what, command in commands.items():
        cost = measure(command, folder / "home")
        yield [
            what,
            f"{cost.seconds:.1f}",
            f"{options.conversations / cost.seconds:,.0f}",
            cost.counting,
            f"{cost.bytes / 1e6:,.0f}",
        ]


if __name__ == "__main__":
    main()
