"""Whole runs on tiny teachers: in this process, as a command, or in quick copies of a process that has torch loaded."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from teacher_logits.extraction.extract import run_extraction
from teacher_logits.extraction.stop import GracefulInterrupt
from teacher_logits.extraction.summary import RunSummary
from teacher_logits.settings import ExtractionConfig
from teacher_logits.shards import read_table, shard_schema

ROOT = Path(__file__).parents[2]


class StopAfter(GracefulInterrupt):
    """Asks to stop when it has been asked `batches` times."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self._left = batches

    @property
    def requested(self) -> bool:
        self._left -= 1
        return self._left < 0


@dataclass(frozen=True)
class Place:
    """Where a run reads and writes. Runs of one place continue each other."""

    teacher: Path
    data: Path
    output: Path | str
    cache: Path

    def config(self, **options: Any) -> ExtractionConfig:
        """The options of a run here, with small shards unless told otherwise."""
        given = {"model": str(self.teacher), "dataset": str(self.data), "output": str(self.output)}
        small = {"cache_dir": str(self.cache), "upload_every": 7, "device": "cpu"}
        return ExtractionConfig(**(given | small | options))

    def run(self, stop: GracefulInterrupt | None = None, **options: Any) -> RunSummary:
        """A run in this process."""
        return run_extraction(self.config(**options), stop)

    def arguments(self, *options: str) -> list[str]:
        """The same as the arguments of a command."""
        given = ["--model", str(self.teacher), "--dataset", str(self.data), "--output", str(self.output)]
        return [*given, "--cache-dir", str(self.cache), "--device", "cpu", *options]

    @property
    def folder(self) -> Path:
        return Path(self.output)

    @property
    def checkpoint(self) -> dict[str, Any]:
        return json.loads((self.folder / "checkpoint.json").read_text())

    @property
    def skipped(self) -> dict[int, str]:
        """What skipped.jsonl says, which must name each conversation once."""
        lines = (self.folder / "skipped.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines]
        assert len({entry["index"] for entry in entries}) == len(entries)
        return {entry["index"]: entry["reason"] for entry in entries}

    @property
    def kept(self) -> dict[str, Any]:
        """The cache folder's own checkpoint."""
        return json.loads((self.cache / "checkpoint.json").read_text())

    def waiting(self) -> list[int]:
        """Source numbers of the rows in the cache folder."""
        shards = [*self.cache.glob("spool/*.parquet"), *self.cache.glob("pending/*.parquet")]
        return sorted(index for shard in shards for index in read_table(shard, ["index"])["index"].to_pylist())


def stored_rows(folder: Path) -> pa.Table:
    """The rows of an output folder by rising index. Each index must be there once."""
    return by_index([pq.read_table(path) for path in sorted((folder / "data").glob("*.parquet"))])


def by_index(tables: list[pa.Table]) -> pa.Table:
    """Rows by rising index, which must not repeat."""
    whole = [table.replace_schema_metadata(None) for table in tables]
    if not whole:
        return shard_schema().empty_table()
    table = pa.concat_tables(whole).sort_by("index").combine_chunks()
    indices = table.column("index").to_pylist()
    assert len(set(indices)) == len(indices), "a conversation is stored twice"
    return table


def require_agreement(folder: Path) -> dict[str, Any]:
    """Check that checkpoint.json lists exactly the shards there are, with their rows; returns it."""
    checkpoint = json.loads((folder / "checkpoint.json").read_text())
    shards = {f"data/{path.name}": pq.read_metadata(path).num_rows for path in (folder / "data").iterdir()}
    assert {path: entry["rows"] for path, entry in checkpoint["shards"].items()} == shards
    assert checkpoint["total_samples"] == sum(shards.values())
    return checkpoint


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.out.strip().splitlines()[-1]


def command(
    *arguments: str,
    face: str = "extract_logits.py",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120,
) -> Ended:
    """Run a face as its users do."""
    done = subprocess.run(
        [sys.executable, str(ROOT / face), *arguments],
        env=dict(env or os.environ),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


class Child:
    """A run in a copy of the server's process."""

    def __init__(self, server: "ForkServer", pid: int, out: Path, err: Path) -> None:
        self._server, self.pid, self._out, self._err = server, pid, out, err

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> Ended:
        """Its end. The code is negative where a signal killed it, as in `subprocess`."""
        code = os.waitstatus_to_exitcode(int(self._server.ask("wait")))
        return Ended(code, self._out.read_text(), self._err.read_text())


class ForkServer:
    """A process that has everything imported and forks for each run, so that a run takes a second and not ten."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder, self._runs = process, folder, 0

    def ask(self, *words: str) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def start(self, *arguments: str, face: str = "extract") -> Child:
        """Begin `python <face>_logits.py ARGUMENTS` (face "lengths": compute_lengths.py)."""
        self._runs += 1
        out, err = (self._folder / f"{self._runs}.{name}" for name in ("out", "err"))
        return Child(self, int(self.ask("run", face, os.devnull, str(out), str(err), *arguments)), out, err)

    def run(self, *arguments: str, face: str = "extract") -> Ended:
        return self.start(*arguments, face=face).wait()


@contextmanager
def fork_server(
    folder: Path, env: Mapping[str, str] | None = None, module: str = "tests.extraction.forking"
) -> Iterator[ForkServer]:
    """A `ForkServer` that keeps what its runs print in `folder`. module: what it runs; one that calls `serve`."""
    folder.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-m", module],
        env=dict(env or os.environ),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        server = ForkServer(process, folder)
        assert server.ask("ready") == "ready"
        yield server
        assert process.stdin is not None
        process.stdin.close()
