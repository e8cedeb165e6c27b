"""Files that are either whole or absent: temporary name, fsync, rename, fsync of the folder.

Everything here is private to the user (0700 folders, 0600 files) unless told otherwise, because a cache holds
people's conversations.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
PUBLIC_FILE = 0o644


def private_folder(path: Path) -> Path:
    """Create `path` (and the parents it lacks) for this user alone, and return it."""
    if not path.is_dir():
        private_folder(path.parent)  # mkdir(parents=True) would leave the parents open to others
        path.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    return path


@contextlib.contextmanager
def atomic_path(final: Path, mode: int = PRIVATE_FILE) -> Iterator[Path]:
    """Yield a temporary name beside `final`; when the block ends well it is flushed to disk and renamed to `final`.

    The temporary name begins with a dot and ends in `.tmp`, so no reader of `*.parquet` ever sees half a file.
    """
    handle, name = tempfile.mkstemp(prefix=f".{final.name}-", suffix=".tmp", dir=final.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(mode)
        _fsync(temporary)
        temporary.replace(final)
        _fsync(final.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(final: Path, content: bytes, mode: int = PRIVATE_FILE) -> None:
    """Put `content` at `final`, whole or not at all."""
    with atomic_path(final, mode) as temporary:
        temporary.write_bytes(content)


def write_json(final: Path, content: Any, mode: int = PRIVATE_FILE) -> None:
    """Put `content` at `final` as readable JSON, whole or not at all."""
    write_bytes(final, json_bytes(content), mode)


def json_bytes(content: Any) -> bytes:
    """`content` as readable JSON with sorted keys, so that equal content gives equal bytes."""
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def copy_file(source: Path, final: Path, mode: int = PUBLIC_FILE) -> None:
    """Copy `source` to `final`, whole or not at all, also between filesystems."""
    with atomic_path(final, mode) as temporary:
        shutil.copyfile(source, temporary)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder`."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def git_blob_id(content: bytes) -> str:
    """What git, and so a listing of the Hub, calls a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def sha256_files(paths: list[Path], digest: Callable[[Path], str] = sha256_file) -> str:
    """One SHA-256 over the digests of several files, in the order given; names and places don't matter."""
    return hashlib.sha256("\n".join(digest(path) for path in paths).encode()).hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
