"""Rewrites every generated document: `python -m tools`."""

import sys

from tools import commands, messages, settings, tables


def main() -> int:
    """Writes all generated pages, and updates the result tables in other documents."""
    pages = {settings.SETTINGS: settings.render(), commands.COMMANDS: commands.render()}
    pages[messages.MESSAGES] = messages.render()
    pages |= {path: tables.render_document(path) for path in tables.DOCUMENTS}
    for path, text in pages.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            sys.stderr.write(f"rewrote {path.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
