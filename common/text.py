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
    """Decodes the text of a file, which may be compressed by gzip. Drops a byte order mark.

    The text must be in UTF-8, or in UTF-16 with a byte order mark.

    Args:
      content: bytes of the file.
      name: name of the file, for errors.

    Raises:
      ValueError: the file is damaged or has another encoding.
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
        raise ValueError(f"{name} is a damaged gzip file ({error}); compress it again") from error


def printable(text: str) -> str:
    """Escapes characters that would control the terminal. Such characters may be in an id that an error quotes.

    The escapes are those of JSON, so that JSON text stays valid.
    """
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
