"""Stopping without losing anything: by Ctrl+C, SIGTERM, or when the time is over.

Imports nothing heavy: the handlers stand before torch is loaded.
"""

import os
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

PROCESS_START = time.monotonic()
"""About when the process began: this module is among the first things it loads."""


class GracefulInterrupt:
    """Turns the first SIGINT or SIGTERM into a flag, once there is something to save; the second one kills.

    Until `begin_work` is called nothing can be lost, so the signal ends the process at once, without a traceback.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._signal: int | None = None
        self._working = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "GracefulInterrupt":
        self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @property
    def requested(self) -> bool:
        """Whether a signal has asked to stop."""
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """What the process should end with: 130 after SIGINT, 143 after SIGTERM, else 0."""
        return 0 if self._signal is None else 128 + self._signal

    def begin_work(self) -> None:
        """From now on a signal only asks to stop."""
        self._working = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._working:
            # Not by an exception: one that is raised in the middle of an import or a destructor may be swallowed.
            os.write(2, b"stopped before anything was extracted\n")
            os._exit(128 + number)
        self._signal = number
        for each in self.SIGNALS:
            signal.signal(each, signal.SIG_DFL)


class TimedShutdown:
    """Says when to stop so that everything is saved within a time limit, counted from the process's start."""

    _SAVING_SECONDS = 5.0

    def __init__(self, minutes: float | None, start: float = PROCESS_START) -> None:
        self._end = None if minutes is None else start + 60 * minutes
        self._durations: deque[float] = deque(maxlen=10)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Take notice of how long the block, a batch, takes."""
        began = time.monotonic()
        yield
        self._durations.append(time.monotonic() - began)

    @property
    def remaining(self) -> float | None:
        """Seconds left, or None without a limit."""
        return None if self._end is None else self._end - time.monotonic()

    @property
    def due(self) -> bool:
        """Whether another batch like the slowest of the last ones, and saving, might not fit any more."""
        left = self.remaining
        return left is not None and left < 1.5 * max(self._durations, default=0.0) + self._SAVING_SECONDS
