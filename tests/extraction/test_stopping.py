"""Runs that are stopped at any instant, by whatever can stop them, and continued: no row is lost or doubled."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from teacher_logits.extraction import extract
from teacher_logits.extraction import stop as stop_module
from teacher_logits.extraction.stop import GracefulInterrupt, TimedShutdown
from tests.extraction.runs import (
    ROOT,
    Ended,
    ForkServer,
    Place,
    StopAfter,
    by_index,
    command,
    require_agreement,
    stored_rows,
)
from tests.hub.made import REPO, rows_of
from tests.hub_server import Fault, HubServer
from tests.tiny import question_rows, write_jsonl

ROWS = 34
OPTIONS = ("--max-batch-size", "1", "--upload-every", "3")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}


@pytest.fixture(scope="module")
def longer(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A run long enough to be stopped in its middle; this one is not disturbed."""
    folder = tmp_path_factory.mktemp("longer")
    data = write_jsonl(folder / "chat.jsonl", question_rows(ROWS, longest=40))
    found = Place(tiny_teacher, data, folder / "logits", folder / "cache")
    found.run(max_batch_size=1)
    return found


def elsewhere(place: Place, folder: Path, output: Path | str | None = None) -> Place:
    return Place(place.teacher, place.data, output or folder / "logits", folder / "cache")


def go_on(place: Place) -> str:
    """What a run says to go on with."""
    return f"python extract_logits.py --resume --cache-dir {place.cache}"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def require_orderly(end: Ended, number: int) -> int:
    """Check that a run ended as the signal asks, or was done already; returns its code."""
    assert end.code in (CODES[number], 0) or (end.code == -number and "complete\n" in end.out), end
    assert "Traceback" not in end.err, end
    return end.code


def working(place: Place) -> Callable[[], bool]:
    """Whether rows have arrived anywhere."""
    return lambda: any(place.folder.glob("data/*.parquet")) or any(place.cache.glob("spool/*.parquet"))


def test_killed_again_and_again(longer: Place, tmp_path: Path, forks: ForkServer):
    place = elsewhere(longer, tmp_path)
    began = time.monotonic()
    assert forks.run(*elsewhere(longer, tmp_path / "timed").arguments(*OPTIONS)).code == 0
    whole = time.monotonic() - began
    chance = random.Random(1)
    numbers = [signal.SIGKILL] * 5 + [signal.SIGINT] * 3 + [signal.SIGTERM] * 2
    chance.shuffle(numbers)
    ended = []
    for number in numbers:
        child = forks.start(*(place.arguments(*OPTIONS, "--resume")))
        time.sleep(whole * chance.uniform(0.15, 0.75))
        child.send(number)
        ended.append(require_orderly(child.wait(), number))
        require_no_double(place)
    end = forks.run(*place.arguments(*OPTIONS, "--resume"))
    assert end.code == 0 and end.last_line == "complete", end
    assert stored_rows(place.folder).equals(stored_rows(longer.folder))
    assert require_agreement(place.folder)["complete"] is True
    assert not place.waiting() and not list(place.cache.glob("backup_*"))
    assert sum(code == 0 for code in ended) <= 7, "most were in fact stopped"


def require_no_double(place: Place) -> None:
    """At every instant the output alone is sound: each row once, as it must be."""
    by_index([pq.read_table(path) for path in place.folder.glob("data/*.parquet")])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_signal_saves_everything(longer: Place, tmp_path: Path, forks: ForkServer, number: int):
    place = elsewhere(longer, tmp_path)
    child = forks.start(*place.arguments(*OPTIONS))
    wait_for(working(place))
    child.send(number)
    end = child.wait()
    assert end.code == CODES[number] and "Traceback" not in end.err
    stored, waiting = stored_rows(place.folder).num_rows, place.waiting()
    said = r"stopped with (\d+) conversations left( and (\d+) that wait in .*)?; go on with: (.*)"
    left = re.fullmatch(said, end.last_line)
    assert left and left[4] == go_on(place)
    assert int(left[1]) + len(waiting) + stored == ROWS and int(left[3] or 0) == len(waiting), end
    assert 0 < stored < ROWS and place.kept["complete"] is False and place.checkpoint["complete"] is False
    alone = forks.run("--resume", "--cache-dir", str(place.cache))
    assert alone.code == 0 and alone.last_line == "complete", alone
    assert stored_rows(place.folder).equals(stored_rows(longer.folder))
    assert f"\n{place.folder}: 34 conversations, " in alone.out
    assert not place.waiting()


def test_second_signal_kills(longer: Place, tmp_path: Path, hub_forks: tuple[HubServer, ForkServer]):
    """Also where the first is being waited for: here a Hub that does not answer."""
    server, forks = hub_forks
    place = elsewhere(longer, tmp_path, "tester/slow")
    fault = server.add_fault(Fault("POST", "slow/commit/", "stall", seconds=30, times=None))
    child = forks.start(*place.arguments(*OPTIONS, "--limit", "20"))
    wait_for(lambda: server.struck(fault) == 1 and any(place.cache.glob("spool/*.parquet")))
    child.send(signal.SIGINT)
    time.sleep(0.7)
    child.send(signal.SIGINT)
    began = time.monotonic()
    end = child.wait()
    assert end.code in (-signal.SIGINT, 130) and time.monotonic() - began < 3
    assert len(place.waiting()) >= 3
    server.clear_faults()
    assert forks.run(*place.arguments("--resume", *OPTIONS, "--limit", str(ROWS))).code == 0
    assert rows_of(server.files("tester/slow")).sort_by("index").equals(stored_rows(longer.folder))


def test_killed_on_the_hub(longer: Place, tmp_path: Path, hub_forks: tuple[HubServer, ForkServer]):
    server, forks = hub_forks
    place = elsewhere(longer, tmp_path, REPO)
    chance = random.Random(2)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        child = forks.start(*place.arguments(*OPTIONS, "--resume", "--limit", "30"))
        wait_for((place.cache / "checkpoint.json").exists)  # the first must begin; the others find it
        time.sleep(chance.uniform(0.0, 0.7))
        child.send(number)
        require_orderly(child.wait(), number)
    # A machine that has nothing but the output's name goes on, with more conversations.
    other = elsewhere(longer, tmp_path / "other", REPO)
    end = forks.run(*other.arguments("--resume", *OPTIONS))
    assert end.code == 0 and end.last_line == "complete", end
    assert server.token not in end.out + end.err
    # The first machine comes back: what it still holds is known to be there.
    end = forks.run("--resume", "--cache-dir", str(place.cache), "--full-dataset")
    assert end.code == 0 and end.last_line == "complete" and not place.waiting(), end
    found = rows_of(server.files(REPO))
    assert found.num_rows == ROWS and found.sort_by("index").equals(stored_rows(longer.folder))


def test_time_limit(place: Place, reference: Place, monkeypatch: pytest.MonkeyPatch):
    class Short(TimedShutdown):
        """Over after eleven batches."""

        asked = 0

        @property
        def due(self) -> bool:
            self.asked += 1
            return self.asked > 11

    monkeypatch.setattr(extract, "TimedShutdown", Short)
    summary = place.run(max_batch_size=1, upload_every=4, max_runtime_minutes=600)
    assert (summary.left, summary.waiting, summary.complete, summary.total_conversations) == (19, 3, False, 8)
    last = f"stopped with 19 conversations left and 3 that wait in the cache folder; go on with: {go_on(place)}"
    assert summary.text().splitlines()[-1] == last
    assert place.kept["complete"] is False and place.checkpoint["complete"] is False
    monkeypatch.undo()
    assert place.run(resume=True, max_batch_size=1, max_runtime_minutes=600).complete
    assert stored_rows(place.folder).equals(stored_rows(reference.folder))


def test_time_limit_that_is_over_at_once(place: Place):
    end = command(*place.arguments("--max-runtime-minutes", "0.01"))
    assert (end.code, end.out) == (0, "") and "the time is over, stopped before anything" in end.err
    summary = place.run(resume=True, max_batch_size=1)
    assert summary.complete and stored_rows(place.folder).num_rows == 30


def test_stopped_while_the_hub_is_away(
    longer: Place, tmp_path: Path, server: HubServer, hub_in_process: None, monkeypatch: pytest.MonkeyPatch
):
    """All is computed, and only the Hub is waited for: Ctrl+C is heard then, too."""
    place = elsewhere(longer, tmp_path, REPO)
    monkeypatch.setattr(stop_module, "_GRACE_SECONDS", 0.5)
    fault = server.add_fault(Fault("POST", "/commit/", "status", status=503, times=None))

    def press() -> None:
        wait_for(lambda: server.struck(fault) > 0 and len(place.waiting()) == 6)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    with GracefulInterrupt() as stop:
        summary = place.run(stop, limit=6, upload_every=3)
    presser.join()
    assert (stop.exit_code, summary.left, summary.waiting, summary.complete) == (130, 0, 6, False)
    last = summary.text().splitlines()[-1]
    told = f"stopped with 0 conversations left and 6 that wait in the cache folder; go on with: {go_on(place)}"
    assert last == told
    assert len(place.waiting()) == 6 and place.kept["complete"] is False
    server.clear_faults()
    assert place.run(resume=True, limit=6).complete
    assert rows_of(server.files(REPO)).num_rows == 6


def test_handing_over_is_no_part_of_a_batch(longer: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A batch's duration decides how much time the limit keeps back; waiting for a full spool must not count."""
    inside: list[bool] = [False]
    batch, submit, submitted = TimedShutdown.batch, extract.AsyncPostProcessor.submit, []

    @contextmanager
    def timed(self: TimedShutdown) -> Iterator[None]:
        with batch(self):
            inside[0] = True
            yield
            inside[0] = False

    def recorded(self: extract.AsyncPostProcessor, item: object) -> None:
        submitted.append(inside[0])
        submit(self, item)

    monkeypatch.setattr(TimedShutdown, "batch", timed)
    monkeypatch.setattr(extract.AsyncPostProcessor, "submit", recorded)
    assert elsewhere(longer, tmp_path).run(max_batch_size=8, max_runtime_minutes=600).complete
    assert submitted and not any(submitted)


def test_warning_of_the_jobs_end(longer: Place, tmp_path: Path, forks: ForkServer):
    """SIGUSR1, once or more often, acts like the time limit."""
    place = elsewhere(longer, tmp_path)
    child = forks.start(*place.arguments(*OPTIONS))
    wait_for(working(place))
    for _ in range(3):
        child.send(signal.SIGUSR1)
    end = child.wait()
    assert end.code == 0 and "Traceback" not in end.err and end.last_line.endswith(go_on(place)), end
    assert 0 < stored_rows(place.folder).num_rows < ROWS and place.checkpoint["complete"] is False
    assert forks.run("--resume", "--cache-dir", str(place.cache)).code == 0
    assert stored_rows(place.folder).equals(stored_rows(longer.folder))


@pytest.mark.parametrize("numbers", [(signal.SIGUSR1, signal.SIGINT), (signal.SIGTERM, signal.SIGUSR1)])
def test_whoever_is_asked_to_stop_twice_by_others(numbers: tuple[int, int]):
    """After a warning Ctrl+C is heard as the first one; after Ctrl+C a warning changes nothing."""
    with GracefulInterrupt() as stop:
        stop.begin_work()
        for number in numbers:
            os.kill(os.getpid(), number)
        assert stop.requested and stop.exit_code == max(CODES[each] for each in numbers if each in CODES)


@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_signals_before_there_is_anything_to_lose(number: int, heard: bool):
    """Also where nobody reads what is said of it any more."""
    with subprocess.Popen(
        [sys.executable, ROOT / "extract_logits.py", "--help"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests" / "extraction" / "slow_import")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None and process.stderr.readline() == "importing\n"
        if not heard:
            process.stderr.close()
        process.send_signal(number)
        assert process.stdout is not None and process.wait(60) == CODES.get(number, 0) and process.stdout.read() == ""
        err = process.stderr.read() if heard else "stopped before anything was extracted"
    assert "stopped before anything was extracted" in err.splitlines()[-1] and "Traceback" not in err


def test_upload_on_stop(place: Place, reference: Place):
    """The disk may be gone afterwards: everything that is computed is in the output."""
    summary = place.run(StopAfter(18), max_batch_size=1, upload_on_stop=True)
    assert (summary.complete, summary.left, summary.waiting, summary.total_conversations) == (False, 12, 0, 18)
    assert [entry["rows"] for _, entry in sorted(place.checkpoint["shards"].items())] == [7, 7, 4]
    assert not place.waiting() and place.checkpoint["complete"] is False
    shutil.rmtree(place.cache)
    assert place.run(resume=True, max_batch_size=1).complete
    assert stored_rows(place.folder).equals(stored_rows(reference.folder))


def test_upload_on_stop_while_the_hub_is_away(longer: Place, tmp_path: Path, hub_forks: tuple[HubServer, ForkServer]):
    """What could not be uploaded in time is told by the exit code, and kept."""
    server, forks = hub_forks
    place = elsewhere(longer, tmp_path, "tester/away")
    server.add_fault(Fault("POST", "away/commit/", "status", status=503, times=None))
    child = forks.start(*place.arguments(*OPTIONS, "--upload-on-stop", "--hub-retry-seconds", "2"))
    wait_for(lambda: any(place.cache.glob("spool/*.parquet")))
    child.send(signal.SIGUSR1)
    end = child.wait()
    assert end.code == 1 and "--resume" in end.err + end.out and "Traceback" not in end.err, end
    computed = len(place.waiting())
    assert computed > 0
    server.clear_faults()
    assert forks.run(*place.arguments("--resume", *OPTIONS)).code == 0
    assert rows_of(server.files("tester/away")).sort_by("index").equals(stored_rows(longer.folder))


def test_time_limit_while_the_hub_is_away(
    longer: Place, tmp_path: Path, server: HubServer, hub_in_process: None, monkeypatch: pytest.MonkeyPatch
):
    """Everything is computed, the Hub is waited for, and then the time is over."""
    place = elsewhere(longer, tmp_path, REPO)
    monkeypatch.setattr(stop_module, "_GRACE_SECONDS", 0.5)
    fault = server.add_fault(Fault("POST", "/commit/", "status", status=503, times=None))

    class Short(TimedShutdown):
        """Over when the Hub has refused twice."""

        @property
        def due(self) -> bool:
            return server.struck(fault) > 1 and len(place.waiting()) == 6

    monkeypatch.setattr(extract, "TimedShutdown", Short)
    summary = place.run(limit=6, upload_every=3, max_runtime_minutes=5)
    assert (summary.left, summary.waiting, summary.complete) == (0, 6, False)
    server.clear_faults()
    monkeypatch.undo()
