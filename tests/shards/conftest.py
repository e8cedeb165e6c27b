"""A written shard, and the rows that are in it."""

from pathlib import Path

import pyarrow as pa
import pytest

from teacher_logits.shards import write_shard
from tests.codec.made import made_table

LENGTHS = [1, 6, 40, 3, 2]
METADATA = {"format_version": 1, "logits_dtype": "float32", "fingerprint": "ab" * 32, "model": "a/b — ü"}


@pytest.fixture
def rows() -> pa.Table:
    return made_table(LENGTHS, first_index=7)


@pytest.fixture
def shard(tmp_path: Path, rows: pa.Table) -> Path:
    path = tmp_path / "train-abababab-00000.parquet"
    write_shard(rows, path, METADATA)
    return path
