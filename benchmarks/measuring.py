"""What the benchmarks share: durations, the line about the machine, tables."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path


def seconds(work: Callable[[], object], repeats: int) -> list[float]:
    """Durations of a few runs after one that isn't counted, sorted."""
    return seconds_in_turn({"": work}, repeats)[""]


def seconds_in_turn(
    works: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """`seconds` of several works that take turns, so that what slows the machine for a while slows all of them.

    clock: `time.process_time` counts the cores' time for this process alone.
    """
    for work in works.values():
        work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            began = clock()
            work()
            taken[name].append(clock() - began)
    return {name: sorted(durations) for name, durations in taken.items()}


def machine_line(*packages: str) -> str:
    """The processor, its cores, Python and the packages with their versions."""
    names = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {names}"


def _processor() -> str:
    """Its name, which Linux tells in a file alone."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Median, first and last of values in the order of sorted durations: `median (fastest-slowest)`."""
    return f"{statistics.median(values):{form}} ({values[0]:{form}}-{values[-1]:{form}})"


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a markdown table, each row as soon as it is there."""
    for cells in (header, ["---"] * len(header)):
        print(_line(cells))
    for row in rows:
        print(_line(row), flush=True)


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |".replace("| --- ", "|---").replace("|--- |", "|---|")
