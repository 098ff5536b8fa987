"""The page of messages agrees with the code."""

import ast

from tools.messages import MESSAGES, find_messages, render

MODULE = """
def check(path, names, count):
    found = f"{path} has {count:,} row{'s' * (count > 1)}"
    if not names:
        raise ValueError(f"{found}, but no names; give {', '.join(NAMES)}")
    if count > 9:
        raise TooMany(_describe(count, "a" if names else "b"))
    raise ValueError(str(found))

def _describe(count, word):
    if count > 99:
        return "far too many rows"
    return "too many rows" + (f" of {word}" if word else " of all")

def run(parser, given):
    log.warning("skipped %d of %s rows: %s", given.count, f"{given.total:,}", given.reason or "none")
    log.info("%s", given.text)
    parser.error("give --output")
    sys.exit("failed")
    return {"error": f"unknown path {given.path}"}
"""


def test_each_message_with_words_is_found_and_has_placeholders_for_values():
    assert list(find_messages(ast.parse(MODULE), {})) == [
        "ValueError: {path} has {count} row(s), but no names; give {NAMES}",
        "TooMany: (too many rows( of {word} | of all) | far too many rows)",
        "warning: skipped {given.count} of {given.total} rows: {given.reason or 'none'}",
        "usage: give --output",
        "exit: failed",
        "answer: unknown path {given.path}",
    ]


def test_the_page_is_up_to_date():
    assert MESSAGES.read_text() == render(), "run `python -m tools`"
