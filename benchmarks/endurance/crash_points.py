"""A crash, and a full disk, at every passing of every step of the spool and the uploader; then the run is resumed.

    python -m benchmarks.endurance.crash_points [--minutes 20] [--each 1] [--only rename]

A run's uploading is cut in two lives: one takes some rows and stops, the other takes the rest and finishes. In one of
them a step fails as on a full disk, or the process is gone before or behind it: writing a shard, fsync, rename, upload,
commit, removal. What is left must hold what was saved before, and the next life must finish with every row once.
"""

import random
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.endurance.common import Report, headline, tell
from benchmarks.measuring import print_table
from tests.hub.crash_points import CrashPoint, crash_points, strike
from tests.hub.lives import STEPS, lives
from tests.hub_server import HubServer


@dataclass(frozen=True)
class Options:
    """Crash at every step."""

    minutes: float = 20.0
    """Nothing more is begun after this time."""
    each: int = 1
    """Try one of so many points."""
    only: str | None = None
    """Only this step."""


def main() -> None:
    """Strike at every point; print the table."""
    options = tyro.cli(Options, prog="crash_points")
    report, struck = Report(options.minutes), defaultdict[str, Counter[str]](Counter)
    headline(f"one of {options.each} points" if options.each > 1 else "every point")
    with tempfile.TemporaryDirectory() as folder, HubServer() as server, lives() as live:
        for place, hub in (("folder", None), ("Hub", server)):
            points = list(crash_points(live, Path(folder) / f"whole-{place}", hub))
            points = random.Random(0).sample(points, len(points) // options.each)
            for number, point in enumerate(points):
                if report.over or options.only not in (None, point.step):
                    continue
                what = f"{place}, {point}"
                try:
                    reached = strike(live, point, Path(folder) / f"{place}-{number}", hub)
                except AssertionError as error:
                    report.fail(f"{what}: {error}")
                    continue
                struck[_name(point)][place] += reached
                report.counts["points tried"] += 1
                if number % 50 == 0:
                    tell(f"{place}: {number} of {len(points)} points, {len(report.failures)} failures")
    order = {step: number for number, step in enumerate(STEPS)}
    rows = sorted(struck.items(), key=lambda row: order[row[0].split()[1].rstrip(",")])
    print_table(("ended there", "folder", "Hub"), [(name, each["folder"], each["Hub"]) for name, each in rows])
    report.close()


def _name(point: CrashPoint) -> str:
    return f"{point.when} {point.step}, {'process gone' if point.end == 'crash' else 'disk full'}"


if __name__ == "__main__":
    main()
