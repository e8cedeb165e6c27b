"""One token's distribution: the teacher's choices, and the draws from the rest."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from teacher_logits.exploring.decoding import (
    Sample,
    actual_logprobs,
    dequantize_sampled_logits,
    dequantize_top_logits,
)
from teacher_logits.exploring.entries import entry_name, entry_of
from teacher_logits.exploring.optional import viz_library
from teacher_logits.exploring.plots.style import (
    Labels,
    Theme,
    dress_legend,
    figure_axes,
    font_families,
    headline,
    share_text,
    theme_of,
)
from teacher_logits.records import Float64, Int64

_CONTEXT = 60
"""Letters of the text before the token."""
_MOST = 24
"""Tokens shown of either kind."""
_GAP = 1
_FEWEST_ROWS, _ROW_INCHES, _FRAME_INCHES = 2, 0.235, 2.0
_LOG10 = float(np.log(10))


@dataclass(frozen=True)
class _Kept:
    """Tokens of one entry, the most probable first."""

    ids: Int64
    logs: Float64
    """Log-probabilities in nats."""

    @property
    def mass(self) -> float:
        return float(np.exp(self.logs).sum())

    def first(self, count: int) -> "_Kept":
        return _Kept(self.ids[:count], self.logs[:count])


def plot_logit_distribution(
    sample: Sample,
    position: int,
    tokenizer: Any = None,
    k: int = 20,
    *,
    ax: Any = None,
    theme: str = "light",
) -> Any:
    """The teacher's `k` most probable choices for one token, as far as the nucleus goes: the matplotlib figure.

    Probabilities on a logarithmic scale, logits above it; the token that stands in the text is marked.
    position: 0 ... n-1, which of the sample's stored tokens; negative ones count from the end.
    tokenizer: by default that of the run's model.   ax: the axes to draw into.   theme: 'light' or 'dark'.
    Raises NoSuchSampleError, an IndexError, for another position, MissingLibraryError without matplotlib.
    """
    entry = entry_of(sample, position)
    nucleus, colours, labels = _nucleus(sample, entry), theme_of(theme), Labels(sample, tokenizer)
    shown = nucleus.first(k)
    (ax,) = figure_axes(ax, colours, (7.2, _FRAME_INCHES + _ROW_INCHES * max(_FEWEST_ROWS, len(shown.ids))))
    _draw_rows(ax, colours, shown, labels, _actual(sample, entry))
    least = _left_of(shown)
    powers = _powers(least)
    ax.set_xticks(powers, list(map(_power, powers)))
    ax.set_xlim(least, 0.12)
    ax.set_xlabel("probability")
    _logit_axis(ax, colours, float(sample["logsumexp"][entry]))
    more = f", the first {len(shown.ids)} shown" if len(shown.ids) < len(nucleus.ids) else ""
    told = [_what(sample, entry), f"nucleus of {_tokens(nucleus)}, {share_text(nucleus.mass)} of the probability{more}"]
    headline(ax, colours, "What the teacher expected", [*told, *_story(sample, entry, labels, nucleus)], room=34)
    return ax.figure


def plot_nucleus_vs_sampled(
    sample: Sample, position: int, tokenizer: Any = None, *, ax: Any = None, theme: str = "light"
) -> Any:
    """What is stored of one distribution, the most probable first: its nucleus, and the draws from the rest.

    Arguments and errors as for `plot_logit_distribution`. Of either kind the first 24 tokens are shown; draws of one
    token count once.
    """
    entry = entry_of(sample, position)
    nucleus, drawn = _nucleus(sample, entry), _drawn(sample, entry)
    colours, labels = theme_of(theme), Labels(sample, tokenizer)
    (ax,) = figure_axes(ax, colours, (10.5, 5.2))
    first, second = nucleus.first(_MOST), drawn.first(_MOST)
    places = np.concatenate([np.arange(len(first.ids)), len(first.ids) + _GAP + np.arange(len(second.ids))])
    ids, logs = np.concatenate([first.ids, second.ids]), np.concatenate([first.logs, second.logs])
    kinds = [colours.nucleus] * len(first.ids) + [colours.sampled] * len(second.ids)
    least = min(_left_of(first), _left_of(second))
    actual = _actual(sample, entry)
    shades = [colours.marked if token == actual else kind for token, kind in zip(ids.tolist(), kinds, strict=True)]
    ax.bar(places, logs / _LOG10 - least, bottom=least, width=0.16, color=shades, alpha=0.55)
    ax.scatter(places, logs / _LOG10, s=34, c=shades, zorder=3)
    ax.set_xticks(places)
    _name_ticks(ax.xaxis, ids, labels, colours, actual, rotation=90)
    powers = _powers(least)
    ax.set_yticks(powers, list(map(_power, powers)))
    ax.set_ylim(least, 0.35)
    ax.set_xlim(-0.9, max(places.max() + 0.9, 12))
    ax.set_ylabel("probability")
    ax.grid(False, axis="x")
    told = [
        f"nucleus: {_tokens(nucleus)}, {share_text(nucleus.mass)}{_cut(nucleus)}",
        f"drawn from the other {share_text(max(0.0, 1 - nucleus.mass))}: {_tokens(drawn)}, which have "
        f"{share_text(drawn.mass)}{_cut(drawn)}",
    ]
    patches = viz_library("matplotlib.patches")
    swatches = zip((colours.nucleus, colours.sampled), told, strict=True)
    handles = [patches.Patch(color=colour, label=text) for colour, text in swatches]
    dress_legend(ax.legend(handles=handles, loc="upper right"), colours)
    lines = [_what(sample, entry), *_story(sample, entry, labels, nucleus)]
    headline(ax, colours, "Nucleus and draws", lines)
    return ax.figure


def _nucleus(sample: Sample, entry: int) -> _Kept:
    ids = np.asarray(sample["top_indices"][entry], np.int64)
    return _Kept(ids, dequantize_top_logits(sample)[entry] - sample["logsumexp"][entry])


def _drawn(sample: Sample, entry: int) -> _Kept:
    """The distinct draws outside of the nucleus."""
    ids = np.asarray(sample["sampled_indices"][entry], np.int64)
    logs = dequantize_sampled_logits(sample)[entry] - sample["logsumexp"][entry]
    _, first = np.unique(ids, return_index=True)
    first = first[~np.isin(ids[first], sample["top_indices"][entry])]
    order = first[np.argsort(-logs[first], kind="stable")]
    return _Kept(ids[order], logs[order])


def _actual(sample: Sample, entry: int) -> int | None:
    """The token that stands in the text; None where that isn't stored."""
    if "input_ids" not in sample or "positions" not in sample:
        return None
    return int(sample["input_ids"][sample["positions"][entry]])


def _draw_rows(ax: Any, theme: Theme, kept: _Kept, labels: Labels, actual: int | None) -> None:
    """A line with a dot for each token, from the top; its probability stands at the right."""
    places, values, least = np.arange(len(kept.ids)), kept.logs / _LOG10, _left_of(kept)
    shades = [theme.marked if token == actual else theme.nucleus for token in kept.ids.tolist()]
    ax.barh(places, values - least, left=least, height=0.16, color=shades, alpha=0.55)
    ax.scatter(values, places, s=34, c=shades, zorder=3)
    ax.set_yticks(places)
    _name_ticks(ax.yaxis, kept.ids, labels, theme, actual)
    for place, log in zip(places.tolist(), kept.logs.tolist(), strict=True):
        ax.annotate(
            share_text(float(np.exp(log))),
            (1, place),
            (6, 0),
            xycoords=ax.get_yaxis_transform(),
            textcoords="offset points",
            va="center",
            color=theme.text,
            fontsize=8,
            annotation_clip=False,
        )
    ax.set_ylim(max(len(kept.ids), _FEWEST_ROWS) - 0.4, -0.6)
    ax.grid(False, axis="y")


def _name_ticks(axis: Any, ids: Int64, labels: Labels, theme: Theme, actual: int | None, rotation: int = 0) -> None:
    """The tokens' texts as labels of the ticks that are there, the one of the text in another colour."""
    texts = [labels.token(token) for token in ids.tolist()]
    axis.set_ticklabels(texts, fontfamily=font_families(), color=theme.text, parse_math=False, rotation=rotation)
    for label, token in zip(axis.get_ticklabels(), ids.tolist(), strict=True):
        if token == actual:
            label.set(color=theme.marked, fontweight="bold")


def _logit_axis(ax: Any, theme: Theme, logsumexp: float) -> None:
    """Logits above the probabilities: logit = log p + logsumexp."""
    above = ax.secondary_xaxis("top", functions=(lambda x: x * _LOG10 + logsumexp, lambda y: (y - logsumexp) / _LOG10))
    above.tick_params(colors=theme.muted, labelsize=8.5, length=0)
    above.spines["top"].set_visible(False)
    above.set_xlabel("logit", color=theme.text, fontsize=9)


def _left_of(kept: _Kept) -> int:
    """Where the scale begins, as a power of ten: below all that is shown."""
    least = float(kept.logs.min(initial=0.0)) / _LOG10
    return min(-1, int(np.floor(least - 0.05)))


def _powers(least: int) -> list[int]:
    """Powers of ten from 1 down to the scale's begin, not too many."""
    return list(range(0, least - 1, -max(1, -(least // 7))))


def _power(power: int) -> str:
    """10 to that power in per cent, as an axis has room for it."""
    return f"{100 * 10.0**power:.10f}".rstrip("0").rstrip(".") + " %" if power >= -6 else f"1e{power + 2} %"


def _story(sample: Sample, entry: int, labels: Labels, nucleus: _Kept) -> list[str]:
    """What stands before the token, and how probable it was."""
    actual = _actual(sample, entry)
    if actual is None:
        return []
    log = float(actual_logprobs(sample, sample["input_ids"][sample["positions"]])[entry])
    rank = np.flatnonzero(nucleus.ids == actual)
    where = f"the teacher's choice {rank[0] + 1}" if len(rank) else "outside of the nucleus"
    chance = "probability unknown" if np.isnan(log) else share_text(float(np.exp(log)))
    before = labels.ending(sample["input_ids"][: sample["positions"][entry]], _CONTEXT)
    return [*([f"after {before}"] if before else []), f"the text has {labels.token(actual)}: {chance}, {where}"]


def _what(sample: Sample, entry: int) -> str:
    return f"conversation {sample['index']}, {entry_name(sample, entry)}"


def _tokens(kept: _Kept) -> str:
    return "1 token" if len(kept.ids) == 1 else f"{len(kept.ids)} tokens"


def _cut(kept: _Kept) -> str:
    return f" ({_MOST} shown)" if len(kept.ids) > _MOST else ""
