"""Chromium for the console's tests: a browser, and pages whose errors and policy violations fail the test."""

import contextlib
import shutil
from collections.abc import Callable, Iterator

from playwright.sync_api import Browser, Page, Playwright

LOADING = "Failed to load resource: "
STATUS = "the server responded with a status of "
REFUSALS = (*(f"{STATUS}{status}" for status in (400, 403, 404, 409, 422, 503)), "net::ERR_")


@contextlib.contextmanager
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """The distribution's Chromium; as root it cannot have its own sandbox."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))))
    browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
    try:
        yield browser
    finally:
        browser.close()


class Session:
    """A page in a session of its own, for several tests; what it complains of fails the test it happens in."""

    def __init__(self, browser: Browser, width: int = 1280, height: int = 800) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
        self.context.set_default_timeout(5000)
        self.page = self.context.new_page()
        self._complaints: list[str] = []
        self.page.on("console", lambda told: self._hear(told.text) if told.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self._hear(str(error)))

    def _hear(self, text: str) -> None:
        self._complaints.append(text)

    @contextlib.contextmanager
    def at(self, url: str, allowed: tuple[str, ...] = REFUSALS) -> Iterator[Page]:
        """Show an address for the length of a test. Refusals are what tests ask for; anything else is a bug."""
        self._complaints.clear()
        self.page.goto(url)
        yield self.page
        self.page.unroute_all()
        self.page.goto("about:blank")
        bad = [text for text in self._complaints if not any(f"{LOADING}{word}" in text for word in allowed)]
        assert not bad, bad


@contextlib.contextmanager
def session_of(browser: Browser, width: int = 1280, height: int = 800) -> Iterator[Session]:
    session = Session(browser, width, height)
    try:
        yield session
    finally:
        session.context.close()


@contextlib.contextmanager
def page_of(
    browser: Browser, url: str, width: int = 1280, height: int = 800, allowed: tuple[str, ...] = REFUSALS
) -> Iterator[Page]:
    """A page in a session for one test."""
    with session_of(browser, width, height) as session, session.at(url, allowed) as page:
        yield page


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
