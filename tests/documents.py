"""The fenced blocks of the documents, and the commands in them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "k8s/README.md", *(ROOT / "docs").rglob("*.md"))
)

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_JOINED = re.compile(r"\s*\\\n\s*|\n[ ]+")  # a line ends with a backslash, or the next one is indented


class Block(NamedTuple):
    """What stands between two fences; `line` is the first one's place in the document, from 1 on."""

    document: str
    line: int
    language: str
    text: str


def blocks(document: str) -> list[Block]:
    text = (ROOT / document).read_text()
    return [
        Block(document, text.count("\n", 0, found.start()) + 1, found[1], found[2]) for found in _BLOCK.finditer(text)
    ]


def commands(block: Block) -> list[str]:
    """The command lines of a block of them, each in one line, without comments."""
    lines = _JOINED.sub(" ", block.text).splitlines()
    return [command for line in lines if (command := re.sub(r"(^|\s)#.*", "", line).strip())]
