"""A Hub that fails: every endpoint that a run calls, with every fault; then whole runs with faults at random.

    python -m benchmarks.endurance.faulty_hub [--times 1 0] [--random 40] [--rate 0.05] [--minutes 40] [--seed 0]
    python -m benchmarks.endurance.faulty_hub --only "resumed run / commit / 500" [--times 0]

Which endpoints a new run and a resumed run (on a new machine, half of it done) call is read from the server's log. For
each of them and each fault there is a run whose Hub fails so, `--times` times from a request on that is chosen by the
seed (0: for ever). A run must either end complete, with exactly the right rows, or with exit code 1 or 2 and one
sentence; then the faults are taken away, and --resume must complete it. Runs that are struck at random have a fault in
each request with the probability `--rate`. The waits between attempts are shortened, nothing else is.
"""

import random
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import tyro

from benchmarks.endurance.common import (
    ENDPOINTS,
    HUNG,
    Report,
    World,
    end_of,
    endpoint_of,
    finish,
    headline,
    is_clear,
    is_complete,
    shown,
    tell,
    world,
)
from benchmarks.measuring import print_table
from tests.extraction.runs import Ended, Place
from tests.hub_server import Fault

STALL, TIMEOUT = 5.0, 2
"""Seconds that a stalled answer takes; that the client waits where it sets itself a limit."""
HALF = 8
SIZES = (2 * HALF, HALF)
"""Conversations of a run; those that a resumed run finds done."""

_LIMITED = {"kind": "status", "status": 429}
FAULTS: dict[str, dict[str, object]] = {
    "429": _LIMITED,
    "429, Retry-After": {**_LIMITED, "headers": {"Retry-After": "1"}},
    "429, RateLimit": {**_LIMITED, "headers": {"RateLimit": '"api";r=0;t=1'}},
    **{str(status): {"kind": "status", "status": status} for status in (409, 412, 500, 502, 503, 504)},
    "500 after the work": {"kind": "status", "status": 500, "handled": True},
    "reset before": {"kind": "reset"},
    "reset in the request": {"kind": "reset_in_upload"},
    "reset after the work": {"kind": "reset", "handled": True},
    "stall": {"kind": "stall", "seconds": STALL},
    "reset in the answer": {"kind": "reset_in_download"},
    "answer truncated": {"kind": "truncate"},
    "answer shortened": {"kind": "shorten"},
    "answer corrupted": {"kind": "corrupt"},
    "403": {"kind": "status", "status": 403, "body": "SignatureDoesNotMatch"},
}
"""409 and 412 carry the Hub's own words: another commit is in progress, a commit has happened since."""


def fits(fault: str, endpoint: str) -> bool:
    """Whether a fault can strike requests for an endpoint."""
    method = ENDPOINTS[endpoint][0]
    if fault == "reset in the request":
        return method in ("POST", "PUT")
    if fault == "403":
        return endpoint.startswith("storage")
    # A large file's answer is a redirect without a body; it is tried where that leads.
    return not (fault.startswith(("answer", "reset in the answer")) and method in ("HEAD", "PUT"))


@dataclass(frozen=True)
class Options:
    """Fail every endpoint in every way."""

    times: tuple[int, ...] = (1,)
    """How many requests in a row are struck, for each of these; 0: all from the first one struck on. The first time a
    damaged answer is damaged in its middle, then anywhere."""
    random: int = 40
    """So many whole runs with faults at random."""
    rate: float = 0.05
    """Of them, the probability of a fault in each request."""
    minutes: float = 40.0
    """Nothing more is begun after this time."""
    seed: int = 0
    """Of all choices."""
    only: str | None = None
    """Only cells whose name ("scenario / endpoint / fault") holds this text."""


@dataclass
class Tally:
    """How runs ended, by endpoint and by fault."""

    by_endpoint: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    by_fault: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    sentences: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0

    def add(self, endpoint: str, fault: str, outcome: str) -> None:
        self.by_endpoint[endpoint][outcome] += 1
        self.by_fault[fault][outcome] += 1


COLUMNS = ("runs", "complete at once", "ended clearly, then completed", "went wrong", "not struck")


class Bench:
    """Runs against the failing Hub."""

    def __init__(self, made: World, report: Report) -> None:
        self._world, self._report, self._number = made, report, 0
        self.longest = 0.0
        half = self._place("tester/half")
        end = end_of(made.forks.start(*self._arguments(half, SIZES[1])))
        if not is_complete(end):
            raise SystemExit(shown(end))
        self._half = made.files("tester/half")

    def calls(self, resumed: bool) -> Counter[str]:
        """How often a run that nothing disturbs calls each endpoint."""
        self._world.server.clear_requests()
        outcome, end = self.run(resumed, [])
        if outcome != "complete at once":
            raise SystemExit(shown(end))
        found = Counter(endpoint_of(each.method, each.path) for each in self._world.server.requests)
        unknown = set(found) - set(ENDPOINTS)
        if unknown:
            raise SystemExit(f"the trial doesn't know {unknown}")
        return found

    def run(self, resumed: bool, faults: list[Fault]) -> tuple[str, Ended]:
        """One run under faults, and where it gives up another one without; how that went, and the first's end."""
        server = self._world.server
        self._number += 1
        place = self._place(f"tester/run-{self._number}")
        if resumed:
            server.add_files(str(place.output), self._half)
        for fault in faults:
            server.add_fault(fault)
        began = time.monotonic()
        end = end_of(self._world.forks.start(*self._arguments(place, SIZES[0], resumed)), 90)
        self.longest = max(self.longest, time.monotonic() - began)
        struck = sum(server.struck(fault) for fault in faults)
        server.clear_faults()
        outcome = self._judge(place, end)
        if outcome != "went wrong":
            shutil.rmtree(place.cache, ignore_errors=True)
        self._report.counts["faults that struck"] += struck
        return outcome if struck or not faults or outcome == "went wrong" else "not struck", end

    def _judge(self, place: Place, end: Ended) -> str:
        judge, output = self._world.judge, place.output
        what = f"{output}: {shown(end)}"
        if is_complete(end):
            verdict = judge.complete(self._world.files(output))
            self._report.add(verdict, what)
            return "complete at once" if verdict.fine else "went wrong"
        wrong = not is_clear(end)
        if end.code == HUNG:
            self._report.counts["runs that hung"] += 1
        if wrong:
            self._report.fail(f"neither complete nor clear: {what}")
        if self._world.server.exists(str(output)):
            verdict = judge.sound(self._world.files(output))
            wrong |= not verdict.fine
            self._report.add(verdict, what)
        finish(lambda: self._world.forks.start(*self._arguments(place, SIZES[0], True)), self._report, f"after {what}")
        verdict = judge.complete(self._world.files(output))
        self._report.add(verdict, what)
        return "went wrong" if wrong or not verdict.fine else "ended clearly, then completed"

    def _place(self, output: str) -> Place:
        return self._world.place(output, self._world.folder / "caches" / output.split("/")[1])

    def _arguments(self, place: Place, limit: int, resume: bool = False) -> list[str]:
        options = ["--max-batch-size", "1", "--upload-every", "3", "--limit", str(limit), "--hub-retry-seconds", "3"]
        return place.arguments(*options, *(["--resume"] if resume else []))


def cells(options: Options, bench: Bench) -> Iterator[tuple[bool, str, str, Fault]]:
    """Whether resumed, endpoint, name of the fault, fault: for all there is."""
    for resumed in (False, True):
        calls = bench.calls(resumed)
        for endpoint in (name for name in ENDPOINTS if name in calls):
            for name, given in FAULTS.items():
                cell = f"{'resumed' if resumed else 'new'} run / {endpoint} / {name}"
                if not fits(name, endpoint) or (options.only and options.only not in cell):
                    continue
                for number, times in enumerate(options.times):
                    chance = random.Random(f"{options.seed}/{cell}/{number}")
                    place = {"times": times or None, "after": chance.randrange(calls[endpoint])}
                    if given["kind"] in ("corrupt", "shorten") and number:
                        place["at"] = chance.choice((chance.randrange(64), chance.randrange(4096)))
                    method, path = ENDPOINTS[endpoint]
                    yield resumed, endpoint, name, Fault(method, path, **given, **place)


def random_faults(chance: random.Random, rate: float, calls: Counter[str]) -> list[Fault]:
    """Faults for a whole run: each of the first requests for an endpoint is struck with the probability `rate`."""
    faults = []
    for endpoint, count in calls.items():
        names = [name for name in FAULTS if fits(name, endpoint) and name != "stall"]
        for after in range(3 * count):
            if chance.random() < rate:
                method, path = ENDPOINTS[endpoint]
                faults.append(Fault(method, path, after=after, **FAULTS[chance.choice(names)]))
    return faults


def main() -> None:
    """Fail in every way; print the tables."""
    options = tyro.cli(Options, prog="faulty_hub")
    report, tally = Report(options.minutes), Tally()
    with world(SIZES[0], TIMEOUT) as made:
        bench = Bench(made, report)
        headline(f"seed {options.seed}, {SIZES[0]} conversations, times struck: {options.times} (0: always)")
        for resumed, endpoint, name, fault in cells(options, bench):
            if report.over:
                tell("the time is over")
                break
            scenario, times = "resumed run" if resumed else "new run", fault.times or "all"
            told = f"{scenario} / {endpoint} / {name}, {times} from {fault.after}"
            failures = len(report.failures)
            outcome, end = bench.run(resumed, [fault])
            tell(f"{told}: {outcome}")
            report.failures[failures:] = [f"{told}: {each}" for each in report.failures[failures:]]
            tally.add(endpoint, name, outcome)
            _note(tally, end)
        _print(tally)
        _random_runs(options, bench, report, tally)
    report.close(("longest run, s", f"{bench.longest:.0f}"))


def _random_runs(options: Options, bench: Bench, report: Report, tally: Tally) -> None:
    if not options.random or options.only:
        return
    calls = {resumed: bench.calls(resumed) for resumed in (False, True)}
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    for number in range(options.random):
        if report.over:
            tell("the time is over")
            break
        chance = random.Random(f"{options.seed}/random/{number}")
        resumed = chance.random() < 0.5
        failures = len(report.failures)
        outcome, end = bench.run(resumed, random_faults(chance, options.rate, calls[resumed]))
        tell(f"random run {number}: {outcome}")
        report.failures[failures:] = [f"random run {number}: {each}" for each in report.failures[failures:]]
        outcomes["resumed runs" if resumed else "new runs"][outcome] += 1
        _note(tally, end)
    print(f"\nfaults at random, {options.rate:.0%} of the requests:\n")
    _print_counts("runs", outcomes)


def _note(tally: Tally, end: Ended) -> None:
    """Remember what a run that gave up said."""
    for line in end.err.splitlines():
        if line.startswith("error: "):
            tally.sentences[line[:60]] += 1


def _print(tally: Tally) -> None:
    _print_counts("endpoint", tally.by_endpoint)
    print()
    _print_counts("fault", tally.by_fault)
    tell("\n".join(f"{count} x {sentence}" for sentence, count in tally.sentences.most_common()))


def _print_counts(title: str, counts: dict[str, Counter[str]]) -> None:
    rows = [(name, sum(each.values()), *(each[column] for column in COLUMNS[1:])) for name, each in counts.items()]
    print_table((title, *COLUMNS), rows)


if __name__ == "__main__":
    main()
