"""What an output and a cache folder hold already, and whether a run may go on from there."""

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from teacher_logits.errors import FormatError, OutputError
from teacher_logits.extraction.committed import read_committed
from teacher_logits.files import sha256_file
from teacher_logits.hub import Checkpoint, Repository, Snapshot, open_repository, patiently
from teacher_logits.journal import KnownShards, RunCache, Spool, SpooledShard
from teacher_logits.records import Int64
from teacher_logits.settings import ExtractionConfig, differing_fields, fingerprint, is_folder, same_output
from teacher_logits.shards import read_indices, read_table, shard_footer, shard_name, shard_number


@dataclass(frozen=True)
class StoredRun:
    """A run that was begun before."""

    config: Mapping[str, Any]
    metadata: Mapping[str, Any]
    complete: bool


def stored_config(cache_dir: str, output: str | None) -> dict[str, Any] | None:
    """The options of the run in the cache folder, else of the one that `output` holds; None where there is neither."""
    kept = RunCache(Path(cache_dir).expanduser()).checkpoint()
    if kept is not None and (output is None or same_output(output, kept["output"])):
        absolute = {name: path for name, path in kept.get("paths", {}).items() if not _exists(kept["config"][name])}
        return {**kept["config"], **absolute, "output": output or kept["output"]}
    if output is None:
        return None
    found = patiently(open_repository(output).snapshot)
    return None if found.checkpoint is None else dict(Checkpoint.parse(found.checkpoint, output).config)


def _exists(path: str) -> bool:
    return Path(path).expanduser().exists()


def _unfinished(cache: RunCache, output: str) -> str:
    """What a cache folder holds, for messages."""
    rows = 0
    for path in (*cache.spool_folder.glob("*.parquet"), *cache.pending_folder.glob("*.parquet")):
        with contextlib.suppress(FormatError):
            rows += shard_footer(path).num_rows
    waiting = f", and {rows:,} conversations that are not there yet" if rows else ""
    return f"The cache folder {cache.folder} holds an unfinished run into {output}{waiting}."


def find_stored_run(
    config: ExtractionConfig, cache: RunCache, repository: Repository, found: Snapshot
) -> StoredRun | None:
    """The run to continue, or None for a new one.

    Raises OutputError where there is one that the options don't ask to continue (or to replace), naming the way on.
    """
    assert config.output is not None
    output = config.output
    kept = None if config.force_restart else cache.checkpoint()
    unfinished = kept is not None and not kept["complete"]
    if kept is not None and unfinished and not config.force_restart:
        if not same_output(kept["output"], output):
            raise OutputError(
                f"{_unfinished(cache, kept['output'])} Continue it with --resume alone, give this run a folder of "
                "its own with --cache-dir, or set the other aside with --force-restart."
            )
        if not config.resume:
            raise OutputError(
                f"{_unfinished(cache, kept['output'])} Continue it with --resume, or begin anew with --force-restart."
            )
    foreign = [path for path in found.shards if shard_number(path) is None]
    if foreign and found.checkpoint is None and not config.resume:
        raise OutputError(
            f"{repository.address} holds Parquet files that no run of this program wrote, such as {foreign[0]}. They "
            "are never removed: choose another --output."
        )
    if config.force_restart:
        return None
    stored = None if found.checkpoint is None else Checkpoint.parse(found.checkpoint, repository.address)
    if found.shards and not config.resume:
        rows = f"{stored.total_samples:,} conversations" if stored else "shards without a checkpoint.json"
        raise OutputError(
            f"{repository.address} already holds {rows}. Continue with --resume, begin anew with --force-restart, or "
            "choose another --output."
        )
    if found.shards and stored is None and not (kept and same_output(kept["output"], output)):
        raise OutputError(
            f"{repository.address} holds Parquet files under data/ that no run of this program lists. Choose another "
            "--output, or remove them with --force-restart."
        )
    if not config.resume:
        if is_folder(output) and found.files and not found.shards and found.checkpoint is None:
            raise OutputError(
                f"{repository.address} holds other files, such as {min(found.files)}. Name an empty folder, or one "
                "that isn't there yet."
            )
        return None
    if kept is not None and same_output(kept["output"], output):
        return StoredRun(kept["config"], kept["metadata"], kept["complete"])
    return None if stored is None else StoredRun(stored.config, stored.metadata, stored.complete)


def require_same_run(stored: StoredRun, metadata: Mapping[str, Any], address: str) -> None:
    """Raise OutputError, naming the fields, where the result would differ from what is stored."""
    if fingerprint(metadata) != fingerprint({key: stored.metadata.get(key) for key in metadata}):
        fields = "; ".join(differing_fields(stored.metadata, metadata))
        raise OutputError(
            f"{address} holds another run, which differs in: {fields}. Give the model, data and options it was begun "
            "with (--resume alone does), choose another --output, or begin anew with --force-restart."
        )


@dataclass(frozen=True)
class Stock:
    """What is done already."""

    done: Int64
    """Source numbers in committed and spooled shards."""
    shards: dict[str, dict[str, Any]]
    """Committed shards: path -> rows, tokens, sha256."""
    next_number: int
    """Of the next shard."""


def take_stock(
    known: KnownShards, spool: Spool, repository: Repository, found: Snapshot, checkpoint: Checkpoint, split: str
) -> Stock:
    """Read which conversations stand in committed and spooled shards, and bring the spool in line with the output.

    A spooled shard that the output holds is dropped; one whose rows it holds in part, or whose name is taken, is
    written again with the rest under a free name. Raises OutputError where the output holds foreign shards.
    """
    prefix = shard_name(split, checkpoint.fingerprint, 0)[: -len("00000.parquet")]
    foreign = [path for path in found.shards if not path.startswith(prefix)]
    if foreign:
        raise OutputError(
            f"{repository.address} holds {foreign[0]}, which is no shard of this run. Remove it from there, choose "
            "another --output, or begin anew with --force-restart."
        )
    committed = read_committed(known, repository, found, checkpoint)
    done = np.concatenate([np.zeros(0, np.int64), *(shard.index for shard in committed.values())])
    shards = {path: dict(shard.entry) for path, shard in committed.items()}
    numbers = [shard_number(path) for path in found.shards]
    next_number = 1 + max((number for number in numbers if number is not None), default=-1)

    spooled = spool.shards
    next_number = max([next_number, *(1 + (shard_number(shard.name) or 0) for shard in spooled)])
    for shard in spooled:
        if _is_committed(shard, found, repository):
            spool.remove(shard)
            continue
        own = read_indices(shard.path)
        new = ~np.isin(own, done)
        done = np.concatenate([done, own[new]])
        if new.all() and shard.name not in found.files and shard.name.startswith(prefix):
            continue
        if new.any():
            table = read_table(shard.path).filter(pa.array(new))
            spool.write(table, shard_name(split, checkpoint.fingerprint, next_number), checkpoint.shard_metadata)
            next_number += 1
        spool.remove(shard)
    return Stock(done, shards, next_number)


def _is_committed(shard: SpooledShard, found: Snapshot, repository: Repository) -> bool:
    if shard.name not in found.files:
        return False
    known = found.files[shard.name]
    return (known or hashlib.sha256(repository.read_bytes(shard.name)).hexdigest()) == sha256_file(shard.path)
