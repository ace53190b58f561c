"""A headless browser for the tests of the page: Debian's Chromium, or any that is on the PATH."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def find_browser() -> str:
    """Return the path of a browser: ``CHROMIUM`` in the environment, or one on the PATH; without one the test fails."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if not found:
        pytest.fail(
            f"the page is tested in a real browser and none of {', '.join(_NAMES)} is on the PATH: install one "
            "(Debian: apt-get install chromium), or name its path in CHROMIUM",
            pytrace=False,
        )
    return found


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Open a browser with a user directory of its own, and close it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()
