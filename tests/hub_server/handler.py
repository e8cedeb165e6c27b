"""Sockets: read a request, let the faults have their say, answer, and write everything down."""

import socket
import socketserver
import struct
import sys
import threading
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler
from typing import ClassVar
from urllib.parse import parse_qs

from .faults import FaultPlan
from .messages import Answer, Call, HubError
from .routes import Route, answer_call
from .state import HubState

SECRET_HEADERS = ("authorization", "cookie")
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class Request:
    """One line of the log. Headers are in lower case, those that hold secrets are left out.

    status: what was answered; None while it is under way, and where the connection was reset instead.
    fault: the kind of the fault that struck it, if any.
    received, sent: bytes of the bodies (`sent` before a fault in the body cuts it short).
    """

    method: str
    path: str
    headers: dict[str, str]
    authorized: bool
    status: int | None = None
    fault: str | None = None
    received: int = 0
    sent: int = 0


class RequestLog:
    """Every request in order of arrival. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[Request] = []

    def begin(self, request: Request) -> Request:
        with self._lock:
            self._requests.append(request)
        return request

    def update(self, request: Request, **changes: object) -> None:
        with self._lock:
            for name, value in changes.items():
                setattr(request, name, value)

    def copies(self) -> list[Request]:
        with self._lock:
            return [replace(request) for request in self._requests]

    def clear(self) -> None:
        with self._lock:
            self._requests.clear()


class Listener(socketserver.ThreadingTCPServer):
    """One listening socket on the loopback address: the Hub, which judges tokens, or its storage, which doesn't.

    A failure in a handler is kept in `failures`, for whoever stops the server; a client that leaves is none.
    """

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self, hub: HubState, faults: FaultPlan, log: RequestLog, routes: list[Route], judges_tokens: bool
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub
        self.faults = faults
        self.log = log
        self.routes = routes
        self.judges_tokens = judges_tokens
        self.failures: list[BaseException] = []
        self._connections: set[socket.socket] = set()
        self._connections_lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, break the connections that clients keep open, and wait for the handlers."""
        self.shutdown()
        self._thread.join()
        with self._connections_lock:
            for connection in self._connections:
                _break(connection)
        self.server_close()

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        with self._connections_lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        with self._connections_lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.failures.append(error)


class Handler(BaseHTTPRequestHandler):
    """One connection, kept open between requests as HTTP/1.1 clients expect."""

    server: Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_version: ClassVar[str] = "HubServer"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing to the terminal: the log of requests has it all."""

    def serve(self) -> None:
        """One request, from its first byte to its answer."""
        hub, log = self.server.hub, self.server.log
        headers = {name.lower(): value for name, value in self.headers.items()}
        authorization = headers.get("authorization")
        authorized = authorization == f"Bearer {hub.settings.token}"
        shown = {name: value for name, value in headers.items() if name not in SECRET_HEADERS}
        request = log.begin(Request(self.command, self.path, shown, authorized))

        fault = self.server.faults.before(self.command, self.path)
        if fault is not None:
            log.update(request, fault=fault.kind)
            if fault.kind == "reset_in_upload":
                size = int(headers.get("content-length", 0))
                self.rfile.read(fault.position(size))
                return self._reset()
        body = self._read_body(headers)
        log.update(request, received=len(body))
        query = parse_qs(self.path.partition("?")[2], keep_blank_values=True)
        call = Call(self.command, self.path, query, headers, body, authorized)

        if fault is not None and fault.kind == "reset":
            return self._reset()
        if fault is not None and fault.kind == "stall":
            hub.wait(fault.seconds)
        if fault is not None and fault.kind == "stale":
            call.commits_behind = fault.commits_behind
        if fault is not None and fault.kind == "status":
            answer = fault.replacement()
        elif self.server.judges_tokens and authorization is not None and not authorized:
            answer = HubError(401, "Invalid credentials in Authorization header").answer()
        else:
            answer = answer_call(hub, call, self.server.routes)
        self._finish_with_faults(request, answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve

    def _finish_with_faults(self, request: Request, answer: Answer) -> None:
        """Send the answer, or what a fault that strikes after the work makes of it."""
        log = self.server.log
        fault = self.server.faults.afterwards(self.command, self.path, answer)
        if fault is None:
            return self._send(request, answer)
        log.update(request, fault=fault.kind)
        if fault.kind == "reset":
            return self._reset()
        if fault.kind == "stall":
            self.server.hub.wait(fault.seconds)
        if fault.kind == "status":
            answer = fault.replacement()
        if fault.kind in ("shorten", "corrupt"):
            answer = fault.reshape(answer)
        cut = fault.position(len(answer.body)) if fault.kind in ("truncate", "reset_in_download") else None
        self._send(request, answer, cut)
        if fault.kind == "truncate":
            self.close_connection = True
        if fault.kind == "reset_in_download":
            self._reset()
        return None

    def _send(self, request: Request, answer: Answer, cut: int | None = None) -> None:
        """Write the answer; with `cut`, only so many bytes of the body that its headers promise.

        The log is brought up to date first, so that a client that has its answer finds the request in it.
        """
        body = b"" if self.command == "HEAD" else answer.body
        self.server.log.update(request, status=answer.status, sent=len(body))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])

    def _read_body(self, headers: dict[str, str]) -> bytes:
        """The request's body, by its length or in chunks. ConnectionAbortedError where the client leaves."""
        if "chunked" in headers.get("transfer-encoding", ""):
            chunks = []
            while size := int(self._read_line().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self._read_line()
            self._read_line()
            return b"".join(chunks)
        size = int(headers.get("content-length", 0))
        body = self.rfile.read(size)
        if len(body) < size:
            raise ConnectionAbortedError(f"the client left after {len(body)} of {size} bytes")
        return body

    def _read_line(self) -> bytes:
        line = self.rfile.readline()
        if not line:
            raise ConnectionAbortedError("the client left between the chunks of a body")
        return line

    def _reset(self) -> None:
        """Close the connection so that the client gets a reset, not an orderly end."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.rfile.close()
        self.connection.close()


def _break(connection: socket.socket) -> None:
    """End both directions of a connection, which frees a handler that reads or writes it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
