"""Every kind of fault, as the real client meets it: what it retries, what it raises, what it doesn't notice."""

import threading
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, HfFileSystem, constants, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from tests.hub_server import Fault, HubServer

REPO = "tester/logits"
COMMIT = r"/commit/"
LARGE = bytes(range(256)) * 64


@pytest.fixture
def repo(server: HubServer) -> str:
    server.add_files(REPO, {"0.parquet": LARGE})
    return REPO


def upload(api: HfApi, path: str, content: bytes, **options: object) -> str:
    operation = CommitOperationAdd(path, content)
    return api.create_commit(REPO, [operation], commit_message=path, repo_type="dataset", **options).oid


def download(server: HubServer, folder: Path) -> bytes:
    local = hf_hub_download(
        REPO, "0.parquet", repo_type="dataset", endpoint=server.endpoint, cache_dir=folder, token=server.token
    )
    return Path(local).read_bytes()


@pytest.mark.parametrize(
    ("status", "headers", "waited"),
    [
        (429, {}, [1, 2]),
        (429, {"Retry-After": "30"}, [31, 31]),
        (429, {"RateLimit": '"api";r=0;t=55'}, [56, 56]),
        (500, {}, [1, 2]),
        (502, {}, [1, 2]),
        (503, {"Retry-After": "7"}, [8, 8]),
        (504, {}, [1, 2]),
    ],
)
def test_status_where_the_client_retries(
    server: HubServer, api: HfApi, repo: str, waits: list[float], status: int, headers: dict[str, str], waited: list
):
    fault = server.add_fault(Fault("POST", r"/preupload/", "status", times=2, status=status, headers=headers))
    upload(api, "a.txt", b"a")
    assert waits == waited
    assert server.struck(fault) == 2
    assert server.files(repo)["a.txt"] == b"a"
    seen = [request for request in server.requests if "/preupload/" in request.path]
    assert [(request.status, request.fault) for request in seen] == [(status, "status")] * 2 + [(200, None)]


@pytest.mark.parametrize("status", [401, 403, 409, 412, 429, 500, 503, 504])
def test_status_where_the_client_gives_up(server: HubServer, api: HfApi, repo: str, waits: list[float], status: int):
    server.add_fault(Fault("POST", COMMIT, "status", status=status, body={"error": "as ordered"}))
    with pytest.raises(HfHubHTTPError, match="as ordered") as failure:
        upload(api, "a.txt", b"a")
    assert failure.value.response.status_code == status
    assert waits == []
    assert "a.txt" not in server.files(repo)


def test_status_that_hides_a_commit(server: HubServer, api: HfApi, repo: str):
    server.add_fault(Fault("POST", COMMIT, "status", status=500, handled=True))
    with pytest.raises(HfHubHTTPError, match="500"):
        upload(api, "a.txt", b"a")
    assert server.files(repo)["a.txt"] == b"a"


def test_reset_before_a_commit(server: HubServer, api: HfApi, repo: str):
    server.add_fault(Fault("POST", COMMIT, "reset"))
    with pytest.raises(httpx2.ReadError):
        upload(api, "a.txt", b"a")
    assert "a.txt" not in server.files(repo)
    upload(api, "a.txt", b"a")
    assert server.files(repo)["a.txt"] == b"a"


def test_reset_after_a_commit(server: HubServer, api: HfApi, repo: str):
    parent = server.commits(repo)[0].oid
    server.add_fault(Fault("POST", COMMIT, "reset", handled=True))
    with pytest.raises(httpx2.ReadError):
        upload(api, "1.parquet", LARGE[1:], parent_commit=parent)
    landed = server.commits(repo)[0]
    assert (landed.parent, landed.files["1.parquet"].content) == (parent, LARGE[1:])
    assert upload(api, "1.parquet", LARGE[1:], parent_commit=parent) == landed.oid
    assert [request.status for request in server.requests if COMMIT in request.path] == [None]


def test_reset_in_upload(server: HubServer, api: HfApi, repo: str, waits: list[float]):
    content = LARGE * 256
    fault = server.add_fault(Fault("PUT", r"/storage/put/", "reset_in_upload"))
    upload(api, "1.parquet", content)
    assert server.struck(fault) == 1
    assert waits == [1]
    assert server.files(repo)["1.parquet"] == content


def test_stall(server: HubServer, api: HfApi, repo: str):
    server.add_fault(Fault("GET", r"/api/datasets/", "stall", seconds=30))
    with pytest.raises(httpx2.TimeoutException):
        api.dataset_info(repo, timeout=0.5)
    api.dataset_info(repo, timeout=10)
    server.add_fault(Fault("GET", r"/api/datasets/", "stall", seconds=0.2, handled=True))
    before = server.requests
    assert api.dataset_info(repo, timeout=10).id == repo
    assert len(server.requests) == len(before) + 1


def test_truncated_download_is_resumed(
    server: HubServer, repo: str, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    server.add_fault(Fault("GET", r"0\.parquet", "truncate", at=5500))
    assert download(server, tmp_path) == LARGE
    assert waits == [1]
    ranges = [request.headers.get("range") for request in server.requests if "/storage/" in request.path]
    assert ranges == [None, "bytes=5000-"], "whole chunks are kept, the rest is fetched again"


def test_reset_in_download_is_not_resumed(server: HubServer, repo: str, tmp_path: Path):
    server.add_fault(Fault("GET", r"0\.parquet", "reset_in_download"))
    with pytest.raises(httpx2.ReadError):
        download(server, tmp_path)
    assert download(server, tmp_path) == LARGE


def test_shortened_download(server: HubServer, repo: str, tmp_path: Path):
    server.add_fault(Fault("GET", r"/storage/", "shorten", at=100, times=2))
    with pytest.raises(OSError, match="Consistency check failed"):
        download(server, tmp_path)
    files = HfFileSystem(endpoint=server.endpoint, token=server.token, skip_instance_cache=True)
    with files.open(f"datasets/{repo}/0.parquet", cache_type="none", block_size=1024) as file:
        file.seek(1000)
        assert file.read(500) == LARGE[1000:1100], "a short 206 goes unnoticed"


def test_corrupt_download_goes_unnoticed(server: HubServer, repo: str, tmp_path: Path):
    server.add_fault(Fault("GET", r"0\.parquet", "corrupt", at=77))
    received = download(server, tmp_path)
    assert [place for place in range(len(LARGE)) if received[place] != LARGE[place]] == [77]


def test_stale_reads(server: HubServer, api: HfApi, repo: str):
    newest, before, *_ = server.commits(repo)
    server.add_fault(Fault("GET", r"/api/datasets/", "stale"))
    assert [api.dataset_info(repo).sha for _ in range(2)] == [before.oid, newest.oid]


def test_commits_at_once(server: HubServer, api: HfApi, repo: str):
    server.settings.commit_seconds = 1.5
    outcomes: list[int] = []

    def attempt(number: int) -> None:
        try:
            upload(api, f"{number}.txt", b"text")
            outcomes.append(200)
        except HfHubHTTPError as refusal:
            outcomes.append(refusal.response.status_code)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [200, 409]
    assert len(server.commits(repo)) == 3


def test_which_requests_are_struck(server: HubServer, api: HfApi, repo: str):
    fault = server.add_fault(Fault("*", r"/refs$", "status", status=503, after=1, times=None))
    api.list_repo_refs(repo, repo_type="dataset")
    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match="503"):
            api.list_repo_refs(repo, repo_type="dataset")
    assert server.struck(fault) == 2
    server.clear_faults()
    api.list_repo_refs(repo, repo_type="dataset")
    with pytest.raises(ValueError, match="unknown kind of fault 'explode'"):
        Fault("GET", "", "explode")
    with pytest.raises(ValueError, match="handled goes with"):
        Fault("GET", "", "corrupt", handled=True)


def test_failures_of_the_server_are_raised():
    with pytest.raises(RuntimeError, match="failed in 1 of its requests") as failure, HubServer() as server:
        server.create_repository(REPO)
        url = f"{server.endpoint}/api/datasets/{REPO}/preupload/main"
        with pytest.raises(httpx2.RemoteProtocolError):
            httpx2.post(url, json={}, headers={"Authorization": f"Bearer {server.token}"})
    assert isinstance(failure.value.__cause__, KeyError)
