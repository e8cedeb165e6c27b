"""Whole batches to columns and back: every entry comes out where it went in."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teacher_logits.codec import CONTRACT_COLUMNS, Contents, Entries, decode_rows, encode_rows
from teacher_logits.codec.reference import (
    reference_dequantize,
    reference_pack_indices,
    reference_quantize,
    reference_unpack_indices,
)
from teacher_logits.records import JoinedExamples, SparseDistribution
from tests.codec.made import as_listed, made_entries, made_examples, made_table
from tests.codec.quick import quick

LENGTHS = [1, 7, 300, 2, 3, 4, 1]


def assert_decoded(decoded: Entries, entries: SparseDistribution, places: list[int]) -> None:
    """`decoded` are the entries at `places`: ids and log-sum-exps exactly, logits within half a step."""
    assert len(decoded) == len(places)
    assert decoded.logsumexp.dtype == np.float64
    ends = np.concatenate([[0], np.cumsum(decoded.counts)])
    for number, place in enumerate(places):
        part = slice(ends[number], ends[number + 1])
        top_ids, top_logits, sampled_ids, sampled_logits, logsumexp = as_listed(entries, place)
        assert decoded.top_ids[part].tolist() == top_ids
        assert decoded.sampled_ids[number].tolist() == sampled_ids
        assert decoded.logsumexp[number] == logsumexp
        for restored, exact in (
            (decoded.top_logits[part], top_logits),
            (decoded.sampled_logits[number], sampled_logits),
        ):
            half_step = (max(exact) - min(exact)) / 131070
            np.testing.assert_allclose(restored, exact, rtol=1e-7, atol=half_step * (1 + 1e-9))


@quick(60)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.integers(1, 9),
    st.integers(1, 6),
    st.integers(0, 10**6),
)
def test_round_trip(lengths: list[int], cap: int, sampled_n: int, seed: int):
    entries = made_entries(sum(lengths), cap, sampled_n, seed)
    table = encode_rows(entries, JoinedExamples.of(made_examples(lengths)), Contents())
    assert_decoded(decode_rows(table), entries, list(range(sum(lengths))))


def test_every_column_as_the_slow_twins_write_it():
    entries, examples = made_entries(sum(LENGTHS)), made_examples(LENGTHS, first_index=40)
    rows = encode_rows(entries, JoinedExamples.of(examples), Contents()).to_pylist()
    first = 0
    for number, (row, example, length) in enumerate(zip(rows, examples, LENGTHS, strict=True)):
        places = range(first, first + length)
        first += length
        listed = [as_listed(entries, place) for place in places]
        nuclei = [reference_quantize(item[1]) for item in listed]
        samples = [reference_quantize(item[3]) for item in listed]
        top = reference_pack_indices([token for item in listed for token in item[0]])
        sampled = reference_pack_indices([token for item in listed for token in item[2]])
        assert row == {
            "index": 40 + number,
            "num_tokens": length,
            "top_indices_low": top[0],
            "top_indices_high": top[1],
            "top_logits_quantized": [q for values, _, _ in nuclei for q in values],
            "top_counts": [len(item[0]) for item in listed],
            "top_min": [low for _, low, _ in nuclei],
            "top_max": [high for _, _, high in nuclei],
            "sampled_indices_low": sampled[0],
            "sampled_indices_high": sampled[1],
            "sampled_logits_quantized": [q for values, _, _ in samples for q in values],
            "sampled_min": [low for _, low, _ in samples],
            "sampled_max": [high for _, _, high in samples],
            "logsumexp": [item[4] for item in listed],
            "logsumexp_t2": entries.logsumexp_t2[places.start : places.stop].tolist(),
            "logsumexp_t4": entries.logsumexp_t4[places.start : places.stop].tolist(),
            "token_logprob": entries.token_logprob[places.start : places.stop].tolist(),
            "input_ids": example.input_ids.tolist(),
            "positions": example.positions.tolist(),
        }
        assert reference_unpack_indices(*top) == [token for item in listed for token in item[0]]
        assert reference_dequantize(nuclei[0][0], *nuclei[0][1:])[0] == pytest.approx(listed[0][1][0], abs=1e-3)


def test_one_hot_at_every_position():
    """Entry i knows token 1000 i and nothing else, so a shift or a transposed view can't hide."""
    count, cap, sampled_n = 23, 4, 3
    place = np.arange(count, dtype=np.int32)
    entries = SparseDistribution(
        top_ids=np.where(np.arange(cap) == 0, place[:, None] * 1000, np.int32(7)),
        top_logits=np.where(np.arange(cap) == 0, place[:, None] + 0.5, np.nan).astype(np.float32),
        top_counts=np.ones(count, np.int32),
        sampled_ids=place[:, None] * 10_000 + np.arange(sampled_n, dtype=np.int32),
        sampled_logits=(-place[:, None] - np.arange(sampled_n) * 0.25).astype(np.float32),
        logsumexp=place + 0.25,
        logsumexp_t2=(place * 2).astype(np.float32),
        logsumexp_t4=(place * 4).astype(np.float32),
        token_logprob=(-place).astype(np.float32),
        invalid=np.zeros(count, np.bool_),
    )
    lengths = [1, 9, 3, 8, 2]
    table = encode_rows(entries, JoinedExamples.of(made_examples(lengths)), Contents())
    decoded = decode_rows(table)
    assert decoded.counts.tolist() == [1] * count
    assert decoded.top_ids.tolist() == (place * 1000).tolist()
    assert decoded.top_logits.tolist() == (place + 0.5).tolist()
    assert decoded.sampled_ids.tolist() == (place[:, None] * 10_000 + np.arange(sampled_n)).tolist()
    np.testing.assert_allclose(decoded.sampled_logits, -place[:, None] - np.arange(sampled_n) * 0.25, atol=4e-6)
    assert decoded.logsumexp.tolist() == (place + 0.25).tolist()
    for name, factor in (("logsumexp_t2", 2), ("logsumexp_t4", 4), ("token_logprob", -1)):
        assert table.column(name).combine_chunks().flatten().to_pylist() == (place * factor).tolist()


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (1, 1), (1, 3), (2, 5), (6, 1), (3, 0)])
def test_sliced_tables(offset: int, length: int):
    entries = made_entries(sum(LENGTHS))
    table = encode_rows(entries, JoinedExamples.of(made_examples(LENGTHS)), Contents()).slice(offset, length)
    ends = np.concatenate([[0], np.cumsum(LENGTHS)])
    assert_decoded(decode_rows(table), entries, list(range(ends[offset], ends[offset + length])))


def test_several_chunks_and_rows_in_another_order():
    entries = made_entries(sum(LENGTHS))
    table = encode_rows(entries, JoinedExamples.of(made_examples(LENGTHS)), Contents())
    ends = np.concatenate([[0], np.cumsum(LENGTHS)])
    order = [4, 0, 5, 2, 6]
    places = [place for row in order for place in range(ends[row], ends[row + 1])]
    chunks = pa.concat_tables([table.slice(row, 1) for row in order])
    assert chunks.column("index").num_chunks == len(order)
    assert_decoded(decode_rows(chunks), entries, places)
    assert_decoded(decode_rows(table.take(order)), entries, places)


def test_wide_offsets_as_polars_hands_them_over():
    entries = made_entries(sum(LENGTHS))
    table = encode_rows(entries, JoinedExamples.of(made_examples(LENGTHS)), Contents())
    wide = {pa.binary(): pa.large_binary()}
    fields = [
        pa.field(f.name, wide.get(f.type) or (pa.large_list(f.type.value_type) if pa.types.is_list(f.type) else f.type))
        for f in table.schema
    ]
    assert_decoded(decode_rows(table.cast(pa.schema(fields))), entries, list(range(sum(LENGTHS))))


def test_without_tokens_and_with_the_contract_alone():
    table = made_table(LENGTHS, store_tokens=False)
    assert table.column_names == made_table(LENGTHS).column_names[:17]
    assert tuple(table.column_names[:14]) == CONTRACT_COLUMNS
    assert len(decode_rows(table.select(CONTRACT_COLUMNS))) == sum(LENGTHS)


def test_no_rows():
    table = encode_rows(made_entries(0), JoinedExamples.of([]), Contents())
    assert table.num_rows == 0 and table.schema == made_table(LENGTHS).schema
    decoded = decode_rows(table)
    assert len(decoded) == 0 and len(decoded.top_ids) == 0


def test_logits_are_rounded_to_the_teachers_type():
    """bfloat16 logits between 8 and 16 come back exactly, which they don't without the rounding."""
    entries = made_entries(400, step=1 / 16)
    table = encode_rows(entries, JoinedExamples.of(made_examples([400])), Contents())
    exact = np.concatenate([as_listed(entries, place)[1] for place in range(400)])
    sixteenth = (np.abs(exact) >= 8) & (np.abs(exact) < 16)
    assert sixteenth.sum() > 50
    assert (decode_rows(table, "bfloat16").top_logits[sixteenth] == exact[sixteenth]).all()
    assert (decode_rows(table, "float32").top_logits[sixteenth] != exact[sixteenth]).any()


def test_entries_and_conversations_that_dont_belong_together():
    with pytest.raises(AssertionError, match="don't belong together"):
        encode_rows(made_entries(5), JoinedExamples.of(made_examples([2, 2])), Contents())


@pytest.mark.parametrize("name", ["top_indices_high", "top_counts", "sampled_indices_low", "top_logits_quantized"])
def test_columns_of_different_rows_are_refused(name: str):
    table, other = made_table([3, 5], seed=1), made_table([4, 9], seed=2)
    mixed = table.set_column(table.column_names.index(name), name, other.column(name))
    with pytest.raises(ValueError):
        decode_rows(mixed)


@pytest.mark.parametrize("name", ["top_indices_low", "top_logits_quantized", "sampled_indices_low", "logsumexp"])
def test_rows_that_changed_places_in_one_column_are_refused(name: str):
    """The table's totals are right, its rows are not."""
    table = made_table([3, 5, 2])
    turned = table.column(name).take([1, 0, 2])
    with pytest.raises(ValueError, match="don't belong together"):
        decode_rows(table.set_column(table.column_names.index(name), name, turned))
