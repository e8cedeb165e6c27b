"""Trying again what a Hub refused for a while. `create_commit` retries nothing by itself."""

import email.utils
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

from huggingface_hub.utils import parse_ratelimit_headers

from teacher_logits.errors import TeacherLogitsError, UploadError

log = logging.getLogger(__name__)

_PASSING = (408, 409, 412, 425, 429, 500, 502, 503, 504)
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
_PATIENT_WAITS = (1.0, 2.0, 4.0, 8.0)
_LONGEST_ASKED_WAIT = 900.0
"""What a Hub asks for at most: its limits are counted over five minutes, and over an hour for commits."""

T = TypeVar("T")


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error of the client stands for, or None."""
    return getattr(getattr(error, "response", None), "status_code", None)


def reason_of(error: BaseException) -> str:
    """An error of the client in one line, without addresses that carry signatures."""
    status = status_of(error)
    name = type(error).__name__
    text = getattr(error, "server_message", None) or (str(error).strip().splitlines() or [name])[0]
    text = text.split(" for url")[0].strip()
    if isinstance(error, LookupError | ValueError | TypeError | AttributeError):
        text = f"an answer that can't be read, {name}: {text}"
    return f"{status}: {text}" if status is not None and not text.startswith(str(status)) else text


def may_pass(error: BaseException) -> bool:
    """Whether the same call may succeed later: the Hub is busy or away, or a connection broke."""
    if isinstance(error, TeacherLogitsError):
        return False
    status = status_of(error)
    if status is not None:
        return status in _PASSING
    # Broken connections arrive as OSError or as an error of whichever HTTP library the client uses, a pre-signed
    # address that was refused as RuntimeError, and damaged answers as whatever the client stumbles over: text that is
    # no JSON, names that aren't there. What is wrong here and not there, an assertion finds.
    return isinstance(error, Exception) and not isinstance(error, AssertionError)


def patiently(action: Callable[[], T]) -> T:
    """What `action` gives; where it fails in a way that may pass, it is tried a few times more.

    For what a run does before there is anything to lose. Raises UploadError, caused by the last failure.
    """
    waits = iter(_PATIENT_WAITS)
    while True:
        try:
            return action()
        except Exception as error:
            if not may_pass(error):
                raise
            if isinstance(error, UnicodeEncodeError):
                raise UploadError(
                    f"HF_TOKEN or HF_ENDPOINT holds what no header may ({error.reason}). Set it anew."
                ) from error
            wait = next(waits, None)
            if wait is None and isinstance(error, json.JSONDecodeError):
                raise UploadError(
                    f"What answers for the Hub isn't the Hub ({error}). Check the network (a login page?) and "
                    "HF_ENDPOINT."
                ) from error
            if wait is None:
                raise UploadError(
                    f"The output can't be reached ({reason_of(error)}). Try again later; a folder on "
                    "this machine is written ./name."
                ) from error
            pause = max(wait, _asked_by(error))
            log.warning("the output doesn't answer as it should (%s); trying again in %.0f s", reason_of(error), pause)
        time.sleep(pause)


def keep_trying(
    action: Callable[[], None],
    settle: Callable[[], bool],
    seconds: float,
    stop: threading.Event,
) -> None:
    """Run `action` until it succeeds, or fails for good, or `seconds` have passed since its first failure.

    settle: called after each failure that may pass, until it succeeds, and before the action is tried again. It looks
    at the output, and returns True where the action had landed after all.   stop: while set, no waiting goes on.
    Raises UploadError, caused by the last failure.
    """
    failed_first: float | None = None
    wait = _FIRST_WAIT
    unclear = False
    while True:
        try:
            if unclear and settle():
                return None
            unclear = False
            return action()
        except Exception as error:
            if not may_pass(error):
                if status_of(error) is None:
                    raise
                raise UploadError(
                    f"The output refuses a commit ({reason_of(error)}). Everything is kept in the cache folder; mend "
                    "what it refuses and go on with --resume."
                ) from error
            failure, unclear = error, True
        failed_first = failed_first or time.monotonic()
        pause = max(_asked_by(failure), wait * random.uniform(0.5, 1.5))
        waited = time.monotonic() - failed_first
        late = waited + pause > seconds
        if not late:
            log.warning("the output did not take a commit (%s); trying again in %.0f s", reason_of(failure), pause)
        if late or stop.wait(pause):
            raise UploadError(
                f"The output did not take a commit for {waited:,.0f} seconds ({reason_of(failure)}). "
                "Everything is kept in the cache folder; go on with --resume."
            ) from failure
        wait = min(_LONGEST_WAIT, 2 * wait)


def asked_wait(headers: Mapping[str, str]) -> float:
    """Seconds that a refusal asks to wait: by its Retry-After header (seconds or a date) or its RateLimit header."""
    limit = parse_ratelimit_headers(headers)
    asked = [_retry_after(str(headers.get("Retry-After", "")).strip())]
    if limit is not None and not limit.remaining:
        asked.append(limit.reset_in_seconds + 1.0)
    # Others that were refused at the same instant have been told the same.
    return min(max(asked), _LONGEST_ASKED_WAIT) + (random.uniform(0, 1) if max(asked) else 0.0)


def _asked_by(error: BaseException) -> float:
    return asked_wait(getattr(getattr(error, "response", None), "headers", {}))


def _retry_after(text: str) -> float:
    if text.isdecimal():
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
