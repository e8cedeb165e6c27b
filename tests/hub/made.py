"""A run's uploader over made-up rows, and what an output holds of them."""

import io
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from teacher_logits.hub import (
    Checkpoint,
    HubRepository,
    Repository,
    StreamingHFUploader,
    UploadSettings,
    render_card,
)
from teacher_logits.journal import RunCache, SkippedLog, Spool
from teacher_logits.shards import read_table, shard_schema
from tests.codec.made import made_table

REPO = "tester/logits"
FINGERPRINT = "ab" * 32
METADATA: dict[str, Any] = {
    "format_version": 1,
    "fingerprint": FINGERPRINT,
    "model": "some/teacher",
    "model_revision": "0123456789abcdef",
    "model_dtype": "bfloat16",
    "logits_dtype": "float32",
    "vocab_size": 1 << 18,
    "vocab_used": 1 << 18,
    "chat_template": "{{ a }}: {% generation %}",
    "source": "some/chats",
    "source_revision": "fedcba",
    "source_split": "train",
    "top_p": 0.98,
    "top_p_max_elements": 7,
    "sampled_n": 5,
    "seed": 3,
    "store_tokens": True,
}
ROWS = made_table([1 + number % 5 for number in range(40)])
NONE_DONE = np.zeros(0, np.int64)


def shard(number: int, split: str = "train") -> str:
    return f"data/{split}-abababab-{number:05d}.parquet"


def make_uploader(
    repository: Repository,
    cache: RunCache,
    rows_per_shard: int = 10,
    seconds: float = 60,
    split: str = "train",
    held: Mapping[str, dict[str, Any]] | None = None,
    card: Callable[[Checkpoint], Mapping[str, bytes]] | None = None,
    next_number: int = 0,
    spool_bytes: float = math.inf,
    skipped: SkippedLog | None = None,
    spool: Spool | None = None,
) -> StreamingHFUploader:
    """An uploader that hasn't started. held: what the output has."""
    metadata = {**METADATA, "source_split": split}
    checkpoint = Checkpoint(FINGERPRINT, {"model": "some/teacher"}, metadata, shards=dict(held or {}))
    return StreamingHFUploader(
        repository,
        cache,
        spool or Spool(cache, FINGERPRINT),
        checkpoint,
        SkippedLog(cache.skipped_file) if skipped is None else skipped,
        card or (lambda checkpoint: {"README.md": render_card(checkpoint, repository.loading_name)}),
        UploadSettings(split, rows_per_shard, None, spool_bytes, seconds),
        next_number,
    )


def prepared(repository: Repository) -> Repository:
    """A repository as a run has it before its first commit."""
    repository.create()
    repository.snapshot()
    return repository


def upload_everything(repository: Repository, cache: RunCache, rows: pa.Table = ROWS, **options: Any) -> None:
    """A whole run's uploading."""
    uploader = make_uploader(prepared(repository), cache, **options)
    uploader.start()
    uploader.add_rows(rows)
    uploader.finish()


def wait_until_idle(uploader: StreamingHFUploader) -> None:
    """Until everything that is spooled is committed."""
    deadline = time.monotonic() + 20
    while uploader.waiting:
        uploader.check()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(files: Mapping[str, bytes]) -> pa.Table:
    """The rows of an output's shards, one shard after another."""
    shards = sorted(path for path in files if path.startswith("data/"))
    tables = [pq.read_table(io.BytesIO(files[path])).replace_schema_metadata(None) for path in shards]
    return pa.concat_tables([shard_schema().empty_table(), *tables]).cast(ROWS.schema).combine_chunks()


def require_whole(files: Mapping[str, bytes], rows: pa.Table = ROWS) -> dict[str, Any]:
    """Check that an output holds exactly these rows and a checkpoint that agrees with its shards; returns that."""
    assert rows_of(files).equals(rows.combine_chunks())
    checkpoint = json.loads(files["checkpoint.json"])
    assert set(checkpoint["shards"]) == {path for path in files if path.startswith("data/")}
    assert checkpoint["total_samples"] == rows.num_rows
    assert checkpoint["total_tokens"] == sum(rows.column("num_tokens").to_pylist())
    return checkpoint


def spooled(cache: RunCache) -> list[int]:
    """Source numbers of the rows in the spool."""
    paths = sorted(cache.spool_folder.glob("*.parquet"))
    return [index for path in paths for index in read_table(path).column("index").to_pylist()]


def hub(api: Any) -> HubRepository:
    """The repository on the loopback Hub, whose commits need not wait for each other."""
    return HubRepository(REPO, api=api)
