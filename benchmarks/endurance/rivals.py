"""Runs that meet others: two processes on one cache, two machines on one output, somebody who meddles with it.

    python -m benchmarks.endurance.rivals [--rounds 8] [--minutes 20] [--seed 0] [--only "two machines"]

Each round is one encounter at instants that the seed chooses. Whoever is in the way must end with one sentence, or go
on and be right; in the end, when each of them has been continued with --resume, every row must be there once.
"""

import contextlib
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from benchmarks.endurance.common import (
    Report,
    World,
    end_of,
    finish,
    headline,
    is_clear,
    is_complete,
    more_forks,
    shown,
    tell,
    world,
)
from benchmarks.endurance.instants import Instant, state_of
from benchmarks.measuring import print_table
from tests.extraction.runs import Child, ForkServer, Place

CONVERSATIONS = 40


@dataclass(frozen=True)
class Options:
    """Let runs meet others."""

    rounds: int = 8
    """Of each kind of encounter."""
    minutes: float = 20.0
    """Nothing more is begun after this time."""
    seed: int = 0
    """Of all choices."""
    only: str | None = None
    """Only encounters whose name holds this text."""


class Round:
    """One encounter: its places, its two starters of runs, its judge."""

    def __init__(self, made: World, second: ForkServer, report: Report, name: str, number: int, seed: int) -> None:
        self.world, self.forks, self.report = made, (made.forks, second), report
        self.chance = random.Random(f"{seed}/{name}/{number}")
        self.what = f"{name}, round {number} of seed {seed}"
        self.folder = made.folder / f"{name.replace(' ', '-').replace(',', '')}-{number}"
        self.repo = f"tester/{self.folder.name[:40]}-{number}"
        made.server.clear_requests()
        made.server.settings.commit_seconds = self.chance.choice((0.0, 0.05, 0.2))

    def place(self, output: str | Path, cache: str) -> Place:
        return self.world.place(output, self.folder / cache)

    def start(self, who: int, place: Place, *more: str) -> Child:
        """Begin a run: who is 0 or 1, and has one run at a time."""
        options = ["--max-batch-size", "1", "--upload-every", "2", "--hub-retry-seconds", "5"]
        return self.forks[who].start(*place.arguments(*options, *more))

    def ended(self, child: Child) -> str:
        """How a run ended, in a word."""
        end = end_of(child)
        if is_complete(end):
            return "complete"
        if is_clear(end):
            return "gave way" if end.code == 1 else "refused"
        if end.code in (130, 143, -signal.SIGKILL):
            return "killed"
        self.report.fail(f"{self.what}: {shown(end)}")
        return "unclear"

    def wait(self, child: Child, place: Place, *kinds: str) -> bool:
        """Wait for an instant of one of these kinds; whether the run still works then."""
        instant = Instant(self.chance.choice(kinds), self.chance.randint(1, 4), self.chance.uniform(0, 0.05))
        instant.wait(child, place, self.world.server)
        return state_of(child.pid) != "Z"

    def settle(self, *places: Place) -> None:
        """Continue all of them, one after another, and judge what is there then."""
        for place in self.chance.sample(places, len(places)):
            finish(lambda place=place: self.start(0, place, "--resume"), self.report, self.what)
        self.report.add(self.world.judge.complete(self.world.files(places[0].output)), self.what)

    @property
    def api(self) -> HfApi:
        return HfApi(endpoint=self.world.server.endpoint, token=self.world.server.token)

    def delete(self, path: str) -> None:
        """Remove a file, behind a commit that may still be under way, also one of a run that is gone."""
        deadline = time.monotonic() + 10
        while path in self.world.files(self.repo):
            try:
                self.api.delete_file(path, self.repo, repo_type="dataset", commit_message="meddle")
            except HfHubHTTPError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def one_cache(round: Round) -> str:
    """The second process on a cache folder is refused; it can't take anything from the first."""
    place = round.place(round.folder / "logits", "cache")
    first = round.start(0, place)
    alive = round.wait(first, place, "a shard stands in the spool", "a shard stands in the output")
    second = round.ended(round.start(1, place, "--resume"))
    if alive and round.chance.random() < 0.5 and state_of(first.pid) != "Z":
        first.send(signal.SIGKILL)
    told = f"first {round.ended(first)}, second {second}"
    round.settle(place)
    return told


def one_folder(round: Round) -> str:
    """Two cache folders, one output folder: the second run is refused."""
    output = round.folder / "logits"
    here, there = round.place(output, "cache"), round.place(output, "other")
    first = round.start(0, here)
    round.wait(first, here, "a shard stands in the output", "a file is being copied")
    second = round.ended(round.start(1, there, "--resume"))
    if round.chance.random() < 0.5 and state_of(first.pid) != "Z":
        first.send(signal.SIGKILL)
    told = f"first {round.ended(first)}, second {second}"
    round.settle(here, there)
    return told


def two_machines(round: Round) -> str:
    """Two machines begin the same run on one repository at about the same time."""
    here, there = round.place(round.repo, "cache"), round.place(round.repo, "other")
    first = round.start(0, here, *round.chance.choice(((), ("--resume",))))
    time.sleep(round.chance.uniform(0, round.world.seconds))
    second = round.start(1, there, *round.chance.choice(((), ("--resume",))))
    told = f"first {round.ended(first)}, second {round.ended(second)}"
    round.settle(here, there)
    return told


def rescheduled(round: Round) -> str:
    """A machine takes over with --resume while the first still works."""
    here, there = round.place(round.repo, "cache"), round.place(round.repo, "other")
    first = round.start(0, here)
    round.wait(first, here, "a commit is answered")
    second = round.start(1, there, "--resume")
    told = f"first {round.ended(first)}, second {round.ended(second)}"
    round.settle(here, there)
    return told


def foreign_shard(round: Round) -> str:
    """Somebody commits a shard of another run; when it is gone again, the run can go on."""
    place, foreign = round.place(round.repo, "cache"), "data/train-ffffffff-00000.parquet"
    first = round.start(0, place)
    round.wait(first, place, "a commit is answered", "commit is asked for", "storage PUT is asked for")
    if not round.world.server.exists(round.repo):
        round.ended(first)
        return "ended before"
    round.world.server.add_files(round.repo, {foreign: b"PAR1 of somebody else"})
    told = f"run {round.ended(first)}"
    again = end_of(round.start(0, place, "--resume"))
    if not is_clear(again):
        round.report.fail(f"{round.what}: --resume beside a foreign shard: {shown(again)}")
    round.delete(foreign)
    round.settle(place)
    return told


def other_files(round: Round) -> str:
    """Somebody commits other files, an edited card among them: no reason to stop."""
    place = round.place(round.repo, "cache")
    first = round.start(0, place)
    for number in range(3):
        if round.wait(first, place, "a commit is answered", "commit is asked for"):
            round.world.server.add_files(round.repo, {f"notes-{number}.txt": b"mine", "README.md": b"# mine\n"})
    told = f"run {round.ended(first)}"
    round.settle(place)
    return told


def deleted_while_working(round: Round) -> str:
    """Somebody deletes a committed shard, or checkpoint.json, while the run works."""
    place = round.place(round.repo, "cache")
    first = round.start(0, place)
    alive = round.wait(first, place, "a commit is answered")
    stored = [path for path in round.world.files(round.repo) if path.endswith((".parquet", "checkpoint.json"))]
    if not (alive and stored):
        round.ended(first)
        return "ended before"
    doomed = round.chance.choice(stored)
    round.delete(doomed)
    gone = doomed not in round.world.files(round.repo)
    told = f"{'shard' if doomed.startswith('data') else 'checkpoint'}: run {round.ended(first)}"
    missing = round.world.judge.complete(round.world.files(round.repo)).lost
    if gone and missing and told.endswith("complete"):
        told += ", with its rows missing"
    round.settle(place)
    return told


def deleted_between(round: Round) -> str:
    """Somebody deletes a shard or checkpoint.json of a run that was killed."""
    hub = round.chance.random() < 0.5
    place = round.place(round.repo if hub else round.folder / "logits", "cache")
    first = round.start(0, place)
    round.wait(first, place, "a commit is answered" if hub else "checkpoint.json of the output changes")
    first.send(signal.SIGKILL)
    told = round.ended(first)
    stored = [path for path in round.world.files(place.output) if path.endswith((".parquet", "checkpoint.json"))]
    if stored:
        doomed = round.chance.choice(stored)
        told += f", a {'shard' if doomed.startswith('data') else 'checkpoint'} deleted"
        if hub:
            round.delete(doomed)
        else:
            (place.folder / doomed).unlink()
    round.settle(place)
    return told


ENCOUNTERS: dict[str, Callable[[Round], str]] = {
    "two processes on one cache": one_cache,
    "two caches on one folder": one_folder,
    "two machines begin on one repository": two_machines,
    "a second machine takes over": rescheduled,
    "a foreign shard appears": foreign_shard,
    "other files are committed": other_files,
    "files are deleted while it works": deleted_while_working,
    "files are deleted between runs": deleted_between,
}


def main() -> None:
    """Meet; print the table."""
    options = tyro.cli(Options, prog="rivals")
    report = Report(options.minutes)
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    with world(CONVERSATIONS) as made, contextlib.ExitStack() as stack:
        second = more_forks(stack, made.server, made.folder)
        headline(f"seed {options.seed}, {CONVERSATIONS} conversations")
        for number in range(options.rounds):
            for name, meet in ENCOUNTERS.items():
                if report.over or (options.only and options.only not in name):
                    continue
                outcome = meet(Round(made, second, report, name, number, options.seed))
                outcomes[name][outcome] += 1
                tell(f"{name}, round {number}: {outcome}")
        rows = [(name, each, count) for name, counts in outcomes.items() for each, count in sorted(counts.items())]
        print_table(("encounter", "how it went", "rounds"), rows)
    report.close(("encounters", sum(sum(counts.values()) for counts in outcomes.values())))


if __name__ == "__main__":
    main()
