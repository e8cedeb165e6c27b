"""An output in a folder: files whole or absent, checkpoint.json last, and nothing outside the folder."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from teacher_logits.errors import OutputError, UploadError
from teacher_logits.hub import FolderRepository, folder
from teacher_logits.journal import RunCache
from tests.hub.made import ROWS, files_of, make_uploader, prepared, require_whole, shard, spooled, upload_everything


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "new" / "logits"


def test_a_run_into_a_folder(output: Path, cache: RunCache):
    upload_everything(FolderRepository(output), cache)
    checkpoint = require_whole(files_of(output))
    assert checkpoint["complete"] is True
    assert list(checkpoint["shards"]) == [shard(number) for number in range(4)]
    assert not cache.holds_rows()
    assert {path.stat().st_mode & 0o777 for path in output.rglob("*") if path.is_file()} == {0o644}


def test_one_run_at_a_time(output: Path):
    first, second = FolderRepository(output), FolderRepository(output)
    first.create()
    with pytest.raises(OutputError, match="Another run is writing to"):
        second.create()
    first.close()
    second.create()
    assert second.snapshot().files == {}
    second.close()


def test_what_is_there_already(output: Path, tmp_path: Path):
    repository = FolderRepository(output)
    empty = repository.snapshot()
    assert (empty.shards, empty.checkpoint, empty.skipped) == ([], None, None) and not output.exists()
    repository.create()
    repository.commit({shard(0): b"0", "skipped.jsonl": b"s", "checkpoint.json": b"c", "x.parquet": b"x"}, [], "")
    (output / "data" / ".half.parquet-a.tmp").write_bytes(b"half")
    found = repository.snapshot()
    assert (found.shards, found.checkpoint, found.skipped) == ([shard(0)], b"c", b"s")
    repository.create()
    assert not list(output.rglob("*.tmp"))
    repository.commit({shard(1): b"1"}, [shard(0), shard(7)], "")
    assert repository.snapshot().shards == [shard(1)]
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        FolderRepository(tmp_path / "file").snapshot()
    with pytest.raises(OutputError, match="can't be created"):
        FolderRepository(tmp_path / "file" / "below").create()


def test_whether_it_can_be_made_is_found_out_without_making_it(output: Path, tmp_path: Path):
    FolderRepository(output).require_creatable()
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="can't be created"):
        FolderRepository(tmp_path / "file" / "below").require_creatable()
    output.mkdir(parents=True)
    FolderRepository(output).require_creatable()
    FolderRepository(output / "in" / "it").require_creatable()
    assert output.is_dir() and not list(output.iterdir())


def test_shards_come_first_and_the_checkpoint_last(output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Killed after any number of files, checkpoint.json names no shard that isn't there."""
    local = tmp_path / "local"
    local.write_bytes(b"shard")
    additions: Mapping[str, Path | bytes] = {
        "checkpoint.json": b"c", "README.md": b"r", shard(1): local, "skipped.jsonl": b"s", shard(0): local,
    }  # fmt: skip
    landed: list[str] = []
    replace = Path.replace

    def counted(self: Path, target: Path) -> Path:
        landed.append(Path(target).relative_to(output).as_posix())
        return replace(self, target)

    repository = FolderRepository(output)
    repository.create()
    monkeypatch.setattr(Path, "replace", counted)
    repository.commit(additions, [], "")
    assert landed[:2] == [shard(0), shard(1)] and landed[-1] == "checkpoint.json" and len(landed) == 5


def test_full_disk(output: Path, cache: RunCache, monkeypatch: pytest.MonkeyPatch):
    copied: list[Path] = []

    def copy(source: Path, final: Path, mode: int) -> None:
        copied.append(final)
        if len(copied) > 1:
            raise OSError(28, "No space left on device", str(final))
        final.write_bytes(source.read_bytes())

    first = FolderRepository(output)
    uploader = make_uploader(prepared(first), cache)
    uploader.add_rows(ROWS)
    with monkeypatch.context() as patch:
        patch.setattr(folder, "copy_file", copy)
        uploader.start()
        with pytest.raises(UploadError, match=r"No space left on device.*--resume"):
            uploader.finish()
    assert spooled(cache) == list(range(40)), "no shard leaves the spool before its commit is whole"
    assert json.loads(files_of(output)["checkpoint.json"])["shards"] == {}, "whose the output is, was said first"
    first.close()
    resumed = make_uploader(prepared(FolderRepository(output)), cache)
    resumed.start()
    resumed.finish()
    require_whole(files_of(output))
    assert not cache.holds_rows()


@pytest.mark.parametrize("path", ["../x", "/tmp/x", "data/../../x", "data/../../logits2/x", ".."])
def test_paths_that_lead_out_are_refused(output: Path, path: str):
    repository = FolderRepository(output)
    repository.create()
    (output.parent / "x").write_text("mine")
    for attempt in (
        lambda: repository.commit({path: b"theirs"}, [], ""),
        lambda: repository.commit({}, [path], ""),
        lambda: repository.read_bytes(path),
        lambda: repository.read_indices(path, 1),
    ):
        with pytest.raises(OutputError, match="leads out of the output folder"):
            attempt()
    assert (output.parent / "x").read_text() == "mine"
    assert sorted(path.name for path in output.parent.iterdir()) == ["logits", "x"]
