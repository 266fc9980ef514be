"""Chromium for the console's tests: a browser, and pages whose errors and policy violations fail the test."""

import contextlib
import shutil
from collections.abc import Callable, Iterator

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
    allowed: tuple[str, ...] = ("404", "409", "422", "ERR_", "503", "400"),
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
    assert not bad, bad


def appears(page: Page, selector: str) -> Callable[[], float]:
    """Begin to watch for an element; what is returned gives the time (seconds since 1970) when it was drawn."""
    return _watch(page, selector, "found")


def vanishes(page: Page, selector: str) -> Callable[[], float]:
    """As `appears`, for its end."""
    return _watch(page, selector, "!found")


def _watch(page: Page, selector: str, condition: str) -> Callable[[], float]:
    page.evaluate(
        f"""(selector) => {{ window.watched = new Promise((done) => {{
            const look = () => {{
                const found = document.querySelector(selector);
                if ({condition}) done(Date.now() / 1000);
            }};
            new MutationObserver(look).observe(document.body, {{ subtree: true, childList: true, attributes: true }});
            look();
        }}); }}""",
        selector,
    )
    return lambda: page.evaluate("Promise.race([window.watched, new Promise((_, no) => setTimeout(no, 10000))])")
