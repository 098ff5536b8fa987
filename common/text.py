"""Decodes small hand-written files, and makes ids and names safe to print."""

import codecs
import gzip
import re
import zlib

_GZIP = b"\x1f\x8b"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# control characters except tab and line feed, marks that reverse the direction of text, line separators, and
# surrogates, which represent bytes of file names that are not UTF-8 and cannot be encoded
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def decode_text(content: bytes, name: str) -> str:
    """Decodes UTF-8, or UTF-16 with a byte order mark, from plain or gzip-compressed content.

    Raises:
      ValueError: the file `name` is damaged or has another encoding.
    """
    try:
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
        if b"\0" in content[:2]:  # later ones may be part of an id
            raise ValueError(f"{name} is not text in UTF-8: it contains NUL bytes; save it as UTF-8")
        return content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not text in UTF-8 ({error}); save it as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{name} is a damaged gzip file ({error}); compress the original file again") from error


def printable(text: str) -> str:
    """Escapes the control characters of a terminal, as JSON does."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
