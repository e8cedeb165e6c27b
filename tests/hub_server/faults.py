"""Faults on demand: what a network or a busy Hub does to a request, asked for by a test."""

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from .messages import Answer, json_answer, status_phrase

Kind = Literal[
    "status", "reset", "stall", "stale", "reset_in_upload", "reset_in_download", "truncate", "shorten", "corrupt"
]
BODY_KINDS = frozenset({"reset_in_download", "truncate", "shorten", "corrupt"})
LATE_KINDS = frozenset({"status", "reset", "stall"})


@dataclass(frozen=True)
class Fault:
    """One fault for the requests whose method is `method` ("*": any) and whose path or query `path` matches.

    kind, and what the client sees:
      status             an answer with `status`, `headers` and `body` in place of the true one
      reset              the connection is reset, no answer
      stall              the answer comes after `seconds`
      stale              the reads are of a repository `commits_behind` commits ago
      reset_in_upload    the connection is reset when half of the request's body is read
      reset_in_download  the connection is reset when half of the answer's body is sent
      truncate           the connection is closed when half of the answer's body is sent
      shorten            half of the answer's body, with headers that agree with it
      corrupt            one bit of the answer's body is flipped

    `handled` (status, reset, stall): the request does its work first, and only then the fault strikes. So a
    commit lands and its answer is lost.
    `at`: the byte at which the five faults in a body strike, by default in the middle.
    The first `after` matching requests pass, the next `times` (None: all) are struck. Faults in an answer's body
    count only the answers with status 200 or 206 and a body, so a redirect to the storage doesn't use them up.
    """

    method: str
    path: str
    kind: Kind
    times: int | None = 1
    after: int = 0
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | str | Mapping[str, Any] | None = None
    seconds: float = 0.0
    commits_behind: int = 1
    at: int | None = None
    handled: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"unknown kind of fault {self.kind!r}: expected one of {', '.join(get_args(Kind))}")
        if self.handled and self.kind not in LATE_KINDS:
            raise ValueError(f"handled goes with {', '.join(sorted(LATE_KINDS))}, not with {self.kind}")
        if self.times is not None and self.times < 1:
            raise ValueError(f"times is {self.times}: expected at least 1, or None for every request")
        re.compile(self.path)

    @property
    def strikes_late(self) -> bool:
        """Whether the request is handled before the fault strikes."""
        return self.handled or self.kind in BODY_KINDS

    def matches(self, method: str, path: str) -> bool:
        return self.method in ("*", method) and re.search(self.path, path) is not None

    def replacement(self) -> Answer:
        """The answer of a `status` fault."""
        if self.body is None:
            answer = json_answer({"error": status_phrase(self.status)}, self.status)
        elif isinstance(self.body, Mapping):
            answer = Answer(self.status, {"Content-Type": "application/json"}, json.dumps(dict(self.body)).encode())
        else:
            body = self.body.encode() if isinstance(self.body, str) else self.body
            answer = Answer(self.status, {"Content-Type": "text/plain"}, body)
        answer.headers.update(self.headers)
        return answer

    def position(self, size: int) -> int:
        """The byte of a body of `size` bytes at which the fault strikes."""
        return size // 2 if self.at is None else min(self.at, size)

    def reshape(self, answer: Answer) -> Answer:
        """The answer that a `shorten` or `corrupt` fault sends in place of the true one."""
        position = self.position(len(answer.body))
        if self.kind == "corrupt":
            position = min(position, len(answer.body) - 1)
            flipped = bytes([answer.body[position] ^ 1])
            body = answer.body[:position] + flipped + answer.body[position + 1 :]
            return Answer(answer.status, answer.headers, body)
        headers = dict(answer.headers)
        if "Content-Range" in headers:
            span, size = headers["Content-Range"].removeprefix("bytes ").split("/")
            start = int(span.split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{start + max(position, 1) - 1}/{size}"
        return Answer(answer.status, headers, answer.body[: max(position, 1)])


class FaultPlan:
    """The faults in force, with what each has seen and struck. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._armed.append(_Armed(fault))
        return fault

    def clear(self) -> None:
        with self._lock:
            self._armed.clear()

    def struck(self, fault: Fault) -> int:
        """How many requests `fault` has struck."""
        with self._lock:
            return sum(armed.struck for armed in self._armed if armed.fault is fault)

    def before(self, method: str, path: str) -> Fault | None:
        """The fault that strikes a request which has just arrived."""
        return self._take(method, path, late=False, answer=None)

    def afterwards(self, method: str, path: str, answer: Answer) -> Fault | None:
        """The fault that strikes a request that has been handled."""
        return self._take(method, path, late=True, answer=answer)

    def _take(self, method: str, path: str, late: bool, answer: Answer | None) -> Fault | None:
        chosen: _Armed | None = None
        with self._lock:
            for armed in self._armed:
                fault = armed.fault
                if fault.strikes_late != late or not fault.matches(method, path):
                    continue
                if fault.kind in BODY_KINDS and not _has_body(method, answer):
                    continue
                armed.seen += 1
                exhausted = fault.times is not None and armed.struck >= fault.times
                if chosen is None and armed.seen > fault.after and not exhausted:
                    chosen = armed
            if chosen is None:
                return None
            chosen.struck += 1
            return chosen.fault


@dataclass
class _Armed:
    fault: Fault
    seen: int = 0
    struck: int = 0


def _has_body(method: str, answer: Answer | None) -> bool:
    return method != "HEAD" and answer is not None and answer.status in (200, 206) and bool(answer.body)
