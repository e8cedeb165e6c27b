"""A row's bits depend on the row and its key, not on the company it keeps; and bad rows keep to themselves."""

import importlib

import pytest
import torch
from torch import Tensor

from teacher_logits.records import SparseDistribution
from teacher_logits.sampling import SamplingSettings, sample
from tests.sampling.rows import DTYPES, KINDS, field_bytes, made_rows

COUNT = 19
WIDTHS = [70, 333, 36_000]
"""The widest is past the size from which torch splits one row's work among threads."""


def mixed_rows(width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.cat([made_rows(KINDS[place % len(KINDS)], 1, width, seed=place) for place in range(COUNT)]).to(dtype)


def stored_of(logits: Tensor, places: list[int]) -> SparseDistribution:
    """`sample` of some of the rows, each with its own token and key."""
    key = torch.tensor(places, dtype=torch.int64)
    settings = SamplingSettings(0.98, 100, 24, 3, logits.shape[1])
    return sample(logits[places], key % 7, key * 11, key + 1, settings)


def by_row(logits: Tensor, batches: list[list[int]]) -> dict[int, dict[str, bytes]]:
    """The bits of every row, sampled in these batches."""
    return {
        place: field_bytes(stored, [position])
        for batch in batches
        for stored in [stored_of(logits, batch)]
        for position, place in enumerate(batch)
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", WIDTHS)
def test_same_bits_in_any_batch(width: int, dtype: torch.dtype):
    logits = mixed_rows(width, dtype)
    everything = list(range(COUNT))
    expected = by_row(logits, [everything])
    assert by_row(logits, [[place] for place in everything]) == expected
    assert by_row(logits, [everything[::-1]]) == expected
    assert by_row(logits, [everything[:3], everything[3:16], everything[16:]]) == expected
    assert by_row(logits, [[place, 4, 4] for place in everything])[7] == expected[7]


@pytest.mark.parametrize("at_once", [1, 3, 64])
def test_same_bits_in_any_chunks(at_once: int, monkeypatch: pytest.MonkeyPatch):
    logits = mixed_rows(333)
    everything = [list(range(COUNT))]
    expected = by_row(logits, everything)
    monkeypatch.setattr(importlib.import_module("teacher_logits.sampling.sample"), "_ROWS_AT_ONCE", at_once)
    monkeypatch.setattr(importlib.import_module("teacher_logits.sampling.rows"), "_NUMBERS_AT_ONCE", 400 * at_once)
    assert by_row(logits, everything) == expected


@pytest.mark.parametrize("threads", [2, 3])
def test_same_bits_on_any_number_of_threads(threads: int):
    logits = mixed_rows(36_000)
    batches = [list(range(9)), *([place] for place in range(9, COUNT))]
    expected = by_row(logits, batches)
    torch.set_num_threads(threads)
    try:
        assert by_row(logits, batches) == expected
    finally:
        torch.set_num_threads(1)


def test_seed_conversation_and_position_each_change_the_draws():
    logits = made_rows("flat", 1, 500, seed=1)
    key = torch.ones(1, dtype=torch.int64)

    def ids(seed: int, index: Tensor, position: Tensor) -> list[int]:
        return sample(logits, key, index, position, SamplingSettings(0.5, 100, 24, seed, 500)).sampled_ids[0].tolist()

    drawn = [
        ids(1, key, key),
        ids(2, key, key),
        ids(1 + 2**32, key, key),
        ids(1, key * 2, key),
        ids(1, key * -1, key),
        ids(1, key, key * 2),
    ]
    assert len(set(map(tuple, drawn))) == len(drawn)
    assert ids(1, key, key) == drawn[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_invalid_rows_are_marked_and_leave_the_others_alone(bad: float, dtype: torch.dtype):
    logits = mixed_rows(333, dtype)
    expected = by_row(logits, [list(range(COUNT))])
    spoiled = {0: slice(0, 1), 5: slice(332, 333), 6: slice(100, 101), 18: slice(0, 333)}
    for place, columns in spoiled.items():
        logits[place, columns if bad != -torch.inf else slice(None)] = bad
    stored = stored_of(logits, list(range(COUNT)))
    assert stored.invalid.tolist() == [place in spoiled for place in range(COUNT)]
    for place in set(range(COUNT)) - set(spoiled):
        assert field_bytes(stored, [place]) == expected[place]


@pytest.mark.parametrize("width", [64, 130, 333])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_nan_of_either_sign_in_a_vocabulary_that_is_not_whole_blocks(sign: float, width: int):
    logits = mixed_rows(width)
    logits[3] = torch.copysign(torch.full((width,), torch.nan), torch.tensor(sign))
    assert stored_of(logits, list(range(COUNT))).invalid.tolist() == [place == 3 for place in range(COUNT)]


def test_nan_beside_infinity_and_beside_nothing():
    logits = torch.zeros(4, 65)
    logits[0, [3, 64]] = torch.tensor([torch.inf, torch.nan])
    logits[1] = -torch.inf
    logits[1, 64] = torch.nan
    logits[2, 1:] = -torch.inf
    logits[3] = torch.tensor(1e39, dtype=torch.float64).float()
    assert stored_of(logits, [0, 1, 2, 3]).invalid.tolist() == [True, True, False, True]


def test_float64_beyond_float32_is_invalid():
    logits = torch.zeros(2, 65, dtype=torch.float64)
    logits[0, 7] = 1e39
    assert stored_of(logits, [0, 1]).invalid.tolist() == [True, False]


def test_only_invalid_rows():
    assert stored_of(torch.full((9, 40), torch.nan), list(range(9))).invalid.all()
