"""The pieces of a conversation's text as the page sets them: safe to show, and none of them unseen."""

import re
import unicodedata
from dataclasses import dataclass

from teacher_logits.printable import visible

_NONCHARACTER = re.compile("[\ufdd0-\ufdef\ufffe\uffff]")
_MARKS = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})
_PART = "part"
_SPACES = "spaces"


@dataclass(frozen=True)
class Cell:
    """One stored token in its place in the text."""

    text: str
    band: str
    """Its letter of `band_codes`."""
    kind: str
    """'part': it is not text yet but a part of the next cell's first character; 'spaces': nothing else; or ''."""

    @classmethod
    def of(cls, text: str, band: str) -> "Cell":
        """The cell of a token's own stretch of the text."""
        if not text:
            return cls("", band, _PART)
        if not text.strip(" "):
            return cls(text, band, _SPACES)
        return cls(_seen(text), band, "")


@dataclass(frozen=True)
class Turn:
    """A run of stored tokens, or a stretch of text of which nothing is stored."""

    cells: tuple[Cell, ...]
    stored: bool
    text: str = ""
    """The text, where it isn't stored."""

    @classmethod
    def context(cls, text: str) -> "Turn":
        return cls((), False, _printable(text))


def shown(text: str) -> str:
    """A token by itself, on one line, its white space as ␣, ↵ and ⇥; '(empty)' for one without text."""
    base = "◌" if text and unicodedata.combining(text[0]) else ""
    return (base + _seen(text)).translate(_MARKS) or "(empty)"


def _seen(text: str) -> str:
    """Printable; and written as escapes where nothing of it would be seen, as with joiners and soft hyphens."""
    if all(unicodedata.category(letter) == "Cf" for letter in text):
        return ascii(text)[1:-1]
    return _printable(text)


def _printable(text: str) -> str:
    return _NONCHARACTER.sub(lambda match: ascii(match[0])[1:-1], visible(text))
