"""Every line of an input is counted once, and rows do not depend on how a file is split or compressed."""

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.sources import text_files
from tests.preprocessing.sources.readers import CSV_LINES, HEADER, JSON_LINES, read


@pytest.mark.parametrize(("header", "known"), [(HEADER, CSV_LINES), (b"", JSON_LINES)], ids=["csv", "jsonl"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_each_line_is_kept_rejected_a_duplicate_or_blank_however_the_file_is_split(
    header, known, data, tmp_path_factory
):
    noise = st.binary(max_size=8).map(lambda text: text.replace(b"\n", b"").replace(b"\0", b""))
    lines = data.draw(st.lists(st.sampled_from(known) | noise, max_size=25))
    end = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    body = end.join([known[0], *lines]) + data.draw(st.sampled_from([b"", end]))
    path = tmp_path_factory.mktemp("split") / "events"
    path.write_bytes(header + body)

    whole = read(path)
    assert whole.num_kept == len({tuple(row.values()) for row in whole.rows})
    assert whole.num_lines == body.count(b"\n") + (not body.endswith(b"\n"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "READ_BYTES", data.draw(st.integers(4, 200)))
        assert read(path) == whole
        path.write_bytes(gzip.compress(header + body))
        assert read(path) == whole
