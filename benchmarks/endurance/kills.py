"""Runs that are killed at random instants and continued, again and again: every row once, equal to the undisturbed run.

    python -m benchmarks.endurance.kills [--kills 200] [--minutes 30] [--seed 0] [--chain N]

A chain of kills is one run: begun, killed, continued with --resume, killed, ... and at last let run to its end. Chains
go into a folder or onto a Hub on the loopback address, with shards of different sizes, one conversation a batch (rows
must be equal to the byte) or several (equal up to the teacher's rounding), with the cache folder kept, lost (a new
machine) or come back, with --resume alone or beside all options. After each kill the output alone must be sound. Just
before it is killed the process is frozen for a moment, to see what it was doing. --chain runs one chain again: what is
chosen is the same; when exactly it strikes depends on the machine.
"""

import os
import random
import re
import signal
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from benchmarks.endurance.common import (
    HUNG,
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
from benchmarks.endurance.instants import choose, choose_second, freeze, under_way, version
from benchmarks.measuring import print_table
from teacher_logits.shards import read_table
from tests.extraction.runs import Child, Ended, Place

KILL, TERM, INT, USR1 = signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1
SIGNALS: dict[str, tuple[int, ...]] = {
    "SIGKILL": (KILL,),
    "SIGTERM": (TERM,),
    "SIGINT": (INT,),
    "SIGINT twice": (INT, INT),
    "SIGTERM, then SIGKILL": (TERM, KILL),
    "SIGUSR1": (USR1,),
}
LEFT = re.compile(r"stopped with ([\d,]+) conversations left(?: and ([\d,]+) that wait in .*)?; go on with: python")


@dataclass(frozen=True)
class Options:
    """Kill runs at random instants and continue them."""

    kills: int = 200
    """So many at least, and the chain under way to its end."""
    minutes: float = 30.0
    """No new chain is begun after this time."""
    conversations: int = 200
    """Of the dataset."""
    seed: int = 0
    """Of all choices."""
    chain: int | None = None
    """Run this chain alone."""


@dataclass
class Tally:
    """What the kills met."""

    kills: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Signals -> folder, Hub, and exit codes."""
    steps: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """What was under way -> folder, Hub."""


class Chain:
    """One run that is killed several times, and its judge."""

    def __init__(self, made: World, report: Report, tally: Tally, options: Options, number: int) -> None:
        self._world, self._report, self._tally = made, report, tally
        self._chance = chance = random.Random(f"{options.seed}/{number}")
        self._name = f"chain {number} of seed {options.seed}"
        self._folder = made.folder / f"chain-{number}"
        self._hub = chance.random() < 0.5
        self._output: Path | str = f"tester/chain-{number}" if self._hub else self._folder / "logits"
        self._batch = chance.choice((1, 1, 1, 8))
        self._every = chance.choice((1, 2, 3, 5, 8, 100))
        self._loses = chance.choice((0.0, 0.0, 0.4))
        self._caches = [self._folder / "cache-0"]
        self._cache = self._caches[0]
        self._done_already = False
        made.server.settings.commit_seconds = chance.choice((0.0, 0.0, 0.02, 0.1))

    @property
    def where(self) -> str:
        return "Hub" if self._hub else "folder"

    @property
    def place(self) -> Place:
        return self._world.place(self._output, self._cache)

    @property
    def exact(self) -> bool:
        return self._batch == 1

    def run(self) -> int:
        """Kill, continue, judge; returns how many kills there were."""
        planned, done = self._chance.randint(3, 8), 0
        for number in range(planned):
            done += self._kill(first=number == 0)
            if self._done_already and self._chance.random() < 0.7:
                break
            self._maybe_move()
        self._finish()
        for cache in self._caches:  # a machine that comes back finds that all is done
            if cache != self._cache and (cache / "checkpoint.json").exists():
                self._cache = cache
                self._finish()
        return done

    def _start(self, first: bool = False, alone: bool | None = None) -> Child:
        self._world.server.clear_requests()
        alone = self._chance.random() < 0.4 if alone is None else alone
        if alone and not first:
            kept = (self._cache / "checkpoint.json").exists()
            output = [] if kept and self._chance.random() < 0.7 else ["--output", str(self._output)]
            return self._world.forks.start("--resume", "--cache-dir", str(self._cache), *output)
        if self._chance.random() < 0.2:
            self._every = self._chance.choice((1, 2, 4, 7))
        options = ["--max-batch-size", str(self._batch), "--upload-every", str(self._every)]
        if self._chance.random() < 0.3:
            options.append("--upload-on-stop")
        resume = [] if first and self._chance.random() < 0.5 else ["--resume"]
        return self._world.forks.start(*self.place.arguments(*options, *resume))

    def _kill(self, first: bool) -> bool:
        """Start a run and strike; whether there was still something to strike."""
        name = self._chance.choice(list(SIGNALS))
        instant = choose(self._chance, self.place, self._world.server, self._world.seconds)
        second = choose_second(self._chance)
        cache = self._cache / "checkpoint.json"
        before = version(cache)
        child = self._start(first)
        instant.wait(child, self.place, self._world.server)
        struck = freeze(child.pid)
        if struck:
            for place, number in enumerate(SIGNALS[name]):
                step = under_way(self.place, self._world.server, lambda: version(cache), before)
                os.kill(child.pid, number)
                os.kill(child.pid, signal.SIGCONT)
                if place + 1 == len(SIGNALS[name]):
                    break
                second.wait(child, self.place, self._world.server, 1.0)
                if not freeze(child.pid):
                    break
            self._tally.steps[step][self.where] += 1
        end = end_of(child, 60)
        self._done_already = is_complete(end)
        what = f"{self._name}, {name} at {instant}, {self.where}"
        self._judge_end(end, name if struck else None, what)
        files = self._world.files(self._output)
        self._report.add(self._world.judge.sound(files, self.exact, whole_commits=self._hub), what)
        self._judge_count(end, files, what)
        return struck

    def _judge_end(self, end: Ended, name: str | None, what: str) -> None:
        """Check how a run ended: by its signal, orderly after it, or because it was done."""
        if name is None:
            self._report.counts["runs that ended before they were struck"] += 1
            refused = is_clear(end) and "holds no" in end.err  # --resume alone where nothing was kept yet
            if not (is_complete(end) or refused or end.code in (130, 143)):
                self._report.fail(f"{what}: ended by itself: {shown(end)}")
            return
        self._tally.kills[name][self.where] += 1
        self._tally.kills[name][f"code {end.code}"] += 1
        allowed = {-number for number in SIGNALS[name]} | {0}
        allowed |= {128 + number for number in SIGNALS[name] if number in (INT, TERM)}
        refused = is_clear(end) and "holds no" in end.err
        if "Traceback" in end.err:
            self._report.counts["tracebacks after all was said" if _all_said(end) else "tracebacks"] += 1
            self._report.fail(f"{what}: {shown(end)}")
        elif end.code == HUNG or not (end.code in allowed or refused) or (end.code == 0 and not _all_said(end)):
            self._report.fail(f"{what}: {shown(end)}")

    def _judge_count(self, end: Ended, files: dict[str, bytes], what: str) -> None:
        """Where a run says what is left, nothing that it computed may be missing."""
        said = LEFT.search(end.out)
        if said is None:
            return
        left, waiting = (int((text or "0").replace(",", "")) for text in said.groups())
        stored = len(self._world.judge._rows(files, self._world.judge.sound({})))
        shards = [*self._cache.glob("spool/*.parquet"), *self._cache.glob("pending/*.parquet")]
        kept = sum(len(read_table(shard, ["index"])) for shard in shards)
        total = len(self._world.judge.truth)
        self._report.counts["orderly stops whose counts were checked"] += 1
        # The conversation without an answer counts as left until it is looked at.
        if kept != waiting or stored + waiting + left not in (total, total + 1):
            self._report.fail(f"{what}: {stored} stored, {kept} in the cache, of {total}: {shown(end)}")

    def _maybe_move(self) -> None:
        """Now and then go on with an empty cache folder, or with one from before."""
        if self._chance.random() < self._loses:
            if len(self._caches) > 1 and self._chance.random() < 0.3:
                self._cache = self._chance.choice(self._caches)
                self._report.counts["machines that came back"] += 1
            else:
                self._cache = self._folder / f"cache-{len(self._caches)}"
                self._caches.append(self._cache)
                self._report.counts["cache folders lost"] += 1

    def _finish(self) -> None:
        """Let the run end, and judge all of it."""
        kept = (self._cache / "checkpoint.json").exists()
        finish(lambda: self._start(alone=kept and self._chance.random() < 0.4), self._report, self._name)
        self._report.counts["runs continued to the end"] += 1
        files = self._world.files(self._output)
        self._report.add(self._world.judge.complete(files, self.exact), f"{self._name}, at the end")
        left = [*self._cache.glob("spool/*"), *self._cache.glob("pending/*")]
        if left or list(self._cache.glob("backup_*")):
            self._report.fail(f"{self._name}: the cache folder still holds {sorted(self._cache.rglob('*'))}")


def _all_said(end: Ended) -> bool:
    """Whether a run told how it ended."""
    if "stopped before anything was extracted" in end.err:
        return True
    return end.out.rstrip().endswith("complete") or LEFT.search(end.out) is not None


def main() -> None:
    """Kill until there are enough; print the tables."""
    options = tyro.cli(Options, prog="kills")
    report, tally, done, number = Report(options.minutes), Tally(), 0, options.chain or 0
    with world(options.conversations, quick_exit=False, commit_seconds="0 0 0.3 1") as made:
        headline(f"seed {options.seed}, {options.conversations} conversations, {made.seconds:.1f} s a run")
        while done < options.kills and not report.over:
            done += Chain(made, report, tally, options, number).run()
            tell(f"chain {number}: {done} kills, {len(report.failures)} failures")
            number += 1
            if options.chain is not None:
                break
    _print(tally)
    report.close(("chains", number - (options.chain or 0)), ("kills", done))


def _print(tally: Tally) -> None:
    rows = []
    for name, counts in tally.kills.items():
        codes = ", ".join(f"{key[5:]}: {count}" for key, count in sorted(counts.items()) if key.startswith("code "))
        rows.append((name, counts["folder"], counts["Hub"], codes))
    print_table(("signal", "folder", "Hub", "exit codes"), rows)
    print()
    steps = sorted(tally.steps.items(), key=lambda step: step[0])
    print_table(("under way", "folder", "Hub"), [(name, each["folder"], each["Hub"]) for name, each in steps])


if __name__ == "__main__":
    main()
