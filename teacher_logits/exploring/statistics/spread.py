"""Means and percentiles of numbers that pass by once, in memory that doesn't grow with them; bins of positions.

Legend: B bins.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from teacher_logits.records import Float64, Int64

_SINGLE, _PER_DOUBLING = 16, 8
POSITION_BINS = np.concatenate(
    [np.arange(_SINGLE), *((_PER_DOUBLING + np.arange(_PER_DOUBLING)) << bit for bit in range(1, 28))]
).astype(np.int64)
"""[B] the first position of each bin: 0 to 15 singly, then eight bins a doubling, up to 2^31."""


_MANTISSA, _FRACTION = 52, 14
"""Bits behind the point of a float64, and how many of them tell a bin."""
_LEAST, _MOST = 2.0**-20, 2.0**31
"""Numbers below and above share the first and the last bin: they are told apart by mean, smallest and largest alone."""
_FIRST, _LAST = (int(np.float64(end).view(np.int64)) >> (_MANTISSA - _FRACTION) for end in (_LEAST, _MOST))


@dataclass(frozen=True, eq=False)
class Spread:
    """How some numbers are spread."""

    count: int
    mean: float
    """NaN where there are no numbers, as are the next two and the percentiles."""
    smallest: float
    largest: float
    values: Float64
    """[B] the mean of each bin's numbers, rising. Bins without numbers are left out."""
    counts: Int64
    """[B] their numbers."""

    def percentile(self, percent: float) -> float:
        """The number that so many per cent of all don't exceed, interpolated as numpy.percentile does it.

        Between 1e-6 and 2^31 it is right to 2^-14 of itself, 0.006 %, and exact for whole numbers up to 2^15.
        """
        if not self.count:
            return float("nan")
        rank = (self.count - 1) * percent / 100
        # Those on either side of the rank may lie bins apart.
        below, above = self._ordered(np.floor(rank)), self._ordered(np.ceil(rank))
        return float(np.clip(below + (above - below) * (rank - np.floor(rank)), self.smallest, self.largest))

    def _ordered(self, rank: float) -> float:
        """The number that so many are smaller than, as if all of its bin were their mean."""
        if rank in (0, self.count - 1):
            return self.largest if rank else self.smallest
        return float(self.values[np.searchsorted(np.cumsum(self.counts), rank, "right")])

    @property
    def median(self) -> float:
        """The 50th percentile."""
        return self.percentile(50)


class RunningSpread:
    """Collects numbers for a `Spread`, by count and sum of bins as wide as 2^-14 of what is in them.

    Such a bin is what the leading bits of a float are, which are found without a logarithm. Its mean, rather than its
    middle, tells a number that is alone in its bin exactly.
    """

    def __init__(self) -> None:
        # Pages that nobody writes to take no memory: of 13 MB those for the sizes of number that there are.
        self._counts = np.zeros(_LAST - _FIRST + 1, np.int64)
        self._sums = np.zeros(_LAST - _FIRST + 1)
        self._smallest, self._largest = np.inf, -np.inf

    def add(self, numbers: ArrayLike) -> None:
        """Count them; none may be NaN or infinite."""
        values = np.asarray(numbers, np.float64)
        if not len(values):
            return
        bins = np.clip(values, _LEAST, _MOST).view(np.int64)
        bins >>= _MANTISSA - _FRACTION
        bins -= _FIRST
        np.add.at(self._counts, bins, 1)
        np.add.at(self._sums, bins, values)
        self._smallest = min(self._smallest, float(values.min()))
        self._largest = max(self._largest, float(values.max()))

    def result(self) -> Spread:
        """What was collected."""
        seen = np.flatnonzero(self._counts)
        counts, sums = self._counts[seen], self._sums[seen]
        count = int(counts.sum())
        known = count > 0
        return Spread(
            count=count,
            mean=float(sums.sum()) / count if known else float("nan"),
            smallest=self._smallest if known else float("nan"),
            largest=self._largest if known else float("nan"),
            values=sums / counts,
            counts=counts,
        )


def histogram_percentile(histogram: Int64, percent: float) -> float:
    """numpy.percentile of whole numbers, of which there are `histogram[i]` times i. NaN where there are none."""
    ends = np.cumsum(histogram)
    if not len(ends) or not ends[-1]:
        return float("nan")
    rank = (ends[-1] - 1) * percent / 100
    below, above = np.searchsorted(ends, [np.floor(rank), np.ceil(rank)], "right")
    return float(below + (above - below) * (rank - np.floor(rank)))


def bins_of(positions: ArrayLike) -> Int64:
    """The bin of each position, which are not negative."""
    return np.searchsorted(POSITION_BINS, np.asarray(positions), "right") - 1


def places_in_turn(ends: Int64, positions: NDArray[np.integer] | None) -> Int64:
    """[P] how many entries of the same turn stand before each entry.

    ends: [C + 1] where the conversations' entries end.   positions: [P] in the conversation: entries that stand next to
    each other are of one turn. Without them each conversation counts as one turn.
    """
    entries = np.arange(ends[-1])
    begins = np.zeros(len(entries), np.bool_)
    begins[ends[:-1][np.diff(ends) > 0]] = True
    if positions is not None:
        begins[1:] |= np.diff(positions) != 1
    return entries - np.maximum.accumulate(np.where(begins, entries, 0))
