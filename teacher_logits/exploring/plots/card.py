"""The picture of a dataset's card."""

from collections.abc import Sequence
from typing import Any

from teacher_logits.exploring.plots.style import figure_axes, headline, share_text, theme_of


def plot_size_classes(
    names: Sequence[str], counts: Sequence[int], source: str, *, ax: Any = None, theme: str = "light"
) -> Any:
    """How many entries have a nucleus of which size: the matplotlib figure, small.

    names: of the classes, as '5-8'.   counts: entries of each.   source: whose they are, in words.
    ax: the axes to draw into.   theme: 'light' or 'dark'.   Raises MissingLibraryError without matplotlib.
    """
    colours = theme_of(theme)
    (ax,) = figure_axes(ax, colours, (6.4, 2.8))
    total = max(1, sum(counts))
    bars = ax.bar(range(len(names)), [100 * count / total for count in counts], color=colours.nucleus, width=0.8)
    labels = [share_text(count / total) if count else "" for count in counts]
    ax.bar_label(bars, labels, padding=2, color=colours.text, fontsize=8)
    ax.set_xticks(range(len(names)), names)
    ax.set_ylim(0, 1.15 * max(100 * count / total for count in counts) or 1)
    ax.yaxis.set_major_formatter(lambda share, _: f"{share:g} %")
    ax.set_xlabel("nucleus size (tokens)")
    ax.set_ylabel("share of the entries")
    ax.grid(False, axis="x")
    headline(ax, colours, "How many tokens the teacher considers", [source])
    return ax.figure
