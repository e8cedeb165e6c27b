"""Trying again what a Hub refused for a while. `create_commit` retries nothing by itself."""

import json
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from teacher_logits.errors import TeacherLogitsError, UploadError

log = logging.getLogger(__name__)

_PASSING = (408, 409, 412, 425, 429, 500, 502, 503, 504)
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
_PATIENT_WAITS = (1.0, 2.0, 4.0, 8.0)

T = TypeVar("T")


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error of the client stands for, or None."""
    return getattr(getattr(error, "response", None), "status_code", None)


def reason_of(error: BaseException) -> str:
    """An error of the client in one line, without addresses that carry signatures."""
    status = status_of(error)
    text = getattr(error, "server_message", None) or (str(error).strip().splitlines() or [type(error).__name__])[0]
    text = text.split(" for url")[0].strip()
    return f"{status}: {text}" if status is not None and not text.startswith(str(status)) else text


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


def patiently(action: Callable[[], T]) -> T:
    """What `action` gives; where it fails in a way that may pass, it is tried a few times more.

    For what a run does before there is anything to lose. Raises UploadError, caused by the last failure.
    """
    waits = iter(_PATIENT_WAITS)
    while True:
        try:
            return action()
        except json.JSONDecodeError as error:
            raise UploadError(
                f"What answers for the Hub isn't the Hub ({error}). Check the network (a login page?) and HF_ENDPOINT."
            ) from error
        except Exception as error:
            if not may_pass(error):
                raise
            wait = next(waits, None)
            if wait is None:
                raise UploadError(
                    f"The output can't be reached ({reason_of(error)}). Try again later; a folder on "
                    "this machine is written ./name."
                ) from error
            log.warning("the output can't be reached (%s); trying again", reason_of(error))
            pause = max(wait, _asked_wait(error))
        time.sleep(pause)


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
                if status_of(error) is None:
                    raise
                raise UploadError(
                    f"The output refuses a commit ({reason_of(error)}). Everything is kept in the cache folder; mend "
                    "what it refuses and go on with --resume."
                ) from error
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
