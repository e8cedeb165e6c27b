"""Rows to shards to commits, with everything that a Hub and a network can do meanwhile."""

import io
import json
import logging
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from teacher_logits.errors import UploadError
from teacher_logits.hub import Checkpoint, FolderRepository
from teacher_logits.hub import uploader as uploader_module
from teacher_logits.journal import RunCache, SkippedLog
from teacher_logits.shards import shard_figures, shard_schema
from tests.hub.made import (
    METADATA,
    NONE_DONE,
    REPO,
    ROWS,
    files_of,
    hub,
    make_uploader,
    prepared,
    require_whole,
    rows_of,
    shard,
    spooled,
    upload_everything,
    wait_until_idle,
)
from tests.hub_server import Fault, HubServer

COMMIT = r"/commit/"


@pytest.fixture(autouse=True)
def token_stays_secret(server: HubServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a test does: no message that is logged and no file on disk or on the Hub has the token in it."""
    caplog.set_level(logging.DEBUG, "teacher_logits")
    yield
    secret = server.token
    assert secret not in caplog.text
    for content in (*files_of(tmp_path).values(), *(server.files(REPO).values() if server.exists(REPO) else ())):
        assert secret.encode() not in content


def test_rows_arrive_as_they_were(server: HubServer, api: HfApi, cache: RunCache):
    uploader = make_uploader(prepared(hub(api)), cache)
    uploader.start()
    for first in range(0, 35, 7):
        uploader.add_rows(ROWS.slice(first, 7))
    wait_until_idle(uploader)
    checkpoint = require_whole(server.files(REPO), ROWS.slice(0, 30))
    assert checkpoint["complete"] is False and uploader.buffered_rows == 5 and not spooled(cache)
    uploader.add_rows(ROWS.slice(35, 5))
    uploader.finish()
    checkpoint = require_whole(server.files(REPO))
    assert checkpoint["complete"] is True and not cache.holds_rows()
    assert uploader.bytes_per_token == pytest.approx(
        sum(len(content) for path, content in server.files(REPO).items() if path.startswith("data/")) / 120
    )


def test_checkpoint_has_the_formats_keys(server: HubServer, api: HfApi, cache: RunCache):
    uploader = make_uploader(prepared(hub(api)), cache)
    uploader.start()
    uploader.add_rows(ROWS)
    uploader.finish()
    files = server.files(REPO)
    checkpoint = json.loads(files["checkpoint.json"])
    assert set(checkpoint) == {
        "format_version", "fingerprint", "complete", "total_samples", "total_tokens", "shards", "config", "metadata",
    }  # fmt: skip
    assert checkpoint["metadata"] == METADATA and checkpoint["config"] == {"model": "some/teacher"}
    assert checkpoint["shards"][shard(1)] == {
        "rows": 10,
        "tokens": sum(ROWS.column("num_tokens").to_pylist()[10:20]),
        "sha256": server.commits(REPO)[0].files[shard(1)].sha256,
        "figures": shard_figures(io.BytesIO(files[shard(1)]), len(files[shard(1)])).as_dict(),
    }
    again = Checkpoint.parse(files["checkpoint.json"], "there")
    assert again.content() == files["checkpoint.json"]
    assert b"generation" not in files[shard(0)], "shards carry the template's hash, not its text"


def test_checkpoint_and_shards_are_one_commit(server: HubServer, api: HfApi, cache: RunCache):
    upload_everything(hub(api), cache)
    for commit in server.commits(REPO)[:-1]:
        files = {path: blob.content for path, blob in commit.files.items()}
        require_whole(files, ROWS.slice(0, 10 * sum(path.startswith("data/") for path in files)))


def test_many_shards_go_in_few_commits(server: HubServer, api: HfApi, cache: RunCache, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(uploader_module, "SHARDS_PER_COMMIT", 6)
    uploader = make_uploader(prepared(hub(api)), cache, rows_per_shard=2)
    uploader.add_rows(ROWS)
    uploader.start()
    uploader.finish()
    require_whole(server.files(REPO))
    counts = [sum(path.startswith("data/") for path in commit.files) for commit in server.commits(REPO)]
    assert counts == [20, 18, 12, 6, 0]
    completes = [
        json.loads(commit.files["checkpoint.json"].content)["complete"] for commit in server.commits(REPO)[:-1]
    ]
    assert completes == [True, False, False, False], "only the last is complete"


def test_commits_keep_their_distance(server: HubServer, api: HfApi, cache: RunCache):
    repository = hub(api)
    repository.seconds_between_commits = 60.0
    uploader = make_uploader(prepared(repository), cache)
    uploader.start()
    uploader.add_rows(ROWS.slice(0, 10))
    wait_until_idle(uploader)
    for first in (10, 20, 30):
        uploader.add_rows(ROWS.slice(first, 10))
    time.sleep(0.2)
    assert len(server.commits(REPO)) == 2 and spooled(cache) == list(range(10, 40))
    uploader.finish()
    assert len(server.commits(REPO)) == 3, "the end does not wait"
    require_whole(server.files(REPO))


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", COMMIT, "status", status=409, times=3),
        Fault("POST", COMMIT, "status", status=429, headers={"Retry-After": "0"}, times=3),
        Fault("POST", COMMIT, "status", status=500, times=3),
        Fault("POST", COMMIT, "status", status=503, times=3),
        Fault("POST", COMMIT, "reset", times=3),
        Fault("POST", "/preupload/", "status", status=503, times=12),
        Fault("PUT", "/storage/", "status", status=403, times=1),
        Fault("PUT", "/storage/", "reset_in_upload", times=2),
        Fault("POST", "/info/lfs/", "reset", times=7),
        Fault("POST", COMMIT, "corrupt", at=0, times=2),
        Fault("POST", COMMIT, "status", status=200, body={}, times=2),
        Fault("POST", "/preupload/", "corrupt", at=0, times=2),
        Fault("POST", "/preupload/", "status", status=200, body={}, times=2),
        Fault("POST", "/info/lfs/", "corrupt", at=0, times=2),
        Fault("POST", "/info/lfs/", "status", status=200, body={}, times=2),
        Fault("POST", "/validate-yaml", "corrupt", at=0, times=2),
    ],
    ids=lambda fault: f"{fault.path.strip('/')} {fault.kind} {fault.status} {fault.body}",
)
def test_what_passes_is_tried_again(server: HubServer, api: HfApi, cache: RunCache, fault: Fault):
    server.add_fault(fault)
    upload_everything(hub(api), cache)
    assert server.struck(fault) == fault.times
    require_whole(server.files(REPO))
    assert not cache.holds_rows()


@pytest.mark.parametrize("kind", ["reset", "status"])
def test_a_lost_answer_doubles_nothing(server: HubServer, api: HfApi, cache: RunCache, kind: str):
    """The commit landed, and its answer didn't come."""
    fault = server.add_fault(Fault("POST", COMMIT, kind, status=500, handled=True, times=None))
    uploader = make_uploader(prepared(hub(api)), cache)
    uploader.add_rows(ROWS)
    uploader.start()
    uploader.finish()
    require_whole(server.files(REPO))
    assert server.struck(fault) == len(server.commits(REPO)) - 1, "each commit was sent once"
    assert not cache.holds_rows()


def test_reads_that_lag_behind(server: HubServer, api: HfApi, cache: RunCache):
    """After a lost answer the Hub first shows the commit before: trying again must not double it or stop the run."""
    uploader = make_uploader(prepared(hub(api)), cache)
    uploader.add_rows(ROWS)
    server.add_fault(Fault("POST", COMMIT, "reset", handled=True))
    server.add_fault(Fault("GET", f"/api/datasets/{REPO}", "stale", times=2))
    uploader.start()
    uploader.finish()
    require_whole(server.files(REPO))
    titles = [commit.title for commit in server.commits(REPO)]
    assert len(set(titles)) == len(titles), "no commit is made twice"


def foreign(server: HubServer, name: str, rows: object = None) -> bytes:
    """Somebody else commits a shard with a checkpoint of their own."""
    content = b"PAR1 of somebody else"
    server.add_files(REPO, {name: content, "checkpoint.json": b"{}"}, title="another run")
    return content


@pytest.mark.parametrize("name", ["data/train-abababab-00007.parquet", "data/train-cdcdcdcd-00000.parquet", shard(0)])
def test_another_run_in_the_same_repository(server: HubServer, api: HfApi, cache: RunCache, name: str):
    """Also a run with the same names, as when a machine is replaced while it still works: nothing is overwritten."""
    uploader = make_uploader(prepared(hub(api)), cache)
    uploader.add_rows(ROWS)
    theirs = foreign(server, name)
    uploader.start()
    with pytest.raises(UploadError, match=r"Another run writes to Hub dataset tester/logits.*--resume") as failure:
        uploader.finish()
    assert name in str(failure.value) and failure.value.exit_code == 1
    assert server.files(REPO)[name] == theirs
    assert spooled(cache) == list(range(40))


def test_another_run_after_some_commits(server: HubServer, api: HfApi, cache: RunCache):
    uploader = make_uploader(prepared(hub(api)), cache)
    uploader.start()
    uploader.add_rows(ROWS.slice(0, 10))
    wait_until_idle(uploader)
    theirs = foreign(server, shard(1))
    with pytest.raises(UploadError, match=shard(1)):
        uploader.add_rows(ROWS.slice(10, 20))
        uploader.finish()
    assert server.files(REPO)[shard(1)] == theirs and spooled(cache) == list(range(10, 30))


def test_somebody_edits_the_card(server: HubServer, api: HfApi, cache: RunCache):
    """A commit of another's that brings no shard is built upon."""
    uploader = make_uploader(prepared(hub(api)), cache)
    uploader.start()
    uploader.add_rows(ROWS.slice(0, 10))
    wait_until_idle(uploader)
    server.add_files(REPO, {"notes.md": b"mine"}, title="notes")
    uploader.add_rows(ROWS.slice(10, 30))
    uploader.finish()
    require_whole(server.files(REPO))
    assert server.files(REPO)["notes.md"] == b"mine"


@pytest.mark.parametrize("status", [401, 403, 400, 413])
@pytest.mark.parametrize("call", ["preupload", "commit"])
def test_refused_for_good(server: HubServer, api: HfApi, cache: RunCache, status: int, call: str):
    """A token that is taken away, a repository that is full: the run ends at once, and everything is kept."""
    uploader = make_uploader(prepared(hub(api)), cache)
    uploader.start()
    uploader.add_rows(ROWS.slice(0, 10))
    wait_until_idle(uploader)
    fault = server.add_fault(Fault("POST", f"/{call}/", "status", status=status, times=None))
    began = time.monotonic()
    with pytest.raises(UploadError, match=rf"{status}.*--resume"):
        for first in range(10, 40, 5):
            uploader.add_rows(ROWS.slice(first, 5))
            time.sleep(0.05)
        while time.monotonic() - began < 20:
            uploader.check()
            time.sleep(0.01)
    assert server.struck(fault) == 1
    uploader.save_pending_locally()
    with pytest.raises(UploadError):
        uploader.stop(5)

    server.clear_faults()
    held = json.loads(server.files(REPO)["checkpoint.json"])["shards"]
    kept = spooled(cache)
    assert kept == list(range(10, 10 + len(kept))) and kept, "what was full is spooled"
    resumed = make_uploader(prepared(hub(api)), cache, held=held, next_number=1 + len(kept) // 10)
    pending = resumed.load_pending_into_buffer(NONE_DONE, shard_schema()).tolist()
    done = 10 + len(kept) + len(pending)
    assert pending == list(range(10 + len(kept), done))
    resumed.start()
    resumed.add_rows(ROWS.slice(done, 40 - done))
    resumed.finish()
    require_whole(server.files(REPO))


def test_away_for_too_long(server: HubServer, api: HfApi, cache: RunCache):
    uploader = make_uploader(prepared(hub(api)), cache, seconds=0.5)
    server.add_fault(Fault("*", REPO, "status", status=503, times=None))
    uploader.add_rows(ROWS)
    uploader.start()
    began = time.monotonic()
    with pytest.raises(
        UploadError, match=r"did not take a commit for .* seconds \(503.*cache folder.*--resume"
    ) as found:
        uploader.finish()
    assert 0.3 < time.monotonic() - began < 10
    assert found.value.__cause__ is not None
    assert spooled(cache) == list(range(40))
    server.clear_faults()
    resumed = make_uploader(prepared(hub(api)), cache)
    resumed.start()
    resumed.finish()
    require_whole(server.files(REPO))


def test_a_failure_of_the_thread_is_raised_outside(tmp_path: Path, cache: RunCache):
    def broken_card(checkpoint: Checkpoint) -> dict[str, bytes]:
        raise KeyError("in the card")

    uploader = make_uploader(prepared(FolderRepository(tmp_path / "o")), cache, card=broken_card)
    uploader.start()
    deadline = time.monotonic() + 10
    with pytest.raises(KeyError, match="in the card") as failure:
        while time.monotonic() < deadline:
            uploader.add_rows(ROWS.slice(0, 10))
            time.sleep(0.05)
    assert "broken_card" in "".join(traceback.format_exception(failure.value))
    for call in (uploader.check, uploader.finish, lambda: uploader.stop(5)):
        with pytest.raises(KeyError):
            call()
    assert spooled(cache)[:10] == list(range(10))


def test_stop_does_not_wait_for_a_hub_that_is_away(server: HubServer, api: HfApi, cache: RunCache):
    uploader = make_uploader(prepared(hub(api)), cache, seconds=600)
    server.add_fault(Fault("POST", COMMIT, "status", status=503, headers={"Retry-After": "100"}, times=None))
    uploader.start()
    uploader.add_rows(ROWS.slice(0, 25))
    began = time.monotonic()
    assert uploader.save_pending_locally() == 5
    assert uploader.stop(0.3) is False
    assert time.monotonic() - began < 3
    assert spooled(cache) == list(range(20)) and sum(shard.rows for shard in uploader.waiting) == 20


def test_stop_commits_what_is_spooled(server: HubServer, api: HfApi, cache: RunCache):
    uploader = make_uploader(prepared(hub(api)), cache)
    uploader.start()
    uploader.add_rows(ROWS.slice(0, 25))
    assert uploader.save_pending_locally() == 5
    assert uploader.stop(20) is True
    checkpoint = require_whole(server.files(REPO), ROWS.slice(0, 20))
    assert checkpoint["complete"] is False and not spooled(cache)


def test_skipped_conversations_are_listed(server: HubServer, api: HfApi, cache: RunCache):
    skipped = SkippedLog(cache.skipped_file)
    skipped.add(99, "too long")
    uploader = make_uploader(prepared(hub(api)), cache, skipped=skipped)
    uploader.start()
    uploader.finish()
    assert server.files(REPO)["skipped.jsonl"] == b'{"index": 99, "reason": "too long"}\n'
    assert rows_of(server.files(REPO)).num_rows == 0
    listed = SkippedLog(cache.skipped_file)
    listed.merge(server.files(REPO)["skipped.jsonl"].decode())
    listed.drop([99])
    again = make_uploader(prepared(hub(api)), cache, skipped=listed)
    again.start()
    again.finish()
    assert server.files(REPO)["skipped.jsonl"] == b"", "a list that was emptied does not stay as it was"
