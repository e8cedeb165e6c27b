"""The same rows give the same bytes, however they came together; and where row groups are cut."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher_logits.shards import read_table, write_shard, writer
from tests.codec.made import made_table
from tests.shards.conftest import METADATA


def written(table: pa.Table, folder: Path) -> bytes:
    write_shard(table, folder / "again.parquet", METADATA)
    return (folder / "again.parquet").read_bytes()


def test_twice_the_same(shard: Path, rows: pa.Table, tmp_path: Path):
    assert written(rows, tmp_path) == shard.read_bytes()
    reordered = dict(reversed(METADATA.items()))
    write_shard(rows, tmp_path / "b.parquet", reordered)
    assert (tmp_path / "b.parquet").read_bytes() == shard.read_bytes()


def test_chunks_slices_and_rows_read_back_give_the_same(shard: Path, rows: pa.Table, tmp_path: Path):
    """As a resumed run has them: pending rows from a file, then new ones, in other pieces than at first."""
    expected = shard.read_bytes()
    assert written(read_table(shard), tmp_path) == expected
    assert written(pa.concat_tables([rows.slice(0, 2), rows.slice(2)]), tmp_path) == expected
    around = pa.concat_tables([made_table([9, 9], seed=5), rows, made_table([4], seed=6)]).combine_chunks()
    assert written(around.slice(2, len(rows)), tmp_path) == expected
    pending = read_table(shard).slice(0, 3).replace_schema_metadata(rows.schema.metadata)
    assert written(pa.concat_tables([pending, rows.slice(3)]), tmp_path) == expected


def test_rows_read_back_are_cut_at_the_same_places(rows: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What a file adds to the rows in memory (validity bits, say) must not count."""
    for limit in range(500, 3000, 150):
        monkeypatch.setattr(writer, "ROW_GROUP_BYTES", limit)
        expected = written(rows, tmp_path)
        assert written(read_table(tmp_path / "again.parquet"), tmp_path) == expected


def test_other_columns_than_the_formats_are_refused(rows: pa.Table, tmp_path: Path):
    for table in (rows.drop_columns(["top_min"]), rows.append_column("more", rows["index"]), rows.select([1, 0])):
        with pytest.raises(ValueError):
            write_shard(table, tmp_path / "a.parquet", METADATA)
        assert not (tmp_path / "a.parquet").exists()


def test_no_name_of_the_place_in_the_bytes(shard: Path):
    assert str(shard.parent).encode() not in shard.read_bytes()


@pytest.mark.parametrize(("rows", "groups"), [(999, [999]), (1000, [1000]), (2001, [1000, 1000, 1])])
def test_row_groups_of_a_thousand_rows(rows: int, groups: list[int], tmp_path: Path):
    write_shard(made_table([1] * rows), tmp_path / "a.parquet", METADATA)
    footer = pq.read_metadata(tmp_path / "a.parquet")
    assert [footer.row_group(number).num_rows for number in range(footer.num_row_groups)] == groups


def test_row_groups_of_so_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    table = made_table([50] * 12)
    monkeypatch.setattr(writer, "ROW_GROUP_BYTES", table.nbytes // 4 + 100)
    sizes = []
    for part in (table, table.slice(0, 1)):
        write_shard(part, tmp_path / "a.parquet", METADATA)
        footer = pq.read_metadata(tmp_path / "a.parquet")
        sizes.append([footer.row_group(number).num_rows for number in range(footer.num_row_groups)])
    assert sizes == [[3, 3, 3, 3], [1]]
    monkeypatch.setattr(writer, "ROW_GROUP_BYTES", 1)
    write_shard(table, tmp_path / "a.parquet", METADATA)
    assert pq.read_metadata(tmp_path / "a.parquet").num_row_groups == 12
