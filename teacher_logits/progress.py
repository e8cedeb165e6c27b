"""Progress of long work: a bar on a terminal, one plain line every so often elsewhere."""

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0
UNKNOWN_TERMINAL = os.terminal_size((100, 24))
"""Some terminals say that they are 0 columns wide, and a bar of that width is invisible."""

log = logging.getLogger("teacher_logits")


class Progress:
    """A bar of `total` steps with a note beside it. Without a terminal it logs a line every half minute instead.

    total: None where it isn't known.
    """

    def __init__(self, title: str, total: int | None, unit: str, done: int = 0) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._terminal = sys.stderr.isatty()
        width = _columns() if self._terminal else 0
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=title,
            unit=f" {unit}",
            disable=not self._terminal,
            dynamic_ncols=width > 0,
            ncols=None if width else UNKNOWN_TERMINAL.columns,
            nrows=None if width else UNKNOWN_TERMINAL.lines,
        )
        self._done, self._note, self._last_line = done, "", time.monotonic()

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        """Count `steps` more and show `note` from now on."""
        self._done += steps
        if note is not None:
            self._note = note
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(steps)
        if not self._terminal and time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            log.info("%s: %s", self._title, self.line())

    def line(self) -> str:
        """Where the work stands, as plain text."""
        share = f" ({self._done / self._total:.0%})" if self._total else ""
        of = "" if self._total is None else f" of {self._total:,}"
        return f"{self._done:,}{of} {self._unit}{share}" + (f", {self._note}" if self._note else "")

    def close(self) -> None:
        """End the bar and leave it as it stands."""
        self._bar.close()


@contextmanager
def progress(title: str, total: int | None, unit: str, done: int = 0) -> Iterator[Progress]:
    """A `Progress` that is closed at the end of the block."""
    shown = Progress(title, total, unit, done)
    try:
        yield shown
    finally:
        shown.close()


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        return 0


def track(items: Iterable[Any], title: str, total: int, unit: str) -> Iterator[Any]:
    """Pass `items` on, counting them in a progress bar."""
    with progress(title, total, unit) as shown:
        for item in items:
            yield item
            shown.advance()
