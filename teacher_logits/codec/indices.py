"""Token ids in 16 + 2 bits: the low 16 as a number, the high 2 four to a byte."""

import numpy as np
from numpy.typing import NDArray

from teacher_logits.records import Int64

_IDS_PER_BYTE = 4
_SHIFTS = np.array([0, 2, 4, 6], np.uint8)

Ids = NDArray[np.integer]


def pack_indices(ids: Ids, lengths: Ids | None = None) -> tuple[NDArray[np.uint16], NDArray[np.uint8], Int64]:
    """Split ids (0 ... 262,143) into low and high bits.

    ids: [n], the ids of one row after another.   lengths: how many belong to each row; by default all to one.
    Returns the low 16 bits [n], the high bits of every row (four ids to a byte, the first in the lowest two bits,
    padded with zero bits at each row's end), and the byte offsets of the rows [rows + 1].
    """
    ids = np.asarray(ids)
    rows = np.array([len(ids)], np.int64) if lengths is None else np.asarray(lengths, np.int64)
    byte_offsets = np.concatenate([[0], np.cumsum(-(-rows // _IDS_PER_BYTE))])
    crumbs = np.zeros(byte_offsets[-1] * _IDS_PER_BYTE, np.uint8)
    crumbs[_places(rows, byte_offsets)] = ids >> 16
    high = np.bitwise_or.reduce(crumbs.reshape(-1, _IDS_PER_BYTE) << _SHIFTS, axis=1)
    return (ids & 0xFFFF).astype(np.uint16), high, byte_offsets


def unpack_indices(low: NDArray[np.uint16], high: NDArray[np.uint8] | bytes, lengths: Ids | None = None) -> Int64:
    """The ids that `pack_indices` split: int64 [n].

    low: [n].   high: the packed high bits of the rows, one after another.   lengths: ids of each row; by default one
    row. Raises ValueError where `high` has not the length that belongs to `low`.
    """
    low = np.asarray(low)
    packed = np.frombuffer(high, np.uint8) if isinstance(high, bytes | bytearray | memoryview) else np.asarray(high)
    rows = np.array([len(low)], np.int64) if lengths is None else np.asarray(lengths, np.int64)
    byte_offsets = np.concatenate([[0], np.cumsum(-(-rows // _IDS_PER_BYTE))])
    if byte_offsets[-1] != len(packed) or rows.sum() != len(low):
        raise ValueError(
            f"{len(low)} ids in rows of {rows.sum()} need {byte_offsets[-1]} bytes of high bits, but there are "
            f"{len(packed)}; the columns don't belong together."
        )
    crumbs = ((packed[:, None] >> _SHIFTS) & 3).reshape(-1)
    return low.astype(np.int64) | (crumbs[_places(rows, byte_offsets)].astype(np.int64) << 16)


def _places(lengths: Int64, byte_offsets: Int64) -> Int64:
    """Where each id's two bits stand among the rows' padded groups of four."""
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    shift = byte_offsets[:-1] * _IDS_PER_BYTE - starts
    return np.arange(lengths.sum()) + np.repeat(shift, lengths)
