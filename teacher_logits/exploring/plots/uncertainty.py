"""How uncertain the teacher was, along a conversation or along the turns of a dataset."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from teacher_logits.exploring.entropy import entropy_bounds
from teacher_logits.exploring.optional import viz_library
from teacher_logits.exploring.plots.style import Theme, dress_legend, figure_axes, headline, theme_of
from teacher_logits.exploring.plots.turns import (
    gap_note,
    mark_gaps,
    place_axis,
    place_label,
    places_of,
    stretches_of,
    well_filled,
)
from teacher_logits.exploring.statistics.whole import DatasetStats
from teacher_logits.records import Float64

_WINDOW = 21
"""Tokens of the running mean."""
_MANY = 3 * _WINDOW
"""Tokens from which on there is one."""
_HEADROOM = 1.18
"""Height of the axes over that of what is drawn."""
_ROOM_FOR_LEGEND = 1.3
"""The same where the legend stands in one row above all that is drawn, as places may be high anywhere."""
_LN2 = float(np.log(2))


def plot_entropy_along_position(sample_or_stats: Any, *, ax: Any = None, theme: str = "light") -> Any:
    """The entropy of the teacher's distributions between its bounds: the matplotlib figure.

    sample_or_stats: what `get_sample` gives, for a conversation token by token; or what `compute_dataset_stats` gives,
    for the means by the place of the token in its turn. In bits at the left, in nats at the right.
    ax: the axes to draw into.   theme: 'light' or 'dark'.   Raises MissingLibraryError without matplotlib.
    """
    colours = theme_of(theme)
    (ax,) = figure_axes(ax, colours, (10, 3.8))
    if isinstance(sample_or_stats, Mapping):
        _of_sample(ax, sample_or_stats, colours)
        height = _HEADROOM
    else:
        _of_dataset(ax, sample_or_stats, colours)
        height = _ROOM_FOR_LEGEND
    ax.set_ylim(0, max(0.5, ax.dataLim.y1 * height if np.isfinite(ax.dataLim.y1) else 0))
    ax.set_ylabel("entropy (bits)")
    right = ax.secondary_yaxis("right", functions=(lambda bits: bits * _LN2, lambda nats: nats / _LN2))
    right.set_ylabel("entropy (nats)", color=colours.text, fontsize=9)
    right.tick_params(colors=colours.muted, labelsize=8.5, length=0)
    right.spines["right"].set_visible(False)
    return ax.figure


def _of_sample(ax: Any, sample: Any, theme: Theme) -> None:
    lowest, highest = (bound / _LN2 for bound in entropy_bounds(sample))
    middle, places = (lowest + highest) / 2, places_of(sample)
    for first, last, edges in stretches_of(sample):
        part = slice(first, last)
        ax.stairs(middle[part], edges, baseline=0, fill=True, color=theme.nucleus, alpha=0.45, linewidth=0)
        ax.stairs(highest[part], edges, baseline=lowest[part], fill=True, color=theme.sampled, linewidth=0)
        if len(middle) >= _MANY:
            ax.plot(places[part], _running_mean(middle[part]), color=theme.marked, linewidth=1.6)
    mark_gaps(ax, sample, theme)
    ax.set_xlabel(place_label(sample))
    ax.grid(False, axis="x")
    lines = [f"conversation {sample['index']}: {len(middle):,} stored tokens"]
    if len(middle):
        lines[0] += f", mean {_between(lowest.mean(), highest.mean())}{gap_note(sample)}"
    headline(ax, theme, "How uncertain the teacher is", lines)
    _legend(ax, theme, len(middle) >= _MANY)


def _of_dataset(ax: Any, stats: DatasetStats, theme: Theme) -> None:
    found = stats.entropy_by_position
    kept = well_filled(found.count)
    x = found.first[kept] + 1
    lowest, highest = found.lowest[kept] / _LN2, found.highest[kept] / _LN2
    ax.fill_between(x, lowest, highest, color=theme.sampled, linewidth=0, label="between the bounds")
    ax.plot(x, lowest, color=theme.nucleus, linewidth=1.8, marker="o", markersize=3.5, label="at least")
    place_axis(ax, x)
    ax.set_xlabel(f"place of the token in the {found.counted_from}")
    lines = [f"{stats.entries:,} entries of {stats.conversations:,} conversations"]
    if stats.entries:
        lines[0] += f", mean {_between(stats.entropy.lowest.mean / _LN2, stats.entropy.highest.mean / _LN2)}"
        dress_legend(ax.legend(loc="upper right", ncols=2), theme)
    headline(ax, theme, f"How uncertain the teacher is along a {found.counted_from}", lines)


def _legend(ax: Any, theme: Theme, with_mean: bool) -> None:
    """Patches for what was drawn in many pieces."""
    patches, lines = viz_library("matplotlib.patches"), viz_library("matplotlib.lines")
    handles = [
        patches.Patch(color=theme.nucleus, alpha=0.45, label="entropy of a token"),
        patches.Patch(color=theme.sampled, label="between its bounds"),
    ]
    if with_mean:
        handles.append(lines.Line2D([], [], color=theme.marked, linewidth=1.6, label=f"mean of {_WINDOW} tokens"))
    dress_legend(ax.legend(handles=handles, loc="upper right", ncols=3), theme)


def _running_mean(values: Float64) -> Float64:
    """[n] means over `_WINDOW` values around each, over fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first, last = np.maximum(places - _WINDOW // 2, 0), np.minimum(places + _WINDOW // 2 + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def _between(lowest: float, highest: float) -> str:
    return f"between {lowest:.3f} and {highest:.3f} bits"
