"""A run's uploading in two lives, one of which ends early at a chosen step; then it is resumed and looked at."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from teacher_logits.shards import read_indices
from tests.hub.lives import STEPS, STOPPED_AT, Death, Life
from tests.hub.made import ROWS, files_of, require_whole, rows_of
from tests.hub_server import HubServer

Live = Callable[[Life], Death]


@dataclasses.dataclass(frozen=True)
class CrashPoint:
    """Where a life ends."""

    second: bool
    """In the life that finishes the run, instead of the one that is stopped."""
    step: str
    when: str
    nth: int
    end: str


def crash_points(live: Live, folder: Path, server: HubServer | None) -> Iterator[CrashPoint]:
    """Every passing of every step of an undisturbed run, before and after it, as a crash and as a full disk."""
    stopped, finished = _lives(folder, server)
    for second, life in ((False, stopped), (True, finished)):
        passed = live(life).passed
        assert set(passed) == set(STEPS), passed
        for step in STEPS:
            for nth in range(1, passed[step] + 1):
                for end in ("crash", "full"):
                    yield CrashPoint(second, step, "before", nth, end)
                    if step != "fsync":  # behind one nothing happens before the next step
                        yield CrashPoint(second, step, "after", nth, end)


def strike(live: Live, point: CrashPoint, folder: Path, server: HubServer | None) -> bool:
    """A run that ends at the point and is resumed. Returns whether the point was reached, for how many shards go in one
    commit is a matter of time. Raises AssertionError where a row is lost, doubled or changed."""
    stopped, finished = _lives(folder, server)
    if point.second:
        assert live(stopped).code == 0
    ending = {"step": point.step, "when": point.when, "nth": point.nth, "end": point.end}
    death = live(dataclasses.replace(finished if point.second else stopped, **ending))
    assert death.code in ((0, 99) if point.end == "crash" else (0, 1)), death
    assert not death.told or "No space left" in death.told, death
    durable = _waiting(folder) | set(rows_of(_output(folder, server))["index"].to_pylist())
    assert not point.second or durable >= set(range(STOPPED_AT)), "what was saved once stays so"
    end = live(finished)
    assert end.code == 0, end
    found = _output(folder, server)
    assert rows_of(found).sort_by("index").equals(ROWS.combine_chunks())
    require_whole(found, rows_of(found))
    assert not _waiting(folder) and not list(folder.glob("cache/backup_*"))
    return death.code != 0


def _lives(folder: Path, server: HubServer | None) -> tuple[Life, Life]:
    hub = None if server is None else (server.endpoint, server.token, f"tester/{folder.name}")
    stopped = Life(str(folder), hub, rows=STOPPED_AT, finish=False)
    return stopped, dataclasses.replace(stopped, rows=ROWS.num_rows, finish=True)


def _output(folder: Path, server: HubServer | None) -> dict[str, bytes]:
    if server is None:
        shown = files_of(folder / "out")
        return {path: content for path, content in shown.items() if not Path(path).name.startswith(".")}
    name = f"tester/{folder.name}"
    return server.files(name) if server.exists(name) else {}


def _waiting(folder: Path) -> set[int]:
    paths = [*folder.glob("cache/spool/*.parquet"), *folder.glob("cache/pending/*.parquet")]
    return {index for path in paths for index in read_indices(path).tolist()}
