"""When shards are uploaded, when they are committed, and what is done after answers that leave both open."""

import email.utils
import logging
import threading
import time
from types import SimpleNamespace

import pytest
from huggingface_hub import CommitOperationDelete, HfApi

from teacher_logits import progress
from teacher_logits.errors import UploadError
from teacher_logits.hub import patience, retries, uploader
from teacher_logits.hub.retries import asked_wait, keep_trying
from teacher_logits.journal import RunCache, ShardState
from tests.hub.made import REPO, ROWS, hub, make_uploader, prepared, require_whole, shard, spooled, wait_until_idle
from tests.hub_server import Fault, HubServer

COMMIT = f"/api/datasets/{REPO}/commit/"


def until(condition: object) -> None:
    deadline = time.monotonic() + 20
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def calls(server: HubServer) -> list[str]:
    """The commits, listings and uploads that arrived, in their order."""
    names = {"commit": COMMIT, "list": f"/api/datasets/{REPO}/tree/", "put": "/storage/"}
    found = []
    for request in server.requests:
        found += [name for name, path in names.items() if path in request.path and request.method != "HEAD"]
    return found


def test_shards_are_uploaded_while_the_next_commit_is_not_due(server: HubServer, api: HfApi, cache: RunCache):
    repository = hub(api)
    repository.seconds_between_commits = 3600.0
    uploading = make_uploader(prepared(repository), cache)
    uploading.start()
    uploading.add_rows(ROWS.slice(0, 10))
    wait_until_idle(uploading)
    assert len(server.commits(REPO)) == 2, "the first commit comes at once"
    for first in (10, 20, 30):
        uploading.add_rows(ROWS.slice(first, 10))
    until(lambda: all(each.state is ShardState.UPLOADED for each in uploading.waiting))
    assert spooled(cache) == list(range(10, 40)) and len(server.commits(REPO)) == 2
    server.clear_requests()
    assert uploading.finish()
    assert calls(server).count("put") == 0 and calls(server).count("commit") == 1, "only the commit is left to do"
    require_whole(server.files(REPO))


@pytest.mark.parametrize("pressure", ["full spool", "many shards"])
def test_shards_that_pile_up_are_committed_sooner(
    server: HubServer, api: HfApi, cache: RunCache, monkeypatch: pytest.MonkeyPatch, pressure: str
):
    monkeypatch.setattr(uploader, "PRESSED_SECONDS_BETWEEN_COMMITS", 0.05)
    monkeypatch.setattr(uploader, "SHARDS_PER_COMMIT", 3 if pressure == "many shards" else 50)
    repository = hub(api)
    repository.seconds_between_commits = 3600.0
    spool_bytes = 1 if pressure == "full spool" else float("inf")
    uploading = make_uploader(prepared(repository), cache, rows_per_shard=2, spool_bytes=spool_bytes)
    uploading.start()
    uploading.add_rows(ROWS)
    until(lambda: len(uploading.waiting) < (3 if pressure == "many shards" else 1))
    assert uploading.finish()
    require_whole(server.files(REPO))


def test_nothing_is_sent_again_before_the_repository_was_listed(server: HubServer, api: HfApi, cache: RunCache):
    """The commit landed, its answer was lost, and then the listing fails, too."""
    uploading = make_uploader(prepared(hub(api)), cache)
    uploading.add_rows(ROWS)
    server.add_fault(Fault("POST", COMMIT, "reset", handled=True))
    away = server.add_fault(Fault("GET", f"/api/datasets/{REPO}", "status", status=503, times=9))
    server.clear_requests()
    uploading.start()
    assert uploading.finish()
    require_whole(server.files(REPO))
    assert server.struck(away) == 9
    assert calls(server).count("commit") == 2, "the shards, and that the output is complete"


def test_a_connection_that_falls_silent_counts_as_broken(
    server: HubServer, api: HfApi, cache: RunCache, monkeypatch: pytest.MonkeyPatch
):
    from huggingface_hub import close_session

    monkeypatch.setattr(patience, "SILENCE_SECONDS", 0.5)
    close_session()
    try:
        stalls = [
            server.add_fault(Fault("POST", path, "stall", seconds=60, handled=handled))
            for path, handled in ((COMMIT, True), (COMMIT, False), ("/preupload/", False))
        ]
        uploading = make_uploader(prepared(hub(api)), cache)
        uploading.start()
        uploading.add_rows(ROWS)
        assert uploading.finish()
        require_whole(server.files(REPO))
        assert [server.struck(fault) for fault in stalls] == [1, 1, 1]
    finally:
        close_session()  # the next one is patient again


@pytest.mark.parametrize("headers", [{"Retry-After": "100000"}, {"RateLimit": '"api";r=0;t=86400'}], ids=str)
@pytest.mark.parametrize(("method", "path"), [("POST", "/preupload/"), ("POST", "/info/lfs/"), ("GET", "/tree/")])
def test_a_hub_that_asks_for_a_day(
    server: HubServer, api: HfApi, cache: RunCache, waits: list[float], method: str, path: str, headers: dict[str, str]
):
    """The client would wait for as long as it is told, and nobody could end that."""
    repository = prepared(hub(api))
    server.add_fault(Fault(method, path, "status", status=429, headers=headers))
    if method == "GET":
        server.add_fault(Fault("POST", COMMIT, "reset", handled=True))
    uploading = make_uploader(repository, cache, seconds=60)
    uploading.start()
    with pytest.raises(UploadError, match=r"did not take a commit for 0 seconds \(429.*--resume"):
        uploading.add_rows(ROWS)
        uploading.finish()
    assert not [seconds for seconds in waits if seconds > 10] and spooled(cache)


def test_a_proxy_that_answers_for_the_hub(server: HubServer, api: HfApi, cache: RunCache):
    page = server.add_fault(Fault("POST", COMMIT, "status", status=200, body="<html>log in</html>", times=2))
    uploading = make_uploader(prepared(hub(api)), cache)
    uploading.start()
    uploading.add_rows(ROWS)
    assert uploading.finish() and server.struck(page) == 2
    require_whole(server.files(REPO))


def test_shards_that_somebody_removes(server: HubServer, api: HfApi, cache: RunCache):
    """checkpoint.json must not list what is gone. It may be that the listing only lags behind, so that is tried."""
    uploading = make_uploader(prepared(hub(api)), cache, seconds=1)
    uploading.start()
    uploading.add_rows(ROWS.slice(0, 20))
    wait_until_idle(uploading)
    api.create_commit(REPO, [CommitOperationDelete(shard(0))], commit_message="away", repo_type="dataset")
    with pytest.raises(UploadError, match=rf"{shard(0)} is not in Hub dataset {REPO} any more.*--resume"):
        uploading.add_rows(ROWS.slice(20, 20))
        uploading.finish()
    assert spooled(cache) == list(range(20, 40))


def refusal(**headers: str) -> Exception:
    error = OSError("429")
    error.response = SimpleNamespace(headers={name.replace("_", "-"): text for name, text in headers.items()})  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({}, 0, 0),
        ({"Retry_After": "30"}, 30, 31),
        ({"Retry_After": "soon"}, 0, 0),
        ({"RateLimit": '"api";r=0;t=55'}, 56, 57),
        ({"ratelimit": '"api";r=3;t=55'}, 0, 0),
        ({"Retry_After": "7", "RateLimit": '"api";r=0;t=200'}, 201, 202),
        ({"Retry_After": "999999"}, 900, 901),
    ],
    ids=str,
)
def test_what_a_refusal_asks_for(headers: dict[str, str], least: float, most: float):
    waits = {asked_wait({name.replace("_", "-"): text for name, text in headers.items()}) for _ in range(3)}
    assert all(least <= each <= most for each in waits)
    assert len(waits) == 3 or waits == {0}, "not all who were refused come back at one instant"


@pytest.mark.parametrize(("seconds", "least", "most"), [(300, 200, 301), (-300, 0, 0), (99999, 900, 901)])
def test_a_date_to_wait_for(seconds: float, least: float, most: float):
    date = email.utils.formatdate(time.time() + seconds, usegmt=True)
    assert least <= asked_wait({"Retry-After": date}) <= most


class Recorded(threading.Event):
    """Doesn't wait."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.pauses.append(timeout)
        return False


def test_waits_are_longer_each_time_and_differ(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(retries, "_FIRST_WAIT", 1.0)
    monkeypatch.setattr(retries, "_LONGEST_WAIT", 60.0)
    failures = [OSError("away")] * 5 + [refusal(Retry_After="40")] + [OSError("away")] * 3
    landed: list[int] = []

    def action() -> None:
        if failures:
            raise failures.pop(0)

    def settle() -> bool:
        landed.append(len(failures))
        return False

    stop = Recorded()
    keep_trying(action, settle, 3600, stop)
    expected = [1, 2, 4, 8, 16, 40, 60, 60, 60]
    assert len(stop.pauses) == 9 and landed == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    for pause, middle in zip(stop.pauses, expected, strict=True):
        assert 0.5 * middle <= pause <= 1.5 * middle


def test_the_time_counts_from_the_first_failure(monkeypatch: pytest.MonkeyPatch):
    """An upload that takes longer than the time that failures are borne may fail once, too."""
    clock = [1000.0]
    monkeypatch.setattr(retries, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    attempts = []

    def slow() -> None:
        clock[0] += 500
        attempts.append(clock[0])
        if len(attempts) < 2:
            raise OSError("broken in its middle")

    keep_trying(slow, lambda: False, 60, Recorded())
    assert len(attempts) == 2

    def always() -> None:
        clock[0] += 50
        raise OSError("away")

    with pytest.raises(UploadError, match=r"for 100 seconds \(away\)"):
        keep_trying(always, lambda: False, 60, Recorded())


def test_the_end_shows_how_far_it_is(
    server: HubServer, api: HfApi, cache: RunCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    caplog.set_level(logging.INFO, "teacher_logits")
    uploading = make_uploader(prepared(hub(api)), cache)
    uploading.add_rows(ROWS)
    uploading.start()
    assert uploading.finish()
    assert "uploading: 4 of 4 shards (100%)" in caplog.text
