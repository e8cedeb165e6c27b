"""How large nuclei are: along a conversation, and over a whole dataset.

Legend: B bins of positions.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from teacher_logits.exploring.decoding import Sample
from teacher_logits.exploring.plots.style import Theme, dress_legend, figure_axes, headline, theme_of
from teacher_logits.exploring.plots.turns import gap_note, mark_gaps, place_axis, place_label, stretches_of, well_filled
from teacher_logits.exploring.statistics.nucleus import NucleusSizeStats, PositionSizes, SampleSizes, cap_of
from teacher_logits.exploring.text import percent

_TICKS = (1, 2, 5, 10, 20, 50, 100, 200)
_DENSE_TICKS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200, 250)


def plot_nucleus_sizes(sample: Sample, *, ax: Any = None, theme: str = "light") -> Any:
    """The nucleus size of each stored token along a conversation: the matplotlib figure.

    Sizes on a logarithmic scale; the cap is marked where the run tells it. Between the turns nothing is stored.
    ax: the axes to draw into.   theme: 'light' or 'dark'.   Raises MissingLibraryError without matplotlib.
    """
    colours = theme_of(theme)
    (ax,) = figure_axes(ax, colours, (10, 3.6))
    sizes = np.asarray(sample["top_counts"])
    cap = cap_of(sample.get("run") or {})
    for first, last, edges in stretches_of(sample):
        ax.stairs(sizes[first:last], edges, baseline=0.8, fill=True, color=colours.nucleus, linewidth=0)
    mark_gaps(ax, sample, colours)
    top = max(int(sizes.max(initial=1)), 10)
    lines = [f"conversation {sample['index']}: {len(sizes):,} stored tokens"]
    if len(sizes):
        lines[0] += f", nucleus of {sizes.mean():.1f} tokens on average, median {np.median(sizes):g}"
    if cap is not None:
        top = max(top, cap)
        ax.axhline(cap, color=colours.marked, linewidth=1.2, linestyle=(0, (4, 3)))
        ax.annotate(
            f"cap {cap}",
            (1, cap),
            (5, 0),
            xycoords=ax.get_yaxis_transform(),
            textcoords="offset points",
            va="center",
            color=colours.marked,
            fontsize=8.5,
            annotation_clip=False,
        )
        if len(sizes):
            lines[0] += f"; {percent((sizes == cap).mean())} at the cap"
    lines[0] += gap_note(sample)
    _size_axis(ax.yaxis, ax.set_yscale, top)
    ax.set_ylim(0.8, top * 1.25)
    ax.set_ylabel("nucleus size (tokens)")
    ax.set_xlabel(place_label(sample))
    ax.grid(False, axis="x")
    headline(ax, colours, "Where the teacher hesitates", lines)
    return ax.figure


def plot_nucleus_size_analysis(stats: NucleusSizeStats, *, axes: Any = None, theme: str = "light") -> Any:
    """The nucleus sizes of a dataset: the matplotlib figure.

    Two parts, the share of each size and the share of nuclei up to it; and two more where `analyze_nucleus_sizes` was
    asked for them: by place in the turn, and the conversations' means.
    axes: as many as there are parts.   theme: 'light' or 'dark'.
    """
    colours = theme_of(theme)
    parts: list[Callable[[Any], None]] = [
        lambda ax: _shares(ax, stats, colours),
        lambda ax: _cumulative(ax, stats, colours),
    ]
    if (places := stats.per_position) is not None:
        parts.append(lambda ax: _by_place(ax, places, colours))
    if (samples := stats.per_sample) is not None:
        parts.append(lambda ax: _by_sample(ax, samples, colours))
    size = (10.5, 3.7 * ((len(parts) + 1) // 2))
    given = figure_axes(axes, colours, size, len(parts), 2)
    for draw, ax in zip(parts, given, strict=True):
        draw(ax)
    return given[0].figure


def _shares(ax: Any, stats: NucleusSizeStats, theme: Theme) -> None:
    shares = 100 * stats.histogram / max(1, stats.count)
    last = max(stats.largest, stats.cap or 1, 10)
    ax.bar(np.arange(1, last + 1), shares[1 : last + 1], width=0.9, color=theme.nucleus, linewidth=0)
    if stats.cap is not None and stats.entries_at_cap:
        ax.patches[stats.cap - 1].set_facecolor(theme.marked)
    ax.set_yscale("log")
    least = shares[shares > 0].min(initial=1.0)
    ax.set_ylim(10 ** np.floor(np.log10(least)) * 0.7, 150)
    ax.yaxis.set_major_formatter(lambda share, _: f"{share:g} %")
    ax.set_xlim(0, last + 1)
    ax.set_xlabel("nucleus size (tokens)")
    ax.set_ylabel("share of the entries")
    ax.grid(False, axis="x")
    lines = [f"{stats.count:,} entries of {stats.conversations:,} conversations"]
    if stats.share_at_cap is not None and stats.count:
        lines[0] += f"; {percent(stats.share_at_cap)} at the cap of {stats.cap}"
    headline(ax, theme, "How large the nuclei are", lines)


def _cumulative(ax: Any, stats: NucleusSizeStats, theme: Theme) -> None:
    last = max(stats.largest, stats.cap or 1, 10)
    shares = 100 * np.cumsum(stats.histogram)[1 : last + 1] / max(1, stats.count)
    ax.stairs(shares, np.arange(1, last + 2), baseline=0, fill=True, color=theme.nucleus, alpha=0.25, linewidth=0)
    ax.stairs(shares, np.arange(1, last + 2), baseline=None, color=theme.nucleus, linewidth=1.8)
    _size_axis(ax.xaxis, ax.set_xscale, last)
    ax.set_xlim(1, last + 1)
    ax.set_ylim(0, 100)
    ax.yaxis.set_major_formatter(lambda share, _: f"{share:g} %")
    ax.set_xlabel("nucleus size (tokens)")
    ax.set_ylabel("share of the entries up to that size")
    told_of = [f"{name} {value:,.1f}".removesuffix(".0") for name, value in _figures(stats).items()]
    headline(ax, theme, "How many tokens suffice", [", ".join(told_of)] if stats.count else [])


def _figures(stats: NucleusSizeStats) -> dict[str, float]:
    return {
        "mean": stats.mean,
        "median": stats.median,
        "90 % up to": stats.percentile(90),
        "99 % up to": stats.percentile(99),
    }


def _by_place(ax: Any, places: PositionSizes, theme: Theme) -> None:
    kept = well_filled(places.count)
    x = places.first[kept] + 1
    low, middle, high = (places.percentile(percent)[kept] for percent in (25, 50, 75))
    ax.fill_between(x, low, high, color=theme.nucleus, alpha=0.25, linewidth=0, label="middle half")
    ax.plot(x, middle, color=theme.nucleus, linewidth=1.8, label="median")
    ax.plot(x, places.mean[kept], color=theme.marked, linewidth=1.8, linestyle=(0, (4, 2)), label="mean")
    top = max(10.0, float(high.max(initial=1)), float(places.mean[kept].max(initial=1)))
    _size_axis(ax.yaxis, ax.set_yscale, top)
    ax.set_ylim(0.9, top * 2)
    place_axis(ax, x)
    ax.set_xlabel(f"place of the token in the {places.counted_from}")
    ax.set_ylabel("nucleus size (tokens)")
    if len(x):
        dress_legend(ax.legend(loc="upper right", ncols=3), theme)
    lines = [f"{int(places.count.sum()):,} entries; further on wider bins"]
    headline(ax, theme, f"Along the {places.counted_from}", lines)


def _by_sample(ax: Any, samples: SampleSizes, theme: Theme) -> None:
    means = samples.mean[np.isfinite(samples.mean)]
    number = int(np.clip(2 * np.sqrt(len(means)), 8, 40))
    bins = np.geomspace(means.min(initial=256) if len(means) else 1, max(2, means.max(initial=0)) * 1.001, number + 1)
    ax.hist(means, bins, color=theme.nucleus, edgecolor=theme.background, linewidth=0.6)
    _size_axis(ax.xaxis, ax.set_xscale, bins[-1], bins[0])
    ax.set_xlim(bins[0], bins[-1])
    ax.set_xlabel("mean nucleus size of the conversation (tokens)")
    ax.set_ylabel("conversations")
    ax.yaxis.get_major_locator().set_params(integer=True)
    ax.grid(False, axis="x")
    lines = []
    if len(means):
        least, most = (samples.index[np.nanargmin(samples.mean)], samples.index[np.nanargmax(samples.mean)])
        lines = [f"smallest in conversation {least}, largest in conversation {most}"]
    headline(ax, theme, "From conversation to conversation", lines)


def _size_axis(axis: Any, set_scale: Callable[..., None], top: float, least: float = 1.0) -> None:
    """A logarithmic axis of sizes with plain numbers."""
    set_scale("log")
    ticks = [tick for tick in (_TICKS if top > 20 * least else _DENSE_TICKS) if least <= tick <= top]
    axis.set_ticks(ticks, list(map(str, ticks)))
    axis.set_ticks([], minor=True)
