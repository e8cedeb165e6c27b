"""An output on the Hub: the real client against the loopback server."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from teacher_logits.errors import OutputError, UploadError
from teacher_logits.hub import HubRepository
from teacher_logits.shards import write_shard
from tests.codec.made import made_table
from tests.hub.made import METADATA, REPO, hub, prepared, shard
from tests.hub_server import Fault, HubServer


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A shard of about a megabyte."""
    path = tmp_path / "local.parquet"
    write_shard(made_table([40] * 150), path, METADATA)
    return path


@pytest.mark.parametrize("private", [True, False])
def test_creation(server: HubServer, api: HfApi, private: bool):
    for _ in range(2):
        HubRepository(REPO, private, api=api).create()
    assert server.is_private(REPO) is private


def test_name_space_is_the_users_own(server: HubServer, api: HfApi):
    repository = HubRepository("logits", api=api)
    repository.create()
    assert repository.loading_name == "tester/logits" and server.exists("tester/logits")


def test_snapshot(server: HubServer, api: HfApi, local: Path):
    repository = hub(api)
    empty = repository.snapshot()
    assert (empty.shards, empty.checkpoint, empty.skipped) == ([], None, None)
    prepared(repository)
    repository.upload(shard(0), local)
    repository.commit({shard(0): local, "checkpoint.json": b"{}", "skipped.jsonl": b"s"}, [], "first")
    server.add_files(REPO, {"elsewhere.parquet": b"x", "data/notes.txt": b"x"})
    server.settings.page_size = 2
    found = hub(api).snapshot()
    assert (found.shards, found.checkpoint, found.skipped) == ([shard(0)], b"{}", b"s")
    assert found.files[shard(0)] == server.commits(REPO)[0].files[shard(0)].sha256
    assert found.files["checkpoint.json"] is None
    puts = [request for request in server.requests if request.method == "PUT"]
    assert [request.received for request in puts] == [local.stat().st_size], "uploaded ahead, and not again"


def test_read_indices_fetches_little(server: HubServer, api: HfApi, local: Path):
    server.add_files(REPO, {shard(0): local.read_bytes()})
    repository = hub(api)
    repository.snapshot()
    server.clear_requests()
    assert repository.read_indices(shard(0), 150).tolist() == list(range(150))
    fetched = sum(request.sent for request in server.requests if request.method == "GET")
    assert fetched < 80_000 < local.stat().st_size / 4, "the footer and one column"
    assert all("range" in request.headers for request in server.requests if "/storage/" in request.path)


def test_commits_build_on_what_was_seen(server: HubServer, api: HfApi, local: Path):
    repository = prepared(hub(api))
    repository.commit({shard(0): local, "checkpoint.json": b"1"}, [], "first")
    commits = server.commits(REPO)
    repository.commit({shard(0): local, "checkpoint.json": b"1"}, [], "the same again")
    assert server.commits(REPO) == commits
    server.add_files(REPO, {"README.md": b"# mine"}, title="somebody else's")
    with pytest.raises(HfHubHTTPError) as failure:
        repository.commit({"checkpoint.json": b"2"}, [], "blind")
    assert failure.value.response.status_code == 412
    repository.snapshot()
    repository.commit({"checkpoint.json": b"2"}, [shard(0)], "seen")
    assert set(server.files(REPO)) == {".gitattributes", "README.md", "checkpoint.json"}


def test_refusals_at_the_start(server: HubServer, api: HfApi):
    stranger = HfApi(endpoint=server.endpoint, token="hf_wrongwrongwrong")
    nobody = HfApi(endpoint=server.endpoint, token=False)
    for repository in (
        HubRepository("someone/logits", api=api),
        HubRepository(REPO, api=stranger),
        HubRepository(REPO, api=nobody),
        HubRepository("not//a name", api=api),
    ):
        with pytest.raises(OutputError, match=r"(?s)hf auth login.*a folder such as") as failure:
            prepared(repository)
        assert "wrongwrong" not in str(failure.value) and server.token not in str(failure.value)
        assert failure.value.exit_code == 2
    server.create_repository("team/gated", gated=True)
    server.add_fault(Fault("GET", "/api/datasets/", "status", status=403))
    with pytest.raises(OutputError, match="403"):
        HubRepository("team/gated", api=api).snapshot()


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("call", ["preupload", "commit"])
def test_refusals_later_on(server: HubServer, api: HfApi, local: Path, status: int, call: str):
    repository = prepared(hub(api))
    headers = {"X-Error-Code": "RepoNotFound"} if status == 404 else {}
    server.add_fault(Fault("POST", f"/{call}/", "status", status=status, headers=headers, times=None))
    with pytest.raises(UploadError, match=r"no right to write.*--resume") as failure:
        repository.upload(shard(0), local)
        repository.commit({shard(0): local}, [], "title")
    assert isinstance(failure.value.__cause__, HfHubHTTPError)
    assert failure.value.exit_code == 1


def test_expired_addresses_are_asked_for_anew(server: HubServer, api: HfApi, local: Path):
    repository = prepared(hub(api))
    server.settings.signed_seconds = 0.0
    with pytest.raises(RuntimeError):
        repository.upload(shard(0), local)
    server.settings.signed_seconds = None
    repository.upload(shard(0), local)
    repository.commit({shard(0): local}, [], "title")
    assert server.files(REPO)[shard(0)] == local.read_bytes()
