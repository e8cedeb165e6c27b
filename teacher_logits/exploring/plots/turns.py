"""Where entries stand along a conversation or a turn, for the horizontal axis."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from teacher_logits.exploring.decoding import Sample
from teacher_logits.exploring.plots.style import Theme
from teacher_logits.records import Float64, Int64

_FEWEST = 10
"""Entries of a bin that are enough for a mean; of few conversations, one of each is."""


def places_of(sample: Sample) -> Int64:
    """[n] where the stored tokens stand: their positions, or 0 ... n-1 where these are not stored."""
    if "positions" in sample:
        return np.asarray(sample["positions"], np.int64)
    return np.arange(sample["num_tokens"])


def place_label(sample: Sample) -> str:
    """What `places_of` counts."""
    return "position in the conversation (tokens)" if "positions" in sample else "stored token"


def stretches_of(sample: Sample) -> Iterator[tuple[int, int, Float64]]:
    """Entries `first` to `last` that stand next to each other, and the [last - first + 1] edges between them."""
    places = places_of(sample)
    if not len(places):
        return
    cuts = [0, *(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), len(places)]
    for first, last in pairwise(cuts):
        yield first, last, np.arange(places[first], places[last - 1] + 2) - 0.5


def mark_gaps(ax: Any, sample: Sample, theme: Theme) -> None:
    """Set the limits of the axis, and shade the places between the turns, of which nothing is stored."""
    edges = [part for _, _, part in stretches_of(sample)]
    if not edges:
        ax.set_xlim(0, 1)
        return
    ax.set_xlim(edges[0][0], edges[-1][-1])
    for before, after in pairwise(edges):
        ax.axvspan(before[-1], after[0], color=theme.grid, alpha=0.55, linewidth=0, zorder=0)


def gap_note(sample: Sample) -> str:
    """What the shaded places are; '' where there are none."""
    return "; shaded: not stored" if len(list(stretches_of(sample))) > 1 else ""


def well_filled(count: Int64) -> Any:
    """[B] which bins to show. The first one holds the first token of each conversation's turns."""
    return count >= max(1, min(_FEWEST, int(count[:1].sum())))


def place_axis(ax: Any, places: Int64) -> None:
    """A logarithmic axis of places in a turn, the first of which is 1."""
    last = int(places.max(initial=2))
    ax.set_xscale("log")
    ticks = [tick for power in range(6) for tick in (10**power, 2 * 10**power, 5 * 10**power) if tick <= last]
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.set_xlim(0.97, max(2, last) * 1.03)
