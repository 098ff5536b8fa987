"""Decodes small text files that people write: ids, shop.toml."""

import codecs
import gzip
import zlib

_GZIP = b"\x1f\x8b"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode_text(content: bytes, name: str) -> str:
    """Decodes UTF-8, or UTF-16 with a byte order mark, perhaps compressed with gzip; drops the byte order mark.

    Args:
      content: bytes of the file.
      name: the file, for errors.

    Raises:
      ValueError: the file is damaged or has another encoding.
    """
    try:
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
        return content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not text in UTF-8 ({error}); save it as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{name} is a damaged gzip file ({error}); compress it again") from error
