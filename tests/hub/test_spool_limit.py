"""A full spool: rows wait, none is lost, and nobody waits for ever."""

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from teacher_logits.errors import UploadError
from teacher_logits.hub import FolderRepository
from teacher_logits.journal import RunCache
from tests.hub.made import ROWS, files_of, make_uploader, prepared, require_whole, spooled


class Gated(FolderRepository):
    """Commits only while its gate is open."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.gate, self.failing = threading.Event(), False

    def commit(self, *arguments: Any) -> None:
        assert self.gate.wait(timeout=20)
        if self.failing:
            raise UploadError("The dataset is gone.")
        super().commit(*arguments)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Gated]:
    gated = Gated(tmp_path / "out")
    yield gated
    gated.gate.set()


def in_thread(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_rows_wait_until_shards_are_committed(repository: Gated, cache: RunCache, tmp_path: Path):
    uploader = make_uploader(prepared(repository), cache, spool_bytes=1)
    uploader.start()
    adding = in_thread(lambda: uploader.add_rows(ROWS))
    until(lambda: uploader.waiting)
    time.sleep(0.5)
    assert adding.is_alive() and len(uploader.waiting) == 1, "one shard more than the limit, no second"
    repository.gate.set()
    adding.join(20)
    assert not adding.is_alive()
    assert uploader.finish()
    require_whole(files_of(tmp_path / "out"))


def test_a_roomy_spool_makes_nobody_wait(repository: Gated, cache: RunCache, tmp_path: Path):
    uploader = make_uploader(prepared(repository), cache, spool_bytes=1e9)
    uploader.start()
    uploader.add_rows(ROWS)
    assert len(spooled(cache)) == ROWS.num_rows
    repository.gate.set()
    assert uploader.finish()
    require_whole(files_of(tmp_path / "out"))


def test_a_run_that_stops_does_not_wait(repository: Gated, cache: RunCache):
    stopping = threading.Event()
    uploader = make_uploader(prepared(repository), cache, spool_bytes=1)
    uploader.start(stopping.is_set)
    adding = in_thread(lambda: uploader.add_rows(ROWS))
    until(lambda: uploader.waiting)
    stopping.set()
    adding.join(20)
    assert not adding.is_alive() and len(spooled(cache)) == ROWS.num_rows, "everything is on disk"
    repository.gate.set()
    assert uploader.finish()


def test_a_run_that_fails_does_not_wait(repository: Gated, cache: RunCache):
    uploader = make_uploader(prepared(repository), cache, spool_bytes=1)
    uploader.start()
    adding = in_thread(lambda: uploader.add_rows(ROWS))
    until(lambda: uploader.waiting)
    uploader.stop_waiting()
    adding.join(20)
    assert not adding.is_alive() and len(spooled(cache)) == ROWS.num_rows
    repository.gate.set()
    assert uploader.finish()


def test_long_waiting_is_told_once(repository: Gated, cache: RunCache, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "teacher_logits"):
        uploader = make_uploader(prepared(repository), cache, spool_bytes=1)
        uploader.start()
        adding = in_thread(lambda: uploader.add_rows(ROWS))
        until(lambda: "--spool-limit-gb" in caplog.text)
        repository.gate.set()
        adding.join(20)
        assert uploader.finish() and caplog.text.count("--spool-limit-gb") == 1


def test_uploading_that_failed_is_not_waited_for(repository: Gated, cache: RunCache):
    repository.failing = True
    uploader = make_uploader(prepared(repository), cache, spool_bytes=1)
    uploader.start()
    failures: list[BaseException] = []

    def add() -> None:
        try:
            uploader.add_rows(ROWS)
        except UploadError as error:
            failures.append(error)

    adding = in_thread(add)
    until(lambda: uploader.waiting)
    repository.gate.set()
    adding.join(20)
    assert not adding.is_alive() and str(failures[0]) == "The dataset is gone."
    assert len(spooled(cache)) == ROWS.num_rows, "nothing is lost"
