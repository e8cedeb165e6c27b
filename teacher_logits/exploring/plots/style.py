"""What all pictures share: figures without pyplot, colours, fonts, labels of tokens."""

import functools
import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from teacher_logits.errors import SettingsError
from teacher_logits.exploring.decoding import Sample
from teacher_logits.exploring.optional import viz_library
from teacher_logits.exploring.runs import tokenizer_if_any
from teacher_logits.exploring.text import quoted
from teacher_logits.exploring.tokens import TokenTexts

ThemeName = Literal["light", "dark"]

DPI = 150
PNG_MARK = "teacher-logits"
"""What pictures say they were made by, so that they may be replaced."""
_PAD_INCHES = 0.12
_LONGEST_LABEL = 22
_FAMILIES = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "WenQuanYi Micro Hei",
    "Arial Unicode MS",
    "Noto Sans Devanagari",
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Thai",
    "Noto Sans Symbols2",
)
"""Fonts that are asked for a letter one after another, where they are installed."""


@dataclass(frozen=True)
class Theme:
    """Colours; those of data are from the palette of Okabe and Ito, which colour-blind readers can tell apart."""

    background: str
    text: str
    muted: str
    grid: str
    nucleus: str
    sampled: str
    marked: str
    """What is to be seen first."""


_THEMES = {
    "light": Theme("#ffffff", "#1f2328", "#59636e", "#e3e6ea", "#0072b2", "#e69f00", "#d55e00"),
    "dark": Theme("#15181d", "#e8eaed", "#a0a8b3", "#2d333b", "#56b4e9", "#e69f00", "#ff8a4c"),
}


def theme_of(name: str) -> Theme:
    """The colours of 'light' or 'dark'. Raises SettingsError for another name."""
    if name not in _THEMES:
        raise SettingsError(f"There is no theme {name!r}; choose one of {', '.join(get_args(ThemeName))}.")
    return _THEMES[name]


def figure_axes(given: Any, theme: Theme, size: tuple[float, float], count: int = 1, columns: int = 1) -> list[Any]:
    """`count` axes in the theme's colours: those that were given, or those of a new figure of `size` inches.

    given: None, one axes, or a sequence or array of them.   columns: of the new figure; its last axes fill their row.
    Raises SettingsError where it isn't as many as are needed.
    """
    if given is None:
        figure = _picture_class()(figsize=size, layout="constrained", facecolor=theme.background, dpi=DPI)
        figure.get_layout_engine().set(w_pad=_PAD_INCHES, h_pad=_PAD_INCHES, wspace=0.04, hspace=0.04)
        grid = figure.add_gridspec(-(-count // columns), columns)
        places = [divmod(number, columns) for number in range(count)]
        last = slice(places[-1][1], columns)
        given = [figure.add_subplot(grid[row, column]) for row, column in places[:-1]]
        given.append(figure.add_subplot(grid[places[-1][0], last]))
    axes = list(np.ravel(given))
    if len(axes) != count:
        raise SettingsError(f"This plot is drawn into {count} axes, and {len(axes)} were given.")
    for ax in axes:
        _dress(ax, theme)
    return axes


def png_of(figure: Any) -> bytes:
    """A figure as a PNG file."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=DPI, metadata={"Software": PNG_MARK})
    return sink.getvalue()


def headline(ax: Any, theme: Theme, title: str, lines: Sequence[str] = (), room: int = 6) -> None:
    """A title at the left, smaller lines under it, and `room` points between them and the axes."""
    above = room + (2 + 12 * len(lines) if lines else 0)
    ax.set_title(title, loc="left", color=theme.text, fontsize=12, fontweight="bold", y=1, pad=above + 2)
    ax.annotate(
        "\n".join(lines),
        (0, 1),
        (0, room),
        xycoords="axes fraction",
        textcoords="offset points",
        va="bottom",
        color=theme.muted,
        fontsize=8.5,
        fontfamily=font_families(),
        parse_math=False,
    )


def share_text(share: float) -> str:
    """A probability in per cent with three digits: '19.0 %', '0.0213 %', '2.9e-07 %'."""
    shown = 100 * share
    return (f"{shown:.1e}" if 0 < shown < 1e-3 else f"{shown:#.3g}".removesuffix(".")) + " %"


class Labels:
    """Texts of tokens for pictures: in quotation marks, not too long, and without letters that no font has."""

    def __init__(self, sample: Sample, tokenizer: Any = None) -> None:
        """tokenizer: by default that of the sample's run; where it can't be had, tokens are called by their ids."""
        if tokenizer is None:
            tokenizer = tokenizer_if_any(sample.get("run") or {})
        self._texts = None if tokenizer is None else TokenTexts(tokenizer)

    def token(self, token: int) -> str:
        """One token."""
        return (
            f"id {token}" if self._texts is None else _left_to_right(_short(printable(quoted(self._texts.one(token)))))
        )

    def ending(self, tokens: Sequence[int], letters: int) -> str:
        """The last letters of a text in quotation marks; '' where nobody knows the texts."""
        if self._texts is None or not len(tokens):
            return ""
        text = printable(quoted("".join(self._texts.row(tokens))))
        return _left_to_right(text if len(text) <= letters else f"'…{text[-letters:]}")


def printable(text: str) -> str:
    """The text with letters that no installed font has as escapes."""
    known = _known_letters()
    return "".join(letter if ord(letter) in known else ascii(letter)[1:-1] for letter in text)


@functools.cache
def font_families() -> list[str]:
    """The fonts for texts of tokens that are installed."""
    installed = set(viz_library("matplotlib.font_manager").fontManager.get_font_names())
    return [family for family in _FAMILIES if family in installed]


@functools.cache
def _known_letters() -> frozenset[int]:
    manager = viz_library("matplotlib.font_manager")
    fonts = (manager.get_font(manager.findfont(family)) for family in font_families())
    return frozenset(letter for font in fonts for letter in font.get_charmap())


def _left_to_right(text: str) -> str:
    """The text with a mark behind it that keeps right-to-left letters from taking what follows to their other side."""
    turning = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in text)
    return text + "\u200e" if turning else text


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 2] + "…" + text[-1]


@functools.cache
def _picture_class() -> Any:
    """A figure that Jupyter shows by itself, which it otherwise does for those of pyplot alone."""

    class Picture(viz_library("matplotlib.figure").Figure):  # type: ignore[misc]
        """A figure of no window."""

        def _repr_png_(self) -> bytes:
            return png_of(self)

    return Picture


def _dress(ax: Any, theme: Theme) -> None:
    ax.set_facecolor(theme.background)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.grid)
    ax.tick_params(which="both", colors=theme.muted, labelsize=8.5, length=0)
    ax.xaxis.label.set(color=theme.text, fontsize=9)
    ax.yaxis.label.set(color=theme.text, fontsize=9)
    ax.grid(True, color=theme.grid, linewidth=0.8)
    ax.set_axisbelow(True)


def dress_legend(legend: Any, theme: Theme) -> None:
    """A legend in the theme's colours."""
    legend.get_frame().set(facecolor=theme.background, edgecolor=theme.grid, alpha=0.9)
    for text in legend.get_texts():
        text.set(color=theme.text, fontsize=8.5)
