"""Disks that are full or can't be written: a run ends with one sentence, and --resume completes it once there is room.

    python -m benchmarks.endurance.disks [--rounds 12] [--minutes 20] [--seed 0] [--only "read-only"]

Linux only, where unprivileged users may have name spaces of their own: the small disks are mounted inside one, and
nobody else sees them. The wall is hit at different steps: the disk has a size that the seed chooses, or it is filled to
its last byte at an instant of the run (a shard is being written, a file is copied, a commit is sent, ...), or just
before the rows that fill no shard are to be kept after SIGTERM.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.endurance.common import (
    Report,
    World,
    end_of,
    finish,
    headline,
    is_clear,
    is_complete,
    shown,
    tell,
    world,
)
from benchmarks.endurance.instants import Instant, choose, state_of
from benchmarks.measuring import print_table
from tests.extraction.runs import Child, Place

CONVERSATIONS = 60
PAGE = 4096
LARGE = "64m"
_INSIDE = "ENDURANCE_NAME_SPACE"


@dataclass(frozen=True)
class Options:
    """Let disks run full."""

    rounds: int = 12
    """Of each kind."""
    minutes: float = 20.0
    """Nothing more is begun after this time."""
    seed: int = 0
    """Of all choices."""
    only: str | None = None
    """Only kinds whose name holds this text."""


class Disk:
    """A small filesystem in memory."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={LARGE}", "tmpfs", folder], check=True)

    def resize(self, size: int | str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", self.folder], check=True)

    def set_writable(self, writable: bool) -> None:
        subprocess.run(["mount", "-o", f"remount,{'rw' if writable else 'ro'}", self.folder], check=True)

    def fill(self) -> None:
        """Leave no page free."""
        with contextlib.suppress(OSError), (self.folder / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(b"\0" * (16 * PAGE))
        with contextlib.suppress(OSError), (self.folder / "ballast").open("ab", buffering=0) as ballast:
            while True:
                ballast.write(b"\0" * PAGE)

    def make_room(self) -> None:
        (self.folder / "ballast").unlink(missing_ok=True)
        self.resize(LARGE)

    def close(self) -> None:
        subprocess.run(["umount", "-l", self.folder], check=False)


class Round:
    """One run on a small disk."""

    def __init__(self, made: World, report: Report, name: str, number: int, seed: int) -> None:
        self.world, self.report = made, report
        self.chance = random.Random(f"{seed}/{name}/{number}")
        self.what = f"{name}, round {number} of seed {seed}"
        self.folder = made.folder / f"{name.replace(' ', '-').replace(',', '')}-{number}"
        self.disk = Disk(self.folder / "disk")
        self.every = self.chance.choice((1, 3, 7, 25))
        self.repo = f"tester/{self.folder.name}"[:60]
        made.server.clear_requests()
        made.server.settings.commit_seconds = self.chance.choice((0.0, 0.2))

    def output(self) -> Path | str:
        """A folder on a large disk, or a repository."""
        return self.chance.choice((self.folder / "logits", self.repo))

    def start(self, place: Place) -> Child:
        options = ["--max-batch-size", "1", "--upload-every", str(self.every), "--resume"]
        return self.world.forks.start(*place.arguments(*options))

    def judge(self, place: Place, child: Child) -> str:
        """How a run under such circumstances ended; then there is room, and it is continued."""
        end = end_of(child)
        told = "complete all the same" if is_complete(end) else f"code {end.code}: {_sentence(end.err)}"
        if not (is_complete(end) or is_clear(end) or (end.code == 143 and "Traceback" not in end.err)):
            told = f"code {end.code}, unclear"
            self.report.fail(f"{self.what}, {place.output}: {shown(end)}")
        verdict = self.world.judge.sound(self.world.files(place.output), whole_commits=isinstance(place.output, str))
        self.report.add(verdict, self.what)
        self.disk.make_room()
        finish(lambda: self.start(place), self.report, f"{self.what}, with room")
        self.report.add(self.world.judge.complete(self.world.files(place.output)), f"{self.what}, at the end")
        left = [*place.cache.glob("spool/*"), *place.cache.glob("pending/*"), *place.cache.glob("backup_*")]
        if left:
            self.report.fail(f"{self.what}: the cache folder still holds {left}")
        return told

    def fill_while_working(self, place: Place) -> Child:
        """Fill the disk at an instant of the run."""
        child = self.start(place)
        choose(self.chance, place, self.world.server, self.world.seconds).wait(child, place, self.world.server)
        self.disk.fill()
        return child


def _sentence(text: str) -> str:
    """The beginning of what a run says of its end, without names of files."""
    told = [line for line in text.splitlines() if line.startswith("error: ")]
    return " ".join(each for each in told[0].split("(")[0].split()[1:9] if "/" not in each) if told else "nothing"


def small_cache(round: Round) -> str:
    """The cache folder's disk holds some pages only."""
    place = round.world.place(round.output(), round.disk.folder / "cache")
    round.disk.resize(PAGE * round.chance.randint(1, 30))
    return round.judge(place, round.start(place))


def cache_fills(round: Round) -> str:
    """The cache folder's disk is filled at an instant."""
    place = round.world.place(round.output(), round.disk.folder / "cache")
    return round.judge(place, round.fill_while_working(place))


def cache_fills_before_stopping(round: Round) -> str:
    """The cache folder's disk is filled, and the run is asked to stop: rows that wait can't be kept."""
    place = round.world.place(round.output(), round.disk.folder / "cache")
    child = round.start(place)
    Instant("a shard is being written", 1, round.chance.uniform(0, 0.3)).wait(child, place, round.world.server)
    round.disk.fill()
    if state_of(child.pid) != "Z":
        child.send(signal.SIGTERM)
    return round.judge(place, child)


def small_output(round: Round) -> str:
    """The output folder's disk is smaller than the output."""
    place = round.world.place(round.disk.folder / "logits", round.folder / "cache")
    round.disk.resize(PAGE * round.chance.randint(1, 90))
    return round.judge(place, round.start(place))


def output_fills(round: Round) -> str:
    """The output folder's disk is filled at an instant."""
    place = round.world.place(round.disk.folder / "logits", round.folder / "cache")
    return round.judge(place, round.fill_while_working(place))


def everything_fills(round: Round) -> str:
    """Cache and output are on the disk that is filled at an instant."""
    place = round.world.place(round.disk.folder / "logits", round.disk.folder / "cache")
    return round.judge(place, round.fill_while_working(place))


def read_only_cache(round: Round) -> str:
    """The cache folder can't be written, before a run or between two."""
    place = round.world.place(round.output(), round.disk.folder / "cache")
    return _read_only(round, place)


def read_only_output(round: Round) -> str:
    """The output folder can't be written, before a run or between two."""
    return _read_only(round, round.world.place(round.disk.folder / "logits", round.folder / "cache"))


def wait_for_end(child: Child, seconds: float = 60.0) -> None:
    """Return when a run has ended, or after this time."""
    end = time.monotonic() + seconds
    while state_of(child.pid) != "Z" and time.monotonic() < end:
        time.sleep(0.01)


def _read_only(round: Round, place: Place) -> str:
    if round.chance.random() < 0.5:
        child = round.start(place)
        Instant("a shard is being written", 2, round.chance.uniform(0, 0.1)).wait(child, place, round.world.server)
        if state_of(child.pid) != "Z":
            child.send(signal.SIGKILL)
        end_of(child)
    round.disk.set_writable(False)
    child = round.start(place)
    wait_for_end(child)
    round.disk.set_writable(True)
    return round.judge(place, child)


KINDS: dict[str, Callable[[Round], str]] = {
    "small cache": small_cache,
    "cache fills": cache_fills,
    "cache fills before stopping": cache_fills_before_stopping,
    "small output folder": small_output,
    "output folder fills": output_fills,
    "cache and output fill": everything_fills,
    "read-only cache": read_only_cache,
    "read-only output": read_only_output,
}


def main() -> None:
    """Fill disks; print the table."""
    options = tyro.cli(Options, prog="disks")
    if _INSIDE not in os.environ:
        _enter_name_space()
    report = Report(options.minutes)
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    with world(CONVERSATIONS) as made:
        headline(f"seed {options.seed}, {CONVERSATIONS} conversations")
        for number in range(options.rounds):
            for name, kind in KINDS.items():
                if report.over or (options.only and options.only not in name):
                    continue
                round = Round(made, report, name, number, options.seed)
                try:
                    outcome = kind(round)
                finally:
                    round.disk.close()
                outcomes[name][outcome] += 1
                tell(f"{name}, round {number}: {outcome}")
        rows = [(name, each, count) for name, counts in outcomes.items() for each, count in sorted(counts.items())]
        print_table(("disk", "how the run ended", "rounds"), rows)
    report.close(("runs on small disks", sum(sum(counts.values()) for counts in outcomes.values())))


def _enter_name_space() -> None:
    """Run this program again where it may mount. Leaves with code 2 where that isn't allowed."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True).returncode:
        tell("this kernel gives users no name spaces of their own: no small disk can be mounted, nothing was tried")
        sys.exit(2)
    os.environ[_INSIDE] = "1"
    os.execv(unshare, [unshare, "-rm", sys.executable, "-m", "benchmarks.endurance.disks", *sys.argv[1:]])


if __name__ == "__main__":
    main()
