"""Arrays of distributions against loops over tokens, from tables in every state Arrow knows."""

from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teacher_logits.codec import (
    CONTRACT_COLUMNS,
    Contents,
    Distributions,
    decode,
    decode_distributions,
    decode_rows,
    encode_rows,
    flat_columns,
)
from teacher_logits.errors import SettingsError
from teacher_logits.records import JoinedExamples
from tests.codec.loops import assert_looped, looped
from tests.codec.made import made_entries, made_examples, made_table
from tests.codec.quick import quick

LENGTHS = [1, 7, 300, 2, 3, 4, 1]
DTYPES = ["float32", "bfloat16", "float16"]


def decoded(table: pa.Table, logits_dtype: str = "float32", width: int | None = None) -> Distributions:
    return decode_distributions(flat_columns(table), logits_dtype, width)


def assert_same(found: Distributions, expected: Distributions) -> None:
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)


@quick(150)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.integers(1, 9),
    st.integers(1, 6),
    st.integers(0, 10**6),
    st.sampled_from(DTYPES),
    st.none() | st.integers(0, 3),
    st.integers(1, 12),
)
def test_like_loops_over_tokens(
    lengths: list[int], cap: int, sampled_n: int, seed: int, dtype: str, spare: int | None, block: int
):
    """Whatever the blocks are in which it is decoded."""
    entries = made_entries(sum(lengths), cap, sampled_n, seed)
    table = encode_rows(entries, JoinedExamples.of(made_examples(lengths, first_index=seed)), Contents())
    largest = int(entries.top_counts.max())
    with patch.object(decode, "BLOCK_ENTRIES", block):
        found = decoded(table, dtype, None if spare is None else largest + spare)
    assert_looped(found, looped(table, dtype), largest + (spare or 0))
    assert found.index.tolist() == list(range(seed, seed + len(lengths)))
    assert found.num_tokens.tolist() == lengths
    assert found.logsumexp.tolist() == entries.logsumexp.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_as_the_flat_entries_over_many_blocks(dtype: str):
    lengths = [3000, 2000, 5000, 10, 1, 4096]
    table = encode_rows(made_entries(sum(lengths), cap=30), JoinedExamples.of(made_examples(lengths)), Contents())
    found, entries = decoded(table, dtype), decode_rows(table, dtype)
    inside = np.arange(30) < entries.counts[:, None]
    top, sampled = found.log_probabilities[:, :30], found.log_probabilities[:, 30:]
    np.testing.assert_array_equal(found.ids[:, :30][inside], entries.top_ids)
    np.testing.assert_array_equal(found.ids[:, 30:], entries.sampled_ids)
    exact = entries.top_logits - np.repeat(entries.logsumexp, entries.counts)
    np.testing.assert_array_equal(top[inside], exact.astype(np.float32))
    exact = entries.sampled_logits - entries.logsumexp[:, None]
    np.testing.assert_array_equal(sampled, exact.astype(np.float32))
    assert (found.ids[:, :30][~inside] == 0).all() and (top[~inside] == -np.inf).all()


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (1, 1), (1, 3), (2, 5), (6, 1)])
def test_sliced_tables(offset: int, length: int):
    table = made_table(LENGTHS).slice(offset, length)
    expected = looped(table, "bfloat16")
    assert_looped(decoded(table, "bfloat16"), expected, max(len(top_ids) for top_ids, *_ in expected))


def test_several_chunks_and_rows_in_another_order():
    table = made_table(LENGTHS)
    order = [4, 0, 5, 2, 6]
    chunks = pa.concat_tables([table.slice(row, 1) for row in order])
    assert_looped(decoded(chunks), looped(chunks, "float32"), 7)
    assert_same(decoded(table.take(order)), decoded(chunks))


def test_wide_offsets_as_polars_hands_them_over():
    table = made_table(LENGTHS)
    wide = {pa.binary(): pa.large_binary()}
    fields = [
        pa.field(f.name, wide.get(f.type) or (pa.large_list(f.type.value_type) if pa.types.is_list(f.type) else f.type))
        for f in table.schema
    ]
    assert_same(decoded(table.cast(pa.schema(fields)).slice(1, 4)), decoded(table.slice(1, 4)))


@pytest.mark.parametrize(
    "table", [made_table(LENGTHS).slice(3, 0), made_table([]), made_table([]).schema.empty_table()]
)
def test_no_rows(table: pa.Table):
    for width, expected in ((None, 0), (5, 5)):
        found = decoded(table, "bfloat16", width)
        assert len(found) == 0 and found.ids.shape == found.log_probabilities.shape == (0, expected)
        assert len(found.index) == len(found.num_tokens) == len(found.logsumexp) == 0


def test_a_row_without_entries():
    table = made_table([2, 0, 3])
    assert_looped(decoded(table), looped(table, "float32"), decoded(table).nucleus_width)
    assert decoded(table).num_tokens.tolist() == [2, 0, 3]
    assert len(decoded(table.slice(1, 1))) == 0


def test_a_nucleus_larger_than_the_width():
    table = made_table(LENGTHS)
    assert decoded(table).nucleus_width == 7
    with pytest.raises(SettingsError, match="7 tokens, more than the width 6"):
        decoded(table, width=6)


def test_columns_are_not_copied():
    table = made_table(LENGTHS).slice(1)
    columns = flat_columns(table)
    for name, array in (
        ("top_indices_low", columns.top.low),
        ("sampled_logits_quantized", columns.sampled.quantized),
        ("logsumexp", columns.logsumexp),
    ):
        values = table.column(name).chunk(0).values.to_numpy()
        assert np.shares_memory(array, values) and len(array) < len(values)


def with_null(table: pa.Table, name: str, inside: bool) -> pa.Table:
    """The table with a null in place of a column's second row, or of the first value in it."""
    column = table.column(name)
    values = column.to_pylist()
    values[1] = [None, *values[1][1:]] if inside else None
    return table.set_column(table.column_names.index(name), name, pa.array(values, column.type))


@pytest.mark.parametrize("name", CONTRACT_COLUMNS)
def test_nulls_are_refused(name: str):
    table = made_table([3, 5, 2])
    listed = pa.types.is_list(table.schema.field(name).type)
    for inside in (False, True) if listed else (False,):
        for decode_table in (decoded, decode_rows):
            with pytest.raises(ValueError, match=f"{name} has nulls"):
                decode_table(with_null(table, name, inside))
    untouched = with_null(table, name, inside=False).slice(2)
    assert_same(decoded(untouched), decoded(table.slice(2)))


@pytest.mark.parametrize("name", CONTRACT_COLUMNS[1:])
def test_rows_of_another_length_are_refused(name: str):
    """The first two rows changed places in one column; the totals are right."""
    table = made_table([3, 9, 2])
    turned = table.set_column(table.column_names.index(name), name, table.column(name).take([1, 0, 2]))
    for decode_table in (decoded, decode_rows):
        with pytest.raises(ValueError, match="don't belong together"):
            decode_table(turned)
