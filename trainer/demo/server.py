"""The page and its answers over HTTP, for this machine unless told otherwise; the demo job."""

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
_MOST_BYTES = 8 * 2**20
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve_demo(*, models: list[str], data: str | None, host: str, port: int) -> dict[str, Any]:
    """Serves the page until it is interrupted.

    Args:
      models: exports, local or URIs.
      data: a prepared dataset, for categories, availability and timelines; None: the page goes without.
      host: address to listen on.
      port: 0 for any free one.

    Returns:
      The address and the number of questions answered.
    """
    exports = open_exports(models)
    shop = open_shop(open_dataset(data) if data else None)
    tell_of_strangers(exports, shop)
    server = make_server(Answers(exports, shop), host, port)
    address = f"http://{host}:{server.server_address[1]}/"
    log.info("%d models; open %s, end with Ctrl-C", len(exports), address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        log.info("ended")
    finally:
        server.server_close()
    return {"address": address, "models": [export.name for export in exports], "answered": server.num_answered}


def tell_of_strangers(exports: Sequence[Export], shop: Shop) -> None:
    """Warns of an export most of whose items the shop's catalogue lacks."""
    for export in exports:
        num_known = sum(item in shop.items for item in export.items)
        if shop.items and num_known < len(export.items) / 2:
            log.warning(
                "of the %d items of %s --data has %d: it is another shop's, and its timelines and categories mean "
                "nothing here; give the dataset that the model was trained on",
                len(export.items),
                export.name,
                num_known,
            )


class DemoServer(ThreadingHTTPServer):
    """A server with the answers that its handlers give."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], answers: Answers):
        """Binds the address."""
        super().__init__(address, _Handler)
        self.answers = answers
        self.asking = Lock()  # a latency is that of one question, not of those beside it
        self.num_answered = 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tells what a handler raised; a browser that left before its answer came is nothing to tell."""
        del request
        if not isinstance(sys.exception(), ConnectionError):
            log.error("no answer to %s", client_address, exc_info=True)


def make_server(answers: Answers, host: str, port: int) -> DemoServer:
    """A server that is bound and not yet serving.

    Raises:
      OSError: the port is taken, or the address is not of this machine.
    """
    try:
        return DemoServer((host, port), answers)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error}; choose another --port, or 0 for a free one") from error


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if not self._is_own_host():
            return
        if path in _FILES:
            name, kind = _FILES[path]
            self._send(HTTPStatus.OK, kind, resources.files("trainer.demo").joinpath(name).read_bytes())
        else:
            self._send_json(HTTPStatus.NOT_FOUND, {"error": f"there is nothing at {path}"})

    def do_POST(self) -> None:
        if not self._is_own_host():
            return
        # other sites cannot send this type without asking first, and are not answered when they ask
        if self.headers.get_content_type() != "application/json":
            self._send_json(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"error": "send application/json"})
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _MOST_BYTES:
            self.close_connection = True
            error = f"a question has a length of at most {_MOST_BYTES} bytes, got {length or 'none'}"
            self._send_json(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": error})
            return
        self._answer(urlsplit(self.path).path, self.rfile.read(int(length)))

    def _answer(self, path: str, body: bytes) -> None:
        try:
            asked = json.loads(body)
            if not isinstance(asked, dict):
                raise ValueError("a question is a JSON object")
            with self.server.asking:
                told = _ask(self.server.answers, path, asked)
                self.server.num_answered += 1
        except (ValueError, RecursionError) as error:
            self._send_json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except LookupError as error:
            self._send_json(HTTPStatus.NOT_FOUND, {"error": str(error.args[0])})
        else:
            self._send_json(HTTPStatus.OK, told)

    def _is_own_host(self) -> bool:
        """Refuses names that a foreign site made to point to this machine, where only this machine is served."""
        bound = str(self.server.server_address[0])
        named = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if bound in _LOOPBACK and named not in _LOOPBACK:
            self._send_json(HTTPStatus.FORBIDDEN, {"error": "this page is served to this machine only"})
            return False
        return True

    def _send_json(self, status: HTTPStatus, value: Any) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "default-src 'self'; base-uri 'none'; frame-ancestors 'none'")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *values: Any) -> None:  # noqa: A002 -- the base class names it so
        log.debug(format, *values)


def _ask(answers: Answers, path: str, asked: dict[str, Any]) -> Any:
    match path:
        case "/api/overview":
            return answers.overview()
        case "/api/search":
            return answers.search(str(asked.get("text", "")))
        case "/api/visitor":
            return answers.visitor(str(asked.get("visitor", "")))
        case "/api/recommend":
            return answers.recommend(asked)
        case "/api/similar":
            return answers.similar(asked)
    raise LookupError(f"there is nothing at {path}")
