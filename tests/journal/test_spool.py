"""The spool: shards under their final names, whole or not there."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher_logits.journal import RunCache, Spool
from teacher_logits.journal import spool as spool_module
from teacher_logits.shards import read_metadata, read_table, shard_figures
from tests.codec.made import made_table

NAME = "data/train-abababab-{:05d}.parquet"
FINGERPRINT = "ab" * 32
METADATA = {"format_version": 1, "fingerprint": FINGERPRINT, "logits_dtype": "float32"}


def test_what_is_written_is_found_again(cache: RunCache):
    first, second = made_table([1, 6, 40]), made_table([3], first_index=3, store_tokens=False)
    spool = Spool(cache, FINGERPRINT)
    assert spool.shards == []
    written = [spool.write(second, NAME.format(1), METADATA), spool.write(first, NAME.format(0), METADATA)]
    assert Spool(cache, FINGERPRINT).shards == written[::-1], (
        "another process sees the same, in the order of their names"
    )
    assert [(shard.rows, shard.tokens) for shard in written] == [(1, 3), (3, 47)]
    for shard, table in zip(written, (second, first), strict=True):
        content = shard.path.read_bytes()
        assert shard.path.parent == cache.spool_folder and shard.path.name == Path(shard.name).name
        assert (shard.size, shard.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        figures = shard_figures(shard.path, shard.size).as_dict()
        told = {"rows": shard.rows, "tokens": shard.tokens, "sha256": shard.sha256, "figures": figures}
        assert shard.entry() == told
        assert read_table(shard.path).replace_schema_metadata(None).cast(table.schema).equals(table)
        assert read_metadata(shard.path)["logits_dtype"] == "float32"
    spool.remove(written[1])
    spool.remove(written[1])
    assert Spool(cache, FINGERPRINT).shards == written[:1]


def test_same_rows_same_bytes(cache: RunCache):
    spool = Spool(cache, FINGERPRINT)
    once = spool.write(made_table([4, 2]), NAME.format(0), METADATA)
    again = spool.write(read_table(once.path), NAME.format(0), METADATA)
    assert once == again


def test_a_write_that_fails_leaves_nothing(cache: RunCache, monkeypatch: pytest.MonkeyPatch):
    def half(table: pa.Table, path: Path, metadata: object) -> None:
        path.write_bytes(b"PAR1half")
        raise OSError(28, "No space left on device")

    spool = Spool(cache, FINGERPRINT)
    whole = spool.write(made_table([1]), NAME.format(0), METADATA)
    monkeypatch.setattr(spool_module, "write_shard", half)
    for number in (0, 1):
        with pytest.raises(OSError, match="No space"):
            spool.write(made_table([2]), NAME.format(number), METADATA)
    assert [path.name for path in cache.spool_folder.iterdir()] == [whole.path.name]
    assert spool.shards == [whole]


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "flipped", "another run's", "other columns"])
def test_damaged_shards_are_set_aside(cache: RunCache, damage: str):
    spool = Spool(cache, FINGERPRINT)
    shards = [spool.write(made_table([number + 1]), NAME.format(number), METADATA) for number in range(2)]
    content = shards[0].path.read_bytes()
    column = pq.read_metadata(shards[0].path).row_group(0).column(13)
    middle = column.data_page_offset + column.total_compressed_size - 3
    changed = {"cut": content[:-9], "empty": b"", "other": b"not a shard" * 9}
    changed["flipped"] = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
    shards[0].path.write_bytes(changed.get(damage, content))
    if damage == "another run's":
        spool.write(made_table([1]), NAME.format(0), METADATA | {"fingerprint": "cd" * 32})
    if damage == "other columns":
        spool.write(made_table([1]), NAME.format(0), METADATA)
        table = read_table(shards[0].path)
        pq.write_table(table.append_column("more", table.column("index")), shards[0].path)
    assert Spool(cache, FINGERPRINT).shards == shards[1:]
    (aside,) = cache.folder.glob("backup_*/*.parquet")
    assert aside.name == shards[0].path.name
    assert Spool(cache, FINGERPRINT).shards == shards[1:]
