"""Local object stores: moto for S3, an emulator for Google Cloud Storage.

Their contents are read with the standard library, so that no test relies on the code under test.
"""

import http.client
import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from urllib.parse import quote

import fsspec

from tests.stores.ports import free_port

ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = "PLANTEDACCESSKEY", "planted+secret/key", "planted-session-token"
"""Credentials of the S3 store, which must not appear in any log or file."""

_BUCKET = "shop"
_START_SECONDS = 600
_COMMANDS = {
    "s3": ("-m", "moto.server", "-H", "{host}", "-p", "{port}"),
    "gs": ("-m", "gcp_storage_emulator", "start", "--host", "{host}", "--port", "{port}", "--in-memory"),
}
# moto accepts any signature; Google's emulator accepts any request
_SIGNATURE = "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request"


@dataclass(frozen=True)
class ObjectStore:
    """A running server with one empty bucket; `scheme` is s3 or gs, `host` an address of this machine."""

    scheme: str
    port: int
    host: str = "127.0.0.1"

    @property
    def bucket(self) -> str:
        """Returns the URI of the bucket."""
        return f"{self.scheme}://{_BUCKET}"

    def environment(self, port: int | None = None) -> dict[str, str]:
        """Returns the variables that point a client to this store, or to a proxy at another port."""
        endpoint = f"http://{self.host}:{port or self.port}"
        if self.scheme == "gs":
            return {"STORAGE_EMULATOR_HOST": endpoint, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
        return {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_SESSION_TOKEN": SESSION_TOKEN,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def list_files(self, prefix: str = "") -> list[str]:
        """Lists the names of objects with a prefix, sorted, without the prefix."""
        if self.scheme == "gs":
            found = json.loads(self._ask("GET", f"/storage/v1/b/{_BUCKET}/o?prefix={quote(prefix)}"))
            names = [item["name"] for item in found.get("items", [])]
        else:
            tree = ElementTree.fromstring(self._ask("GET", f"/{_BUCKET}?list-type=2&prefix={quote(prefix)}"))
            names = [element.text or "" for element in tree.iter() if element.tag.endswith("}Key")]
        return sorted(name.removeprefix(prefix) for name in names)

    def read(self, name: str) -> bytes:
        """Reads an object."""
        if self.scheme == "gs":
            return self._ask("GET", f"/storage/v1/b/{_BUCKET}/o/{quote(name, safe='')}?alt=media")
        return self._ask("GET", f"/{_BUCKET}/{quote(name)}")

    def write(self, name: str, content: bytes) -> None:
        """Writes an object."""
        if self.scheme == "gs":
            path = f"/upload/storage/v1/b/{_BUCKET}/o?uploadType=media&name={quote(name, safe='')}"
            self._ask("POST", path, content, kind="application/octet-stream")
        else:
            self._ask("PUT", f"/{_BUCKET}/{quote(name)}", content)

    def _make_bucket(self) -> None:
        if self.scheme == "gs":
            self._ask("POST", "/storage/v1/b?project=test", json.dumps({"name": _BUCKET}).encode())
        else:
            self._ask("PUT", f"/{_BUCKET}")

    def _ask(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=600)) as connection:
            connection.request(method, path, body, {"Authorization": _SIGNATURE, "Content-Type": kind})
            answer = connection.getresponse()
            content = answer.read()
        if answer.status >= 300:
            raise OSError(f"{method} {path}: {answer.status} {content[:200]!r}")
        return content


@contextmanager
def start_store(scheme: str, host: str = "127.0.0.1") -> Iterator[ObjectStore]:
    """Starts a server with one empty bucket; it ends with the context."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, *(part.format(host=host, port=port) for part in _COMMANDS[scheme])],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        store = ObjectStore(scheme, port, host)
        _wait_for(store, server)
        yield store
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        # fsspec keeps one client per scheme, which would look for the next server at the port of this one; in
        # tensorflow-io's environment it has no client for the scheme
        if client := fsspec.registry.get(scheme):
            client.clear_instance_cache()


def _wait_for(store: ObjectStore, server: subprocess.Popen) -> None:
    """Creates the bucket as soon as the server answers."""
    began = time.monotonic()
    while True:
        try:
            return store._make_bucket()
        except (ConnectionError, http.client.HTTPException):
            if server.poll() is not None or time.monotonic() - began > _START_SECONDS:
                raise
            time.sleep(0.1)
