"""Differences between what is stored and what the teacher says, gathered entry by entry into figures."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from teacher_logits.records import Float64


@dataclass(frozen=True)
class Spread:
    """The sizes of some differences, without their signs."""

    mean: float
    median: float
    p99: float
    """99 % are at most so large."""
    worst: float
    index: int | None
    """Conversation of the worst, by its number in the source dataset; None where there are no differences."""
    position: int | None
    """Position of the worst in its conversation."""


@dataclass(frozen=True)
class Figure:
    """Stored minus recomputed, of one kind of number."""

    unit: str
    count: int
    error: Spread
    beyond: Spread
    """What is left of the differences that the format's own rounding (quantization, float32) doesn't explain."""
    bias: float
    """Mean of the differences with their signs."""
    within: float
    """Share of them that the format's own rounding explains."""


class Gathered:
    """Differences of one kind, of all entries so far: 16 bytes each."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._differences: list[Float64] = []
        self._beyond: list[Float64] = []
        self._worst: dict[str, tuple[float, int | None, int | None]] = {
            "error": (-1.0, None, None),
            "beyond": (-1.0, None, None),
        }

    def add(self, index: int, positions: NDArray[np.integer], differences: Float64, room: ArrayLike = 0.0) -> None:
        """Those of a conversation. positions: where each stands.   room: what the format's own rounding explains.

        A difference that is NaN counts as infinite, so that it is the worst and no bound holds it.
        """
        differences = np.where(np.isnan(differences), np.inf, differences)
        sizes = np.abs(differences)
        beyond = np.maximum(np.subtract(sizes, room, out=np.full(sizes.shape, np.inf), where=np.isfinite(sizes)), 0.0)
        self._differences.append(differences)
        self._beyond.append(beyond)
        for name, values in (("error", sizes), ("beyond", beyond)):
            if len(values) and values.max() > self._worst[name][0]:
                place = int(values.argmax())
                self._worst[name] = (float(values[place]), index, int(positions[place]))

    def figure(self) -> Figure:
        """All of them in a few numbers; zeros where there are none."""
        differences = np.concatenate([np.zeros(0), *self._differences])
        beyond = np.concatenate([np.zeros(0), *self._beyond])
        with np.errstate(invalid="ignore"):  # infinite ones of either sign have no mean
            bias = float(differences.mean()) if len(differences) else 0.0
        return Figure(
            unit=self._unit,
            count=len(differences),
            error=self._spread("error", np.abs(differences)),
            beyond=self._spread("beyond", beyond),
            bias=bias,
            within=float((beyond == 0).mean()) if len(beyond) else 1.0,
        )

    def count_above(self, size: float) -> int:
        """How many of them are larger."""
        return sum(int((np.abs(part) > size).sum()) for part in self._differences)

    def _spread(self, name: str, sizes: Float64) -> Spread:
        if not len(sizes):
            return Spread(0.0, 0.0, 0.0, 0.0, None, None)
        worst, index, position = self._worst[name]
        # No interpolation, which has no result beside an infinite one.
        median, p99 = np.quantile(sizes, [0.5, 0.99], method="higher").tolist()
        return Spread(float(sizes.mean()), median, p99, worst, index, position)


@dataclass(frozen=True)
class TailEstimate:
    """The unbiased estimate of a sum over the tail (Des Raj, docs/format.md) against the sum itself."""

    estimated: float
    """Mean over the entries."""
    exact: float
    standard_error: float
    """Of the mean difference, from how the differences spread."""
    room: float
    """Mean difference that the error of the nucleus' mass explains, which is a figure of its own."""

    @property
    def z(self) -> float:
        """Their difference in standard errors: for an unbiased estimate seldom beyond 3."""
        difference = self.estimated - self.exact
        return difference / self.standard_error if self.standard_error else 0.0


class GatheredEstimates:
    """Estimates of all entries so far."""

    def __init__(self) -> None:
        self._parts: list[tuple[Float64, Float64, Float64]] = []

    def add(self, estimated: Float64, exact: Float64, room: Float64) -> None:
        """[n] each, of a conversation. room: by how much the error of the nucleus' mass moves the estimate."""
        self._parts.append((estimated, exact, room))

    def estimate(self) -> TailEstimate:
        """All of them."""
        if not self._parts:
            return TailEstimate(0.0, 0.0, 0.0, 0.0)
        estimated, exact, room = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        difference = estimated - exact
        entries = len(difference)
        return TailEstimate(
            estimated=float(estimated.mean()),
            exact=float(exact.mean()),
            standard_error=float(difference.std(ddof=1) / np.sqrt(entries)) if entries > 1 else 0.0,
            room=float(room.mean()),
        )
