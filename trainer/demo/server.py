"""The demo job: serves the page and its answers over HTTP, by default to this machine only."""

import json
import logging
import sys
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from trainer.data.dataset import open_dataset
from trainer.demo.answers import Answers
from trainer.demo.exports import Export, open_exports
from trainer.demo.shop import Shop, open_shop

log = logging.getLogger(__name__)

_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_MAX_BYTES = 8 * 2**20
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve_demo(*, models: list[str], data: str | None, host: str, port: int) -> dict[str, Any]:
    """Serves the page until it is interrupted.

    Args:
      models: directories or URIs of exports.
      data: a prepared dataset with categories, availability and timelines; None: the page shows none of these.
      host: address to listen on.
      port: port to listen on; 0 for any free one.

    Returns:
      The address, the names of the models and the number of answered queries.
    """
    exports = open_exports(models)
    shop = open_shop(open_dataset(data) if data else None)
    warn_about_unknown_items(exports, shop)
    server = make_server(Answers(exports, shop), host, port)
    address = f"http://{host}:{server.server_address[1]}/"
    log.info("serving %d models at %s; press Ctrl-C to stop", len(exports), address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        log.info("stopped")
    finally:
        server.server_close()
    return {"address": address, "models": [export.name for export in exports], "answered": server.num_answers}


def warn_about_unknown_items(exports: Sequence[Export], shop: Shop) -> None:
    """Logs a warning for each export that has less than half of its items in the dataset."""
    for export in exports:
        num_known = sum(item in shop.items for item in export.items)
        if shop.items and num_known < len(export.items) / 2:
            log.warning(
                "--data contains %s of the %s items of %s, so it may belong to another shop; give the dataset that the "
                "model was trained on",
                f"{num_known:,}" if num_known else "none",
                f"{len(export.items):,}",
                export.name,
            )


class DemoServer(ThreadingHTTPServer):
    """An HTTP server of the page."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], answers: Answers):
        """Binds the address."""
        super().__init__(address, _Handler)
        self.answers = answers
        self.lock = Lock()  # one query at a time, so that each latency is that of a single query
        self.num_answers = 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs the exception of a handler, unless the browser closed the connection."""
        del request
        if not isinstance(sys.exception(), ConnectionError):
            log.error("request from %s failed", client_address, exc_info=True)


def make_server(answers: Answers, host: str, port: int) -> DemoServer:
    """Returns a server that is bound and does not serve yet.

    Raises:
      OSError: the port is taken, or the address belongs to another machine.
    """
    try:
        return DemoServer((host, port), answers)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error}; choose another --port, or 0 for a free one") from error


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if not self._accepts_host():
            return
        if path in _FILES:
            name, kind = _FILES[path]
            self._send(HTTPStatus.OK, kind, resources.files("trainer.demo").joinpath(name).read_bytes())
        else:
            self._send_json(HTTPStatus.NOT_FOUND, {"error": f"unknown path {path}"})

    def do_POST(self) -> None:
        if not self._accepts_host():
            return
        # browsers send JSON to another site only after a preflight request, which this server refuses
        if self.headers.get_content_type() != "application/json":
            self._send_json(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"error": "the content type must be application/json"})
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _MAX_BYTES:
            self.close_connection = True
            error = f"Content-Length must be at most {_MAX_BYTES} bytes, got {length or 'none'}"
            self._send_json(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": error})
            return
        self._answer(urlsplit(self.path).path, self.rfile.read(int(length)))

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
        else:
            self._send_json(HTTPStatus.OK, answer)

    def _accepts_host(self) -> bool:
        """Returns whether the Host header is allowed, and answers 403 otherwise.

        If the server is open to this machine only, it refuses other host names, because a foreign site could make its
        name resolve to this machine (DNS rebinding).
        """
        bound = str(self.server.server_address[0])
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if bound in _LOOPBACK and host not in _LOOPBACK:
            self._send_json(HTTPStatus.FORBIDDEN, {"error": "this page is for this machine only"})
            return False
        return True

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
