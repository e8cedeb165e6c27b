"""Token ids in 16 + 2 bits, against the slow twin and by hand."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teacher_logits.codec import pack_indices, unpack_indices
from teacher_logits.codec.reference import reference_pack_indices, reference_unpack_indices
from tests.codec.quick import quick

EDGES = [0, 1, 65535, 65536, 65537, 131071, 131072, 196607, 196608, 262143]
IDS = st.integers(0, 262143) | st.sampled_from(EDGES)


def test_bits_by_hand():
    low, high, ends = pack_indices(np.array([0, 65535, 65536, 262143, 131072]))
    assert low.tolist() == [0, 65535, 0, 65535, 0]
    assert high.tolist() == [0b11_01_00_00, 0b10]
    assert ends.tolist() == [0, 2]
    assert low.dtype == np.uint16 and high.dtype == np.uint8


@pytest.mark.parametrize("length", range(10))
def test_edges_at_every_length(length: int):
    ids = (EDGES * 2)[:length]
    low, high, _ = pack_indices(np.array(ids, np.int64))
    assert (low.tolist(), high.tobytes()) == reference_pack_indices(ids)
    assert unpack_indices(low, high).tolist() == ids
    assert unpack_indices(low, high.tobytes()).tolist() == ids


@quick(150)
@given(st.lists(st.lists(IDS, max_size=9), max_size=8), st.sampled_from([np.int32, np.int64, np.uint32]))
def test_rows_of_every_length_like_the_twin(rows: list[list[int]], dtype: type):
    """Each row is packed as if it stood alone: its own padding, nothing of its neighbour's in the last byte."""
    flat = np.array([token for row in rows for token in row], dtype)
    lengths = np.array([len(row) for row in rows], np.int64)
    low, high, ends = pack_indices(flat, lengths)
    twins = [reference_pack_indices(row) for row in rows]
    assert low.tolist() == [bits for twin, _ in twins for bits in twin]
    assert high.tobytes() == b"".join(twin for _, twin in twins)
    assert [high[a:b].tobytes() for a, b in pairwise(ends)] == [twin for _, twin in twins]
    unpacked = unpack_indices(low, high, lengths)
    assert unpacked.tolist() == flat.tolist() and unpacked.dtype == np.int64
    assert [reference_unpack_indices(*twin) for twin in twins] == rows


def test_padding_bits_are_ignored_and_written_as_zero():
    _, high, _ = pack_indices(np.array([262143] * 5))
    assert high.tolist() == [0xFF, 0b11]
    assert unpack_indices(np.array([65535], np.uint16), bytes([0b11_10_01_00])).tolist() == [65535]


@pytest.mark.parametrize(
    ("low", "high", "lengths"),
    [(5, 1, None), (4, 2, None), (0, 1, None), (4, 1, [2, 2]), (4, 1, [3]), (4, 1, [4, 1])],
)
def test_columns_that_dont_belong_together(low: int, high: int, lengths: list[int] | None):
    with pytest.raises(ValueError, match="don't belong together"):
        unpack_indices(np.zeros(low, np.uint16), bytes(high), None if lengths is None else np.array(lengths))
