"""Nucleus sizes of a whole dataset, against what it was made of and against loops."""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from hypothesis import given
from hypothesis import strategies as st

from explore_logits import NucleusSizeStats, analyze_nucleus_sizes, load_logit_dataset
from teacher_logits.errors import FormatError, SettingsError
from teacher_logits.exploring import MissingLibraryError, open_source
from teacher_logits.exploring.statistics.nucleus import NucleusCounter
from teacher_logits.exploring.statistics.spread import POSITION_BINS, bins_of, histogram_percentile, places_in_turn
from tests.exploring.made import CAP, TEXTS, Made

FORMS = {
    "folder": lambda folder: folder,
    "text": str,
    "source": open_source,
    "dataset": load_logit_dataset,
    "streamed": lambda folder: load_logit_dataset(folder, streaming=True),
}


def sizes_of(made: Made, index: int) -> np.ndarray:
    return made.entries[index].top_counts


def assert_same(found: NucleusSizeStats, wanted: NucleusSizeStats) -> None:
    np.testing.assert_array_equal(found.histogram, wanted.histogram)
    assert (found.conversations, found.cap) == (wanted.conversations, wanted.cap)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_dataset(made: Made, form: str):
    stats = analyze_nucleus_sizes(FORMS[form](made.folder), per_sample=True)
    sizes = np.concatenate([sizes_of(made, index) for index in TEXTS])
    np.testing.assert_array_equal(stats.histogram, np.bincount(sizes, minlength=256))
    assert (stats.count, stats.total, stats.conversations) == (len(sizes), sizes.sum(), 4)
    assert (stats.mean, stats.median) == (pytest.approx(sizes.mean()), np.median(sizes))
    assert (stats.smallest, stats.largest) == (sizes.min(), sizes.max())
    for percent in (0, 5, 33, 95, 100):
        assert stats.percentile(percent) == pytest.approx(np.percentile(sizes, percent))
    assert stats.cap == CAP and stats.share_at_cap == pytest.approx((sizes == CAP).mean()) and stats.share_at_cap > 0
    assert stats.per_sample is not None and stats.per_position is None
    assert stats.per_sample.index.tolist() == list(TEXTS)
    assert stats.per_sample.tokens.tolist() == [len(sizes_of(made, index)) for index in TEXTS]
    np.testing.assert_allclose(stats.per_sample.mean, [sizes_of(made, index).mean() for index in TEXTS])


def test_a_part_of_a_dataset(made: Made):
    dataset = load_logit_dataset(made.folder)
    for part in (dataset.select([3, 1]), dataset.filter(lambda row: row["index"] in (9, 123))):
        stats = analyze_nucleus_sizes(part)
        sizes = np.concatenate([sizes_of(made, index) for index in (9, 123)])
        np.testing.assert_array_equal(stats.histogram, np.bincount(sizes, minlength=256))


def test_a_dataset_of_unknown_run(made: Made):
    stats = analyze_nucleus_sizes(load_dataset(str(made.folder), split="train"))
    assert stats.count == sum(len(sizes_of(made, index)) for index in TEXTS)
    assert stats.cap is None and stats.share_at_cap is None


def test_places_are_those_of_the_turns(copy: Path, made: Made):
    """One conversation's tokens are spread over three turns, of which a loop knows the places."""
    turns = {17: [range(5, 9), range(20, 25)], 5: [range(3, 4)]}
    wanted = np.zeros((len(POSITION_BINS), 256), np.int64)
    for shard in sorted((copy / "data").iterdir()):
        table = pq.read_table(shard)
        positions = table["positions"].to_pylist()
        for row, index in enumerate(table["index"].to_pylist()):
            starts = [place for turn in turns.get(index, []) for place in turn]
            rest = len(positions[row]) - len(starts)
            positions[row] = starts + list(range(100, 100 + rest))
            places = [place - turn[0] for turn in turns.get(index, []) for place in turn] + list(range(rest))
            for place, size in zip(places, sizes_of(made, index).tolist(), strict=True):
                wanted[np.flatnonzero(place >= POSITION_BINS)[-1], size] += 1
        column = pa.array(positions, pa.list_(pa.int32()))
        pq.write_table(table.set_column(table.column_names.index("positions"), "positions", column), shard)
    places = analyze_nucleus_sizes(copy, per_position=True).per_position
    assert places is not None and places.counted_from == "turn"
    assert places.first.tolist() == POSITION_BINS[wanted.any(1)].tolist()
    np.testing.assert_array_equal(places.histogram, wanted[wanted.any(1)])
    first = np.repeat(np.arange(256), wanted[0])
    assert places.mean[0] == pytest.approx(first.mean()) and places.count[0] == len(first)
    assert places.percentile(75)[0] == pytest.approx(np.percentile(first, 75))


def test_places_without_positions(tokenless: Made):
    places = analyze_nucleus_sizes(tokenless.folder, per_position=True).per_position
    assert places is not None and places.counted_from == "conversation"
    assert places.histogram[0].sum() == len(TEXTS)
    firsts = [sizes_of(tokenless, index)[0] for index in TEXTS]
    np.testing.assert_array_equal(places.histogram[0], np.bincount(firsts, minlength=256))


def test_no_other_columns_are_read(copy: Path, made: Made):
    for shard in (copy / "data").iterdir():
        pq.write_table(pq.read_table(shard, columns=["num_tokens", "top_counts"]), shard)
    assert_same(analyze_nucleus_sizes(copy), analyze_nucleus_sizes(made.folder))
    with pytest.raises(FormatError, match="lacks the columns index"):
        analyze_nucleus_sizes(copy, per_sample=True)


def test_on_a_device_of_torch(made: Made):
    assert_same(analyze_nucleus_sizes(made.folder, device="cpu"), analyze_nucleus_sizes(made.folder))
    with pytest.raises(SettingsError, match=r"no device 'abacus'.*Leave device out"):
        analyze_nucleus_sizes(made.folder, device="abacus")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(made: Made):
    assert_same(analyze_nucleus_sizes(made.folder, device="cuda"), analyze_nucleus_sizes(made.folder))


def test_without_torch(made: Made, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert analyze_nucleus_sizes(made.folder).count > 0
    with pytest.raises(MissingLibraryError, match="needs torch"):
        analyze_nucleus_sizes(made.folder, device="cuda")


@pytest.mark.parametrize("given", [{"train": 1}, 7, None])
def test_what_is_no_dataset(given: Any):
    with pytest.raises(SettingsError, match=r"Statistics are made of"):
        analyze_nucleus_sizes(given)


def test_options_of_files_for_open_datasets(made: Made):
    with pytest.raises(SettingsError, match="split belongs to"):
        analyze_nucleus_sizes(load_logit_dataset(made.folder), split="train")
    with pytest.raises(SettingsError, match="revision belongs to"):
        analyze_nucleus_sizes(open_source(made.folder), revision="main")


def test_damage(copy: Path, tmp_path: Path):
    shard = min((copy / "data").iterdir())
    table = pq.read_table(shard)
    pq.write_table(table.set_column(1, "num_tokens", pa.array([1, 1], pa.int32())), shard)
    with pytest.raises(FormatError, match=r"copy is damaged \(the rows of top_counts.*verify"):
        analyze_nucleus_sizes(copy)
    shutil.rmtree(copy / "data")
    with pytest.raises(FormatError, match="has no shards"):
        analyze_nucleus_sizes(copy)


def test_nothing_counted():
    stats = NucleusCounter(per_sample=True, per_position=True).result(0, 100)
    assert (stats.count, stats.smallest, stats.largest) == (0, 0, 0)
    assert np.isnan([stats.mean, stats.median, stats.share_at_cap]).all()
    assert stats.per_sample is not None and len(stats.per_sample.mean) == 0


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.floats(0, 100))
def test_percentiles_of_a_histogram(values: list[int], percent: float):
    found = histogram_percentile(np.bincount(values), percent)
    assert found == pytest.approx(np.percentile(values, percent), abs=1e-9)


def test_bins_hold_every_position_once():
    assert POSITION_BINS[0] == 0 and (np.diff(POSITION_BINS) > 0).all() and POSITION_BINS[-1] < 2**31
    np.testing.assert_array_equal(bins_of(POSITION_BINS), np.arange(len(POSITION_BINS)))
    np.testing.assert_array_equal(bins_of(POSITION_BINS[1:] - 1), np.arange(len(POSITION_BINS) - 1))


@given(st.lists(st.lists(st.integers(1, 3), max_size=8), max_size=5))
def test_places_in_turn(steps: list[list[int]]):
    """steps: of each conversation, how far each entry stands behind the one before."""
    ends = np.concatenate([[0], np.cumsum([len(row) for row in steps])]).astype(np.int64)
    positions = np.concatenate([np.zeros(0, np.int64), *(np.cumsum(row) for row in steps)]).astype(np.int64)
    wanted, in_row = [], []
    for row in steps:
        place = 0
        for number, step in enumerate(row):
            place = place + 1 if number and step == 1 else 0
            wanted.append(place)
            in_row.append(number)
    assert places_in_turn(ends, positions).tolist() == wanted
    assert places_in_turn(ends, None).tolist() == in_row
