"""Tests that an output is published only by its owner."""

from pathlib import Path

import pytest

from common import storage
from tests.common.storage.owners import other_owner
from trainer.serving.resumable_output import open_output


def test_a_former_owner_does_not_publish_unfinished_files_of_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, record = tmp_path / "lists", tmp_path / ".lists.owner.json"
    with pytest.raises(storage.OwnershipLostError), storage.own_output(str(output)):
        lists = open_output(str(output), {}, marker="done")
        lists.write({"a": b"1"})
        # the process is suspended after it has written the marker
        monkeypatch.setattr(storage, "refuse_existing", lambda _: record.write_bytes(other_owner()))
        lists.publish(b"")
    assert not output.exists()
