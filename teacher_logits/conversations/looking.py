"""A rendered conversation as people look at it: which tokens are marked, and who says the others."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from teacher_logits.conversations.template import Messages
from teacher_logits.printable import visible

MARKED, TEMPLATE = "marked", "template"
"""What a token is besides the role of a message: one whose distribution is stored; what the template adds."""


@dataclass(frozen=True)
class MarkedConversation:
    """A rendered conversation to be looked at."""

    pieces: list[str]
    """Text by token; their join is the whole."""
    marked: NDArray[np.bool_]
    """Which tokens are the assistant's."""
    roles: list[str]
    """Whose content each token is: a message's role, or `TEMPLATE`. Told by where the contents are found in the text,
    one after another; good to look at, and nothing else depends on it."""

    def text(self, start: str = "[[", end: str = "]]") -> str:
        """The whole, its assistant tokens between `start` and `end`."""
        return "".join(f"{start}{text}{end}" if kind == MARKED else text for text, kind in self._runs())

    def painted(self, paint: Callable[[str, str], str]) -> str:
        """The whole, each run of tokens of one kind as `paint(text, kind)` gives it. kind: `MARKED`, else its role.

        Control characters are escapes: paint may add its own.
        """
        return "".join(paint(visible(text), kind) for text, kind in self._runs())

    def _runs(self) -> Iterator[tuple[str, str]]:
        kinds = (MARKED if marked else role for marked, role in zip(self.marked, self.roles, strict=True))
        for kind, run in groupby(zip(self.pieces, kinds, strict=True), key=lambda each: each[1]):
            yield "".join(piece for piece, _ in run), kind


def roles_of(pieces: Sequence[str], messages: Messages) -> list[str]:
    """The role of each piece of a rendered conversation's text, by its first character that is no white space."""
    text = "".join(pieces)
    spans = list(_content_spans(text, messages))
    roles, first, span = [], 0, 0
    for piece in pieces:
        place = first + len(piece) - len(piece.lstrip())
        while span < len(spans) and spans[span][1] <= place:
            span += 1
        inside = span < len(spans) and spans[span][0] <= place
        roles.append(spans[span][2] if inside else TEMPLATE)
        first += len(piece)
    return roles


def _content_spans(text: str, messages: Messages) -> Iterator[tuple[int, int, str]]:
    """First and past-the-last character of each message's content that is found behind the one before, and its role."""
    behind = 0
    for message in messages:
        content = message.get("content")
        content = content.strip() if isinstance(content, str) else ""
        first = text.find(content, behind) if content else -1
        if first >= 0:
            behind = first + len(content)
            yield first, behind, str(message.get("role"))
