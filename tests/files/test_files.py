"""Files are whole or absent, private unless told otherwise, and known by their content."""

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from teacher_logits import files
from teacher_logits.files import (
    PUBLIC_FILE,
    atomic_path,
    copy_file,
    json_bytes,
    private_folder,
    remove_leftovers,
    sha256_file,
    sha256_files,
    write_bytes,
    write_json,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o077, 0o000])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_whole_file_appears_at_the_end_of_the_block(tmp_path: Path):
    final = tmp_path / "a.parquet"
    with atomic_path(final) as temporary:
        temporary.write_bytes(b"half")
        assert not final.exists()
        assert temporary.parent == tmp_path and temporary.name.startswith(".") and temporary.suffix == ".tmp"
        assert not list(tmp_path.glob("*.parquet"))
        temporary.write_bytes(b"whole")
    assert final.read_bytes() == b"whole"
    assert names(tmp_path) == ["a.parquet"]


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
@pytest.mark.parametrize("before", [None, b"old"])
def test_failure_inside_the_block_leaves_what_was_there(tmp_path: Path, failure: BaseException, before: bytes | None):
    final = tmp_path / "a"
    if before is not None:
        final.write_bytes(before)
    with pytest.raises(type(failure)), atomic_path(final) as temporary:
        temporary.write_bytes(b"half")
        raise failure
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == ({} if before is None else {"a": before})


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failure_while_it_is_put_in_place(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", fails) if step == "fsync" else monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="disk full"):
        write_bytes(tmp_path / "a", b"new")
    assert not list(tmp_path.iterdir())


def test_flushed_to_disk_before_the_name_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The file's content, then the rename, then the folder: in that order a power cut leaves old or new."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noting_fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def noting_replace(path: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(path, target)

    monkeypatch.setattr(files.os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    write_bytes(tmp_path / "a", b"content")
    assert steps == ["file", "rename", "folder"]


def test_killed_process_leaves_the_old_file_and_a_leftover_that_can_be_removed(tmp_path: Path):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom teacher_logits.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "a.parquet").write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.parquet")], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a.parquet").read_bytes() == b"old"
    assert len(names(tmp_path)) == 2 and len(list(tmp_path.glob("*.parquet"))) == 1
    (tmp_path / "mine.tmp").touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["a.parquet", "mine.tmp"]


def test_modes_whatever_the_umask(tmp_path: Path, umask: int):
    write_bytes(tmp_path / "private", b"")
    write_bytes(tmp_path / "public", b"", PUBLIC_FILE)
    write_json(tmp_path / "json", {})
    copy_file(tmp_path / "private", tmp_path / "copy")
    assert [mode(tmp_path / name) for name in ("private", "public", "json", "copy")] == [0o600, 0o644, 0o600, 0o644]
    with atomic_path(tmp_path / "b", PUBLIC_FILE) as temporary:
        assert mode(temporary) == 0o600, "private as long as it is unfinished"


def test_an_open_file_becomes_private_when_it_is_replaced(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o666)
    write_bytes(tmp_path / "a", b"new")
    assert mode(tmp_path / "a") == 0o600


def test_private_folders_with_their_parents(tmp_path: Path):
    before = os.umask(0o022)
    try:
        folder = private_folder(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(before)
    assert folder == tmp_path / "a" / "b" / "c"
    assert [mode(path) for path in (folder, folder.parent, folder.parent.parent)] == [0o700] * 3


def test_private_folder_that_is_there_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").mkdir(mode=0o755)
    assert private_folder(tmp_path / "a") == tmp_path / "a"
    monkeypatch.chdir(tmp_path)
    private_folder(Path("here") / "there")
    assert (tmp_path / "here" / "there").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        private_folder(tmp_path / "file")


def test_json_is_readable_sorted_and_strict(tmp_path: Path):
    write_json(tmp_path / "a", {"b": 1, "a": "ü"})
    assert (tmp_path / "a").read_text(encoding="utf-8") == '{\n  "a": "ü",\n  "b": 1\n}\n'
    assert json_bytes({"b": 1, "a": [2]}) == json_bytes(dict(reversed({"b": 1, "a": [2]}.items())))
    assert json.loads(json_bytes({"a": None})) == {"a": None}
    with pytest.raises(ValueError):
        write_json(tmp_path / "a", {"a": float("inf")})
    assert json.loads((tmp_path / "a").read_bytes()) == {"a": "ü", "b": 1}


def test_copies_are_whole_and_replace(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"new" * 100_000)
    (tmp_path / "b").write_bytes(b"old")
    copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    with pytest.raises(FileNotFoundError):
        copy_file(tmp_path / "gone", tmp_path / "b")
    assert names(tmp_path) == ["a", "b"]


def test_sha256(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    digests = [sha256_file(tmp_path / name) for name in "ab"]
    assert sha256_files([tmp_path / "a", tmp_path / "b"]) == hashlib.sha256("\n".join(digests).encode()).hexdigest()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c").write_bytes(b"abc")
    assert sha256_files([tmp_path / "elsewhere" / "c"]) == sha256_files([tmp_path / "a"])
    assert sha256_files([tmp_path / "b", tmp_path / "a"]) != sha256_files([tmp_path / "a", tmp_path / "b"])
    assert sha256_files([tmp_path / "a"], lambda path: path.name) == hashlib.sha256(b"a").hexdigest()
