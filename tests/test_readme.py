"""README and the other documents agree with the records of benchmarks and with the files of the project."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.pictures import PICTURE
from tools.tables import DOCUMENTS, README, render_document

ROOT = README.parent
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_tables_are_those_of_the_latest_benchmarks(document):
    assert render_document(document) == document.read_text(), "run `python -m tools`"


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 150


def test_a_record_of_the_demo_needs_a_new_directory(tmp_path):
    command = [sys.executable, "-m", "benchmarks.demo", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "some stages might not run" in done.stderr


def test_every_link_in_the_documents_leads_to_a_file():
    documents = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "k8s/README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", FENCED.sub("", document.read_text()))
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert broken == []


def test_the_picture_of_the_report_exists_and_is_small():
    assert f"](docs/{PICTURE.name})" in README.read_text()
    assert PICTURE.read_bytes().startswith(b"\x89PNG")
    assert PICTURE.stat().st_size < 300_000


def test_every_make_target_in_the_documents_exists():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    texts = [Path(path).read_text() for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / ".ci/run")]
    named = {name for text in texts for name in re.findall(r"make ([a-z][a-z0-9-]*)", text)} - {"and"}
    assert named <= targets
