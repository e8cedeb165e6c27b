"""How long the conversations of a chat dataset are."""

from typing import Any

import numpy as np

from teacher_logits.exploring.optional import viz_library
from teacher_logits.exploring.plots.style import dress_legend, figure_axes, headline, theme_of
from teacher_logits.records import Int64

_BINS = 60
_WIDE = 8.0
"""Where the longest is so many times the median, lengths are shown on a logarithmic scale."""


def plot_lengths(
    lengths: Int64,
    assistant_lengths: Int64,
    context: int | None,
    source: str,
    *,
    ax: Any = None,
    theme: str = "light",
) -> Any:
    """A histogram of lengths: the matplotlib figure.

    lengths, assistant_lengths: [n] tokens.   context: longest sequence the model is made for, drawn as a line where any
    conversation comes near it.   source: whose they are, in words.   ax: the axes to draw into.   theme: 'light' or
    'dark'.   Raises MissingLibraryError without matplotlib.
    """
    ticks, colours = viz_library("matplotlib.ticker"), theme_of(theme)
    (ax,) = figure_axes(ax, colours, (8, 3.8))
    wide = len(lengths) > 0 and lengths.max() > _WIDE * np.median(lengths)
    edges = _edges(lengths, assistant_lengths, wide)
    ax.hist(lengths, bins=edges, color=colours.nucleus, label="the whole conversation")
    ax.hist(
        assistant_lengths, bins=edges, color=colours.sampled, histtype="step", linewidth=1.8, label="the assistant's"
    )
    if context is not None and len(lengths) and lengths.max() > context / 2:
        ax.axvline(context, color=colours.marked, linestyle="--", linewidth=1.2, label=f"context ({context:,})")
    if wide:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(ticks.LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_minor_formatter(ticks.NullFormatter())
    ax.yaxis.set_major_locator(ticks.MaxNLocator(integer=True))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.grid(False, axis="x", which="both")
    ax.set_xlabel("tokens of a conversation" + (" (logarithmic)" if wide else ""))
    ax.set_ylabel("conversations")
    headline(ax, colours, "How long the conversations are", [source])
    dress_legend(ax.legend(), colours)
    return ax.figure


def _edges(lengths: Int64, assistant_lengths: Int64, wide: bool) -> list[float]:
    """Edges between whole tokens, so that no bin looks empty for being narrower than one."""
    most = int(lengths.max(initial=1))
    if not wide:
        step = max(1, -(-most // _BINS))
        return (np.arange(0, most + 2 * step, step) - 0.5).tolist()
    least = max(1, int(assistant_lengths.min(initial=most)))
    return (np.unique(np.geomspace(least, most + 1, _BINS + 1).round()) - 0.5).tolist()
