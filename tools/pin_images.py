"""Pins the base images of the Dockerfile and the images of the Kubernetes files by their present digests.

    python -m tools.pin_images

A registry may move a tag to another image; a digest always names the same image. The command needs skopeo and access to
the registries. Commit the changed files.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

_IMAGE = re.compile(
    r"^(?P<key>\s*(?:- )?image: |ARG PYTHON_IMAGE=)(?P<tagged>[a-z0-9][\w./-]*:[\w.-]+)(?:@sha256:[0-9a-f]{64})?$",
    re.MULTILINE,
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_OWN = "cartwheel/"
"""Prefix of the project's own images, which `submit.py` tags."""


def image_files(root: Path = ROOT) -> list[Path]:
    """Returns the Dockerfile and the Kubernetes files of the project."""
    return [root / "k8s" / "Dockerfile", *sorted(root.glob("k8s/**/*.yaml"))]


def read_images(text: str) -> list[str]:
    """Returns the images NAME:TAG of a file, without their digests and without the project's own images."""
    return [found["tagged"] for found in _IMAGE.finditer(text) if not found["tagged"].startswith(_OWN)]


def look_up(image: str) -> str:
    """Returns the digest of an image in its registry.

    Raises:
      RuntimeError: the registry did not return a digest.
    """
    command = ["skopeo", "inspect", "--no-tags", "--format", "{{.Digest}}", f"docker://{image}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if not _DIGEST.fullmatch(done.stdout.strip()):
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise RuntimeError(f"no digest of {image}: {reason[0]}; nothing was changed")
    return done.stdout.strip()


def pin(text: str, digests: dict[str, str]) -> str:
    """Returns a file's text; each image in `digests` is followed by its digest, as NAME:TAG@DIGEST."""

    def replace(found: re.Match[str]) -> str:
        digest = digests.get(found["tagged"])
        return f"{found['key']}{found['tagged']}@{digest}" if digest else found[0]

    return _IMAGE.sub(replace, text)


def main(root: Path = ROOT) -> int:
    """Pins all images, or changes nothing if the digest of one is missing."""
    if shutil.which("skopeo") is None:
        sys.stderr.write("skopeo is not installed; install the package skopeo and run this again\n")
        return 1
    texts = {path: path.read_text() for path in image_files(root)}
    try:
        digests = {image: look_up(image) for text in texts.values() for image in read_images(text)}
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for path, text in texts.items():
        path.write_text(pin(text, digests))
    sys.stdout.writelines(f"{image}@{digest}\n" for image, digest in digests.items())
    return 0


if __name__ == "__main__":
    sys.exit(main())
