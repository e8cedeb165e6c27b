"""Shards as arrays of distributions: what is in the file, whole or by row group."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher_logits.errors import FormatError, SettingsError
from teacher_logits.shards import iter_distributions, read_distributions, read_table, write_shard, writer
from tests.codec.loops import assert_looped, looped
from tests.shards.conftest import LENGTHS, METADATA
from tests.shards.golden.make import FOLDER


def test_like_loops_over_tokens(shard: Path, rows: pa.Table):
    found = read_distributions(shard)
    assert_looped(found, looped(rows, "float32"), 7)
    assert found.index.tolist() == [7, 8, 9, 10, 11] and found.num_tokens.tolist() == LENGTHS
    assert_looped(read_distributions(io.BytesIO(shard.read_bytes()), width=9), looped(rows, "float32"), 9)


def test_the_golden_shard():
    found = read_distributions(FOLDER / "v1.parquet")
    rows = json.loads((FOLDER / "v1.json").read_text())["rows"]
    for place, entry in enumerate(entry for row in rows for entry in row["entries"]):
        count, width = len(entry["top_ids"]), found.nucleus_width
        assert found.ids[place].tolist() == [*entry["top_ids"], *[0] * (width - count), *entry["sampled_ids"]]
        for first, logits in ((0, entry["top_logits"]), (width, entry["sampled_logits"])):
            expected = (np.array(logits) - entry["logsumexp"]).astype(np.float32)
            np.testing.assert_array_equal(found.log_probabilities[place, first : first + len(logits)], expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_logits_are_rounded_to_the_type_in_the_metadata(dtype: str, rows: pa.Table, tmp_path: Path):
    write_shard(rows, tmp_path / "a.parquet", {**METADATA, "logits_dtype": dtype})
    assert looped(rows, dtype) != looped(rows, "float32")
    assert_looped(read_distributions(tmp_path / "a.parquet"), looped(rows, dtype), 7)


WHOLE, PAIRS = 1 << 20, 2000
"""Bytes a row group: all five rows, or two at a time."""


@pytest.mark.parametrize(
    ("entries", "group_bytes", "lengths"),
    [
        (8192, WHOLE, [LENGTHS]),
        (50, WHOLE, [[1, 6, 40, 3], [2]]),
        (10, WHOLE, [[1, 6], [40], [3, 2]]),
        (1, WHOLE, [[1], [6], [40], [3], [2]]),
        (8192, PAIRS, [[1, 6], [40, 3], [2]]),
        (42, PAIRS, [[1, 6], [40], [3], [2]]),
    ],
)
def test_one_part_after_another(
    entries: int,
    group_bytes: int,
    lengths: list[list[int]],
    rows: pa.Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(writer, "ROW_GROUP_BYTES", group_bytes)
    path = tmp_path / "a.parquet"
    write_shard(rows, path, METADATA)
    parts = list(iter_distributions(path, entries=entries))
    assert [part.num_tokens.tolist() for part in parts] == lengths
    first = 0
    for part in parts:
        part_rows = rows.slice(first, len(part.index))
        first += len(part.index)
        assert_looped(part, looped(part_rows, "float32"), int(part.counts.max()))
    whole, wide = read_distributions(path, width=8), list(iter_distributions(path, width=8, entries=entries))
    for name in ("index", "num_tokens", "counts", "ids", "log_probabilities", "logsumexp"):
        together = np.concatenate([getattr(part, name) for part in wide])
        np.testing.assert_array_equal(together, getattr(whole, name), err_msg=name)


def test_a_shard_without_rows(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(read_table(FOLDER / "v1.parquet").schema.empty_table(), path)
    for part in (read_distributions(path, width=3), *iter_distributions(path, width=3)):
        assert len(part) == 0 and part.ids.shape == (0, 3)


def test_a_width_that_is_too_small_is_no_damage(shard: Path):
    with pytest.raises(SettingsError, match="more than the width 2"):
        read_distributions(shard, width=2)
    with pytest.raises(SettingsError, match="more than the width 2"):
        list(iter_distributions(shard, width=2))


def test_nulls_in_a_file(shard: Path):
    table = pq.read_table(shard)
    values = table.column("top_min").to_pylist()
    nulls = pa.array([None, *values[1:]], table.schema.field("top_min").type)
    pq.write_table(table.set_column(table.column_names.index("top_min"), "top_min", nulls), shard)
    with pytest.raises(FormatError, match="top_min has nulls"):
        read_distributions(shard)


def test_what_the_caller_does_is_not_damage(shard: Path):
    """An error that is thrown into the loop comes out as it is."""
    parts = iter_distributions(shard, entries=5)
    next(parts)
    with pytest.raises(ValueError, match="the caller's own"):
        parts.throw(ValueError("the caller's own"))


@pytest.mark.parametrize("entries", [0, -1])
def test_parts_without_entries(entries: int, shard: Path):
    with pytest.raises(SettingsError, match=f"entries is {entries}"):
        next(iter_distributions(shard, entries=entries))
