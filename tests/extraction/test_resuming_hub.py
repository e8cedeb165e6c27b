"""Runs into a Hub that are continued, begun anew, or meet a Hub with hiccups."""

import dataclasses
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from teacher_logits.command_line.extract import parse_args
from teacher_logits.errors import OutputError, UploadError
from teacher_logits.extraction.extract import run_extraction
from tests.extraction.runs import ForkServer, Place, StopAfter, stored_rows
from tests.hub.made import REPO, rows_of
from tests.hub_server import Fault, HubServer


def test_hub_from_a_new_machine(
    place: Place, reference: Place, server: HubServer, hub_in_process: None, tmp_path: Path, capsys: Any
):
    first = dataclasses.replace(place, output=REPO)
    first.run(StopAfter(16), max_batch_size=1, private=True)
    assert server.is_private(REPO) and rows_of(server.files(REPO)).num_rows == 14
    config = parse_args(["--resume", "--output", REPO, "--cache-dir", str(tmp_path / "new")])
    assert config.limit is None and config.max_batch_size == 1
    server.clear_requests()
    assert run_extraction(config).complete
    fetched = [request for request in server.requests if request.method == "GET" and "/storage/" in request.path]
    assert fetched and all("range" in request.headers for request in fetched), "shards are not fetched whole"
    assert rows_of(server.files(REPO)).sort_by("index").equals(stored_rows(reference.folder))
    # The first machine knows that its two waiting rows are stored by now.
    assert first.run(resume=True, max_batch_size=1, private=True).conversations == 0
    assert rows_of(server.files(REPO)).num_rows == 30 and not first.waiting()
    every = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(server.token.encode() in content for content in (*every, *server.files(REPO).values()))
    assert server.token not in "".join(capsys.readouterr())


@pytest.mark.parametrize("body", [{"error": "there already"}, "<html>"], ids=str)
def test_answers_that_are_none_at_the_start(
    place: Place, server: HubServer, hub_in_process: None, hasty: None, body: Any
):
    there = dataclasses.replace(place, output=REPO)
    server.add_fault(Fault("POST", "/repos/create", "status", status=409 if body != "<html>" else 200, body=body))
    assert there.run(limit=3).complete
    server.add_fault(Fault("GET", f"/api/datasets/{REPO}", "status", status=200, body=body, times=None))
    with pytest.raises(UploadError, match=r"(an answer that can't be read|isn't the Hub).*(again|HF_ENDPOINT)"):
        there.run(limit=5, resume=True)


def test_hub_force_restart(place: Place, server: HubServer, hub_in_process: None):
    there = dataclasses.replace(place, output=REPO)
    there.run(limit=9)
    before = len(server.commits(REPO))
    with pytest.raises(OutputError, match="Hub dataset tester/logits already holds 9 conversations"):
        there.run()
    there.run(force_restart=True, limit=4, seed=1)
    assert rows_of(server.files(REPO)).num_rows == 4
    assert server.commits(REPO)[-1 - before].title == "Remove 4 files to begin anew", "in one commit"


def test_ctrl_c_while_the_output_is_read(place: Place, hub_forks: tuple[HubServer, ForkServer], tmp_path: Path):
    server, forks = hub_forks
    there = dataclasses.replace(place, output="tester/unread")
    assert forks.run(*there.arguments("--limit", "9", "--upload-every", "2")).code == 0
    fault = server.add_fault(Fault("GET", "/storage/.*/unread/", "stall", seconds=30, times=None))
    anew = dataclasses.replace(there, cache=tmp_path / "anew")
    child = forks.start(*anew.arguments("--resume", "--limit", "12"))
    deadline = time.monotonic() + 60
    while not server.struck(fault):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send(signal.SIGINT)
    end = child.wait()
    assert (end.code, "stopped before anything was extracted" in end.err) == (130, True), end
    server.clear_faults()
    assert forks.run(*anew.arguments("--resume", "--limit", "12")).code == 0
    assert rows_of(server.files("tester/unread")).num_rows == 12


@pytest.mark.parametrize("path", ["/api/repos/create", r"/api/datasets/tester/logits$", r"/tree/", r"/api/datasets/"])
@pytest.mark.parametrize("kind", ["status", "reset"])
def test_hub_hiccups_at_the_start(
    place: Place, server: HubServer, hub_in_process: None, hasty: None, waits: list, path: str, kind: str
):
    """What passes is tried again, and what doesn't is told in a sentence."""
    there = dataclasses.replace(place, output=REPO)
    server.create_repository(REPO)
    fault = server.add_fault(Fault("*", path, kind, status=503, times=2))
    assert there.run(limit=3).complete and server.struck(fault) == 2
    server.add_fault(Fault("*", path, kind, status=503, times=None))
    with pytest.raises(UploadError, match=r"can't be reached.*Try again later"):
        there.run(resume=True, limit=5)
