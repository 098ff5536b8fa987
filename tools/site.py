"""Builds the documentation site: `python -m tools.site`.

Copies the Markdown files of the repository to `build/docs`, turns the links between them into links between pages, and
runs Zensical in strict mode. Then checks every link, anchor and image of the HTML, because Zensical checks only some.
"""

import json
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parent.parent
PAGES, SITE = ROOT / "build" / "docs", ROOT / "site"

_OUTSIDE_DOCS = {
    "README.md": "index.md",
    "k8s/README.md": "kubernetes.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""The page of each document outside `docs/`."""
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()([^)\s#]*)(#[^)\s]*)?(?=\))")


def main() -> int:
    """Builds the site; returns 1 if a page or a link is broken."""
    stage()
    if status := build():
        return status
    broken = find_broken_links(SITE)
    for problem in broken:
        print(problem, file=sys.stderr)
    print(f"{len(broken)} broken links" if broken else f"open {SITE.relative_to(ROOT)}/index.html", file=sys.stderr)
    return int(bool(broken))


def stage(pages: Path = PAGES) -> None:
    """Writes all pages and pictures of the site to the folder `pages`, which is emptied first."""
    shutil.rmtree(pages, ignore_errors=True)
    for source, page in page_names().items():
        target = pages / page
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.endswith(".md"):
            target.write_text(rewrite_links((ROOT / source).read_text(), source))
        elif source.endswith(".ipynb"):
            notebook = json.loads((ROOT / source).read_text())
            target.write_text(rewrite_links(notebook_to_markdown(notebook), source))
        else:
            shutil.copyfile(ROOT / source, target)


def page_names() -> dict[str, str]:
    """Maps each source file in the repository to its path in the site."""
    docs = {
        path.relative_to(ROOT).as_posix(): path.relative_to(ROOT / "docs").with_suffix(suffix).as_posix()
        for kind, suffix in ((".md", ".md"), (".ipynb", ".md"), (".png", ".png"), (".css", ".css"), (".js", ".js"))
        for path in sorted((ROOT / "docs").rglob(f"*{kind}"))
    }
    return _OUTSIDE_DOCS | docs


def rewrite_links(text: str, source: str) -> str:
    """Replaces links to files of the repository by links to their pages.

    Args:
      source: path of the document in the repository.

    Raises:
      ValueError: a link leads to a file that is not in the site.
    """
    names = page_names()
    folder = posixpath.dirname(names[source]) or "."

    def rewrite(link: re.Match[str]) -> str:
        target, anchor = link[1], link[2] or ""
        if not target or urlsplit(target).scheme:
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path not in names:
            path = posixpath.join(path, "README.md")  # a link to a folder shows its README.md
        if path not in names:
            raise ValueError(
                f"{source} links to {target}, which is not in the site; add it to `page_names` of tools/site.py"
            )
        return posixpath.relpath(names[path], folder) + anchor

    return _outside_fences(text, lambda prose: _LINK.sub(rewrite, prose))


def _outside_fences(text: str, change: Callable[[str], str]) -> str:
    """Applies `change` to the text outside code blocks."""
    parts, end = [], 0
    for block in _FENCED.finditer(text):
        parts += [change(text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(text[end:])])


def notebook_to_markdown(notebook: dict[str, Any]) -> str:
    """Converts a Jupyter notebook to Markdown, with its saved outputs."""
    return "\n\n".join(part for cell in notebook["cells"] for part in _cell_to_markdown(cell)) + "\n"


def _cell_to_markdown(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            picture = "".join(data["image/png"]).strip()
            yield f'<img alt="The plot that this cell draws" src="data:image/png;base64,{picture}">'
        elif "text/html" in data:
            yield _table_alone("".join(data["text/html"]))
        elif "text/plain" in data:
            yield f"```text\n{''.join(data['text/plain'])}\n```"


def _table_alone(html: str) -> str:
    """Drops the style sheet and the blank lines of a pandas table; a blank line would end the HTML in Markdown."""
    found = re.search(r"<table[^>]*>(.*</table>)", html, re.DOTALL)
    table = f"<table>{found[1]}" if found else html
    return "\n".join(line.strip() for line in table.splitlines() if line.strip())


def build() -> int:
    """Runs Zensical in strict mode; returns its exit status."""
    shutil.rmtree(SITE, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "zensical",
        "build",
        "--clean",
        "--strict",
        "--config-file",
        str(ROOT / "mkdocs.yml"),
    ]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        warnings, _, traceback = _COLOUR.sub("", done.stdout).partition("Traceback ")
        print(warnings, traceback.splitlines()[-1] if traceback else "", file=sys.stderr)
    return done.returncode


class _Page(HTMLParser):
    """Collects the links, loaded files and anchors of an HTML page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attributes if value}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and "href" in given and given.get("rel") != "canonical":
            self.loads.append(given["href"])
        elif "src" in given:
            self.loads.append(given["src"])


def find_broken_links(site: Path) -> list[str]:
    """Returns a line for each broken link, and for each file that a page loads from another host."""
    pages = {path: _read_page(path) for path in sorted(site.rglob("*.html"))}
    return [
        f"{path.relative_to(site)}: {problem}"
        for path, page in pages.items()
        if path.name != "404.html"  # the server shows it at any depth, so its links are absolute
        for problem in _problems(path, page, pages)
    ]


def _read_page(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text())
    return page


def _problems(path: Path, page: _Page, pages: dict[Path, _Page]) -> Iterator[str]:
    for url in page.loads:
        if urlsplit(url).scheme != "data" and urlsplit(url).netloc:
            yield f"loads {url} from another host"
    for url in page.links + page.loads:
        parts = urlsplit(url)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        target = target / "index.html" if target.is_dir() else target
        if not target.exists():
            yield f"{url} does not exist"
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
            yield f"{url} has no such anchor"


if __name__ == "__main__":
    sys.exit(main())
