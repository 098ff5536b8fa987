"""Headless Chromium for tests of pages: what a page logs, asks the network for, and lets the keyboard reach."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Page, sync_playwright

# playwright brings its own browsers by a download; the system's is taken instead
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)")


@dataclass
class Watched:
    """A page, and what came up while it was open."""

    page: Page
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def open_page(url: str, *, width: int = 1280, scheme: str = "light") -> Iterator[Watched]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            watched = Watched(browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme))
            watched.page.set_default_timeout(20_000)
            watched.page.on("console", lambda message: watched.messages.append(message.text))
            watched.page.on("pageerror", lambda error: watched.messages.append(str(error)))
            watched.page.on("request", lambda request: watched.requests.append(request.url))
            watched.page.goto(url)
            yield watched
        finally:
            browser.close()
