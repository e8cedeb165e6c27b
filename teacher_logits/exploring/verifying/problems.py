"""Collecting what is wrong, in lines that are safe to print and never too many."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from teacher_logits.exploring.text import visible

MOST_OF_A_KIND = 20
"""Problems of one kind that are told one by one; the others are counted."""
_LONGEST_VALUE = 120
_LONGEST_LINE = 400


class Problems:
    """Lines that each say one thing that is wrong. Of one kind the first `MOST_OF_A_KIND` are kept, and a count."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, line: str) -> None:
        """One more. kind: what it is called where only the number is told, in the plural."""
        self.add_some(kind, [line], 1)

    def add_some(self, kind: str, first: Sequence[str], total: int) -> None:
        """`total` more, of which the first (at least as many as are still told) come as lines."""
        room = max(0, MOST_OF_A_KIND - self._counts[kind])
        self._lines += [one_line(line, _LONGEST_LINE) for line in first[:room]]
        self._counts[kind] += total

    @property
    def kinds(self) -> frozenset[str]:
        """Of those there are."""
        return frozenset(kind for kind, count in self._counts.items() if count)

    def lines(self) -> list[str]:
        """All of them, in the order in which they were found, then how many more there are of each kind."""
        more = [
            f"and {count - MOST_OF_A_KIND:,} more: {kind}"
            for kind, count in self._counts.items()
            if count > MOST_OF_A_KIND
        ]
        return self._lines + more


def one_line(text: str, longest: int = _LONGEST_VALUE) -> str:
    """Text from a file as a part of one line: control characters and line breaks as escapes, cut where it is long."""
    safe = visible(text).replace("\n", "\\n").replace("\t", "\\t")
    return safe if len(safe) <= longest else safe[: longest - 3] + "..."


def shown(value: Any) -> str:
    """A value from a JSON file, as a part of one line."""
    try:
        return one_line(json.dumps(value, ensure_ascii=False))
    except (ValueError, RecursionError):
        return type(value).__name__
