"""The documentation site builds without warnings, and its checks find broken links."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.browser import needs_chromium, open_page
from tools.site import ROOT, SITE, find_broken_links, notebook_to_markdown, page_names, rewrite_links

PAGE = '<html><body id="top"><h1 id="title">A</h1>{}</body></html>'


@pytest.fixture
def site(tmp_path):
    """A site of two pages and a picture."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "picture.png").write_bytes(b"")
    (tmp_path / "index.html").write_text(PAGE.format('<a href="deep/page.html#title">x</a><img src="picture.png">'))
    (tmp_path / "deep/page.html").write_text(PAGE.format('<a href="../index.html">x</a><a href="https://host/">y</a>'))
    return tmp_path


def test_a_sound_site_has_no_broken_links(site):
    assert find_broken_links(site) == []


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ('<a href="other.html">x</a>', "other.html does not exist"),
        ('<a href="#nowhere">x</a>', "#nowhere has no such anchor"),
        ('<a href="deep/page.html#nowhere">x</a>', "deep/page.html#nowhere has no such anchor"),
        ('<img src="missing.png">', "missing.png does not exist"),
        ('<script src="https://host/a.js"></script>', "loads https://host/a.js from another host"),
        ('<link rel="stylesheet" href="//host/a.css">', "loads //host/a.css from another host"),
    ],
)
def test_a_broken_link_is_found(site, html, problem):
    (site / "index.html").write_text(PAGE.format(html))
    assert find_broken_links(site) == [f"index.html: {problem}"]


def test_links_between_documents_become_links_between_pages():
    text = "[a](docs/decisions/0001-setup.md#x) [b](k8s/README.md) [c](#here) [d](https://host/README.md)\n"
    code = "```\n[e](nowhere.md)\n```\n"
    expected = "[a](decisions/0001-setup.md#x) [b](kubernetes.md) [c](#here) [d](https://host/README.md)\n"
    assert rewrite_links(text + code, "README.md") == expected + code
    assert rewrite_links("[a](../operations.md) [b](../../k8s/README.md)", "docs/decisions/0001-setup.md") == (
        "[a](../operations.md) [b](../kubernetes.md)"
    )
    assert rewrite_links("[a](docs/decisions)", "README.md") == "[a](decisions/README.md)"


def test_a_link_to_a_file_that_is_not_a_page_is_rejected():
    with pytest.raises(ValueError, match=r"README\.md links to setup\.py"):
        rewrite_links("[a](setup.py)", "README.md")


def test_a_notebook_becomes_markdown_with_its_outputs():
    table = {"text/html": ["<style>s</style>\n", "<table>\n", "\n", "<tr></tr>\n", "</table>"], "text/plain": ["t"]}
    notebook = {
        "cells": [
            {"cell_type": "markdown", "source": ["# Title\n", "text"]},
            {"cell_type": "code", "source": ["x"], "outputs": [{"data": table}, {"data": {"text/plain": ["3"]}}]},
            {"cell_type": "code", "source": ["plot()"], "outputs": [{"data": {"image/png": "QUJD\n"}}]},
        ]
    }
    assert notebook_to_markdown(notebook).split("\n\n") == [
        "# Title\ntext",
        "```python\nx\n```",
        "<table>\n<tr></tr>\n</table>",
        "```text\n3\n```",
        "```python\nplot()\n```",
        '<img alt="The plot that this cell draws" src="data:image/png;base64,QUJD">\n',
    ]


def test_the_navigation_lists_every_page():
    listed = re.findall(r"[\w./-]+\.md", (ROOT / "mkdocs.yml").read_text())
    pages = [page for page in page_names().values() if page.endswith(".md")]
    assert sorted(listed) == sorted(pages)


@pytest.fixture(scope="module")
def built():
    """The site of this checkout, built as `make docs` does."""
    shutil.rmtree(SITE, ignore_errors=True)
    done = subprocess.run([sys.executable, "-m", "tools.site"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return SITE


def test_the_site_builds_and_documents_the_python_api(built):
    text = (built / "api.html").read_text()
    for name in ("cartwheel.prepare", "cartwheel.load", "cartwheel.Recommender", "contract.manifest.Manifest"):
        assert f'id="{name}"' in text


@needs_chromium
def test_search_works_from_disk_without_the_network(built):
    with open_page((built / "index.html").as_uri()) as opened:
        opened.page.keyboard.press("/")
        opened.page.keyboard.type("partition_bytes")
        opened.page.get_by_text("Memory of a worker").first.wait_for()
        assert opened.messages == []
        assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))] == []
