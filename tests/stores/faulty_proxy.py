"""A proxy in front of an object store, which makes chosen requests fail as networks and stores do."""

import http.client
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from enum import StrEnum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import unquote

_SLOW_SECONDS = 1.0
_PER_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "server", "date"}


class Request(NamedTuple):
    """A client's request."""

    method: str
    path: str
    body: bytes

    @property
    def is_write(self) -> bool:
        """Returns True if the request changes the store."""
        return self.method not in ("GET", "HEAD")

    def is_about(self, name: str) -> bool:
        """Returns True if the object's name contains `name`; S3 has it in the path, Google also in the body."""
        return name in unquote(self.path) or name.encode() in self.body[:2000]


class Fault(StrEnum):
    """How a request fails."""

    INTERNAL_ERROR = auto()
    """500."""
    OVERLOADED = auto()
    """503."""
    FORBIDDEN = auto()
    """403."""
    WRONG_KEY = auto()
    """403, with a separate error code in S3."""
    RESET = auto()
    """The connection is reset before the request reaches the store."""
    CUT_REQUEST = auto()
    """The store receives half of the request, and the client receives no answer."""
    LOST_ANSWER = auto()
    """The store executes the request, but the client receives no answer."""
    CUT_ANSWER = auto()
    """The client receives half of the answer."""
    SLOW = auto()
    """The answer is delayed by a second."""


_ERRORS = {
    Fault.INTERNAL_ERROR: (500, "InternalError"),
    Fault.OVERLOADED: (503, "SlowDown"),
    Fault.FORBIDDEN: (403, "AccessDenied"),
    Fault.WRONG_KEY: (403, "InvalidAccessKeyId"),
}

Plan = Callable[[Request], Fault | None]


class FaultyProxy:
    """Forwards requests, except those that `plan` makes fail.

    `plan` takes a request and returns its fault or None. It is called by several threads, and may be replaced while the
    proxy runs.
    """

    def __init__(self, port: int) -> None:
        """Takes the port of 127.0.0.1 on which the proxy listens."""
        self.port = port
        self.plan: Plan = lambda _: None


def every(count: int, faults: Sequence[Fault]) -> Plan:
    """Returns a plan that makes every `count`th request fail, cycling through the faults."""
    numbers, lock = itertools.count(1), threading.Lock()

    def plan(_: Request) -> Fault | None:
        with lock:
            number = next(numbers)
        return faults[number // count % len(faults)] if number % count == 0 else None

    return plan


def from_the_first(matches: Callable[[Request], bool], fault: Fault) -> Plan:
    """Returns a plan that makes the first matching request and all later requests fail."""
    is_begun = threading.Event()

    def plan(request: Request) -> Fault | None:
        if matches(request):
            is_begun.set()
        return fault if is_begun.is_set() else None

    return plan


def for_a_while(count: int, matches: Callable[[Request], bool], fault: Fault) -> Plan:
    """Returns a plan that makes the first matching request fail, and the next `count` - 1 requests."""
    num_failed, lock = 0, threading.Lock()

    def plan(request: Request) -> Fault | None:
        nonlocal num_failed
        with lock:
            if num_failed == count or (num_failed == 0 and not matches(request)):
                return None
            num_failed += 1
        return fault

    return plan


@contextmanager
def start_proxy(store_port: int) -> Iterator[FaultyProxy]:
    """Starts a proxy of the store at a local port; it ends with the context."""
    server = _Server(store_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=600)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, store_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store_port, self.proxy = store_port, FaultyProxy(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """Logs nothing: clients hang up on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *arguments: object) -> None:
        """Logs nothing."""

    def _serve(self) -> None:
        body = self._read_body()
        fault = self.server.proxy.plan(Request(self.command, self.path, body))
        if fault in _ERRORS:
            self._answer(*self._error(fault))
        elif fault == Fault.RESET:
            self._reset()
        elif fault == Fault.CUT_REQUEST:
            self._forward_half(body)
            self._reset()
        else:
            if fault == Fault.SLOW:
                time.sleep(_SLOW_SECONDS)
            status, headers, content = self._forward(body)
            if fault == Fault.LOST_ANSWER:
                self._reset()
            else:
                self._answer(status, headers, content, is_cut=fault == Fault.CUT_ANSWER)

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(chunks)

    def _passed_on(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name.lower() not in {*_PER_HOP, "expect"}}

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.store_port, timeout=600)) as connection:
            connection.request(self.command, self.path, body or None, self._passed_on())
            answer = connection.getresponse()
            content = answer.read()
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in _PER_HOP}
        if self.command == "HEAD":
            headers["Content-Length"] = answer.getheader("Content-Length", "0")
        return answer.status, headers, content

    def _forward_half(self, body: bytes) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.store_port, timeout=600)) as connection:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self._passed_on().items():
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[: len(body) // 2])

    def _error(self, fault: Fault) -> tuple[int, dict[str, str], bytes]:
        """Builds an error response. Clients of S3 read its body, and clients of Google read its status."""
        status, code = _ERRORS[fault]
        body = f"<Error><Code>{code}</Code><Message>{fault}</Message></Error>"
        return status, {"Content-Type": "application/xml"}, b"" if self.command == "HEAD" else body.encode()

    def _answer(self, status: int, headers: dict[str, str], content: bytes, *, is_cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if is_cut else content)
        if is_cut:
            self._reset()

    def _reset(self) -> None:
        """Resets the connection."""
        self.wfile.flush()
        linger_for_nothing = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_for_nothing)
        self.close_connection = True
