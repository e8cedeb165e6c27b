"""The plots of a dataset as images inside a page, each in the colours of both themes."""

import base64
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Any

from teacher_logits.exploring.decoding import Sample
from teacher_logits.exploring.entries import entry_name
from teacher_logits.exploring.optional import viz_library
from teacher_logits.exploring.plots import (
    plot_entropy_along_position,
    plot_logit_distribution,
    plot_nucleus_size_analysis,
    plot_nucleus_sizes,
    plot_nucleus_vs_sampled,
    png_of,
)
from teacher_logits.exploring.plots.style import figure_axes, theme_of
from teacher_logits.exploring.report.tables import bits
from teacher_logits.exploring.statistics import DatasetStats, NucleusSizeStats
from teacher_logits.exploring.text import percent
from teacher_logits.progress import track

_SCALE = 4 / 3
"""Pixels of an image for each at which it is shown."""
_WIDE = 700
_HALF = (5.0, 3.6)
"""Inches of a picture that stands beside another."""
_COLOURS = 128
"""Of a picture's palette: it has a few and their shades, so that nobody sees a difference but in the bytes."""


@dataclass(frozen=True)
class Picture:
    """One plot."""

    caption: str
    """How to read it."""
    alternative: str
    """What is to be seen, for those who can't."""
    light: str
    dark: str
    """data: addresses of PNG images of equal size."""
    width: int
    height: int
    """Pixels at which its text has an ordinary size: fewer than it has, for dense screens."""

    @property
    def wide(self) -> bool:
        """Whether it takes the whole width of a page."""
        return self.width > _WIDE


@dataclass(frozen=True)
class _Plan:
    """A picture to be drawn. draw: the figure in a theme's colours."""

    caption: str
    alternative: str
    draw: Callable[[str], Any]


def pictures(
    stats: DatasetStats, sizes: NucleusSizeStats, sample: Sample | None, entry: int | None, tokenizer: Any
) -> list[tuple[str, list[Picture]]]:
    """All pictures under their headings: of the dataset, of a conversation, of one of its tokens.

    sizes: with `per_sample` and `per_position`.   entry: which of the sample's stored tokens; None for none.
    Raises MissingLibraryError without matplotlib.
    """
    viz_library("matplotlib")
    if not stats.entries:
        return []
    plans = {"The whole dataset": [*_of_dataset(stats, sizes)]}
    if sample is not None and entry is not None:
        plans[f"Conversation {sample['index']}"] = [*_of_conversation(sample)]
        plans["Its least certain token"] = [*_of_token(sample, entry, tokenizer)]
    count = sum(map(len, plans.values()))
    drawn = map(_drawn, track(chain.from_iterable(plans.values()), "drawing", count, "pictures"))
    return [(title, list(islice(drawn, len(group)))) for title, group in plans.items()]


def _of_dataset(stats: DatasetStats, sizes: NucleusSizeStats) -> Iterator[_Plan]:
    ones = sizes.histogram[1] / sizes.count
    found = stats.entropy_by_position
    parts = (
        (
            "How often each size occurs, on a logarithmic scale.",
            f"Bars of the nucleus sizes: {percent(float(ones))} hold a single token, the largest {sizes.largest}.",
        ),
        (
            "The share of the tokens for which so many choices suffice.",
            f"A rising line: half of the nuclei have up to {sizes.median:g} tokens, "
            f"95 % up to {sizes.percentile(95):g}.",
        ),
        (
            f"How large nuclei are at the beginning of a {found.counted_from} and further on.",
            f"Median, middle half and mean of the nucleus sizes by the place of the token in the {found.counted_from}.",
        ),
        (
            "Each conversation counts once, with its mean.",
            "Bars of how many conversations have which mean nucleus size.",
        ),
    )
    for number, (caption, alternative) in enumerate(parts):
        yield _Plan(caption, alternative, partial(_nucleus_part, sizes, number))
    yield _Plan(
        f"Where in a {found.counted_from} the teacher is unsure. The entropy lies in the band.",
        f"Mean entropy by the place of the token: between {bits(found.lowest.min())} and "
        f"{bits(found.highest.max())} bits.",
        lambda theme: plot_entropy_along_position(stats, theme=theme),
    )


def _of_conversation(sample: Sample) -> Iterator[_Plan]:
    sizes = sample["top_counts"]
    named = f"conversation {sample['index']}"
    yield _Plan(
        "High where the teacher had much to choose from. Between the turns nothing is stored.",
        f"Nucleus size of each of the {len(sizes):,} stored tokens of {named}, {sizes.mean():.1f} on average.",
        lambda theme: plot_nucleus_sizes(sample, theme=theme),
    )
    yield _Plan(
        "The same conversation: how uncertain the teacher was at each token.",
        f"Entropy at each stored token of {named}, between its bounds.",
        lambda theme: plot_entropy_along_position(sample, theme=theme),
    )


def _of_token(sample: Sample, entry: int, tokenizer: Any) -> Iterator[_Plan]:
    size = sample["top_counts"][entry]
    yield _Plan(
        "The token of that conversation at which the teacher was least certain, and what it could have been.",
        f"Probabilities of the first choices at {entry_name(sample, entry)} of conversation {sample['index']}.",
        lambda theme: plot_logit_distribution(sample, entry, tokenizer, theme=theme),
    )
    yield _Plan(
        "What the dataset holds of this token’s distribution: the nucleus, and draws from the rest.",
        f"The {size} tokens of the nucleus by rank and probability, and the draws outside of it.",
        lambda theme: plot_nucleus_vs_sampled(sample, entry, tokenizer, theme=theme),
    )


def _nucleus_part(sizes: NucleusSizeStats, part: int, theme: str) -> Any:
    """One of the four parts of the analysis as a picture of its own, since a page may be narrow."""
    axes = [figure_axes(None, theme_of(theme), _HALF)[0] for _ in range(4)]
    plot_nucleus_size_analysis(sizes, axes=axes, theme=theme)
    return axes[part].figure


def _drawn(plan: _Plan) -> Picture:
    images = {theme: _reduced(png_of(plan.draw(theme))) for theme in ("light", "dark")}
    (width, height), _ = (size for _, size in images.values())
    light, dark = ("data:image/png;base64," + base64.b64encode(png).decode() for png, _ in images.values())
    drawn = Picture(plan.caption, plan.alternative, light, dark, width, height)
    return replace(drawn, width=round(width / _SCALE), height=round(height / _SCALE))


def _reduced(png: bytes) -> tuple[bytes, tuple[int, int]]:
    """The image with a palette, and its width and height."""
    image = viz_library("PIL.Image").open(io.BytesIO(png)).convert("RGB")
    sink = io.BytesIO()
    image.quantize(_COLOURS, dither=0).save(sink, "png", optimize=True)
    return sink.getvalue(), image.size
