"""Token ids in 16 + 2 bits: the low 16 as a number, the high 2 four to a byte.

Four ids' high bits are a byte of storage and four crumbs of two bits in memory, a byte each.
"""

import numpy as np
from numpy.typing import NDArray

from teacher_logits.records import Int32, Int64

_IDS_PER_BYTE = 4
_SHIFTS = np.array([0, 2, 4, 6], np.uint8)
_CRUMBS = (np.arange(256, dtype=np.uint8)[:, None] >> _SHIFTS & 3).view(np.uint32)[:, 0]
"""The four crumbs of every byte as one number: looking up a number is far faster than looking up a row of four."""

Ids = NDArray[np.integer]


def pack_indices(ids: Ids, lengths: Ids | None = None) -> tuple[NDArray[np.uint16], NDArray[np.uint8], Int64]:
    """Split ids (0 ... 262,143) into low and high bits.

    ids: [n], the ids of one row after another.   lengths: how many belong to each row; by default all to one.
    Returns the low 16 bits [n], the high bits of every row (four ids to a byte, the first in the lowest two bits,
    padded with zero bits at each row's end), and the byte offsets of the rows [rows + 1].
    """
    ids = np.asarray(ids)
    rows = _rows(lengths, len(ids))
    crumbs = (ids >> 16).astype(np.uint8)
    padding = _padding(rows)
    if len(padding):
        padded = np.zeros(len(crumbs) + len(padding), np.uint8)
        padded[_kept(len(padded), padding)] = crumbs
        crumbs = padded
    high = np.zeros(len(crumbs) // _IDS_PER_BYTE, np.uint8)
    for place, shift in enumerate(_SHIFTS):
        high |= crumbs[place::_IDS_PER_BYTE] << shift
    return ids.astype(np.uint16), high, packed_ends(rows)


def unpack_indices(low: NDArray[np.uint16], high: NDArray[np.uint8] | bytes, lengths: Ids | None = None) -> Int64:
    """The ids that `pack_indices` split: int64 [n].

    low: [n].   high: the packed high bits of the rows, one after another.   lengths: ids of each row; by default one
    row. Raises ValueError where `high` has not the length that belongs to `low`.
    """
    return unpack_int32(low, high, lengths).astype(np.int64)


def unpack_int32(low: NDArray[np.uint16], high: NDArray[np.uint8] | bytes, lengths: Ids | None = None) -> Int32:
    """`unpack_indices` as int32, which takes half the time."""
    low = np.asarray(low)
    packed = np.frombuffer(high, np.uint8) if isinstance(high, bytes | bytearray | memoryview) else np.asarray(high)
    rows = _rows(lengths, len(low))
    needed = packed_ends(rows)[-1]
    if needed != len(packed) or rows.sum() != len(low):
        raise ValueError(
            f"{len(low)} ids in rows of {rows.sum()} need {needed} bytes of high bits, but there are "
            f"{len(packed)}; the columns don't belong together."
        )
    crumbs = _CRUMBS.take(packed).view(np.uint8)
    padding = _padding(rows)
    if len(padding):
        crumbs = crumbs[_kept(len(crumbs), padding)]
    ids = crumbs.astype(np.int32)
    ids <<= 16
    ids |= low
    return ids


def ends_of(lengths: Ids | list[int]) -> Int64:
    """[n + 1] where things of these lengths begin and end, one after another, from 0."""
    ends = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    return ends


def packed_ends(lengths: Int64) -> Int64:
    """[rows + 1] where the packed high bits of rows of so many ids begin and end."""
    return ends_of(-(-lengths // _IDS_PER_BYTE))


def _rows(lengths: Ids | None, ids: int) -> Int64:
    return np.array([ids], np.int64) if lengths is None else np.asarray(lengths, np.int64)


def _padding(rows: Int64) -> Int64:
    """Places of the up to three crumbs that fill up each row, among the crumbs of all rows with them."""
    missing = -rows % _IDS_PER_BYTE
    ends = ends_of(rows + missing)[1:]
    back = np.arange(1, _IDS_PER_BYTE)
    return (ends[:, None] - back)[back <= missing[:, None]]


def _kept(crumbs: int, padding: Int64) -> NDArray[np.bool_]:
    """[crumbs] true but at the places of padding."""
    kept = np.ones(crumbs, np.bool_)
    kept[padding] = False
    return kept
