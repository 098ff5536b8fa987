"""The demo job: serves the page and its answers over HTTP, by default to this machine only."""

import io
import json
import logging
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trainer.data.dataset import open_dataset
from trainer.demo.answers import Answers
from trainer.demo.exports import Export, open_exports
from trainer.demo.shop import Shop, open_shop

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logging.getLogger(__name__)

MAX_THREADS = 100
"""Number of requests that are read and answered at once; other requests wait in the queue of the socket."""
READ_SECONDS = 5.0
"""Maximum time for a client to send its whole request."""
DRAIN_SECONDS = 1.0
"""Maximum time to read the rest of a refused request."""
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_MAX_BYTES = 8 * 2**20
_MAX_DIGITS = 20  # Python does not convert a number of thousands of digits
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve_demo(*, models: list[str], data: str | None, host: str, port: int) -> dict[str, Any]:
    """Serves the demo page until it is interrupted.

    Args:
      models: directories or URIs of exports.
      data: a prepared dataset, for categories, availability and timelines; None: the page lacks these.
      port: port to listen on; 0 for any free one.

    Returns:
      The address, the names of the models and the number of answered queries.
    """
    exports = open_exports(models)
    shop = open_shop(open_dataset(data) if data else None)
    warn_about_unknown_items(exports, shop)
    server = make_server(Answers(exports, shop), host, port)
    address = f"http://{host}:{server.server_address[1]}/"
    log.info("serving the demo page (models: %d) at %s; press Ctrl-C to stop", len(exports), address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        log.info("stopped")
    finally:
        server.server_close()
    return {"address": address, "models": [export.name for export in exports], "answered": server.num_answers}


def warn_about_unknown_items(exports: Sequence[Export], shop: Shop) -> None:
    """Warns about each export if the dataset has less than half of the export's items."""
    for export in exports:
        num_known = sum(item in shop.items for item in export.items)
        if shop.items and num_known < len(export.items) / 2:
            log.warning(
                "--data contains %s of the %s items of %s, so it is perhaps the dataset of another shop; give the "
                "dataset that the model was trained on",
                f"{num_known:,}" if num_known else "none",
                f"{len(export.items):,}",
                export.name,
            )


class DemoServer(ThreadingHTTPServer):
    """HTTP server of the demo page."""

    daemon_threads = True
    request_queue_size = 1024  # five by default, and the system resets further connections

    def __init__(self, address: tuple[str, int], answers: Answers):
        super().__init__(address, _Handler)
        self.answers = answers
        self._free_threads = BoundedSemaphore(MAX_THREADS)
        self.lock = Lock()  # one query at a time, so that each latency is that of a single query
        self.num_answers = 0

    def process_request(self, request: Any, client_address: Any) -> None:
        """Waits until fewer than `MAX_THREADS` requests are running, then answers this one in a new thread."""
        self._free_threads.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers a request, then lets a waiting request start."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free_threads.release()

    def shutdown_request(self, request: Any) -> None:
        """Reads the rest of a request before closing, because unread bytes would reset the connection."""
        with suppress(OSError, _RequestTimeoutError):
            request.shutdown(socket.SHUT_WR)
            rest = _TimedReader(request, DRAIN_SECONDS)
            while rest.read(1 << 16):
                pass
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs the exception of a handler, unless the browser closed the connection."""
        del request
        if not isinstance(sys.exception(), ConnectionError):
            log.error("request from %s failed", client_address, exc_info=True)


def make_server(answers: Answers, host: str, port: int) -> DemoServer:
    """Binds a server to its address; it does not answer requests yet.

    Raises:
      OSError: the port is taken, or the address belongs to another machine.
    """
    try:
        return DemoServer((host, port), answers)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error}; choose another --port, or 0 for a free one") from error


class _RequestTimeoutError(Exception):
    """The request was not complete in time."""


class _TimedReader(io.RawIOBase):
    """Reads from a connection until a fixed deadline, however slowly the client sends."""

    def __init__(self, connection: socket.socket, seconds: float):
        self._connection, self._seconds = connection, seconds
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise _RequestTimeoutError
        self._connection.settimeout(left)
        try:
            return self._connection.recv_into(buffer)
        except TimeoutError as error:
            raise _RequestTimeoutError from error
        finally:
            self._connection.settimeout(self._seconds)  # for the answer


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    requestline = ""  # if no line was received
    default_request_version = request_version = "HTTP/1.0"  # answers to HTTP/0.9 would have no status

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_TimedReader(self.connection, READ_SECONDS))

    def handle(self) -> None:
        try:
            super().handle()
        except _RequestTimeoutError:
            error = f"the request was not complete after {READ_SECONDS:g} seconds"
            self._send_json(HTTPStatus.REQUEST_TIMEOUT, {"error": error})

    def do_GET(self) -> None:
        path = self._accepted_path()
        if path is None:
            return
        if path in _FILES:
            name, kind = _FILES[path]
            self._send(HTTPStatus.OK, kind, resources.files("trainer.demo").joinpath(name).read_bytes())
        else:
            self._send_json(HTTPStatus.NOT_FOUND, {"error": f"unknown path {path}"})

    def do_POST(self) -> None:
        path = self._accepted_path()
        if path is None:
            return
        # browsers send JSON to another site only after a preflight request, which this server refuses
        kind = self.headers.get_content_type()
        if kind != "application/json":
            error = f"the content type must be application/json, got {kind}"
            self._send_json(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"error": error})
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            error = f"Content-Length must be a number of bytes, got {length or 'none'}"
            self._send_json(HTTPStatus.BAD_REQUEST if length else HTTPStatus.LENGTH_REQUIRED, {"error": error})
        elif len(length) > _MAX_DIGITS or int(length) > _MAX_BYTES:
            error = f"Content-Length must be at most {_MAX_BYTES} bytes, got {length[:_MAX_DIGITS]}"
            self._send_json(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": error})
        else:
            self._answer(path, self.rfile.read(int(length)))

    def _answer(self, path: str, body: bytes) -> None:
        try:
            query = json.loads(body)
            if not isinstance(query, dict):
                raise ValueError(f"a query must be a JSON object, got {query!r:.80}")
            with self.server.lock:
                answer = _dispatch(self.server.answers, path, query)
                self.server.num_answers += 1
        except (ValueError, RecursionError) as error:
            self._send_json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except LookupError as error:
            self._send_json(HTTPStatus.NOT_FOUND, {"error": str(error.args[0])})
        except Exception as error:
            log.error("a query to %s failed", path, exc_info=True)
            failure = f"{type(error).__name__}; the log of the server has the traceback"
            self._send_json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": failure})
        else:
            self._send_json(HTTPStatus.OK, answer)

    def _accepted_path(self) -> str | None:
        """Returns the path of the request; None if the request was rejected with 400 or 403.

        Requests to foreign host names are refused, as a protection against DNS rebinding.
        """
        host = self.headers.get("Host", "")
        try:
            path, name = urlsplit(self.path).path, urlsplit(f"//{host}").hostname
        except ValueError as error:
            self._send_json(
                HTTPStatus.BAD_REQUEST, {"error": f"invalid address {self.path!r} or host {host!r}: {error}"}
            )
            return None
        if str(self.server.server_address[0]) in _LOOPBACK and name not in _LOOPBACK:
            port = self.server.server_address[1]
            refusal = (
                f"this server accepts the host names {', '.join(_LOOPBACK)} only, got {host!r}; from another machine, "
                f"open http://localhost:{port}/ after `ssh -L {port}:localhost:{port} MACHINE`"
            )
            self._send_json(HTTPStatus.FORBIDDEN, {"error": refusal})
            return None
        return path

    def _send_json(self, status: HTTPStatus, value: Any) -> None:
        self._send(status, "application/json", json.dumps(value, allow_nan=False).encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "default-src 'self'; base-uri 'none'; frame-ancestors 'none'")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *values: Any) -> None:  # noqa: A002 -- the name in the base class
        log.debug(format, *values)


def _dispatch(answers: Answers, path: str, query: dict[str, Any]) -> Any:
    match path:
        case "/api/overview":
            return answers.overview()
        case "/api/search":
            return answers.search(str(query.get("text", "")))
        case "/api/visitor":
            return answers.visitor(str(query.get("visitor", "")))
        case "/api/recommend":
            return answers.recommend(query)
        case "/api/similar":
            return answers.similar(query)
    raise LookupError(f"unknown path {path}")
