"""Means and percentiles of numbers that pass by once, in memory that doesn't grow with them; bins of positions.

Legend: B bins.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from teacher_logits.records import Int64

_SINGLE, _PER_DOUBLING = 16, 8
POSITION_BINS = np.concatenate(
    [np.arange(_SINGLE), *((_PER_DOUBLING + np.arange(_PER_DOUBLING)) << bit for bit in range(1, 28))]
).astype(np.int64)
"""[B] the first position of each bin: 0 to 15 singly, then eight bins a doubling, up to 2^31."""


@dataclass(frozen=True, eq=False)
class Spread:
    """How some numbers are spread."""

    count: int
    mean: float
    """NaN where there are no numbers, as are the next two and the percentiles."""
    smallest: float
    largest: float
    histogram: Int64
    """[B] numbers in bins of equal width; what lies beyond the bins is in the first and the last."""
    lowest: float
    """Where the first bin begins."""
    width: float
    """Of a bin: how exact percentiles are."""
    whole: bool
    """Whether the numbers are whole and the bins one wide: percentiles are exact then."""

    def percentile(self, percent: float) -> float:
        """The number that so many per cent of all don't exceed, interpolated as numpy.percentile does it."""
        if not self.count:
            return float("nan")
        if self.whole:
            found = self.lowest + histogram_percentile(self.histogram, percent)
        else:
            rank = (self.count - 1) * percent / 100
            # Those on either side of the rank may lie bins apart.
            below, above = self._ordered(np.floor(rank)), self._ordered(np.ceil(rank))
            found = below + (above - below) * (rank - np.floor(rank))
        return float(np.clip(found, self.smallest, self.largest))

    def _ordered(self, rank: float) -> float:
        """The number that so many are smaller than, as if those of its bin were spread evenly over it."""
        if rank in (0, self.count - 1):
            return self.largest if rank else self.smallest
        ends = np.cumsum(self.histogram)
        place = int(np.searchsorted(ends, rank, "right"))
        before = ends[place] - self.histogram[place]
        return float(self.lowest + self.width * (place + (rank - before + 0.5) / self.histogram[place]))

    @property
    def median(self) -> float:
        """The 50th percentile."""
        return self.percentile(50)


class RunningSpread:
    """Collects numbers for a `Spread`: `bins` bins between `lowest` and `highest`."""

    def __init__(self, lowest: float, highest: float, bins: int, whole: bool = False) -> None:
        self._lowest, self._width, self._whole = lowest, (highest - lowest) / bins, whole
        self._histogram = np.zeros(bins, np.int64)
        self._sum, self._smallest, self._largest = 0.0, np.inf, -np.inf

    def add(self, numbers: ArrayLike) -> None:
        """Count them; none may be NaN or infinite."""
        values = np.asarray(numbers, np.float64)
        if not len(values):
            return
        places = ((values - self._lowest) / self._width).astype(np.int64)
        np.clip(places, 0, len(self._histogram) - 1, out=places)
        self._histogram += np.bincount(places, minlength=len(self._histogram))
        self._sum += float(values.sum())
        self._smallest = min(self._smallest, float(values.min()))
        self._largest = max(self._largest, float(values.max()))

    def result(self) -> Spread:
        """What was collected."""
        count = int(self._histogram.sum())
        known = count > 0
        return Spread(
            count=count,
            mean=self._sum / count if known else float("nan"),
            smallest=self._smallest if known else float("nan"),
            largest=self._largest if known else float("nan"),
            histogram=self._histogram,
            lowest=self._lowest,
            width=self._width,
            whole=self._whole,
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
