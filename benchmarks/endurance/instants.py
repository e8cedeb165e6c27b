"""Choosing an instant of a run, and telling what the run is doing just then."""

import os
import random
import signal
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.endurance.common import endpoint_of
from tests.extraction.runs import Child, Place
from tests.hub_server import HubServer

PUT_ASIDE = "rows that fill no shard are put aside"
"""Happens only after a signal that asks to stop."""
Watch = Callable[[], set[Hashable]]
"""Gives what has happened so far; an instant is when there is more of it."""


def state_of(pid: int) -> str:
    """The kernel's letter for a process's state: Z when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def names(folder: Path, ending: str) -> set[Hashable]:
    """Files of a folder whose name ends so."""
    try:
        return {entry.name for entry in os.scandir(folder) if entry.name.endswith(ending)}
    except OSError:
        return set()


def version(path: Path) -> set[Hashable]:
    """Which file stands at a path now."""
    try:
        status = path.stat()
    except OSError:
        return set()
    return {(status.st_ino, status.st_mtime_ns)}


def half_written(*folders: Path) -> set[Hashable]:
    return set().union(*(names(folder, ".tmp") for folder in folders))


def asked(server: HubServer, endpoint: str, answered: bool = False) -> set[Hashable]:
    """Numbers of the requests for an endpoint since the log was cleared."""
    return {
        number
        for number, request in enumerate(server.requests)
        if endpoint_of(request.method, request.path) == endpoint and (request.status is not None or not answered)
    }


def watches(place: Place, server: HubServer) -> dict[str, Watch]:
    """What can be waited for in a run, by its name."""
    cache, output = place.cache, place.output
    found: dict[str, Watch] = {
        "a shard stands in the spool": lambda: names(cache / "spool", ".parquet"),
        "a shard is being written": lambda: half_written(cache / "spool"),
        "a file of the cache is being written": lambda: half_written(cache),
        "checkpoint.json of the cache changes": lambda: version(cache / "checkpoint.json"),
        PUT_ASIDE: lambda: half_written(cache / "pending") | names(cache / "pending", ".parquet"),
    }
    if isinstance(output, Path):
        return found | {
            "a shard stands in the output": lambda: names(output / "data", ".parquet"),
            "a file is being copied": lambda: half_written(output, output / "data"),
            "checkpoint.json of the output changes": lambda: version(output / "checkpoint.json"),
        }
    for endpoint in ("create repository", "LFS batch", "storage PUT", "LFS verify", "commit", "resolve GET"):
        found[f"{endpoint} is asked for"] = lambda name=endpoint: asked(server, name)
    found["a commit is answered"] = lambda: asked(server, "commit", answered=True)
    return found


@dataclass(frozen=True)
class Instant:
    """When to strike: `delay` seconds after `what` has happened `times` times more, or after the start."""

    what: str
    times: int
    delay: float

    def wait(self, child: Child, place: Place, server: HubServer, most: float = 20.0) -> None:
        """Return at that instant, or when the process has ended."""
        if self.what != "the start":
            watch = watches(place, server)[self.what]
            before, seen, end = watch(), set(), time.monotonic() + most
            while len(seen) < self.times and state_of(child.pid) != "Z" and time.monotonic() < end:
                seen |= watch() - before
                time.sleep(0.0002)
        time.sleep(self.delay)


def choose(chance: random.Random, place: Place, server: HubServer, whole: float) -> Instant:
    """An instant: of the whole life, of the time when rows come, or right in one of the narrow steps."""
    kind = chance.random()
    if kind < 0.25:
        return Instant("the start", 0, chance.uniform(0.03, 0.8 * whole))
    if kind < 0.4:
        return Instant("a shard is being written", 1, chance.uniform(0, 0.15 * whole))
    what = chance.choice(sorted(set(watches(place, server)) - {PUT_ASIDE}))
    return Instant(
        what, chance.choice((1, 1, 1, 2, 4)), chance.choice((0.0, chance.uniform(0, 0.003), chance.uniform(0, 0.03)))
    )


def choose_second(chance: random.Random) -> Instant:
    """An instant after a first signal."""
    what = chance.choice(("the start", PUT_ASIDE))
    return Instant(what, 1, chance.choice((0.0, 0.002, chance.uniform(0, 0.02), chance.uniform(0, 0.5))))


def freeze(pid: int) -> bool:
    """Stop a process in its tracks; whether it was still there."""
    os.kill(pid, signal.SIGSTOP)
    for _ in range(200):
        if (state := state_of(pid)) in "TZ":
            return state == "T"
        time.sleep(0.0005)
    return True


def under_way(place: Place, server: HubServer, begun: Watch, before: set[Hashable]) -> str:
    """What a frozen run is doing, as far as it can be seen from outside. begun: changes when the run takes up work."""
    if isinstance(place.output, Path):
        copied = half_written(place.output, place.output / "data")
        if copied:
            return f"output: writing {_kind(copied)}"
    else:
        open_requests = [request for request in server.requests if request.status is None and request.fault is None]
        if open_requests:
            return f"Hub: {endpoint_of(open_requests[-1].method, open_requests[-1].path)}"
    for folder in ("spool", "pending"):
        if half_written(place.cache / folder):
            return f"cache: writing {_kind(half_written(place.cache / folder))}"
    if half_written(place.cache):
        return f"cache: writing {_kind(half_written(place.cache))}"
    if begun() == before:
        return "starting: nothing taken up yet"
    return "working: shards wait" if names(place.cache / "spool", ".parquet") else "working: no shard waits"


def _kind(leftovers: set[Hashable]) -> str:
    """What a temporary file is to become."""
    name = str(min(leftovers, key=str))[1:]
    if ".parquet" in name:
        return "pending rows" if name.startswith("pending") else "a shard"
    return name.rpartition("-")[0]
