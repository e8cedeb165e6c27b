"""Which conversations the committed shards hold, without reading more of them than that takes."""

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from teacher_logits.errors import FormatError, OutputError
from teacher_logits.hub import Checkpoint, Repository, Snapshot, patiently
from teacher_logits.journal import KnownShards
from teacher_logits.progress import track
from teacher_logits.records import Int64
from teacher_logits.shards import read_indices, shard_figures

_SHARDS_AT_ONCE = 16
_MANY = 50
"""From this many shards on, reading them shows a progress bar."""


@dataclass(frozen=True)
class CommittedShard:
    """A shard of the output."""

    entry: Mapping[str, Any]
    """What checkpoint.json should say of it: rows, tokens, sha256, figures."""
    index: Int64
    """Source numbers of its rows."""
    whole: bool = False
    """Whether that comes from all of its bytes, whose hash is the one that the output lists."""


def read_committed(
    known: KnownShards, repository: Repository, found: Snapshot, checkpoint: Checkpoint
) -> dict[str, CommittedShard]:
    """The output's shards by path, in their order there.

    Those that `known` has by their hash aren't read; what is read is kept there, also where reading fails half-way.
    Raises FormatError for a shard that can't be read, OutputError where two rows have one number, and UploadError where
    the output can't be reached. None of these is said for damage that happens on the way.
    """
    shards = dict(_remembered(known.load(), found, checkpoint))
    missing = [path for path in found.shards if path not in shards]

    def read(path: str) -> tuple[str, CommittedShard]:
        return path, patiently(lambda: _read(path, repository, found, checkpoint))

    read_now: Iterator[tuple[str, CommittedShard]] = _at_once(read, missing)
    if len(missing) >= _MANY:
        read_now = track(read_now, "reading what is stored", len(missing), "shards")
    try:
        for path, shard in read_now:
            shards[path] = shard
        _require_distinct(shards, repository)
    finally:
        hashes = {path: found.files[path] for path in shards}
        known.save({sha256: shards[path].index for path, sha256 in hashes.items() if sha256 is not None})
    return {path: shards[path] for path in found.shards}


def _remembered(
    known: Mapping[str, Int64], found: Snapshot, checkpoint: Checkpoint
) -> Iterator[tuple[str, CommittedShard]]:
    """Shards whose content is known by its hash."""
    for path in found.shards:
        entry, index = _listed_entry(path, found, checkpoint), known.get(found.files[path] or "")
        if entry is not None and index is not None and len(index) == entry["rows"]:
            yield path, CommittedShard(entry, index)


def _listed_entry(path: str, found: Snapshot, checkpoint: Checkpoint) -> dict[str, Any] | None:
    """What checkpoint.json says of a shard, if it says it of this content (as far as that is known)."""
    entry = checkpoint.shards.get(path)
    return entry if entry is not None and found.files[path] in (None, entry["sha256"]) else None


def _at_once(
    read: Callable[[str], tuple[str, CommittedShard]], paths: Sequence[str]
) -> Iterator[tuple[str, CommittedShard]]:
    """Several shards at a time, as they come. The first failure ends it."""
    with ThreadPoolExecutor(_SHARDS_AT_ONCE) as pool:
        futures = [pool.submit(read, path) for path in paths]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _read(path: str, repository: Repository, found: Snapshot, checkpoint: Checkpoint) -> CommittedShard:
    """A shard from its numbers alone where checkpoint.json lists it as it is, otherwise from all of its bytes."""
    entry = _listed_entry(path, found, checkpoint)
    if entry is not None:
        with _named(path, repository):
            index = repository.read_indices(path, entry["rows"])
        if len(index) == entry["rows"]:
            return CommittedShard(entry, index)
    return _read_whole(path, repository)


def _read_whole(path: str, repository: Repository) -> CommittedShard:
    """A shard from all of its bytes: one that checkpoint.json doesn't list (the run died between the two), say."""
    content = repository.read_bytes(path)
    with _named(path, repository):
        index = read_indices(io.BytesIO(content))
        figures = shard_figures(io.BytesIO(content), len(content))
    entry = {
        "rows": len(index),
        "tokens": figures.entries,
        "sha256": hashlib.sha256(content).hexdigest(),
        "figures": figures.as_dict(),
    }
    return CommittedShard(entry, index, whole=True)


@contextmanager
def _named(path: str, repository: Repository) -> Iterator[None]:
    """Say of a FormatError which shard it is about, and what to do."""
    try:
        yield
    except FormatError as error:
        raise FormatError(
            f"{path} in {repository.address} can't be read ({error.__cause__ or error}). Remove it there, then go on "
            "with --resume."
        ) from error


def _require_distinct(shards: dict[str, CommittedShard], repository: Repository) -> None:
    """Raise OutputError where two rows have one number. The shards they are said to stand in are read whole first."""
    while (number := _repeated([shard.index for shard in shards.values()])) is not None:
        holders = [path for path, shard in shards.items() if number in shard.index]
        if all(shards[path].whole for path in holders):
            where = " and in ".join(holders)
            raise OutputError(
                f"{repository.address} holds conversation {number} more than once, in {where}. Remove what doesn't "
                "belong there (a copy?), then go on with --resume; or begin anew with --force-restart."
            )
        for path in holders:
            shards[path] = patiently(partial(_read_whole, path, repository))


def _repeated(indices: Sequence[Int64]) -> int | None:
    """A number that stands there more than once, or None."""
    unique, counts = np.unique(np.concatenate([np.zeros(0, np.int64), *indices]), return_counts=True)
    repeated = unique[counts > 1]
    return int(repeated[0]) if len(repeated) else None
