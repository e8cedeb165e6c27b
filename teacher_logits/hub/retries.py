"""Trying again what a Hub refused for a while. `create_commit` retries nothing by itself."""

import logging
import random
import threading
import time
from collections.abc import Callable

from teacher_logits.errors import TeacherLogitsError, UploadError
from teacher_logits.hub.hub_repository import reason_of, status_of

log = logging.getLogger(__name__)

_PASSING = (408, 409, 412, 425, 429, 500, 502, 503, 504)
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0


def may_pass(error: BaseException) -> bool:
    """Whether the same call may succeed later: the Hub is busy or away, or a connection broke."""
    if isinstance(error, TeacherLogitsError):
        return False
    status = status_of(error)
    if status is not None:
        return status in _PASSING
    # Broken connections arrive as OSError or as an error of whichever HTTP library the client uses; a pre-signed
    # address that was refused, as RuntimeError.
    return isinstance(error, OSError | RuntimeError) or type(error).__module__.split(".")[0].startswith("httpx")


def keep_trying(
    action: Callable[[], None],
    settle: Callable[[BaseException], bool],
    seconds: float,
    stop: threading.Event,
) -> None:
    """Run `action` until it succeeds, or fails for good, or `seconds` of failing have passed.

    settle: called after a failure that may pass; looks at the output, and returns True where the action had
    landed after all.   stop: while set, no waiting goes on. Raises UploadError, caused by the last failure.
    """
    began, wait = time.monotonic(), _FIRST_WAIT
    while True:
        try:
            return action()
        except Exception as error:
            if not may_pass(error):
                raise
            failure = error
            log.warning("the output did not take a commit (%s); trying again", reason_of(error))
        pause = max(_asked_wait(failure), wait * random.uniform(0.5, 1.5))
        if time.monotonic() - began + pause > seconds or stop.wait(pause):
            raise UploadError(
                f"The output did not take a commit for {time.monotonic() - began:,.0f} seconds ({reason_of(failure)}). "
                "Everything is kept in the cache folder; go on with --resume."
            ) from failure
        wait = min(_LONGEST_WAIT, 2 * wait)
        try:
            if settle(failure):
                return None
        except Exception as error:
            if not may_pass(error):
                raise


def _asked_wait(error: BaseException) -> float:
    """Seconds that a Retry-After header asks for, within reason."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = str(headers.get("Retry-After", "")).strip()
    return min(float(asked), 600.0) if asked.isdecimal() else 0.0
