"""Tests the errors about a full disk, on a real disk of 1 MiB and with errors of libraries."""

import errno
import subprocess
import tempfile

import pytest

from common import storage
from common.storage.disk_space import DiskFullError, explain_full_disk


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "cartwheel", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_publishing_to_a_full_disk_names_it_and_leaves_nothing(disk):
    message = r"No space left on device: '{0}/\S+/large'; the disk of {0}/\S+/large now has 1.0 MiB free of 1.0 MiB"
    message = message.format(disk)
    with pytest.raises(DiskFullError, match=message), storage.publish_directory(str(disk / "out")) as staging:
        storage.write_bytes(f"{staging}/small", b"x")
        storage.write_bytes(f"{staging}/large", bytes(2 << 20))
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("/tmp/none/variables; No space left on device"),  # TensorFlow's errors are no OSErrors
        RuntimeError("OSError: [Errno 28] No space left on device: '/x/part' [while running 'Read']"),
    ],
    ids=["quota", "tensorflow", "beam"],
)
def test_errors_of_libraries_are_recognised_by_their_text(error, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    message = rf"; the disk of {tmp_path} now has .* MiB.* or set TMPDIR"
    with pytest.raises(DiskFullError, match=message) as found, explain_full_disk("gs://bucket/out", None):
        raise error
    assert str(found.value).startswith(str(error).partition(" [while")[0])
    with pytest.raises(DiskFullError) as again, explain_full_disk(str(tmp_path)):
        raise found.value
    assert again.value is found.value


def test_the_cause_of_an_error_may_be_a_full_disk():
    with pytest.raises(DiskFullError), explain_full_disk():
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise ValueError("the export failed") from error
    with pytest.raises(ValueError, match="not finite"), explain_full_disk():
        raise ValueError("not finite")
