"""A picture of how long the conversations of a dataset are."""

import io
from typing import Any

import numpy as np

from teacher_logits.exploring.optional import viz_library
from teacher_logits.records import Int64

_BINS = 60
_WIDE = 8.0
"""Where the longest is so many times the median, lengths are shown on a logarithmic scale."""


def length_figure(lengths: Int64, assistant_lengths: Int64, context: int | None, title: str) -> bytes:
    """A histogram of lengths as PNG.

    lengths, assistant_lengths: [n] tokens.   context: longest sequence the model is made for, drawn as a line where any
    conversation comes near it.   Raises MissingLibraryError without matplotlib and seaborn.
    """
    viz_library("matplotlib")
    colours = viz_library("seaborn").color_palette("colorblind")
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    figure = Figure(figsize=(8, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    wide = len(lengths) > 0 and lengths.max() > _WIDE * np.median(lengths)
    edges = _edges(lengths, assistant_lengths, wide)
    axes.hist(lengths, bins=edges, color=colours[0], alpha=0.55, label="the whole conversation")
    axes.hist(assistant_lengths, bins=edges, color=colours[1], histtype="step", linewidth=1.8, label="the assistant's")
    if context is not None and len(lengths) and lengths.max() > context / 2:
        axes.axvline(context, color=colours[3], linestyle="--", linewidth=1.2, label=f"context ({context:,})")
    if wide:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.set(xlabel="tokens of a conversation" + (" (logarithmic)" if wide else ""), ylabel="conversations")
    axes.set_title(title, loc="left", fontsize=11, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3, linewidth=0.6)
    axes.legend(frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _edges(lengths: Int64, assistant_lengths: Int64, wide: bool) -> list[float]:
    """Edges between whole tokens, so that no bin looks empty for being narrower than one."""
    most = int(lengths.max(initial=1))
    if not wide:
        step = max(1, -(-most // _BINS))
        return (np.arange(0, most + 2 * step, step) - 0.5).tolist()
    least = max(1, int(assistant_lengths.min(initial=most)))
    return (np.unique(np.geomspace(least, most + 1, _BINS + 1).round()) - 0.5).tolist()


def _thousands(value: float, _: Any) -> str:
    return f"{value:,.0f}"
