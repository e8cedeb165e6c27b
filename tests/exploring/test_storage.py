"""Bytes of each column, against the files."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from explore_logits import compute_bytes_per_token_stats, load_logit_dataset
from teacher_logits.errors import FormatError
from teacher_logits.exploring import bytes_per_token_text, open_source
from teacher_logits.shards import shard_schema
from tests.exploring.damage import change_table
from tests.exploring.made import TEXTS, Made


def chunks(folder: Path) -> list:
    footers = [pq.ParquetFile(path).metadata for path in sorted((folder / "data").iterdir())]
    groups = [footer.row_group(number) for footer in footers for number in range(footer.num_row_groups)]
    return [group.column(number) for group in groups for number in range(group.num_columns)]


def test_bytes_as_stored(made: Made):
    stats = compute_bytes_per_token_stats(open_source(made.folder))
    assert list(stats.columns) == shard_schema().names
    for name, column in stats.columns.items():
        own = [chunk for chunk in chunks(made.folder) if chunk.path_in_schema.split(".")[0] == name]
        assert column.stored == sum(chunk.total_compressed_size for chunk in own) > 0
        assert column.uncompressed == sum(chunk.total_uncompressed_size for chunk in own) > 0
    tokens = sum(len(made.tokens(index)) for index in TEXTS)
    size = sum(path.stat().st_size for path in (made.folder / "data").iterdir())
    assert (stats.tokens, stats.conversations, stats.stored) == (tokens, 4, size)
    assert stats.other == size - sum(column.stored for column in stats.columns.values()) > 0
    assert stats.per_token == pytest.approx(size / tokens) and stats.from_files
    assert stats.expected(10**6) == pytest.approx(size / tokens * 10**6)


@pytest.mark.parametrize("streaming", [False, True])
def test_bytes_of_an_open_dataset(made: Made, copy: Path, streaming: bool):
    """What the rows would take in one shard: the columns of one that holds them."""
    from teacher_logits.shards import read_table, write_shard
    from tests.exploring.damage import shards_of

    dataset = load_logit_dataset(made.folder, streaming=streaming)
    stats = compute_bytes_per_token_stats(dataset)
    assert not stats.from_files and stats.other == 0
    import pyarrow as pa

    table = pa.concat_tables([read_table(made.folder / name) for name in shards_of(made.folder)])
    shutil.rmtree(copy / "data")
    (copy / "data").mkdir()
    write_shard(table, copy / "data/train-0123abcd-00000.parquet", {"format_version": 1})
    wanted = compute_bytes_per_token_stats(copy)
    assert stats.columns == wanted.columns
    assert (stats.tokens, stats.conversations) == (wanted.tokens, wanted.conversations)
    assert "what its rows would take" in bytes_per_token_text(stats)


def test_text(made: Made):
    stats = compute_bytes_per_token_stats(made.folder)
    lines = bytes_per_token_text(stats).splitlines()
    assert len(lines) == 1 + len(stats.columns) + 3
    assert lines[1].split()[:2] == ["index", f"{stats.columns['index'].stored / stats.tokens:.2f}"]
    assert lines[-2].split()[:2] == ["together", f"{stats.per_token:.2f}"]
    assert f"1 M tokens {stats.per_token:.1f} MB" in lines[-1]


def test_older_columns(copy: Path):
    for shard in (copy / "data").iterdir():
        table = pq.read_table(shard)
        pq.write_table(table.select(table.column_names[:14]), shard)
    for dataset in (copy, load_logit_dataset(copy)):
        assert list(compute_bytes_per_token_stats(dataset).columns) == shard_schema().names[:14]


def test_damage(copy: Path):
    shard = min((copy / "data").iterdir())
    content = np.frombuffer(shard.read_bytes(), np.uint8).copy()
    content[-200:-8] = 255
    shard.write_bytes(content.tobytes())
    with pytest.raises(FormatError):
        compute_bytes_per_token_stats(copy)


@pytest.mark.parametrize("streaming", [None, False, True])
def test_a_row_that_does_not_say_how_many_tokens_it_has(copy: Path, streaming: bool | None):
    def change(table: pa.Table) -> pa.Table:
        return table.set_column(1, "num_tokens", pa.array([None, 3], pa.int32()))

    change_table(copy, change)
    dataset = copy if streaming is None else load_logit_dataset(copy, streaming=streaming)
    with pytest.raises(FormatError, match=r"is damaged \(num_tokens"):
        compute_bytes_per_token_stats(dataset)


def test_a_shard_of_something_else(copy: Path):
    change_table(copy, lambda table: table.select(["input_ids"]))
    with pytest.raises(FormatError, match="lacks the columns num_tokens"):
        compute_bytes_per_token_stats(copy)
