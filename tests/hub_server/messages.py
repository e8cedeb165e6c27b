"""What travels between the sockets and the endpoints: a call, its answer, and the errors the client knows by name."""

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs


@dataclass
class Call:
    """One HTTP request, read in full. `parts` holds the named groups of the route, unquoted."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    authorized: bool
    commits_behind: int = 0
    parts: dict[str, str] = field(default_factory=dict)

    def flag(self, name: str) -> bool:
        """Whether a query parameter is set, in any of the spellings Python clients use."""
        return self.query.get(name, [""])[-1].lower() in ("1", "true")

    def json(self) -> Any:
        """The body as JSON; 400 where it isn't."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise HubError(400, f"the body is not JSON: {error}") from error

    def form(self) -> dict[str, list[str]]:
        """The body as an HTML form, every value in a list."""
        return parse_qs(self.body.decode(), keep_blank_values=True)


@dataclass
class Answer:
    """One HTTP response. `body` is what a GET sends; a HEAD sends its length alone."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """`value` as a JSON body."""
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode())


class HubError(Exception):
    """A refusal. `code` becomes X-Error-Code, by which the client picks its exception (over plain http, only so)."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        if code is not None:
            self.headers["X-Error-Code"] = code

    def answer(self) -> Answer:
        """The refusal as the Hub words it: the message in a header and in the body."""
        return json_answer({"error": self.message}, self.status, {"X-Error-Message": self.message, **self.headers})


def status_phrase(status: int) -> str:
    """The words the Hub's clients look for in a refusal, or the standard phrase of the status."""
    known = {
        409: "Another commit operation is in progress. Please retry later.",
        412: "A commit has happened since. Please refresh and try again.",
    }
    return known.get(status, HTTPStatus(status).phrase)
