"""Builds images with buildah and runs them with podman, without a Docker engine.

Builds the real Dockerfile with all its packages; only PYTHON_IMAGE, the base image, is replaced by one of Debian
packages. The images are kept in the user's cache until the requirements change.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "k8s" / "Dockerfile"
BASE = "docker.io/library/python:3.11-slim-bookworm"
COMMIT = "0123456789ab"

_TOOLS = ("buildah", "podman", "runc", "mmdebstrap")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_PACKAGES = "python3,python3-venv,ca-certificates"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cartwheel" / "images"
_FREE_BYTES = 12 << 30
_BUILD_SECONDS = 3600
# hardened like the pods: only /tmp is writable, no capabilities, no way to gain any
_HARDENED = [
    *("--pull=never", "--network=host", "--read-only", "--tmpfs=/tmp", "--shm-size=256m"),
    *("--cap-drop=ALL", "--security-opt=no-new-privileges"),
    *(
        "--ulimit=nofile=20000:20000",
        "--ulimit=nproc=10000:10000",
    ),  # without these, runc requests more than the machine allows
]


@dataclass(frozen=True)
class Images:
    """An image store, separate from the machine's."""

    store: Path
    """Directory of the store."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of every container."""

    def build(self, target: str) -> str:
        """Builds a target of the Dockerfile; returns the image's name."""
        name = f"localhost/cartwheel/{target}:test"
        values = (f"PYTHON_IMAGE={BASE}", f"COMMIT={COMMIT}", "VERSION=test")
        arguments = [*(f"--build-arg={value}" for value in values), "--target", target]
        run = [*self._tool("buildah"), "build", "--isolation=chroot", "--pull=never", "--layers", "-f", str(DOCKERFILE)]
        self._do([*run, *arguments, "-t", name, str(ROOT)])
        return name

    def wrap(self, program: Path, image: str) -> str:
        """Builds an image of one static program, if it does not exist; returns the image's name."""
        if not self.has(image):
            tar = ["tar", "-C", str(program.parent), "-c", program.name]
            command = [*self._podman(), "import", f'--change=ENTRYPOINT=["/{program.name}"]', "-", image]
            with subprocess.Popen(tar, stdout=subprocess.PIPE) as archive:
                subprocess.run(command, stdin=archive.stdout, check=True, timeout=600, capture_output=True)
        return image

    def save(self, image: str, archive: Path) -> None:
        """Writes an image to an archive, from which other container engines can import it."""
        self._do([*self._podman(), "save", "--format=oci-archive", f"--output={archive}", image])

    def command(self, image: str, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
        """Returns the command line that runs an image, hardened."""
        variables = [f"--env={name}={value}" for name, value in self.environment.items()]
        return [
            *self._podman(),
            "run",
            "--rm",
            *_HARDENED,
            *variables,
            *options,
            image,
            *arguments,
        ]

    def start(self, image: str, *arguments: str, options: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
        """Starts a container."""
        pipe = subprocess.PIPE
        return subprocess.Popen(self.command(image, *arguments, options=options), stdout=pipe, stderr=pipe, text=True)

    def run(self, image: str, *arguments: str, options: tuple[str, ...] = (), status: int = 0) -> str:
        """Runs a container and returns its standard output."""
        process = self.start(image, *arguments, options=options)
        output, log = process.communicate(timeout=1800)
        assert process.returncode == status, log[-5000:]
        return output

    def stop(self, container: str) -> None:
        """Sends SIGTERM, as Kubernetes does to stop a pod."""
        self._do([*self._podman(), "stop", "--time=60", container])

    def inspect(self, image: str, template: str) -> str:
        """Reads a field of an image's metadata."""
        return self._do([*self._podman(), "image", "inspect", "--format", template, image]).strip()

    def has(self, image: str) -> bool:
        """Returns True if an image exists."""
        return subprocess.run([*self._podman(), "image", "exists", image], check=False).returncode == 0

    def make_base(self, folder: Path) -> None:
        """Builds an image of Debian with Python and this machine's CA certificates, named like the base image."""
        self._do(["mmdebstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(folder)])
        shutil.copyfile(_CERTIFICATES, folder / _CERTIFICATES.relative_to("/"))
        with subprocess.Popen(["tar", "-C", str(folder), "-c", "."], stdout=subprocess.PIPE) as archive:
            subprocess.run([*self._podman(), "import", "-", BASE], stdin=archive.stdout, check=True, timeout=1800)
        shutil.rmtree(folder)

    def _podman(self) -> list[str]:
        return [*self._tool("podman"), "--runtime=runc"]

    def _tool(self, name: str) -> list[str]:
        return [
            name,
            "--root",
            str(self.store / "root"),
            "--runroot",
            str(self.store / "run"),
            "--storage-driver=overlay",
        ]

    def _do(self, command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_BUILD_SECONDS)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
        return done.stdout


@contextmanager
def open_images(folder: Path) -> Iterator[Images]:
    """Opens the image store of the current requirements, with the base image; removes other stores.

    One process uses it at a time; others wait. Skips the test if tools, root privileges or disk space are missing.
    """
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; .ci/run installs these Debian packages")
    if os.geteuid() != 0:
        pytest.skip("building and running images this way needs root")
    requirements = sorted((ROOT / "k8s" / "requirements").iterdir())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in requirements)).hexdigest()[:16]
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE.parent / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for other in _CACHE.iterdir():
            if other.name != digest:
                shutil.rmtree(other)
        images = Images(_CACHE / digest)
        if not images.has(BASE):
            free = shutil.disk_usage(_CACHE).free
            if free < _FREE_BYTES:
                pytest.skip(f"{free >> 30} GiB are free below {_CACHE}; the images need {_FREE_BYTES >> 30}")
            images.make_base(folder)
        yield images
