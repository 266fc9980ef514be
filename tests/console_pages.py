"""Chromium for the console's tests: a browser, and pages whose errors and policy violations fail the test."""

import contextlib
import shutil
from collections.abc import Iterator

from playwright.sync_api import Browser, Page, Playwright


@contextlib.contextmanager
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """The distribution's Chromium; as root it cannot have its own sandbox."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))))
    browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
    try:
        yield browser
    finally:
        browser.close()


@contextlib.contextmanager
def page_of(
    browser: Browser,
    url: str,
    width: int = 1280,
    height: int = 800,
    allowed: tuple[str, ...] = ("404", "409", "422", "ERR_", "503"),
) -> Iterator[Page]:
    """A page in a session of its own. Refusals are what tests ask for; whatever else it complains of is a bug."""
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
    context.set_default_timeout(5000)
    page = context.new_page()
    page.on("console", lambda told: complaints.append(told.text) if told.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    try:
        yield page
    finally:
        context.close()
    bad = [
        text for text in complaints if not ("Failed to load resource" in text and any(word in text for word in allowed))
    ]
    assert not bad
