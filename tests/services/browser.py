"""A real, headless Chromium: Debian's, driven by playwright."""

import contextlib
from collections.abc import Iterator

from playwright.sync_api import Browser, sync_playwright

from tests.services.processes import program


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """Run one for several tests."""
    path = program("chromium-headless-shell", "chromium-headless-shell")
    with sync_playwright() as driver:
        # Its own sandbox needs what a container does not give; the pages are ours. No GPU: none is there.
        browser = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            browser.close()
