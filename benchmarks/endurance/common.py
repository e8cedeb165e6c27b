"""What the trials share: a small world with its undisturbed run, a judge of outputs, runs that can't hang, tables."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.endurance.launcher import COMMIT_SECONDS, QUICK_EXIT
from benchmarks.measuring import machine_line, print_table
from tests.extraction.runs import Child, Ended, ForkServer, Place, fork_server
from tests.hub_server import HubServer, hub_environment
from tests.tiny import question_rows, save_teacher, write_jsonl

HUNG = 124
"""The code of a run that had to be ended because it took too long."""
ENDPOINTS = {
    "whoami": ("GET", r"/api/whoami-v2"),
    "create repository": ("POST", r"/api/repos/create"),
    "dataset info": ("GET", r"/api/datasets/[^/]+/[^/?]+$"),
    "revision": ("GET", r"/revision/"),
    "tree": ("GET", r"/tree/"),
    "paths": ("POST", r"/paths-info/"),
    "preupload": ("POST", r"/preupload/"),
    "LFS batch": ("POST", r"/info/lfs/objects/batch"),
    "storage PUT": ("PUT", r"/storage/"),
    "LFS verify": ("POST", r"/info/lfs/verify"),
    "validate YAML": ("POST", r"/api/validate-yaml"),
    "commit": ("POST", r"/commit/"),
    "resolve HEAD": ("HEAD", r"/resolve/"),
    "resolve GET": ("GET", r"/resolve/"),
    "storage GET": ("GET", r"/storage/"),
}
"""What a client asks of a Hub: name -> method, pattern of the path."""


def endpoint_of(method: str, path: str) -> str:
    """The name of what a request asks for."""
    for name, (known, pattern) in ENDPOINTS.items():
        if method == known and re.search(pattern, path):
            return name
    return f"{method} {path.split('?')[0]}"


@dataclass
class Verdict:
    """What is wrong with an output, in rows and in words."""

    lost: int = 0
    doubled: int = 0
    changed: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        return not (self.lost or self.doubled or self.changed or self.problems)

    def __str__(self) -> str:
        return f"{self.lost} lost, {self.doubled} doubled, {self.changed} changed; {'; '.join(self.problems)}"


@dataclass(frozen=True)
class Judge:
    """Compares outputs with that of the undisturbed run."""

    truth: pa.Table
    """Its rows by rising index, without metadata."""
    skipped: bytes | None = None
    """Its skipped.jsonl."""

    def sound(self, files: Mapping[str, bytes], exact: bool = True, whole_commits: bool = False) -> Verdict:
        """Whether an output, as it is at some instant, holds nothing twice or changed, and its checkpoint no shard that
        isn't there. whole_commits: shards and checkpoint arrive together, so none may go unlisted either."""
        verdict = Verdict()
        rows = self._rows(files, verdict)
        self._compare(rows, exact, verdict)
        if "checkpoint.json" in files:
            self._check_listing(files, verdict, whole_commits)
        return verdict

    def complete(self, files: Mapping[str, bytes], exact: bool = True) -> Verdict:
        """Whether an output holds exactly the undisturbed run's rows, and says so."""
        verdict = self.sound(files, exact, whole_commits=True)
        found = set(self._rows(files, Verdict()).column("index").to_pylist())
        verdict.lost = len(set(self.truth.column("index").to_pylist()) - found)
        listed: dict[str, Any] = {}
        with contextlib.suppress(ValueError):  # `sound` has told that
            listed = json.loads(files.get("checkpoint.json", b"{}"))
        if listed.get("complete") is not True or listed.get("total_samples") != len(self.truth):
            verdict.problems.append("checkpoint.json doesn't say that the output is complete, with its rows")
        if files.get("skipped.jsonl") != self.skipped:
            verdict.problems.append("skipped.jsonl differs")
        if "README.md" not in files:
            verdict.problems.append("there is no card")
        return verdict

    def _rows(self, files: Mapping[str, bytes], verdict: Verdict) -> pa.Table:
        tables = [self.truth.slice(0, 0)]
        for path in sorted(path for path in files if path.startswith("data/") and path.endswith(".parquet")):
            try:
                tables.append(pq.read_table(io.BytesIO(files[path])).replace_schema_metadata(None))
            except (pa.ArrowInvalid, OSError) as error:
                verdict.problems.append(f"{path} can't be read: {error}")
        return pa.concat_tables(tables).sort_by("index").combine_chunks()

    def _compare(self, rows: pa.Table, exact: bool, verdict: Verdict) -> None:
        place = {index: number for number, index in enumerate(self.truth.column("index").to_pylist())}
        seen: set[int] = set()
        for number, index in enumerate(rows.column("index").to_pylist()):
            verdict.doubled += index in seen
            seen.add(index)
            found = rows.slice(number, 1)
            if index not in place or not _same(found, self.truth.slice(place[index], 1), exact):
                verdict.changed += 1

    @staticmethod
    def _check_listing(files: Mapping[str, bytes], verdict: Verdict, whole: bool) -> None:
        try:
            listed = json.loads(files["checkpoint.json"])["shards"]
        except (ValueError, KeyError) as error:
            verdict.problems.append(f"checkpoint.json can't be read: {error!r}")
            return
        shards = {path: content for path, content in files.items() if path.startswith("data/")}
        gone = sorted(set(listed) - set(shards))
        unlisted = sorted(set(shards) - set(listed)) if whole else []
        if gone or unlisted:
            verdict.problems.append(f"checkpoint.json lists {gone} which aren't there, and lacks {unlisted}")
        for path in set(listed) & set(shards):
            if listed[path]["sha256"] != hashlib.sha256(shards[path]).hexdigest():
                verdict.problems.append(f"{path} isn't the file that checkpoint.json lists")


def _same(found: pa.Table, true: pa.Table, exact: bool) -> bool:
    """Whether two rows are equal; not exact: up to the teacher's rounding."""
    if exact:
        return found.equals(true)
    kept = ["index", "num_tokens", "input_ids", "positions"]
    if not found.select(kept).equals(true.select(kept)):
        return False
    one, other = (np.array(each.column("logsumexp").to_pylist()[0], float) for each in (found, true))
    return one.shape == other.shape and bool(np.allclose(one, other, atol=1e-3))


@dataclass
class World:
    """A tiny teacher, some chats, a Hub on the loopback address, a process that starts runs, and what is right."""

    folder: Path
    teacher: Path
    data: Path
    server: HubServer
    forks: ForkServer
    judge: Judge
    seconds: float
    """An undisturbed run takes so long."""

    def place(self, output: Path | str, cache: Path) -> Place:
        return Place(self.teacher, self.data, output, cache)

    def files(self, output: Path | str) -> dict[str, bytes]:
        """Every file of an output, whose parts are looked at one by one; none where it isn't there."""
        if isinstance(output, str):
            return self.server.files(output) if self.server.exists(output) else {}
        paths = [path for path in output.rglob("*") if path.is_file() and not path.name.startswith(".")]
        return {path.relative_to(output).as_posix(): path.read_bytes() for path in paths}


@contextlib.contextmanager
def world(conversations: int, timeout: int = 10, quick_exit: bool = True, commit_seconds: str = "0") -> Iterator[World]:
    """A world with so many conversations, one of them without an answer.

    timeout: of the client's reads, in seconds.   quick_exit, commit_seconds: see `launcher`.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        quiet = stack.enter_context((folder / "saving.txt").open("w"))
        with contextlib.redirect_stderr(quiet):
            teacher = save_teacher(folder / "teacher")
        rows = [*question_rows(conversations - 1, longest=40), {"question": "Why?", "answer": "", "subject": "none"}]
        data = write_jsonl(folder / "chat.jsonl", rows)
        server = stack.enter_context(HubServer())
        forks = more_forks(stack, server, folder, timeout, quick_exit, commit_seconds)
        true = Place(teacher, data, folder / "true", folder / "true-cache")
        began = time.monotonic()
        end = forks.run(*true.arguments("--max-batch-size", "1"))
        made = World(folder, teacher, data, server, forks, Judge(pa.table({})), time.monotonic() - began)
        if not is_complete(end):
            tell(f"the undisturbed run: {shown(end)}")
            shutil.rmtree(folder / "true", ignore_errors=True)
            end = forks.run(*true.arguments("--max-batch-size", "1", "--force-restart"))
        if not is_complete(end):
            raise SystemExit(shown(end))
        files = made.files(folder / "true")
        shards = [pq.read_table(io.BytesIO(files[path])) for path in sorted(files) if path.startswith("data/")]
        rows = pa.concat_tables(shards).replace_schema_metadata(None).sort_by("index").combine_chunks()
        made.judge = Judge(rows, files["skipped.jsonl"])
        yield made


def more_forks(
    stack: contextlib.ExitStack,
    server: HubServer,
    folder: Path,
    timeout: int = 10,
    quick_exit: bool = True,
    commit_seconds: str = "0",
) -> ForkServer:
    """A process that starts runs whose Hub is `server`; one of its runs at a time."""
    number = len(list(folder.glob("forks-*")))
    environment = hub_environment(server, folder / "home") | {"OMP_NUM_THREADS": "1"}
    environment |= {"HF_HUB_DOWNLOAD_TIMEOUT": str(timeout), "HF_HUB_ETAG_TIMEOUT": str(timeout)}
    environment[COMMIT_SECONDS] = commit_seconds
    if quick_exit:
        environment[QUICK_EXIT] = "1"
    return stack.enter_context(
        fork_server(folder / f"forks-{number}", environment, module="benchmarks.endurance.launcher")
    )


def end_of(child: Child, seconds: float = 120.0) -> Ended:
    """How a run ends. One that takes longer than `seconds` is killed, and its code is HUNG."""
    late = threading.Event()

    def kill() -> None:
        late.set()
        os.kill(child.pid, signal.SIGKILL)

    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        end = child.wait()
    finally:
        timer.cancel()
    return dataclasses.replace(end, code=HUNG) if late.is_set() else end


def finish(begin: Callable[[], Child], report: "Report", what: str) -> None:
    """Continue a run until it is complete. It must be so at once; it is tried thrice, so that what is lost isn't
    mistaken for what isn't done yet."""
    for _ in range(3):
        end = end_of(begin())
        if is_complete(end):
            return
        report.fail(f"{what}: --resume didn't complete it: {shown(end)}")


def is_complete(end: Ended) -> bool:
    """Whether a run says that everything is done."""
    return end.code == 0 and end.out.rstrip().endswith("complete")


def is_clear(end: Ended) -> bool:
    """Whether a run ended as one that can't go on should: with code 1 or 2, and with one sentence that says why."""
    told = [line for line in end.err.splitlines() if line.startswith("error: ")]
    return end.code in (1, 2) and len(told) == 1 and "Traceback" not in end.err and len(told[0]) > 30


def shown(end: Ended) -> str:
    """The last of what a run printed, for a report."""
    return f"code {end.code}\n  stdout: {end.out.strip()[-600:]!r}\n  stderr: {end.err.strip()[-800:]!r}"


def tell(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class Report:
    """What went wrong in a trial, and when it must end."""

    minutes: float
    rows: Verdict = field(default_factory=Verdict)
    failures: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    @property
    def over(self) -> bool:
        return time.monotonic() - self.began > 60 * self.minutes

    def add(self, verdict: Verdict, what: str) -> None:
        """Count what a judge found."""
        self.counts["outputs compared"] += 1
        self.rows.lost += verdict.lost
        self.rows.doubled += verdict.doubled
        self.rows.changed += verdict.changed
        if not verdict.fine:
            self.fail(f"{what}: {verdict}")

    def fail(self, what: str) -> None:
        self.failures.append(what)
        tell(f"FAILED: {what}")

    def close(self, *totals: tuple[str, Any]) -> None:
        """Print the totals; leave with code 1 after the first failure's details, if there was one."""
        rows = [("rows lost", self.rows.lost), ("rows doubled", self.rows.doubled), ("rows changed", self.rows.changed)]
        print()
        print_table(
            ("in all", ""),
            [
                *((name, f"{count:,}" if isinstance(count, int) else count) for name, count in totals),
                *((name, f"{count:,}") for name, count in sorted(self.counts.items())),
                *rows,
                ("failures", len(self.failures)),
                ("minutes", f"{(time.monotonic() - self.began) / 60:.1f}"),
            ],
        )
        if self.failures:
            print(f"\nthe first failure: {self.failures[0]}")
            sys.exit(1)


def headline(text: str) -> None:
    """What is measured, and on what."""
    print(f"{machine_line('torch', 'huggingface_hub', 'pyarrow')}\n{text}\n", flush=True)
