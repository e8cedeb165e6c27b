"""Everybody's readers see the same values: pyarrow, datasets, DuckDB, Polars, and this package's own without torch."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher_logits.codec import decode_rows
from teacher_logits.shards import (
    encoded_footer,
    iter_row_groups,
    read_entries,
    read_indices,
    read_metadata,
    read_table,
    shard_footer,
    write_shard,
)
from tests.codec.made import made_table
from tests.shards.conftest import LENGTHS, METADATA


def test_pyarrow_alone(shard: Path, rows: pa.Table):
    assert pq.ParquetFile(shard).read().to_pylist() == rows.to_pylist()


def test_this_package(shard: Path, rows: pa.Table):
    assert read_table(shard).equals(rows)
    assert read_table(str(shard), ["index", "top_counts"]).column_names == ["index", "top_counts"]
    assert read_indices(shard).tolist() == [7, 8, 9, 10, 11] and read_indices(shard).dtype == np.int64
    assert shard_footer(shard).num_rows == len(LENGTHS)
    entries, expected = read_entries(shard), decode_rows(rows)
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(entries, name), value)


def test_this_package_from_an_open_stream(shard: Path):
    stream = io.BytesIO(shard.read_bytes())
    assert len(read_entries(stream)) == sum(LENGTHS)
    assert len(read_indices(stream)) == len(LENGTHS)


def test_row_groups_one_after_another(tmp_path: Path, rows: pa.Table):
    path = tmp_path / "a.parquet"
    pq.write_table(rows, path, row_group_size=2)
    assert [group.num_rows for group in iter_row_groups(path)] == [2, 2, 1]
    assert pa.concat_tables(iter_row_groups(path)).equals(rows)
    few = ["top_counts", "index"]
    assert pa.concat_tables(iter_row_groups(path, few)).equals(rows.select(few))


def test_what_columns_would_take(tmp_path: Path, rows: pa.Table):
    """As in a file, also of some columns alone."""
    write_shard(rows, tmp_path / "a.parquet", METADATA)
    wanted = shard_footer(tmp_path / "a.parquet").row_group(0)
    for table in (rows, rows.select(rows.column_names[:14])):
        found = encoded_footer(table).row_group(0)
        assert found.num_rows == table.num_rows and found.num_columns == table.num_columns
        for number in range(table.num_columns):
            assert found.column(number).total_compressed_size == wanted.column(number).total_compressed_size


def test_entries_are_rounded_to_the_type_in_the_metadata(tmp_path: Path, rows: pa.Table):
    write_shard(rows, tmp_path / "a.parquet", {**METADATA, "logits_dtype": "bfloat16"})
    entries = read_entries(tmp_path / "a.parquet")
    assert (entries.top_logits == decode_rows(rows, "bfloat16").top_logits).all()
    assert (entries.top_logits.astype(np.float32).view(np.uint32) & 0xFFFF == 0).all()


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> Any:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return datasets


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets(datasets: Any, shard: Path, rows: pa.Table, streaming: bool, tmp_path: Path):
    second = made_table([4, 2], first_index=90, seed=3)
    write_shard(second, shard.with_name("train-abababab-00001.parquet"), METADATA)
    files = {"train": str(shard.parent / "train-*.parquet")}
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", streaming=streaming, cache_dir=cache)
    assert list(loaded) == rows.to_pylist() + second.to_pylist()
    if not streaming:
        table = loaded.with_format("arrow")[:]
        assert [(f.name, f.type) for f in table.schema] == [(f.name, f.type) for f in rows.schema]
        assert len(decode_rows(table)) == sum(LENGTHS) + 6


def test_duckdb(shard: Path, rows: pa.Table):
    with duckdb.connect() as connection:
        found = connection.execute("select * from read_parquet(?)", [str(shard)])
        names = [column[0] for column in found.description]
        assert [dict(zip(names, row, strict=True)) for row in found.fetchall()] == rows.to_pylist()
        longest = connection.execute("select max(len(top_counts)) from read_parquet(?)", [str(shard)]).fetchone()
        assert longest == (max(LENGTHS),)


def test_polars(shard: Path, rows: pa.Table):
    frame = polars.read_parquet(shard)
    assert frame.rows(named=True) == rows.to_pylist()
    assert frame.schema["top_counts"] == polars.List(polars.UInt8)
    assert len(decode_rows(frame.to_arrow())) == sum(LENGTHS)


READ_ALL = """
import json, sys
from teacher_logits.shards import iter_distributions, read_distributions, read_entries, read_indices, read_metadata
import numpy as np
read_distributions(sys.argv[1]), list(iter_distributions(sys.argv[1]))
entries = read_entries(sys.argv[1])
ends = np.cumsum(entries.counts) - entries.counts
mass = np.add.reduceat(np.exp(entries.top_logits - np.repeat(entries.logsumexp, entries.counts)), ends)
read_indices(sys.argv[1]), read_metadata(sys.argv[1])
print(json.dumps({"mass": float(mass.sum()), "loaded": sorted(sys.modules)}))
"""


def test_reading_needs_no_torch(shard: Path):
    """Decoding to probabilities loads neither torch nor what loads it."""
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(shard)], capture_output=True, text=True, timeout=60, check=True
    )
    seen = json.loads(done.stdout)
    assert not {"torch", "transformers", "datasets", "huggingface_hub", "tyro"} & set(seen["loaded"])
    entries = read_entries(shard)
    expected = np.exp(entries.top_logits - np.repeat(entries.logsumexp, entries.counts)).sum()
    assert seen["mass"] == pytest.approx(expected, rel=1e-12)


def test_writing_the_same_rows_needs_only_pyarrow(tmp_path: Path):
    """`schema` alone, before anything else has loaded the compute functions it uses."""
    code = (
        "import sys, pyarrow.parquet as pq\n"
        "from teacher_logits.shards.writer import write_shard\n"
        "write_shard(pq.read_table(sys.argv[1]), sys.argv[2], {'format_version': 1})\n"
        "assert 'torch' not in sys.modules\n"
    )
    write_shard(made_table([2]), tmp_path / "a.parquet", METADATA)
    arguments = [sys.executable, "-c", code, str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
    subprocess.run(arguments, capture_output=True, timeout=60, check=True)
    assert read_metadata(tmp_path / "b.parquet")["max_index"] == 0
