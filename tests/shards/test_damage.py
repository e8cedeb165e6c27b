"""Files that aren't what they should be end in one kind of error, which names the file."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher_logits.errors import FormatError
from teacher_logits.shards import (
    METADATA_KEY,
    column_ranges,
    iter_distributions,
    read_distributions,
    read_entries,
    read_indices,
    read_metadata,
    read_table,
    shard_footer,
)


def read_parts(shard: Path) -> list[Any]:
    return list(iter_distributions(shard))


def read_ranges(shard: Path) -> list[Any]:
    return column_ranges(shard, "index")


DECODERS = [read_entries, read_distributions, read_parts]
READERS = [*DECODERS, read_indices, read_metadata, read_ranges, read_table, shard_footer]
FOOTER_TAIL = 8


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"PAR1",
        lambda content: b"<html>Not found</html>" * 50,
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content[len(content) // 2 :],
        lambda content: content[:4] + bytes(len(content) - 8) + content[-4:],
        lambda content: content[:-8] + b"\xff\xff\xff\x7fPAR1",
    ],
)
def test_not_a_whole_file(shard: Path, read: Callable[[Path], Any], damage: Callable[[bytes], bytes]):
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(FormatError, match=shard.name):
        read(shard)


@pytest.mark.parametrize("read", READERS)
def test_not_there_or_a_folder(tmp_path: Path, read: Callable[[Path], Any]):
    with pytest.raises(FormatError, match="gone"):
        read(tmp_path / "gone.parquet")
    with pytest.raises(FormatError):
        read(tmp_path)


def test_damaged_pages(shard: Path):
    content = bytearray(shard.read_bytes())
    footer = int.from_bytes(content[-8:-4], "little")
    content[4 : len(content) - footer - FOOTER_TAIL] = bytes(len(content) - footer - FOOTER_TAIL - 4)
    shard.write_bytes(content)
    assert read_metadata(shard)["max_index"] == 11, "the footer is whole"
    for read in (*DECODERS, read_table, read_indices):
        with pytest.raises(FormatError, match=shard.name):
            read(shard)


def test_flipped_bits_give_rows_or_a_format_error(shard: Path):
    """Nothing else escapes: not UnicodeDecodeError from the metadata, not KeyError from a column's damaged name."""
    content = shard.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little")
    random = Random(4)
    refused = 0
    for trial in range(250):
        spoiled = bytearray(content)
        first = len(content) - FOOTER_TAIL - footer if trial % 2 else 0
        spoiled[random.randrange(first, len(content))] ^= 1 << random.randrange(8)
        shard.write_bytes(spoiled)
        for read in READERS:
            try:
                read(shard)
            except FormatError:
                refused += 1
    assert refused > 100


def rewritten(shard: Path, **changes: Any) -> Path:
    """The shard with other metadata (None: with none at all)."""
    table = pq.read_table(shard)
    stored = json.loads(table.schema.metadata[METADATA_KEY])
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps({**stored, **changes})}), shard)
    return shard


def test_another_format_version(shard: Path):
    for version in (2, "1", None):
        rewritten(shard, format_version=version)
        for read in DECODERS:
            with pytest.raises(FormatError, match=r"format version .* Update teacher-logits"):
                read(shard)


def test_a_parquet_file_of_somebody_else(tmp_path: Path):
    pq.write_table(pa.table({"index": [1, 2]}), tmp_path / "a.parquet")
    for read in (*DECODERS, read_metadata):
        with pytest.raises(FormatError, match="no teacher_logits metadata"):
            read(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(FormatError, match=r"a\.parquet"):
        read_indices(tmp_path / "a.parquet")


def test_metadata_that_isnt_json(shard: Path):
    pq.write_table(pq.read_table(shard).replace_schema_metadata({METADATA_KEY: b'{"format_version": 1'}), shard)
    with pytest.raises(FormatError, match=shard.name):
        read_metadata(shard)


@pytest.mark.parametrize("read", DECODERS)
@pytest.mark.parametrize("missing", ["top_min", "sampled_indices_high", "logsumexp"])
def test_missing_columns(shard: Path, missing: str, read: Callable[[Path], Any]):
    pq.write_table(pq.read_table(shard).drop_columns([missing]), shard)
    with pytest.raises(FormatError, match=shard.name):
        read(shard)


@pytest.mark.parametrize("read", DECODERS)
def test_columns_of_another_type(shard: Path, read: Callable[[Path], Any]):
    table = pq.read_table(shard)
    plain = pa.array(range(table.num_rows))
    pq.write_table(table.set_column(table.column_names.index("top_counts"), "top_counts", plain), shard)
    with pytest.raises(FormatError, match=shard.name):
        read(shard)


@pytest.mark.parametrize("read", DECODERS)
def test_columns_that_dont_belong_together(shard: Path, read: Callable[[Path], Any]):
    table = pq.read_table(shard)
    turned = table.column("top_indices_low").take([1, 0, 2, 3, 4])
    pq.write_table(table.set_column(table.column_names.index("top_indices_low"), "top_indices_low", turned), shard)
    with pytest.raises(FormatError, match="don't belong together"):
        read(shard)


def with_metadata(shard: Path, content: bytes) -> None:
    pq.write_table(pq.read_table(shard).replace_schema_metadata({METADATA_KEY: content}), shard)


@pytest.mark.parametrize("read", [*DECODERS, read_metadata])
@pytest.mark.parametrize("content", [b"[1]", b"5", b'"x"', b"null", b"[" * 100_000])
def test_metadata_that_is_no_object(shard: Path, read: Callable[[Path], Any], content: bytes):
    with_metadata(shard, content)
    with pytest.raises(FormatError, match=f"{shard.name} can't be read .*metadata"):
        read(shard)


@pytest.mark.parametrize("dtype", [None, "bf16", ["float32"], 16])
def test_another_type_of_logits(shard: Path, dtype: Any):
    with_metadata(shard, json.dumps(read_metadata(shard) | {"logits_dtype": dtype}).encode())
    for read in DECODERS:
        with pytest.raises(FormatError, match="says that its logits are of type"):
            read(shard)


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("top_indices_low", pa.list_(pa.bool_())),
        ("top_indices_low", pa.list_(pa.int32())),
        ("top_min", pa.list_(pa.float64())),
        ("logsumexp", pa.list_(pa.string())),
        ("num_tokens", pa.int64()),
    ],
    ids=str,
)
@pytest.mark.parametrize("read", DECODERS)
def test_types_that_could_be_converted(shard: Path, read: Callable[[Path], Any], column: str, kind: pa.DataType):
    table = pq.read_table(shard)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, table.column(column).cast(kind)), shard)
    with pytest.raises(FormatError, match=f"column {column} is "):
        read(shard)


@pytest.mark.parametrize("read", [read_indices, read_table])
def test_a_footer_that_says_two_numbers_of_rows(shard: Path, read: Callable[[Path], Any]):
    """No single flipped bit makes rows vanish."""
    rows, content = read_table(shard).num_rows, shard.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little") + FOOTER_TAIL
    for place in range(len(content) - footer, len(content) - FOOTER_TAIL, 4):
        for bit in (1, 3):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            shard.write_bytes(changed)
            try:
                found = read(shard)
            except FormatError:
                continue
            assert len(found) == rows, (place, bit)


def test_indices_with_gaps(shard: Path):
    table = pq.read_table(shard)
    numbers = pa.array([None, *table["index"].to_pylist()[1:]], pa.int32())
    pq.write_table(table.set_column(0, "index", numbers), shard)
    with pytest.raises(FormatError, match="index has nulls"):
        read_indices(shard)
