"""A shard whose bytes have changed is named by whatever reads it, and `verify` with it."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from explore_logits import get_sample, load_logit_dataset
from teacher_logits.command_line.explore import main
from teacher_logits.errors import DamagedShardError
from tests.exploring.damage import shards_of


@pytest.fixture
def flipped(copy: Path) -> Path:
    """The dataset with another byte in the middle of each column of its second shard."""
    shard = copy / shards_of(copy)[1]
    content, footer = bytearray(shard.read_bytes()), pq.read_metadata(shard)
    for group in map(footer.row_group, range(footer.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            content[chunk.data_page_offset + chunk.total_compressed_size - 3] ^= 1
    shard.write_bytes(content)
    return copy


@pytest.mark.parametrize("command", ["summary", "stats", "report -o OUT", "plots -o OUT", "show 3", "html 3 -o OUT"])
def test_commands(flipped: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]):
    words = [] if command == "summary" else command.replace("OUT", str(tmp_path / "out.html")).split()
    assert main([str(flipped), *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {shards_of(flipped)[1]} of {flipped}: the shard can't be read"), told
    assert told.count("\n") == 1 and "CRC" in told and f"`explore_logits.py verify {flipped}`" in told


def test_footers(flipped: Path, capsys: pytest.CaptureFixture[str]):
    shard = flipped / shards_of(flipped)[1]
    shard.write_bytes(shard.read_bytes()[:-8])
    for command in ("stats", "report"):
        assert main([str(flipped), command]) == 2
        assert shards_of(flipped)[1] in capsys.readouterr().err


def test_streamed_datasets(flipped: Path):
    with pytest.raises(DamagedShardError, match=re.escape(str(flipped / shards_of(flipped)[1]))):
        get_sample(load_logit_dataset(flipped, streaming=True), 3)
