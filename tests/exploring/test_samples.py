"""Finding rows: by place and by number, loaded and streamed, and what is said where there is none."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from explore_logits import get_sample, load_logit_dataset
from teacher_logits.errors import FormatError, SettingsError
from teacher_logits.exploring import NoSuchSampleError, entropy_bounds, open_source, read_sample
from teacher_logits.exploring.samples import count_samples, iter_samples, read_samples, unpack_row
from tests.exploring.made import IMPOSSIBLE, RUN, TEXTS, Made


def assert_same(sample: dict, other: dict) -> None:
    assert sample.keys() == other.keys()
    for name in sample:
        if name != "run":
            np.testing.assert_equal(sample[name], other[name])


@pytest.mark.parametrize("streaming", [False, True])
def test_by_place_and_by_index(made: Made, streaming: bool):
    dataset = load_logit_dataset(str(made.folder), streaming=streaming)
    for place, index in enumerate(TEXTS):
        sample = get_sample(dataset, place)
        assert sample["index"] == index
        np.testing.assert_array_equal(sample["input_ids"], made.examples[index].input_ids)
        assert_same(sample, get_sample(dataset, index=index))
        assert sample["logits_dtype"] == "bfloat16"


@pytest.mark.parametrize("places", [(), (0,), (1, 2), (0, 1, 2, 3), (3,)])
def test_some_places_one_after_another(made: Made, places: tuple[int, ...]):
    source = open_source(made.folder)
    assert count_samples(source) == len(TEXTS)
    found = list(iter_samples(source, None, places))
    assert len(found) == len(places)
    for place, sample in zip(places, found, strict=True):
        assert_same(sample, read_sample(source, place=place))
    with pytest.raises(NoSuchSampleError, match="There is no row 4: the dataset has 4 rows"):
        list(iter_samples(source, None, [*places, 4]))


def test_from_the_files(made: Made):
    source, dataset = open_source(made.folder), load_logit_dataset(made.folder)
    for place, index in enumerate(TEXTS):
        assert_same(read_sample(source, place=place), get_sample(dataset, place))
        assert_same(read_sample(source, index=index), get_sample(dataset, place))


def test_several_at_once(made: Made):
    source = open_source(made.folder)
    wanted = [9, 17, 5, 9]
    found = read_samples(source, None, wanted)
    assert list(found) == [9, 17, 5]
    for index, sample in found.items():
        assert_same(sample, read_sample(source, index=index))
    assert read_samples(source, None, []) == {}
    with pytest.raises(NoSuchSampleError, match="index 18"):
        read_samples(source, None, [17, 18])


def test_a_number_that_is_there_twice(copy: Path):
    """The first row is taken, by whichever way."""
    first, second = sorted((copy / "data").iterdir())
    rows = pq.read_table(first)
    pq.write_table(pa.concat_tables([pq.read_table(second), rows.slice(1), rows.slice(1)]), second)
    source = open_source(copy)
    assert_same(read_samples(source, None, [123])[123], read_sample(source, place=1))
    assert_same(read_sample(source, index=123), read_sample(source, place=1))


@pytest.mark.parametrize("streaming", [False, True])
def test_no_such_row(made: Made, streaming: bool):
    dataset = load_logit_dataset(made.folder, streaming=streaming)
    for place in (4, -1):
        with pytest.raises(IndexError, match=f"no row {place}"):
            get_sample(dataset, place)
    with pytest.raises(FormatError, match="index 18"):
        get_sample(dataset, index=18)
    with pytest.raises(TypeError):
        get_sample(dataset)
    with pytest.raises(TypeError):
        get_sample(dataset, 0, index=17)


def test_no_such_row_in_the_files(made: Made):
    source = open_source(made.folder)
    with pytest.raises(NoSuchSampleError, match="has 4 rows"):
        read_sample(source, place=4)
    with pytest.raises(NoSuchSampleError, match="index 18"):
        read_sample(source, index=18)


def test_rearranged_datasets(made: Made):
    dataset = load_logit_dataset(made.folder).select([3, 1])
    assert [get_sample(dataset, place)["index"] for place in (0, 1)] == [9, 123]
    assert get_sample(dataset, index=123)["logits_dtype"] == "bfloat16"
    with pytest.raises(NoSuchSampleError):
        get_sample(dataset, index=17)
    assert get_sample(dataset.with_format("numpy"), 0)["index"] == 9


def test_without_tokens(made: Made, tokenless: Made):
    sample = get_sample(load_logit_dataset(tokenless.folder), 0)
    assert "input_ids" not in sample and "positions" not in sample
    whole = get_sample(load_logit_dataset(made.folder), 0)
    assert_same(sample, {name: whole[name] for name in whole if name not in ("input_ids", "positions")})


def test_damaged_rows_are_named(made: Made):
    row = pq.read_table(made.folder / f"data/train-{RUN}-00000.parquet").to_pylist()[0]
    damages = {
        "top_counts": row["top_counts"][:-1],
        "logsumexp": [*row["logsumexp"], 0.0],
        "top_indices_high": row["top_indices_high"] + b"\0",
        "top_logits_quantized": row["top_logits_quantized"][:-1],
        "sampled_logits_quantized": row["sampled_logits_quantized"][:-1],
        "num_tokens": row["num_tokens"] + 1,
    }
    unpack_row(row, {})
    for name, value in damages.items():
        with pytest.raises(FormatError, match="Row 17 is damaged"):
            unpack_row({**row, name: value}, {})
    with pytest.raises(FormatError, match="lacks top_min"):
        unpack_row({**row, "top_min": None}, {})


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["logsumexp", "top_min", "top_max", "sampled_min", "sampled_max"])
def test_numbers_that_are_none(made: Made, name: str, number: float):
    row = pq.read_table(made.folder / f"data/train-{RUN}-00000.parquet").to_pylist()[0]
    row[name][1] = number
    with pytest.raises(FormatError, match=f"Row 17 is damaged: {name} is {number} at its entry 1"):
        unpack_row(row, {})


LISTS = ["logsumexp", "logsumexp_t2", "token_logprob", "top_counts", "top_indices_low", "top_logits_quantized"]
LISTS += ["sampled_indices_low", "sampled_logits_quantized", "input_ids", "positions"]


@pytest.mark.parametrize("foreign", [None, "1", [1]])
@pytest.mark.parametrize("name", LISTS)
def test_lists_that_hold_more_than_numbers(made: Made, name: str, foreign: Any):
    """Nulls above all, which Parquet can hold anywhere."""
    row = pq.read_table(made.folder / f"data/train-{RUN}-00000.parquet").to_pylist()[0]
    row[name][1] = foreign
    with pytest.raises(FormatError, match=f"Row 17 is damaged: {name}"):
        unpack_row(row, {})


@pytest.mark.parametrize(
    ("name", "value"), [("index", "17"), ("index", 0.5), ("num_tokens", 1.5), ("index", [17, 123])]
)
def test_numbers_of_a_row_that_are_not_whole(made: Made, name: str, value: Any):
    row = pq.read_table(made.folder / f"data/train-{RUN}-00000.parquet").to_pylist()[0]
    with pytest.raises(FormatError, match=f"{name} is .*, not a whole number"):
        unpack_row({**row, name: value}, {})


def test_numbers_that_16_bits_can_not_hold(made: Made):
    row = pq.read_table(made.folder / f"data/train-{RUN}-00000.parquet").to_pylist()[0]
    row["top_logits_quantized"][1] = 65_536
    with pytest.raises(FormatError, match="Row 17 is damaged: top_logits_quantized holds numbers beyond 0 to 65535"):
        unpack_row(row, {})


@pytest.mark.parametrize(("name", "number"), [each for each in IMPOSSIBLE if each[0] != "logsumexp_t4"])
def test_finite_numbers_that_can_not_be(made: Made, name: str, number: float):
    row = pq.read_table(made.folder / f"data/train-{RUN}-00000.parquet").to_pylist()[0]
    row[name][1] = number
    with pytest.raises(FormatError, match=rf"Row 17 is damaged: {name} .*can't be .* at its entry 1\."):
        entropy_bounds(unpack_row(row, {}))


def test_what_is_no_dataset(made: Made):
    whole = datasets.DatasetDict({"train": load_logit_dataset(made.folder)})
    for dataset, named in ((None, "NoneType"), ([1, 2], "list"), (whole, "DatasetDict of train")):
        with pytest.raises(SettingsError, match=f"A sample is taken of .*{named}"):
            get_sample(dataset, 0)
    assert get_sample(open_source(made.folder), 0)["index"] == 17
    with pytest.raises(FormatError, match=r"index is \[17, 123\], not a whole number"):
        get_sample(load_logit_dataset(made.folder, streaming=True).batch(2), 0)


@pytest.mark.parametrize("kept", ["input_ids", "nothing else"])
def test_positions_that_can_not_be(made: Made, kept: str):
    row = pq.read_table(made.folder / f"data/train-{RUN}-00000.parquet").to_pylist()[0]
    if kept != "input_ids":
        del row["input_ids"]
    right = row["positions"]
    assert unpack_row(row, {})["positions"].tolist() == right
    swapped, twice = [right[1], right[0], *right[2:]], [right[0], right[0], *right[2:]]
    outside = [*right[:-1], len(row["input_ids"])] if kept == "input_ids" else swapped
    for wrong in (swapped, twice, [0, *right[1:]], [-1, *right[1:]], outside):
        with pytest.raises(FormatError, match="Row 17 is damaged: its positions"):
            unpack_row({**row, "positions": wrong}, {})


def test_a_row_without_stored_tokens():
    empty = {name: [] for name in ("top_counts", "top_min", "top_max", "sampled_min", "sampled_max", "logsumexp")}
    for kind in ("top", "sampled"):
        empty |= {f"{kind}_indices_low": [], f"{kind}_indices_high": b"", f"{kind}_logits_quantized": []}
    sample = unpack_row({"index": 3, "num_tokens": 0, **empty}, {})
    assert sample["top_indices"] == sample["sampled_indices"] == []


def test_rows_beyond_the_first_row_group(made: Made, copy: Path):
    shards = sorted((copy / "data").iterdir())
    table = pq.read_table(shards[0])
    pq.write_table(table, shards[0], row_group_size=1)
    assert read_sample(open_source(copy), place=1)["index"] == 123
    assert read_sample(open_source(copy), index=123)["index"] == 123
