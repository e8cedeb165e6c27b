"""Signals that unwind what is under way, for the commands that have nothing to save.

`extraction.stop` is for those that have.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_SIGNALS = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])
_AGAIN_SECONDS = 0.01


class Stopped(BaseException):
    """A signal has come. Not an Exception, which libraries catch."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """Inside, SIGINT, SIGTERM and SIGHUP raise Stopped, so that no temporary file stays; ignored ones stay ignored.

    What is raised in a destructor or a callback Python reports and drops, and the program would go on: there the
    signal is sent once more, a moment later. While Stopped is on its way, further signals don't disturb it.
    """
    on_its_way = False
    again: threading.Timer | None = None

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal on_its_way
        if not on_its_way:
            on_its_way = True
            raise Stopped(number)

    def send_again(number: int) -> None:
        nonlocal on_its_way
        on_its_way = False
        os.kill(os.getpid(), number)  # unlike interrupt_main it ends a wait, too

    def dropped(what: Any) -> None:
        nonlocal again
        if not isinstance(what.exc_value, Stopped):
            told(what)
            return
        again = threading.Timer(_AGAIN_SECONDS, send_again, [what.exc_value.number])
        again.daemon = True
        again.start()

    told, sys.unraisablehook = sys.unraisablehook, dropped
    wanted = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield
    finally:
        if again is not None:
            again.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = told
