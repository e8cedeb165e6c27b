"""Stopping without losing anything: by Ctrl+C, SIGTERM, or when the time is over.

Imports nothing heavy: the handlers stand before torch is loaded.
"""

import contextlib
import os
import select
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

PROCESS_START = time.monotonic()
"""About when the process began: this module is among the first things it loads."""

_GRACE_SECONDS, _UPLOAD_SECONDS = 10.0, 60.0


def grace_seconds(upload: bool) -> float:
    """How long a run that was asked to stop waits for uploads under way, or with `upload` for those of all it has.

    Spot machines are told 30 to 120 seconds before they are taken away.
    """
    return _UPLOAD_SECONDS if upload else _GRACE_SECONDS


class GracefulInterrupt:
    """Turns the first SIGINT, SIGTERM or SIGHUP into a flag, once there is something to save; the second one kills.

    SIGUSR1, with which SLURM can warn of a job's end, asks to stop as the time limit does.
    Until `begin_work` is called nothing can be lost, so a signal ends the process at once, without a traceback.
    """

    KILLING = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
    """SIGHUP tells that the terminal is gone. Where it is ignored, as nohup asks, it stays so."""
    TIMELY = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGALRM") if hasattr(signal, name))
    """Those after which the process ends with exit code 0. The alarm is that of `limit_start`."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self._working = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "GracefulInterrupt":
        ignored = {number for number in self.KILLING[2:] if signal.getsignal(number) == signal.SIG_IGN}
        wanted = [number for number in self.KILLING + self.TIMELY if number not in ignored]
        self._before = {number: signal.signal(number, self._handle) for number in wanted}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._set_alarm(0)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @property
    def requested(self) -> bool:
        """Whether a signal has asked to stop."""
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """What the process should end with: 130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP, else 0."""
        return 0 if self._signal is None else _exit_code(self._signal)

    def limit_start(self, seconds: float | None) -> None:
        """Until `begin_work`, end the process in so many seconds; None: whenever it likes. For use inside `with`."""
        if seconds is not None:
            self._set_alarm(max(seconds, 0.001))  # 0 would mean never

    def begin_work(self) -> None:
        """From now on a signal only asks to stop."""
        self._working = True
        self._set_alarm(0)

    def _set_alarm(self, seconds: float) -> None:
        if self._before and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._working:
            # Not by an exception: one that is raised in the middle of an import or a destructor may be swallowed.
            timely = number in self.TIMELY
            text = "stopped before anything was extracted"
            text = f"the time is over, {text}; the same command begins again" if timely else text
            _tell(text)
            os._exit(_exit_code(number))
        if number in self.TIMELY:
            self._signal = self._signal or number
            return
        self._signal = number
        _tell("stopping after this batch; the same again ends the program at once")
        for each in self.KILLING:
            if each in self._before:
                signal.signal(each, signal.SIG_DFL)


def _tell(text: str) -> None:
    """Say something from a signal handler: not by Python's streams, which may be in the middle of something."""
    with contextlib.suppress(OSError):  # where nobody reads, or a pipe is full
        if select.select([], [2], [], 0)[1]:
            os.write(2, f"\n{text}\n".encode())


def _exit_code(number: int) -> int:
    return 0 if number in GracefulInterrupt.TIMELY else 128 + number


class TimedShutdown:
    """Says when to stop so that everything is saved within a time limit, counted from the process's start."""

    _SAVING_SECONDS = 5.0
    _LARGEST_SHARE = 0.25
    """Of the whole limit that is kept for saving, however long that may take: a short run must get on, too."""

    def __init__(self, minutes: float | None, grace: float = 0.0, start: float = PROCESS_START) -> None:
        """grace: seconds that uploads take at the end, see `grace_seconds`."""
        self._end = None if minutes is None else start + 60 * minutes
        self._saving = self._SAVING_SECONDS + grace
        if minutes is not None:
            self._saving = min(self._saving, self._LARGEST_SHARE * 60 * minutes)
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
        return left is not None and left < 1.5 * max(self._durations, default=0.0) + self._saving
