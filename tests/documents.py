"""The commands of the documents: in fenced blocks, and in the middle of a line."""

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
    r"`((?:python3? -m \w|python3? k8s/|prepare |train |evaluate |export |recommend |synthesize )[^`]*)`"
)
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


def named_commands(document: str) -> list[str]:
    """Commands that a sentence names, with all or some of their arguments."""
    return [" ".join(found.split()) for found in _NAMED.findall(_BLOCK.sub("", (ROOT / document).read_text()))]


def commands(block: Block) -> list[str]:
    """The command lines of a block of them, each in one line, without comments."""
    lines = _JOINED.sub(" ", block.text).splitlines()
    return [command for line in lines if (command := re.sub(r"(^|\s)#.*", "", line).strip())]


def is_synopsis(command: str) -> bool:
    """Whether brackets and bars stand for what may be given: of this project's own commands alone."""
    return command.startswith("python ") and any(sign in command for sign in "[|…")


def as_typed(synopsis: str) -> str:
    """A synopsis with all that may be given, and the first of what is to be chosen from."""
    text = synopsis.replace("[Beam options]", "").replace(" …", "")
    text = re.sub(r"[\[\]]", "", text)
    text = re.sub(r"\bWHEN\b", "2015-09-01", re.sub(r"\b[NS]\b", "1", text))
    return re.sub(r"(\S+?)(?:\|\S+)+", r"\1", text)
