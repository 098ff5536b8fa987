"""Damages the bytes of a file as editors, spreadsheets, broken disks and broken transfers do."""

import codecs
import gzip
import random
import re

_SPECIAL = (b"\0", b"\r", b"\n", b'"', b"'", b",", b";", b"\t", b"\xff", b"\x1b[31m", "é\u202e\u2028".encode(), b"\\")
_NUMBERS = (b"-1", b"0", b"1e400", b"nan", b"inf", b"-0.0", b"9" * 30, b"9" * 400, b"0x10", b"1_000", b"", b"none")
_ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "cp1252", "utf-32", "utf-8-sig")


def mutate(content: bytes, choices: random.Random) -> bytes:
    """Applies one to three mutations."""
    for _ in range(choices.randint(1, 3)):
        content = choices.choice(_MUTATIONS)(content, choices)
    return content


def _flip(content: bytes, choices: random.Random) -> bytes:
    """Flips up to four bits."""
    flipped = bytearray(content)
    for _ in range(choices.randint(1, 4) if content else 0):
        flipped[choices.randrange(len(flipped))] ^= 1 << choices.randrange(8)
    return bytes(flipped)


def _insert(content: bytes, choices: random.Random) -> bytes:
    """Inserts a special character, such as NUL."""
    position = choices.randint(0, len(content))
    return content[:position] + choices.choice(_SPECIAL) + content[position:]


def _truncate(content: bytes, choices: random.Random) -> bytes:
    return content[: choices.randint(0, len(content))]


def _cut(content: bytes, choices: random.Random) -> bytes:
    """Removes a range of bytes."""
    first, last = sorted(choices.randint(0, len(content)) for _ in range(2))
    return content[:first] + content[last:]


def _duplicate_line(content: bytes, choices: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join([*lines, choices.choice(lines)]) if lines else content


def _swap_lines(content: bytes, choices: random.Random) -> bytes:
    lines = content.split(b"\n")
    first, second = (choices.randrange(len(lines)) for _ in range(2))
    lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


def _remove_line(content: bytes, choices: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    if lines:
        del lines[choices.randrange(len(lines))]
    return b"".join(lines)


def _change_separators(content: bytes, choices: random.Random) -> bytes:
    """Changes the separators of all lines, or of one line."""
    separator = choices.choice((b";", b"\t", b"|", b" ", b",,", b", "))
    if choices.random() < 0.5:
        return content.replace(b",", separator)
    lines = content.split(b"\n")
    changed = choices.randrange(len(lines))
    lines[changed] = lines[changed].replace(b",", separator)
    return b"\n".join(lines)


def _change_line_ends(content: bytes, choices: random.Random) -> bytes:
    return content.replace(b"\n", choices.choice((b"\r\n", b"\r", b"\n\n", b"\n \n")))


def _change_number(content: bytes, choices: random.Random) -> bytes:
    """Replaces a number with an unusual one (such as a huge or an infinite number), or with text that is no number."""
    found = list(re.finditer(rb"\d+(?:\.\d+)?", content))
    if not found:
        return content
    number = choices.choice(found)
    return content[: number.start()] + choices.choice(_NUMBERS) + content[number.end() :]


def _recode(content: bytes, choices: random.Random) -> bytes:
    return content.decode(errors="replace").encode(choices.choice(_ENCODINGS), errors="replace")


def _mark(content: bytes, choices: random.Random) -> bytes:
    """Inserts a byte order mark at the start or before a line."""
    lines = content.split(b"\n")
    changed = choices.choice((0, choices.randrange(len(lines))))
    mark = choices.choice((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return b"\n".join([*lines[:changed], mark + lines[changed], *lines[changed + 1 :]])


def _compress(content: bytes, choices: random.Random) -> bytes:
    """Compresses with gzip. The result may be truncated, have flipped bits, be zero-padded, or have two members."""
    packed = gzip.compress(content, mtime=0)
    middle = choices.randint(0, len(content))
    members = gzip.compress(content[:middle], mtime=0) + gzip.compress(content[middle:], mtime=0)
    return choices.choice((packed, _truncate(packed, choices), _flip(packed, choices), packed + b"\0" * 512, members))


def _lengthen(content: bytes, choices: random.Random) -> bytes:
    """Inserts a word of 100,000 characters."""
    position = choices.randint(0, len(content))
    return content[:position] + b"x" * 100_000 + content[position:]


def _noise(content: bytes, choices: random.Random) -> bytes:
    """Overwrites a range with random bytes."""
    position, noise = choices.randint(0, len(content)), choices.randbytes(choices.randint(1, 64))
    return content[:position] + noise + content[position + len(noise) :]


_MUTATIONS = (
    _flip,
    _insert,
    _truncate,
    _cut,
    _duplicate_line,
    _swap_lines,
    _remove_line,
    _change_separators,
    _change_line_ends,
    _change_number,
    _recode,
    _mark,
    _compress,
    _lengthen,
    _noise,
)
