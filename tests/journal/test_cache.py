"""The cache folder: one run at a time, private, and nothing unfinished ever thrown away."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from teacher_logits.errors import OutputError
from teacher_logits.journal import RunCache, Spool
from tests.codec.made import made_table

HOLDER = """
import sys, time
from pathlib import Path
from teacher_logits.journal import RunCache
with RunCache(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""
NAME, METADATA = "data/train-abababab-00000.parquet", {"logits_dtype": "float32"}
FINISHED = {"output": "./o", "complete": True, "config": {}, "metadata": {}}
UNFINISHED = {**FINISHED, "complete": False}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def hold_elsewhere(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the folder until it is killed."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_one_run_at_a_time(tmp_path: Path):
    with hold_elsewhere(tmp_path / "cache") as holder:
        try:
            cache = RunCache(tmp_path / "cache")
            with pytest.raises(OutputError, match=rf"process {holder.pid}\b.*--cache-dir"), cache.locked():
                pass
            with pytest.raises(OutputError), cache.locked():
                pytest.fail("held twice")
        finally:
            holder.send_signal(signal.SIGKILL)
    with cache.locked():  # a killed run leaves its process id behind, but no lock
        assert (cache.folder / "run.pid").read_text() == str(os.getpid())
        with pytest.raises(OutputError, match=rf"process {os.getpid()}\b"), RunCache(cache.folder).locked():
            pass
    assert not (cache.folder / "run.pid").exists()
    with cache.locked():
        pass


def test_folder_that_cannot_be(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"can't be written.*--cache-dir"), RunCache(tmp_path / "file" / "c").locked():
        pass


def test_private_to_the_user(tmp_path: Path):
    before = os.umask(0)
    try:
        cache = RunCache(tmp_path / "new" / "cache")
        with cache.locked():
            cache.write_checkpoint(UNFINISHED)
            Spool(cache, "ab" * 32).write(made_table([2]), NAME, METADATA)
            cache.set_aside(cache.spool_folder)
            found = [cache.folder.parent, cache.folder, *cache.folder.rglob("*")]
            assert {path.name: oct(mode(path)) for path in found if mode(path) & 0o077} == {}
            assert {mode(path) for path in found if path.is_dir()} == {0o700}
            assert mode(cache.folder / "checkpoint.json") == 0o600
    finally:
        os.umask(before)


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path):
    cache = RunCache(tmp_path / "cache")
    with cache.locked():
        for folder in (cache.folder, cache.spool_folder, cache.pending_folder):
            (folder / ".half.parquet-xyz.tmp").write_text("half")
    with cache.locked():
        assert not list(cache.folder.rglob("*.tmp"))


def test_checkpoint_is_kept(cache: RunCache):
    assert cache.checkpoint() is None
    cache.write_checkpoint({**UNFINISHED, "config": {"model": "ü"}})
    assert cache.checkpoint() == {**UNFINISHED, "config": {"model": "ü"}}
    (cache.folder / "checkpoint.json").write_text('{"output": ')
    with pytest.raises(OutputError, match="--force-restart"):
        cache.checkpoint()


def test_restart_sets_unfinished_work_aside(cache: RunCache):
    cache.write_checkpoint(UNFINISHED)
    shard = Spool(cache, "ab" * 32).write(made_table([2, 3]), NAME, METADATA)
    (cache.pending_folder / "pending-00000.parquet").write_bytes(b"rows")
    cache.skipped_file.write_text('{"index": 1, "reason": "r"}\n')
    content = shard.path.read_bytes()
    cache.restart()
    assert cache.checkpoint() is None and not cache.holds_rows() and not cache.skipped_file.exists()
    assert cache.spool_folder.is_dir() and cache.pending_folder.is_dir()
    (backup,) = cache.folder.glob("backup_*")
    assert json.loads((backup / "checkpoint.json").read_text()) == UNFINISHED
    assert (backup / "spool" / shard.path.name).read_bytes() == content
    assert (backup / "pending" / "pending-00000.parquet").read_bytes() == b"rows"
    assert (backup / "skipped.jsonl").is_file()


def test_restart_removes_finished_work(cache: RunCache):
    cache.write_checkpoint(FINISHED)
    cache.skipped_file.write_text('{"index": 1, "reason": "r"}\n')
    cache.restart()
    assert cache.checkpoint() is None and not cache.skipped_file.exists()
    assert not list(cache.folder.glob("backup_*"))


def test_restart_keeps_rows_of_a_run_that_says_it_is_finished(cache: RunCache):
    cache.write_checkpoint(FINISHED)
    Spool(cache, "ab" * 32).write(made_table([2]), NAME, METADATA)
    cache.restart()
    assert [path.name for path in cache.folder.glob("backup_*/spool/*")] == ["train-abababab-00000.parquet"]


def test_setting_aside_twice_keeps_both(cache: RunCache):
    for content in ("first", "second"):
        path = cache.pending_folder / "pending-00000.parquet"
        path.write_text(content)
        cache.set_aside(path)
        (cache.spool_folder / "a.parquet").write_text(content)
        cache.set_aside(cache.spool_folder)
        cache.spool_folder.mkdir()
    kept = [path.read_text() for path in cache.folder.glob("backup_*/**/*") if path.is_file()]
    assert sorted(kept) == ["first", "first", "second", "second"]
