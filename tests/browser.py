"""A real browser without a window for the tests of pages: Chromium, driven by Playwright.

A test takes the fixture ``page``. Where there is no Chromium (Debian: ``apt-get install chromium``; ``.ci/run`` does
that where it may), such tests are skipped and say so.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT = 60_000  # milliseconds that a page may take on a busy machine


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium with a profile of its own."""
    from playwright.sync_api import sync_playwright  # only where it is needed: its import takes a while

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        path = next(filter(None, map(shutil.which, NAMES)), own if Path(own).exists() else None)
        if path is None:
            pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
        browser = playwright.chromium.launch(executable_path=path, args=[*ARGUMENTS], timeout=WAIT)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page of 1400x900. Errors in its console and errors that its scripts do not catch fail the test.

    ``page.faults`` holds them until then, ``page.addresses`` every address that the page has asked for.
    """
    from playwright.sync_api import Error

    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(WAIT)
    page.faults, page.addresses = [], []
    page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda request: page.addresses.append(request.url))
    yield page
    try:
        page.evaluate("0")  # what is on its way arrives before
    except Error as error:
        page.faults.append(f"the page is gone: {error}")
    faults = list(page.faults)
    context.close()
    assert not faults, "\n".join(faults)
