import codecs
import gzip

import pytest

from trainer.data.id_files import read_ids


@pytest.mark.parametrize(
    "content",
    [
        b"0\n\xc3\xa9\n",
        codecs.BOM_UTF8 + b"0\r\n\xc3\xa9",
        gzip.compress(codecs.BOM_UTF8 + b"0\n\n\xc3\xa9\n0\n"),
        "0\né\n".encode("utf-16"),
        codecs.BOM_UTF16_BE + "0\né\n".encode("utf-16-be"),
    ],
    ids=["plain", "mark", "gzip", "utf-16", "utf-16-be"],
)
def test_ids_are_the_same_in_every_encoding(tmp_path, content):
    (tmp_path / "ids.txt").write_bytes(content)
    assert read_ids(str(tmp_path / "ids.txt"), "--visitors") == ["0", "é"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xe9\n", "not text in UTF-8"),
        ("0\n".encode("utf-16-be"), "not text in UTF-8: it contains NUL bytes; save it as UTF-8"),
        (gzip.compress(b"0\n" * 99)[:-9], "a damaged gzip file"),
    ],
    ids=[
        "latin-1",
        "utf-16 without a mark",
        "damaged gzip",
    ],  # the header of a gzip file has the time, so it cannot be in the name of a test
)
def test_an_unreadable_file_is_named(tmp_path, content, message):
    (tmp_path / "ids.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"--visitors .*ids.txt is {message}"):
        read_ids(str(tmp_path / "ids.txt"), "--visitors")


@pytest.mark.parametrize("header", ["visitor_id", "VisitorID", "item id", "product-ids"])
def test_a_header_is_refused_instead_of_being_read_as_an_id(tmp_path, header):
    (tmp_path / "ids.txt").write_text(f"{header}\n1\n")
    with pytest.raises(ValueError, match=f"starts with a header, {header}; remove it: each line must be an id"):
        read_ids(str(tmp_path / "ids.txt"), "--visitors")
