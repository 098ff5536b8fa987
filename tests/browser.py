"""Opens pages in headless Chromium, records their messages and requests, and operates them by keyboard."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import pytest
from playwright.sync_api import Page, sync_playwright

# playwright would download its own browser; the system's is used instead
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

_LIMIT_MS = 300_000
"""Time limit for a start or a step of the browser, so long that only a hang reaches it."""

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)")


@dataclass
class Watched:
    """An open page with its errors and requests."""

    page: Page
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def open_tables_by_keyboard(page: Page) -> int:
    """Opens the tables of all pictures with Tab and Enter, from top to bottom; returns their number."""
    page.evaluate("document.activeElement.blur()")
    opened = 0
    while True:
        page.keyboard.press("Tab")
        tag = page.evaluate("document.activeElement.tagName")
        if tag == "SUMMARY":
            page.keyboard.press("Enter")
            opened += 1
        if tag == "BODY":
            return opened


def texts_outside(page: Page) -> list[str]:
    """Returns the texts in visible pictures that extend beyond their picture."""
    outside = """pictures => pictures.flatMap(svg => {
      const box = svg.getBoundingClientRect();
      return [...svg.querySelectorAll("text")].filter(text => {
        const own = text.getBoundingClientRect();
        return own.left < box.left - 1 || own.right > box.right + 1
          || own.top < box.top - 1 || own.bottom > box.bottom + 1;
      }).map(text => text.textContent);
    })"""
    found: list[str] = page.locator("figure:visible svg").evaluate_all(outside)
    return found


@contextmanager
def open_page(url: str, *, width: int = 1280, scheme: Literal["light", "dark"] = "light") -> Iterator[Watched]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=_LIMIT_MS)
        try:
            watched = Watched(browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme))
            watched.page.set_default_timeout(_LIMIT_MS)
            watched.page.on("console", lambda message: watched.messages.append(message.text))
            watched.page.on("pageerror", lambda error: watched.messages.append(str(error)))
            watched.page.on("request", lambda request: watched.requests.append(request.url))
            watched.page.goto(url)
            yield watched
        finally:
            browser.close()
