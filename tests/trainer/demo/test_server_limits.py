"""The server answers malformed, huge, slow and numerous requests, which the tests send through sockets."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import pytest

from tests.trainer.demo.conftest import served
from trainer.demo import server

OVERVIEW = {"models": ["first"]}
JSON = "Host: localhost\r\nContent-Type: application/json\r\n"
WHOLE = f"POST /api/overview HTTP/1.1\r\n{JSON}Content-Length: 2\r\n\r\n{{}}"


def fail(text):
    raise RuntimeError("no such tensor")


ANSWERS = SimpleNamespace(overview=lambda: OVERVIEW, search=fail)


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "READ_SECONDS", 0.5)
        patch.setattr(server, "DRAIN_SECONDS", 30)  # the clients of these tests close the connection
        yield


@pytest.fixture(scope="module")
def port(_quick: None) -> Iterator[int]:
    with served(ANSWERS) as url:
        yield int(url.rpartition(":")[2])


@contextmanager
def connect(port: int, text: str = "") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(text.encode())
        yield connection


def read_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Reads up to the end of the connection and closes it; returns the status and the body."""
    with connection:
        content = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, body = content.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


QUERY = f"POST /api/overview HTTP/1.1\r\n{JSON}"
CASES = {
    "whole": (WHOLE, 200, '"models"'),
    "host": ("GET / HTTP/1.1\r\nHost: [\r\n\r\n", 400, "host '['"),
    "address": ("GET http://[/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "invalid address 'http://[/'"),
    "no request": ("nonsense\r\n\r\n", 400, "Bad request"),
    "no length": (f"{QUERY}\r\n{{}}", 411, "must be a number of bytes, got none"),
    "negative length": (f"{QUERY}Content-Length: -1\r\n\r\n{{}}", 400, "got -1"),
    "length of many digits": (f"{QUERY}Content-Length: {'9' * 5000}\r\n\r\n{{}}", 413, f"got {'9' * 20}"),
    "length above the limit": (f"{QUERY}Content-Length: 8388609\r\n\r\n{{}}", 413, "at most 8388608 bytes"),
    # a client that sends all before it reads
    "long body": (f"{QUERY}Content-Length: 9000000\r\n\r\n{'x' * 9_000_000}", 413, "at most"),
    "long header": (f"GET / HTTP/1.1\r\nHost: localhost\r\nA: {'x' * 70_000}\r\n\r\n", 431, "Line too long"),
    "many headers": ("GET / HTTP/1.1\r\n" + "A: b\r\n" * 101 + "\r\n", 431, "Too many headers"),
    "long address": (f"GET /{'x' * 70_000} HTTP/1.1\r\n\r\n", 414, "URI Too Long"),
    "nothing": ("", 408, "was not complete after 0.5 seconds"),
    "half a header": ("GET / HTTP/1.1\r\nHost: loc", 408, "was not complete"),
    "half a body": (f"{QUERY}Content-Length: 9\r\n\r\n{{}}", 408, "was not complete"),
    "failure": (WHOLE.replace("overview", "search"), 500, "RuntimeError; the log of the server"),
}


@pytest.mark.parametrize(("text", "status", "message"), list(CASES.values()), ids=list(CASES))
def test_every_request_is_answered_with_its_status(port, text, status, message):
    with connect(port, text) as connection:
        found, body = read_answer(connection)
    assert (found, message in body.decode()) == (status, True), body


def test_a_request_that_arrives_letter_by_letter_times_out(port):
    with connect(port) as connection:
        begin = time.monotonic()
        for letter in "GET / HTTP/1.1 and so on":
            connection.sendall(letter.encode())
            time.sleep(0.04)
            if time.monotonic() - begin > 0.8:
                break
        assert read_answer(connection)[0] == 408


def test_two_hundred_requests_at_once_are_all_answered(monkeypatch):
    """They connect before the server accepts any, so all wait in its queue."""
    monkeypatch.setattr(server, "READ_SECONDS", 60)
    bound = server.make_server(ANSWERS, "127.0.0.1", 0)
    with ExitStack() as stack:
        stack.callback(bound.server_close)
        connections = [stack.enter_context(connect(bound.server_address[1], WHOLE)) for _ in range(200)]
        thread = threading.Thread(target=bound.serve_forever, daemon=True)
        thread.start()
        answers = [read_answer(connection) for connection in connections]
        bound.shutdown()
        thread.join(timeout=60)
    assert answers == [(200, json.dumps(OVERVIEW).encode())] * 200


def test_half_sent_requests_hold_few_threads_and_not_for_long(monkeypatch):
    monkeypatch.setattr(server, "MAX_THREADS", 8)
    monkeypatch.setattr(server, "DRAIN_SECONDS", 0.1)
    before = threading.active_count()
    with served(ANSWERS) as url, ExitStack() as stack:
        port = int(url.rpartition(":")[2])
        slow = [stack.enter_context(connect(port, "GET / HTTP/1.1\r\n")) for _ in range(16)]
        whole = stack.enter_context(connect(port, WHOLE))
        assert slow[0].recv(1, socket.MSG_PEEK) == b"H"  # the first threads have waited
        assert threading.active_count() <= before + 1 + 8
        assert read_answer(whole)[0] == 200
        assert {read_answer(connection)[0] for connection in slow} == {408}
