"""What a shard holds, column by column, as the format's document says."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from teacher_logits.codec import CONTRACT_COLUMNS
from teacher_logits.shards import METADATA_KEY, read_metadata, shard_name, shard_number, shard_schema, write_shard
from tests.codec.made import made_table
from tests.shards.conftest import METADATA

COLUMNS = """
1   index                      int32           DELTA_OR_PLAIN
2   num_tokens                 int32           DELTA_OR_PLAIN
3   top_indices_low            list<uint16>    BYTE_STREAM_SPLIT
4   top_indices_high           binary          DELTA_OR_PLAIN
5   top_logits_quantized       list<uint16>    BYTE_STREAM_SPLIT
6   top_counts                 list<uint8>     RLE_DICTIONARY
7   top_min                    list<float32>   BYTE_STREAM_SPLIT
8   top_max                    list<float32>   BYTE_STREAM_SPLIT
9   sampled_indices_low        list<uint16>    BYTE_STREAM_SPLIT
10  sampled_indices_high       binary          DELTA_OR_PLAIN
11  sampled_logits_quantized   list<uint16>    BYTE_STREAM_SPLIT
12  sampled_min                list<float32>   BYTE_STREAM_SPLIT
13  sampled_max                list<float32>   BYTE_STREAM_SPLIT
14  logsumexp                  list<float64>   BYTE_STREAM_SPLIT
15  logsumexp_t2               list<float32>   BYTE_STREAM_SPLIT
16  logsumexp_t4               list<float32>   BYTE_STREAM_SPLIT
17  token_logprob              list<float32>   BYTE_STREAM_SPLIT
18  input_ids                  list<int32>     DELTA_OR_PLAIN
19  positions                  list<int32>     DELTA_BINARY_PACKED
"""
TABLE = [tuple(line.split()) for line in COLUMNS.strip().splitlines()]
TYPES = {
    "int32": pa.int32(),
    "binary": pa.binary(),
    "list<uint8>": pa.list_(pa.uint8()),
    "list<uint16>": pa.list_(pa.uint16()),
    "list<int32>": pa.list_(pa.int32()),
    "list<float32>": pa.list_(pa.float32()),
    "list<float64>": pa.list_(pa.float64()),
}
MARKS = {"PLAIN", "RLE", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT", "RLE_DICTIONARY"}


def test_nineteen_columns_in_their_order(shard: Path, rows: pa.Table):
    expected = [(name, TYPES[kind]) for _, name, kind, _ in TABLE]
    assert [int(number) for number, *_ in TABLE] == list(range(1, 20))
    for schema in (shard_schema(), rows.schema, pq.read_schema(shard)):
        assert [(field.name, field.type) for field in schema] == expected
    assert tuple(name for name, _ in expected[:14]) == CONTRACT_COLUMNS


def test_seventeen_where_tokens_arent_stored(tmp_path: Path):
    write_shard(made_table([2, 3], store_tokens=False), tmp_path / "a.parquet", METADATA)
    names = [name for _, name, _, _ in TABLE[:17]]
    assert pq.read_schema(tmp_path / "a.parquet").names == names == shard_schema(store_tokens=False).names


def test_encodings_of_every_column(shard: Path):
    footer = pq.read_metadata(shard)
    for group in range(footer.num_row_groups):
        for place, (_, name, _, encoding) in enumerate(TABLE):
            column = footer.row_group(group).column(place)
            assert column.path_in_schema.split(".")[0] == name
            assert column.compression == "ZSTD"
            wanted = {"PLAIN"} if encoding == "DELTA_OR_PLAIN" else {encoding}
            allowed = wanted | {"RLE"} | ({"PLAIN"} if encoding == "RLE_DICTIONARY" else set())
            assert wanted <= set(column.encodings) <= allowed, name
            assert column.has_dictionary_page == (name == "top_counts")


def test_metadata_with_the_bounds_of_index(tmp_path: Path):
    table = made_table([1, 2, 3, 1], first_index=-2).take([2, 0, 3])
    write_shard(table, tmp_path / "a.parquet", {**METADATA, "min_index": "not this"})
    stored = read_metadata(tmp_path / "a.parquet")
    assert stored == {**METADATA, "min_index": -2, "max_index": 1}
    text = pq.read_schema(tmp_path / "a.parquet").metadata[METADATA_KEY].decode()
    assert text == json.dumps(stored, sort_keys=True, ensure_ascii=False)


def test_metadata_that_json_cant_hold(tmp_path: Path):
    with pytest.raises(ValueError):
        write_shard(made_table([1]), tmp_path / "a.parquet", {**METADATA, "top_p": float("nan")})


@pytest.mark.parametrize(
    ("split", "number", "name"),
    [
        ("train", 0, "data/train-abababab-00000.parquet"),
        ("train[:10%]", 7, "data/train-abababab-00007.parquet"),
        ("train_sft", 12345, "data/train_sft-abababab-12345.parquet"),
        ("val-2.x", 123456, "data/val_2_x-abababab-123456.parquet"),
    ],
)
def test_names(split: str, number: int, name: str):
    assert shard_name(split, "ab" * 32, number) == name
    assert shard_number(name) == number


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("data/train-0123abcd-w3-00042.parquet", 42),
        ("data/train-0123abcd-00042.parquet.tmp", None),
        ("train-0123abcd-00042.parquet", None),
        ("data/train-0123abcd-0042.parquet", None),
        ("data/train-0123ABCD-00042.parquet", None),
        ("data/.train-0123abcd-00042.parquet-x.tmp", None),
        ("old/data/train-0123abcd-00042.parquet", None),
        ("data/train-00042-of-00100.parquet", None),
    ],
)
def test_numbers_in_names(path: str, number: int | None):
    assert shard_number(path) == number
