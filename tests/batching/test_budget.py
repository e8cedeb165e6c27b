"""Batches hold every conversation once, within their bounds; a collated batch is its examples."""

from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teacher_logits.batching import TokenBudgetBatchSampler, collate
from teacher_logits.records import Example, JoinedExamples

LENGTHS = st.lists(st.integers(0, 300), max_size=60)
BOUND = st.none() | st.integers(1, 8)


def batches(lengths: Sequence[int], **options: Any) -> list[list[int]]:
    sampler = TokenBudgetBatchSampler(lengths, **options)
    planned = list(sampler)
    assert len(sampler) == len(planned) and list(sampler) == planned  # it can be walked again
    return planned


class TestAnyPlan:
    OPTIONS = st.fixed_dictionaries({"batch_tokens": st.integers(1, 700)}) | st.fixed_dictionaries(
        {"batch_thresholds": st.dictionaries(st.integers(1, 300), st.integers(1, 9), max_size=4)}
    )

    @given(lengths=LENGTHS, options=OPTIONS, bound=BOUND)
    def test_every_place_exactly_once_longest_first(
        self, lengths: list[int], options: dict[str, Any], bound: int | None
    ) -> None:
        planned = batches(lengths, max_batch_size=bound, **options)
        order = [place for batch in planned for place in batch]
        assert sorted(order) == list(range(len(lengths)))
        for one, other in pairwise(order):
            assert (-lengths[one], one) < (-lengths[other], other)  # equal lengths keep the source's order
        assert all(1 <= len(batch) <= (bound or 10**9) for batch in planned)


class TestBudget:
    @given(lengths=LENGTHS, tokens=st.integers(1, 700), bound=BOUND)
    def test_padded_size_is_within_it_and_no_batch_could_take_one_more(
        self, lengths: list[int], tokens: int, bound: int | None
    ) -> None:
        planned = batches(lengths, batch_tokens=tokens, max_batch_size=bound)
        for number, batch in enumerate(planned):
            longest = max(lengths[place] for place in batch)
            assert len(batch) == 1 or len(batch) * longest <= tokens
            last = number == len(planned) - 1
            assert last or len(batch) == bound or (len(batch) + 1) * max(1, longest) > tokens

    def test_by_hand(self) -> None:
        assert batches([3, 10, 5, 4, 3], batch_tokens=10) == [[1], [2, 3], [0, 4]]
        assert batches([3, 10, 5, 4, 3], batch_tokens=9) == [[1], [2], [3, 0], [4]]
        assert batches([3, 3, 3, 3], batch_tokens=100, max_batch_size=3) == [[0, 1, 2], [3]]

    def test_of_nothing(self) -> None:
        assert batches([], batch_tokens=10) == []

    def test_lengths_as_an_array(self) -> None:
        assert batches(np.array([1, 2], np.int32), batch_tokens=10) == [[1, 0]]  # type: ignore[arg-type]

    def test_lengths_that_are_changed_afterwards(self) -> None:
        lengths = np.array([1, 2])
        sampler = TokenBudgetBatchSampler(lengths, batch_tokens=2)
        assert [type(place) for batch in sampler for place in batch] == [int, int]


class TestThresholds:
    @pytest.mark.parametrize(
        ("length", "size"), [(1, 8), (511, 8), (512, 8), (513, 4), (1024, 4), (1025, 1), (9999, 1)]
    )
    @pytest.mark.parametrize("thresholds", [{1024: 4, 512: 8}, {512: 8, 1024: 4}])
    def test_the_smallest_that_is_not_exceeded_gives_the_size(
        self, length: int, size: int, thresholds: dict[int, int]
    ) -> None:
        assert [len(batch) for batch in batches([length] * 16, batch_thresholds=thresholds)] == [size] * (16 // size)

    def test_the_longest_of_a_batch_decides(self) -> None:
        lengths = [600, 10, 10, 10, 10, 10]
        assert batches(lengths, batch_thresholds={1024: 2, 512: 3}) == [[0, 1], [2, 3, 4], [5]]

    def test_bounded(self) -> None:
        assert [len(b) for b in batches([5] * 6, batch_thresholds={512: 8}, max_batch_size=4)] == [4, 2]

    def test_none_at_all(self) -> None:
        assert batches([5, 6], batch_thresholds={}) == [[1], [0]]


@pytest.mark.parametrize("options", [{}, {"batch_tokens": 5, "batch_thresholds": {5: 1}}])
def test_one_way_to_size_batches_is_given(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="one of them"):
        TokenBudgetBatchSampler([1], **options)


@st.composite
def examples(draw: st.DrawFn) -> list[Example]:
    made = []
    for index, length in enumerate(draw(st.lists(st.integers(2, 20), min_size=1, max_size=6))):
        positions = sorted(draw(st.sets(st.integers(1, length - 1), min_size=1)))
        ids = draw(st.lists(st.integers(0, 2**18), min_size=length, max_size=length))
        made.append(Example(index, np.array(ids, np.int32), np.array(positions, np.int32)))
    return made


class TestCollate:
    @given(made=examples())
    def test_a_batch_is_its_examples(self, made: list[Example]) -> None:
        batch = collate(made, pad_id=7)
        longest = max(len(example.input_ids) for example in made)
        assert batch.input_ids.shape == batch.attention_mask.shape == batch.predicts.shape == (len(made), longest)
        assert batch.input_ids.dtype == batch.attention_mask.dtype == np.int64 and batch.predicts.dtype == np.bool_
        for row, example in enumerate(made):
            length = len(example.input_ids)
            assert batch.input_ids[row, :length].tolist() == example.input_ids.tolist()
            assert set(batch.input_ids[row, length:].tolist()) <= {7}
            assert batch.attention_mask[row].tolist() == [1] * length + [0] * (longest - length)
            assert (np.flatnonzero(batch.predicts[row]) + 1).tolist() == example.positions.tolist()
        joined, apart = batch.joined(), JoinedExamples.of(made)
        for field in fields(JoinedExamples):
            found, expected = getattr(joined, field.name), getattr(apart, field.name)
            assert found.dtype == expected.dtype and found.tolist() == expected.tolist()

    def test_by_hand(self) -> None:
        first = Example(5, np.array([10, 11, 12], np.int32), np.array([1, 2], np.int32))
        second = Example(2, np.array([20, 21], np.int32), np.array([1], np.int32))
        batch = collate([first, second], pad_id=0)
        assert batch.index.tolist() == [5, 2]
        assert batch.input_ids.tolist() == [[10, 11, 12], [20, 21, 0]]
        assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
        assert batch.predicts.tolist() == [[True, True, False], [True, False, False]]


@given(st.lists(st.tuples(st.integers(2, 9), st.booleans()), max_size=8), st.integers(0, 10**6))
def test_chosen_of_joined_are_the_joined_of_chosen(lengths: list[tuple[int, bool]], seed: int) -> None:
    generator = np.random.default_rng(seed)
    examples = [
        Example(
            number,
            generator.integers(0, 99, length).astype(np.int32),
            np.flatnonzero(generator.random(length) < 0.5)[1:].astype(np.int32),
        )
        for number, (length, _) in enumerate(lengths)
    ]
    kept = np.array([keep for _, keep in lengths], np.bool_)
    found = JoinedExamples.of(examples).chosen(kept)
    expected = JoinedExamples.of([example for example, keep in zip(examples, kept, strict=True) if keep])
    for field in fields(JoinedExamples):
        assert getattr(found, field.name).tolist() == getattr(expected, field.name).tolist()
