"""Reading what is committed: few requests, the token for the Hub alone, and never a wrong number, whatever happens."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from teacher_logits.errors import FormatError, OutputError, UploadError
from teacher_logits.hub import HubRepository, patiently
from teacher_logits.shards import write_shard
from tests.codec.made import made_table
from tests.hub.made import METADATA, REPO, hub, shard
from tests.hub_server import Fault, HubServer, Request

ROWS = 150
RIGHT = list(range(ROWS))


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A shard of half a megabyte, in one row group."""
    path = tmp_path_factory.mktemp("shard") / "a.parquet"
    write_shard(made_table([40] * ROWS), path, METADATA)
    return path.read_bytes()


@pytest.fixture
def repository(server: HubServer, api: HfApi, content: bytes) -> HubRepository:
    """One that holds the shard and a checkpoint.json, as a run has seen it."""
    server.create_repository(REPO, private=True)
    server.add_files(REPO, {shard(0): content, "checkpoint.json": b'{"some": "text"}'})
    return seen(server, api)


def seen(server: HubServer, api: HfApi) -> HubRepository:
    repository = hub(api)
    repository.snapshot()
    server.clear_requests()
    return repository


def indices(repository: HubRepository) -> list[int]:
    return patiently(lambda: repository.read_indices(shard(0), ROWS)).tolist()


def downloads(server: HubServer) -> list[Request]:
    return [request for request in server.requests if request.method == "GET"]


def test_three_requests_and_few_bytes(server: HubServer, repository: HubRepository, content: bytes):
    assert indices(repository) == RIGHT
    assert [request.method for request in server.requests] == ["HEAD", "GET", "GET"]
    assert all("range" in request.headers for request in downloads(server))
    assert sum(request.sent for request in server.requests) < 70_000 < len(content) / 5


def test_less_than_a_hundredth_of_a_large_shard(server: HubServer, api: HfApi, tmp_path: Path):
    write_shard(made_table([320] * 500), tmp_path / "a.parquet", METADATA)
    server.add_files(REPO, {shard(0): (tmp_path / "a.parquet").read_bytes()})
    repository = seen(server, api)
    assert repository.read_indices(shard(0), 500).tolist() == list(range(500))
    assert sum(request.sent for request in server.requests) < (tmp_path / "a.parquet").stat().st_size / 100


def test_a_small_shard_takes_two_requests(server: HubServer, api: HfApi, tmp_path: Path):
    write_shard(made_table([1] * 9), tmp_path / "a.parquet", METADATA)
    server.add_files(REPO, {shard(0): (tmp_path / "a.parquet").read_bytes()})
    repository = seen(server, api)
    assert repository.read_indices(shard(0), 9).tolist() == list(range(9))
    assert len(server.requests) == 2


def test_the_token_is_for_the_hub_alone(server: HubServer, repository: HubRepository, content: bytes):
    assert indices(repository) == RIGHT and repository.read_bytes(shard(0)) == content
    at_storage = ["/storage/" in request.path for request in server.requests]
    assert any(at_storage)
    assert [request.authorized for request in server.requests] == [not each for each in at_storage]


def test_the_hub_itself_gives_the_bytes(server: HubServer, repository: HubRepository):
    server.settings.redirects = False
    assert indices(repository) == RIGHT
    assert all(request.authorized for request in server.requests)
    assert {request.status for request in downloads(server)} == {206}


@pytest.mark.parametrize("after", [0, 1], ids=["footer", "column"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *[("status", {"status": status, "times": times}) for status in (403, 416, 429, 500, 503) for times in (1, 2)],
        ("status", {"status": 429, "times": 2, "headers": {"Retry-After": "9"}}),
        ("status", {"status": 200, "body": b"<html>Please log in</html>"}),
        ("status", {"status": 206, "body": b"<html>Please log in</html>", "times": 3}),
        ("reset", {"times": 2}),
        ("stall", {"seconds": 1.0}),
        ("reset_in_download", {"times": 2}),
        ("truncate", {"times": 2}),
        *[("shorten", {"times": times}) for times in (1, 2, 3)],
        *[("corrupt", {"times": times, "at": at}) for times in (1, 2, 3) for at in (0, 40, 500)],
        *[("corrupt", {"at": at}) for at in (60_000, 62_000, 65_530, 65_535)],
    ],
)
def test_mishaps_of_a_range(
    server: HubServer, repository: HubRepository, monkeypatch, waits: list, after: int, kind: str, options: dict
):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    fault = server.add_fault(Fault("GET", "/storage/", kind, after=after, **options))
    assert indices(repository) == RIGHT
    assert server.struck(fault) >= 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *[("status", {"status": status, "times": times}) for status in (403, 404, 429, 503) for times in (1, 2, 7)],
        ("reset", {"times": 2}),
        ("stall", {"seconds": 1.0}),
    ],
)
def test_mishaps_of_the_resolver(
    server: HubServer, repository: HubRepository, monkeypatch, waits: list, kind: str, options: dict
):
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    fault = server.add_fault(Fault("HEAD", "/resolve/", kind, **options))
    assert indices(repository) == RIGHT
    assert server.struck(fault) >= 1


def test_a_server_without_ranges_is_asked_once(server: HubServer, repository: HubRepository, content: bytes):
    server.add_fault(Fault("GET", "/storage/", "status", status=200, body=content, times=None))
    assert indices(repository) == RIGHT
    assert [request.method for request in server.requests] == ["HEAD", "GET"]


def test_another_file_from_the_resolver(server: HubServer, repository: HubRepository):
    headers = {"X-Linked-ETag": f'"{"0" * 64}"', "X-Linked-Size": "77"}
    for name, value in headers.items():
        server.add_fault(Fault("HEAD", "/resolve/", "status", status=200, headers={name: value}))
    assert indices(repository) == RIGHT
    assert [request.method for request in server.requests] == ["HEAD", "HEAD", "GET", "GET"], "the whole file"


@pytest.mark.parametrize("damage", ["column", "footer", "all"])
def test_a_damaged_shard_in_the_repository(server: HubServer, api: HfApi, content: bytes, damage: str):
    """Believed to be damaged only when all of it has come, with the hash that the Hub lists."""
    place = {"column": 100, "footer": len(content) - 5, "all": 0}[damage]
    broken = content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :]
    server.add_files(REPO, {shard(0): b"not Parquet" * 9000 if damage == "all" else broken})
    repository = seen(server, api)
    with pytest.raises(FormatError, match="can't be read"):
        indices(repository)
    assert downloads(server)[-1].headers.get("range") is None


def test_other_rows_than_announced_are_given_as_they_are(server: HubServer, repository: HubRepository):
    assert repository.read_indices(shard(0), ROWS + 1).tolist() == RIGHT
    assert downloads(server)[-1].headers.get("range") is None, "from the whole file"


@pytest.mark.parametrize("path", ["checkpoint.json", shard(0)])
@pytest.mark.parametrize("kind", ["corrupt", "shorten", "truncate", "reset_in_download", "status"])
def test_whole_files_are_compared(server: HubServer, repository: HubRepository, waits: list, path: str, kind: str):
    fault = server.add_fault(Fault("GET", "/storage/" if path == shard(0) else path, kind, status=503, times=2))
    assert repository.read_bytes(path) == server.files(REPO)[path]
    assert server.struck(fault) == 2


@pytest.mark.parametrize("path", ["checkpoint.json", "skipped.jsonl", shard(0)])
def test_lasting_damage_is_called_by_its_name(server: HubServer, api: HfApi, content: bytes, path: str):
    server.add_files(REPO, {shard(0): content, "checkpoint.json": b'{"a": 1}', "skipped.jsonl": b'{"index": 3}\n'})
    repository = seen(server, api)
    server.add_fault(Fault("GET", "/storage/" if path == shard(0) else path, "corrupt", times=None))
    with pytest.raises(UploadError, match=rf"{path} of the Hub dataset {REPO} arrives damaged: 3 times") as failure:
        if path == shard(0):
            indices(repository)
        else:
            patiently(repository.snapshot)
    assert "--force-restart" not in str(failure.value)


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_stays_away(server: HubServer, repository: HubRepository, waits: list, status: int):
    server.add_fault(Fault("GET", "/storage/", "status", status=status, times=None))
    with pytest.raises(UploadError, match="can't be reached"):
        indices(repository)


def test_addresses_that_expire_at_once(server: HubServer, repository: HubRepository):
    server.settings.signed_seconds = 0.0
    with pytest.raises(OutputError, match=rf"doesn't give {shard(0)} of {REPO} \(403.*hf auth login") as failure:
        indices(repository)
    assert "ticket=" not in str(failure.value)
