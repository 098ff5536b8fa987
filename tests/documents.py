"""Finds the commands in the documents, in fenced blocks and in sentences."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "k8s/README.md", *(ROOT / "docs").rglob("*.md"))
)

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(
    r"`((?:python3? -m \w|python3? k8s/|cartwheel \w|prepare |train |evaluate |export |recommend |synthesize )[^`]*)`"
)
_PROGRAMS = ("python -m preprocessing", "python -m trainer", "cartwheel submit")
_JOINED = re.compile(r"\s*\\\n\s*|\n[ ]+")  # a line ends with a backslash, or the next one is indented


class Block(NamedTuple):
    """A fenced block and its position in the document."""

    document: str
    line: int
    """Line of the opening fence, from 1."""
    language: str
    text: str


def blocks(document: str) -> list[Block]:
    text = (ROOT / document).read_text()
    return [
        Block(document, text.count("\n", 0, found.start()) + 1, found[1], found[2]) for found in _BLOCK.finditer(text)
    ]


def named_commands(document: str) -> list[str]:
    """Returns the commands in sentences, with all or some of their arguments."""
    prose = _BLOCK.sub("", (ROOT / document).read_text())
    found = [" ".join(command.split()) for command in _NAMED.findall(prose)]
    return [command for command in found if command not in _PROGRAMS and "VERB" not in command]


def commands(block: Block) -> list[str]:
    """Returns the commands of a block, each as one line, without comments."""
    lines = _JOINED.sub(" ", block.text).splitlines()
    return [command for line in lines if (command := re.sub(r"(^|\s)#.*", "", line).strip())]
