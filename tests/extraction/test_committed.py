"""Taking stock of an output: each shard is read once, what was read is remembered, and nothing wrong is believed."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi

from teacher_logits.errors import FormatError, OutputError, UploadError
from teacher_logits.extraction import committed
from teacher_logits.extraction.committed import CommittedShard, read_committed
from teacher_logits.hub import Checkpoint, FolderRepository, HubRepository, Repository
from teacher_logits.journal import KnownShards, RunCache
from teacher_logits.shards import shard_figures, write_shard
from tests.codec.made import made_table
from tests.hub.made import METADATA, REPO, ROWS, hub, shard, upload_everything
from tests.hub_server import Fault, HubServer
from tests.journal.conftest import cache

__all__ = ["cache"]

pytestmark = pytest.mark.usefixtures("hasty", "waits")
EVERY = list(range(40))


@pytest.fixture
def output(server: HubServer, api: HfApi, cache: RunCache) -> HubRepository:
    """Four shards of ten rows on the Hub."""
    repository = hub(api)
    upload_everything(repository, cache)
    assert not cache.known_file.exists()
    server.clear_requests()
    return repository


def take(repository: Repository, cache: RunCache) -> dict[str, CommittedShard]:
    """What a run that resumes now finds."""
    found = repository.snapshot()
    checkpoint = Checkpoint.parse(found.checkpoint or b"", repository.address)
    return read_committed(KnownShards(cache.known_file), repository, found, checkpoint)


def numbers(shards: dict[str, CommittedShard]) -> list[int]:
    return [index for path in sorted(shards) for index in shards[path].index.tolist()]


def asked(server: HubServer) -> list[str]:
    """Paths of the shards that the resolver was asked for, since this was called last."""
    paths = [request.path.split("/data/")[1] for request in server.requests if "/data/" in request.path]
    server.clear_requests()
    return sorted(f"data/{path}" for path in paths)


def shard_bytes(folder: Path, first_index: int, rows: int = 10) -> bytes:
    write_shard(made_table([2] * rows, first_index=first_index), folder / "made.parquet", METADATA)
    return (folder / "made.parquet").read_bytes()


def relist(server: HubServer, **entries: bytes) -> None:
    """Commit shards under the names `shard<number>`, with a checkpoint.json that lists them."""
    files = {shard(int(name.removeprefix("shard"))): content for name, content in entries.items()}
    checkpoint = json.loads(server.files(REPO)["checkpoint.json"])
    server.add_files(REPO, files)
    for path, content in files.items():
        blob = server.commits(REPO)[0].files[path]
        rows = pq.read_metadata(io.BytesIO(content)).num_rows
        checkpoint["shards"][path] = {"rows": rows, "tokens": 2 * rows, "sha256": blob.sha256}
    server.add_files(REPO, {"checkpoint.json": json.dumps(checkpoint).encode()})


def test_each_shard_once_and_then_never_again(server: HubServer, output: HubRepository, cache: RunCache):
    first = take(output, cache)
    assert list(first) == [shard(number) for number in range(4)] and numbers(first) == EVERY
    assert [(each.entry["rows"], each.whole) for each in first.values()] == [(10, False)] * 4
    assert sum(each.entry["tokens"] for each in first.values()) == sum(ROWS.column("num_tokens").to_pylist())
    assert asked(server) == list(first)
    assert numbers(take(output, cache)) == EVERY and asked(server) == []


def test_a_replaced_shard_is_read_anew(server: HubServer, output: HubRepository, cache: RunCache, tmp_path: Path):
    take(output, cache)
    relist(server, shard2=shard_bytes(tmp_path, 70))
    asked(server)
    found = take(output, cache)
    assert numbers(found) == [*range(20), *range(70, 80), *range(30, 40)]
    assert asked(server) == [shard(2)]
    assert len(KnownShards(cache.known_file).load()) == 4, "what was there before is forgotten"
    assert numbers(take(output, cache)) == numbers(found) and asked(server) == []


def test_a_shard_that_the_checkpoint_does_not_list(
    server: HubServer, output: HubRepository, cache: RunCache, tmp_path: Path
):
    """All of it is read, and held against its hash: a run may have died, or somebody may have replaced it."""
    content = shard_bytes(tmp_path, 90, rows=3)
    server.add_files(REPO, {shard(1): content, shard(7): shard_bytes(tmp_path, 50)})
    fault = server.add_fault(Fault("GET", "/storage/", "corrupt", times=3, at=9))
    for _ in range(2):
        found = take(output, cache)
        assert numbers(found) == [*range(10), 90, 91, 92, *range(20, 40), *range(50, 60)]
        blob = server.commits(REPO)[0].files[shard(1)]
        figures = shard_figures(io.BytesIO(content), len(content)).as_dict()
        assert found[shard(1)].entry == {"rows": 3, "tokens": 6, "sha256": blob.sha256, "figures": figures}
        assert found[shard(7)].whole and not found[shard(0)].whole
    assert server.struck(fault) == 3


def test_a_deleted_shard_is_gone(server: HubServer, output: HubRepository, cache: RunCache):
    take(output, cache)
    output.commit({}, [shard(3)], "remove one")
    assert numbers(take(output, cache)) == list(range(30))
    assert len(KnownShards(cache.known_file).load()) == 3


def test_hiccups_concern_one_shard_alone(server: HubServer, output: HubRepository, cache: RunCache):
    fault = server.add_fault(Fault("HEAD", shard(2), "status", status=503, times=8))
    assert numbers(take(output, cache)) == EVERY and server.struck(fault) == 8
    assert asked(server) == [shard(0), shard(1), *[shard(2)] * 9, shard(3)]


def test_what_was_read_before_a_failure_is_kept(
    server: HubServer, output: HubRepository, cache: RunCache, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(committed, "_SHARDS_AT_ONCE", 1)
    server.add_fault(Fault("HEAD", shard(2), "status", status=503, times=None))
    with pytest.raises(UploadError, match="can't be reached"):
        take(output, cache)
    assert len(KnownShards(cache.known_file).load()) == 2
    server.clear_faults()
    server.clear_requests()
    assert numbers(take(output, cache)) == EVERY
    assert asked(server) == [shard(2), shard(3)]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"nonsense" * 99])
def test_a_cache_that_is_no_cache(server: HubServer, output: HubRepository, cache: RunCache, content: bytes):
    cache.known_file.write_bytes(content)
    for _ in range(2):
        assert numbers(take(output, cache)) == EVERY
    assert len(asked(server)) == 4


def wrong_rows(known: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {sha256: index[:-1] for sha256, index in known.items()}


def repeated(known: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict.fromkeys(known, next(iter(known.values())))


@pytest.mark.parametrize("wrong", [wrong_rows, repeated])
def test_a_cache_that_says_something_impossible(
    server: HubServer, output: HubRepository, cache: RunCache, wrong: Callable[[dict], dict]
):
    take(output, cache)
    known = KnownShards(cache.known_file)
    right = known.load()
    known.save({})
    known.save(wrong(right))
    assert numbers(take(output, cache)) == EVERY
    asked(server)
    assert numbers(take(output, cache)) == EVERY and asked(server) == [], "and is put right"


def test_numbers_that_are_there_twice(server: HubServer, output: HubRepository, cache: RunCache, tmp_path: Path):
    relist(server, shard5=shard_bytes(tmp_path, 35))
    asked(server)
    with pytest.raises(OutputError, match=rf"{REPO} holds conversation 35 more than once.*--force-restart"):
        take(output, cache)
    storage = [path for path in asked(server) if path in (shard(3), shard(5))]
    assert len(storage) == 4, "both were read again, whole, before that was said"


def test_numbers_twice_in_one_shard(server: HubServer, output: HubRepository, cache: RunCache, tmp_path: Path):
    rows = made_table([2] * 4, first_index=60).take([0, 1, 1, 2])
    write_shard(rows, tmp_path / "a.parquet", METADATA)
    relist(server, shard4=(tmp_path / "a.parquet").read_bytes())
    with pytest.raises(OutputError, match="conversation 61 more than once"):
        take(output, cache)


def test_a_shard_that_is_damaged_in_the_repository(server: HubServer, output: HubRepository, cache: RunCache):
    content = server.files(REPO)[shard(1)]
    server.add_files(REPO, {shard(1): content[:-1] + b"?"})
    with pytest.raises(FormatError, match=rf"{shard(1)} in Hub dataset {REPO} can't be read \(.*Remove it there"):
        take(output, cache)


def test_folders_are_read_each_time(cache: RunCache, tmp_path: Path):
    repository = FolderRepository(tmp_path / "out")
    upload_everything(repository, cache)
    found = take(repository, cache)
    assert numbers(found) == EVERY and not any(each.whole for each in found.values())
    assert not cache.known_file.exists()
    (tmp_path / "out" / shard(3)).write_bytes(shard_bytes(tmp_path, 80))
    assert numbers(take(repository, cache)) == [*range(30), *range(80, 90)]
    (tmp_path / "out" / shard(3)).write_bytes(b"PAR1")
    with pytest.raises(FormatError, match=rf"{shard(3)} in {tmp_path / 'out'} can't be read"):
        take(repository, cache)
    repository.close()


def test_many_shards_show_a_bar(
    output: HubRepository, cache: RunCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(committed, "_MANY", 4)
    monkeypatch.setattr("teacher_logits.progress.SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level("INFO", "teacher_logits"):
        assert numbers(take(output, cache)) == EVERY
        assert numbers(take(output, cache)) == EVERY
    lines = [record.message for record in caplog.records if "reading what is stored" in record.message]
    assert [line.split(" (")[0] for line in lines] == [
        f"reading what is stored: {done} of 4 shards" for done in range(1, 5)
    ]
