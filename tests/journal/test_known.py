"""What was read of committed shards is believed only as it was written."""

import stat
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher_logits.journal import KnownShards, RunCache
from teacher_logits.records import Int64

INDICES = {
    "ab" * 32: np.array([5, 3, 9], np.int64),
    "cd" * 32: np.zeros(0, np.int64),
    "ef" * 32: np.array([-(2**31), 2**31 - 1, 0], np.int64),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that holds INDICES."""
    written = KnownShards(tmp_path / "committed.parquet")
    assert written.load() == {}
    written.save(INDICES)
    return tmp_path / "committed.parquet"


def same(found: dict[str, Int64], expected: dict[str, Int64]) -> bool:
    return list(found) == list(expected) and all(np.array_equal(found[key], expected[key]) for key in expected)


def test_what_is_kept_comes_back(path: Path):
    assert same(KnownShards(path).load(), INDICES)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_what_is_not_given_any_more_is_forgotten(path: Path):
    known = KnownShards(path)
    known.load()
    before = path.stat().st_ino
    known.save(dict(reversed(INDICES.items())))
    assert path.stat().st_ino == before, "nothing new, nothing written"
    left = {"cd" * 32: INDICES["cd" * 32]}
    known.save(left)
    assert same(KnownShards(path).load(), left)
    known.save({})
    assert not path.exists()


def test_flipped_bits_and_cuts_give_nothing_wrong(path: Path):
    whole, random = path.read_bytes(), Random(3)
    passed = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << random.randrange(8))]) + whole[place + 1 :])
        found = KnownShards(path).load()
        assert found == {} or same(found, INDICES), place
        passed += bool(found)
    assert passed < len(whole) / 2
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert KnownShards(path).load() == {}


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"index": [1, 2]}),
        pa.table({"sha256": ["ab" * 32], "indices": pa.array([[1, 2]], pa.list_(pa.int64()))}),
        pa.table({"sha256": pa.array([], pa.string()), "indices": pa.array([], pa.list_(pa.int64()))}),
    ],
    ids=["a shard", "without a digest", "empty"],
)
def test_another_file_is_passed_over_and_replaced(path: Path, table: pa.Table):
    pq.write_table(table, path)
    known = KnownShards(path)
    assert known.load() == {}
    known.save(INDICES)
    assert same(KnownShards(path).load(), INDICES)


def test_a_folder_in_its_place_is_passed_over(tmp_path: Path):
    assert KnownShards(tmp_path).load() == {}


@pytest.mark.parametrize("complete", [True, False])
def test_a_restart_forgets(cache: RunCache, complete: bool):
    cache.write_checkpoint({"output": "./o", "complete": complete, "config": {}, "metadata": {}})
    KnownShards(cache.known_file).save(INDICES)
    cache.restart()
    assert not list(cache.folder.rglob(cache.known_file.name))
