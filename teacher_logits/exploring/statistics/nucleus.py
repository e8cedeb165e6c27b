"""How many tokens the nuclei hold: from the column `top_counts`, and from others only where they are asked for.

Legend: C conversations, P entries, B bins of positions.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from teacher_logits.codec import flat_list, flat_values
from teacher_logits.errors import SettingsError
from teacher_logits.exploring.optional import MissingLibraryError
from teacher_logits.exploring.runs import told
from teacher_logits.exploring.statistics.spread import (
    POSITION_BINS,
    bins_of,
    histogram_percentile,
    places_in_turn,
)
from teacher_logits.exploring.statistics.tables import tables_of
from teacher_logits.records import Float64, Int32, Int64

SIZES = 256
"""A nucleus size is a byte."""

CountedFrom = Literal["turn", "conversation"]


@dataclass(frozen=True, eq=False)
class SampleSizes:
    """Nucleus sizes of each conversation, in the order of the rows."""

    index: Int32
    """[C] its number in the source dataset."""
    tokens: Int64
    """[C] its entries."""
    mean: Float64
    """[C] mean nucleus size; NaN without entries."""


@dataclass(frozen=True, eq=False)
class PositionSizes:
    """Nucleus sizes by the place of the token, in bins: the first sixteen places singly, then eight bins a doubling."""

    first: Int64
    """[B] the first place of each bin: 0 is the first token of a turn. Bins without entries are left out."""
    histogram: Int64
    """[B, 256] nuclei of each size."""
    counted_from: CountedFrom
    """What places are counted from: 'conversation' where the dataset has no column `positions` to tell turns."""

    @property
    def count(self) -> Int64:
        """[B] entries."""
        return self.histogram.sum(1)

    @property
    def mean(self) -> Float64:
        """[B]"""
        return self.histogram @ np.arange(SIZES) / self.count

    def percentile(self, percent: float) -> Float64:
        """[B]"""
        return np.array([histogram_percentile(row, percent) for row in self.histogram])


@dataclass(frozen=True, eq=False)
class NucleusSizeStats:
    """The sizes of a dataset's nuclei."""

    histogram: Int64
    """[256] entries whose nucleus has 0, 1, ... 255 tokens."""
    conversations: int
    cap: int | None
    """The run's `top_p_max_elements`; None where the dataset doesn't tell it."""
    per_sample: SampleSizes | None = None
    per_position: PositionSizes | None = None

    @property
    def count(self) -> int:
        """Entries."""
        return int(self.histogram.sum())

    @property
    def total(self) -> int:
        """Nucleus tokens of all entries."""
        return int(self.histogram @ np.arange(SIZES))

    @property
    def mean(self) -> float:
        """NaN without entries, as are the next three."""
        return self.total / self.count if self.count else float("nan")

    @property
    def median(self) -> float:
        """The 50th percentile."""
        return self.percentile(50)

    def percentile(self, percent: float) -> float:
        """As numpy.percentile gives it."""
        return histogram_percentile(self.histogram, percent)

    @property
    def share_at_cap(self) -> float | None:
        """Share of the entries whose nucleus was cut off by the cap, or just reaches it; None where it isn't known."""
        if self.cap is None:
            return None
        return self.entries_at_cap / self.count if self.count else float("nan")

    @property
    def entries_at_cap(self) -> int:
        """0 where the cap isn't known."""
        return 0 if self.cap is None else int(self.histogram[self.cap])

    @property
    def smallest(self) -> int:
        """0 without entries."""
        return int(np.flatnonzero(self.histogram).min(initial=SIZES)) % SIZES

    @property
    def largest(self) -> int:
        """0 without entries."""
        return int(np.flatnonzero(self.histogram).max(initial=0))


def analyze_nucleus_sizes(
    dataset: Any,
    device: str | None = None,
    per_sample: bool = False,
    per_position: bool = False,
    *,
    split: str | None = None,
    revision: str | None = None,
) -> NucleusSizeStats:
    """Count the nucleus sizes of a whole dataset, reading no other columns than it takes.

    dataset, split, revision: see `tables_of`.
    device: count on 'cuda', 'mps' or another device of torch; by default numpy counts.
    per_sample: also each conversation's mean; memory grows by 20 bytes a conversation.
    per_position: also by place in the turn; memory stays the same.
    Raises FormatError where the dataset is damaged, SettingsError where torch has no such device.
    """
    tables = tables_of(dataset, split, revision)
    counter = NucleusCounter(device, per_sample, per_position)
    rows = 0
    for _, more in tables.each(counter.columns, "nucleus sizes", counter.add):
        rows += more
    return counter.result(rows, cap_of(tables.run))


def cap_of(run: Mapping[str, Any]) -> int | None:
    """The run's `top_p_max_elements`; None where it isn't told, or can't be."""
    cap = told(run, "top_p_max_elements")
    return cap if type(cap) is int and 0 < cap < SIZES else None


class NucleusCounter:
    """Counts nucleus sizes table by table."""

    def __init__(self, device: str | None = None, per_sample: bool = False, per_position: bool = False) -> None:
        self._histogram = _Histogram() if device is None else _TorchHistogram(device)
        self._samples: list[tuple[Int32, Int64, Float64]] | None = [] if per_sample else None
        self._places = np.zeros((len(POSITION_BINS), SIZES), np.int64) if per_position else None
        self._counted_from: CountedFrom = "turn"
        self.columns = ["num_tokens", "top_counts"]
        self.columns += ["index"] if per_sample else []
        self.columns += ["positions"] if per_position else []

    def add(self, table: pa.Table) -> None:
        """Count the rows of a table of `columns`. Raises ValueError where its columns don't belong together."""
        counts, ends = flat_list(table, "top_counts")
        if not np.array_equal(table["num_tokens"].to_numpy(), np.diff(ends)):
            raise ValueError("the rows of top_counts have not the lengths that num_tokens says")
        self._histogram.add(counts)
        if self._samples is not None:
            sums = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])[ends]
            with np.errstate(invalid="ignore"):
                means = np.diff(sums) / np.diff(ends)
            self._samples.append((table["index"].to_numpy(), np.diff(ends), means))
        if self._places is not None:
            positions = flat_values(table, "positions", ends) if "positions" in table.column_names else None
            self._counted_from = "conversation" if positions is None else self._counted_from
            cells = bins_of(places_in_turn(ends, positions)) * SIZES + counts
            self._places += np.bincount(cells, minlength=self._places.size).reshape(self._places.shape)

    def result(self, conversations: int, cap: int | None) -> NucleusSizeStats:
        """What was counted."""
        per_sample = per_position = None
        if self._samples is not None:
            nothing = (np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0))
            columns = zip(*[nothing, *self._samples], strict=True)
            per_sample = SampleSizes(*(np.concatenate(column) for column in columns))
        if self._places is not None:
            seen = self._places.any(1)
            per_position = PositionSizes(POSITION_BINS[seen], self._places[seen], self._counted_from)
        return NucleusSizeStats(self._histogram.result(), conversations, cap, per_sample, per_position)


class _Histogram:
    """Counts on this processor."""

    def __init__(self) -> None:
        self._counted = np.zeros(SIZES, np.int64)

    def add(self, counts: NDArray[np.uint8]) -> None:
        self._counted += np.bincount(counts, minlength=SIZES)

    def result(self) -> Int64:
        return self._counted


class _TorchHistogram(_Histogram):
    """Counts on a device of torch."""

    def __init__(self, device: str) -> None:
        try:
            self._torch: Any = importlib.import_module("torch")
        except ModuleNotFoundError as error:
            raise MissingLibraryError(
                f"device={device!r} needs torch, which isn't installed. Leave device out: numpy counts as well.",
                name="torch",
            ) from error
        try:
            self._there = self._torch.zeros(SIZES, dtype=self._torch.int64, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise SettingsError(f"torch has no device {device!r} here ({reason}). Leave device out.") from error

    def add(self, counts: NDArray[np.uint8]) -> None:
        moved = self._torch.from_numpy(counts.copy()).to(self._there.device)  # Arrow's memory can't be written to
        self._there += self._torch.bincount(moved, minlength=SIZES)

    def result(self) -> Int64:
        return self._there.cpu().numpy()
