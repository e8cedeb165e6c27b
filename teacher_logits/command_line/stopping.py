"""Signals that unwind what is under way, for the commands that have nothing to save.

`extraction.stop` is for those that have.
"""

import contextlib
import signal
import sys
import weakref
from collections.abc import Iterator
from types import FrameType
from typing import Any

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM") if hasattr(signal, name)]
_AGAIN_SECONDS = 0.1


class Stopped(BaseException):
    """A signal has come. Not an Exception, which libraries catch."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """Inside, SIGINT, SIGTERM and SIGHUP raise Stopped, so that no temporary file stays; ignored ones stay ignored.

    It is not raised while a module is imported: libraries written in C drop it there, make another error of it, or
    abort. Destructors and callbacks drop it anywhere. So an alarm raises it again as long as it is neither on its way
    nor out of the block, and an error after a signal is taken for its consequence. While Stopped is on its way, further
    signals don't disturb it.
    """
    came: int | None = None
    ended = False
    on_its_way: weakref.ref[Stopped] | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came is None:
            came = number
            if hasattr(signal, "setitimer"):
                signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS, _AGAIN_SECONDS)
        if not ended and (on_its_way is None or on_its_way() is None) and not _importing(frame):
            raise noted(Stopped(came))

    def noted(stopped: Stopped) -> Stopped:
        """The same; in `handle` a name for it would keep it alive, through its traceback, when it is dropped."""
        nonlocal on_its_way
        on_its_way = weakref.ref(stopped)
        return stopped

    def dropped(what: Any) -> None:
        if not isinstance(what.exc_value, Stopped):
            told(what)

    told, sys.unraisablehook = sys.unraisablehook, dropped
    wanted = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield
    except Exception as error:
        if came is None:
            raise
        raise Stopped(came) from error
    finally:
        ended = True
        if came is not None and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = told


def _importing(frame: FrameType | None) -> bool:
    """Whether this frame runs within an import."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None
