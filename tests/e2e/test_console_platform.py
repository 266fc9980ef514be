"""The console on the platform as it is: islands in real processes, two people looking, all killed at once."""

import itertools
import json
import os
import re
import shlex
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from console_pages import appears, chromium, page_of, vanishes
from upplatform import Up, up, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]
expect.set_options(timeout=20_000)  # what is right; how soon is asked where it is promised, by `appears`
AT_ONCE_S = 0.5
VERB = re.compile(r"[a-z-]+")
SHOP = f"shop-{os.getpid()}"
ROW = f"[data-resource='island.{SHOP}'][role=row]"
OVERLAY = f"{ROW} > .overlay"


@pytest.fixture(scope="module")
def platform() -> Iterator[Up]:
    with up() as platform:
        yield platform


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, chromium(playwright) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(platform: Up, browser: Browser) -> Iterator[tuple[Page, Page]]:
    """Two people, each signed in by an address of their own."""
    first, second = (platform.ok("up", "--quiet").strip() for _ in range(2))
    with page_of(browser, first) as one, page_of(browser, second, width=360, height=740) as two:
        for page in (one, two):
            page.set_default_timeout(20_000)
        yield one, two


@pytest.fixture
def shop(pages: tuple[Page, Page]) -> str:
    """An island both see in their lists."""
    for page in pages:
        page.goto(page.url.partition("#")[0] + "#/islands")
    if not pages[0].locator(ROW).count():
        told = fetch(pages[0], "POST", "/v1/islands", {"name": SHOP, "memory": "256M"})
        ended(pages[0], told["id"])
    for page in pages:
        expect(page.locator(ROW)).to_contain_text("running", timeout=20_000)
    return SHOP


def fetch(page: Page, method: str, path: str, body: Any = None, **headers: str) -> Any:
    """Ask as the page could, with its cookie."""
    given = headers or {"X-Enisle": "1", "Content-Type": "application/json"}
    return page.evaluate(
        """async ([method, path, body, headers]) => {
            const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
            return { ...(await response.json()), answered: response.status };
        }""",
        [method, path, body, given],
    )


def ended(page: Page, task: str) -> Any:
    def look() -> Any:
        told = fetch(page, "GET", f"/v1/tasks/{task}")
        return told if told.get("state") in ("done", "failed", "cancelled") else None

    return wait_until(look)


def hold(page: Page, seconds: float, **more: Any) -> str:
    """Submit a task that holds the island for itself."""
    resources = [{"kind": "island", "id": SHOP, "mode": "exclusive"}]
    request = {"routine": "platform.sleep@1", "arguments": {"seconds": seconds}, "resources": resources, **more}
    told = fetch(page, "POST", "/v1/tasks", request)
    assert told["answered"] == 202, told
    return told["id"]


def test_one_signs_in_by_the_address_makes_an_island_and_runs_a_command(pages: tuple[Page, Page], platform: Up) -> None:
    page = pages[0]
    assert "code" not in page.url
    page.keyboard.press("c")
    page.fill("[name=name]", SHOP)
    page.fill("[name=memory]", "256M")
    page.fill("[name=program]", "sh -c 'echo opened; exec sleep 1000'")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.locator("h1 + .state")).to_have_text("running")
    page.get_by_role("link", name="run", exact=True).click()
    page.fill("#command", "printf '\\033[32mgreen\\033[0m\\n'; echo wrong >&2; exit 7")
    page.keyboard.press("Enter")
    terminal = page.locator(".terminal")
    expect(terminal).to_contain_text("exit 7 after")
    expect(terminal.locator(".stdout")).to_have_text("green")
    assert "ansi-2" in (terminal.locator(".stdout").get_attribute("style") or "")
    expect(terminal.locator(".stderr")).to_have_text("wrong")
    page.get_by_role("link", name="log", exact=True).click()
    expect(page.locator(".terminal")).to_contain_text("opened")
    page.get_by_role("link", name="files", exact=True).click()
    expect(page.get_by_role("link", name="tmp/")).to_be_visible()
    page.get_by_role("link", name="processes", exact=True).click()
    expect(page.locator("#page [role=row]", has_text="sleep")).to_be_visible()


def test_a_shell_is_typed_at_and_left_to_its_task(shop: str, pages: tuple[Page, Page]) -> None:
    page = pages[0]
    page.goto(page.url.partition("#")[0] + f"#/islands/{shop}/run")
    opening = page.get_by_role("button", name="Open a shell")
    assert (opening.get_attribute("data-cli") or "").startswith(f"enisle island exec -it {shop} -- sh -c ")
    opening.press("Enter")  # notes of what was done before may be in front of it
    terminal = page.locator(".terminal")
    expect(terminal).to_contain_text("#")
    page.keyboard.type("echo hello wrld")
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    page.keyboard.type("o")
    page.keyboard.press("Enter")
    expect(terminal).to_contain_text("\nhello world", use_inner_text=True)
    page.keyboard.type("sleep 1000")
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    page.keyboard.press("Control+c")
    expect(terminal).to_contain_text("^C")
    page.keyboard.type("exit 5")
    page.keyboard.press("Enter")
    expect(terminal).to_contain_text("exit 5 after")
    assert page.locator(".cursor").count() == 0


def test_what_the_page_shows_as_its_command_line_does_the_same(shop: str, platform: Up) -> None:
    assert platform.ok("island", "exec", shop, "--", "sh", "-c", "echo a | tr a b") == "b\n"
    assert json.loads(platform.ok("island", "show", "--json", shop))["name"] == shop


def test_both_see_who_holds_it_at_once_and_the_platform_refuses_the_rest(shop: str, pages: tuple[Page, Page]) -> None:
    watches = [appears(page, OVERLAY) for page in pages]
    task = hold(pages[0], 60)
    drawn = [watch() for watch in watches]
    started = wait_until(lambda: fetch(pages[0], "GET", f"/v1/tasks/{task}")["started"])
    assert all(when - started < AT_ONCE_S for when in drawn), (drawn, started)
    for page in pages:
        expect(page.locator(OVERLAY)).to_contain_text("platform.sleep")
        expect(page.locator(f"{OVERLAY} [role=progressbar]")).to_have_attribute("aria-valuenow", "1", timeout=10_000)
        expect(page.locator(OVERLAY)).to_contain_text("%")
    pages[1].reload()
    expect(pages[1].locator(OVERLAY)).to_contain_text("%")
    forged = fetch(pages[0], "POST", f"/v1/islands/{shop}/start", {"if_blocked": "fail"})
    assert (forged["answered"], forged["holder"]) == (409, task)
    plain = fetch(pages[0], "POST", f"/v1/islands/{shop}/start", {}, **{"Content-Type": "application/json"})
    assert plain["answered"] == 403

    watches = [vanishes(page, OVERLAY) for page in pages]
    fetch(pages[0], "POST", f"/v1/tasks/{task}/cancel", {"why": "seen enough"})
    gone = [watch() for watch in watches]
    told = ended(pages[0], task)
    assert told["state"] == "cancelled"
    assert all(when - told["finished"] < AT_ONCE_S for when in gone), (gone, told)


@pytest.mark.parametrize(("state", "deadline_s"), [("done", 0), ("failed", 0.5)])
def test_an_end_frees_it_for_both_at_once(shop: str, pages: tuple[Page, Page], state: str, deadline_s: float) -> None:
    shown = [appears(page, OVERLAY) for page in pages]
    task = hold(pages[0], 1, deadline_s=deadline_s)
    for watch in shown:
        watch()
    watches = [vanishes(page, OVERLAY) for page in pages]
    gone = [watch() for watch in watches]
    told = ended(pages[0], task)
    assert told["state"] == state
    assert all(when - told["finished"] < AT_ONCE_S for when in gone), (gone, told)


def test_every_command_line_that_is_shown_begins_with_words_there_are(
    shop: str, pages: tuple[Page, Page], platform: Up
) -> None:
    page = pages[0]
    shown: set[str] = set()
    parts = ("run", "log", "files", "processes")
    for place in (
        "islands",
        f"islands/{shop}",
        *(f"islands/{shop}/{part}" for part in parts),
        "tasks",
        "hosts",
        "vms",
        "events",
    ):
        page.goto(page.url.partition("#")[0] + f"#/{place}")
        page.wait_for_timeout(100)
        shown |= set(page.locator("#strip code, .empty .line code").all_inner_texts())
        shown |= set(page.evaluate("[...document.querySelectorAll('[data-cli]')].map(one => one.dataset.cli)"))
    verbs = {tuple(itertools.takewhile(VERB.fullmatch, shlex.split(line)[1:3])) for line in shown}
    assert len(verbs) >= 12
    for words in verbs:
        told = platform.enisle(*words, "--help")
        assert told.returncode == 0, (words, told.stderr)


def test_everything_killed_at_once_leaves_nothing_blocked(shop: str, pages: tuple[Page, Page], platform: Up) -> None:
    watches = [appears(page, OVERLAY) for page in pages]
    task = hold(pages[0], 2)
    for watch in watches:
        watch()
    parts = json.loads(platform.ok("status", "--json"))["parts"]
    for name in ("api", "dispatcher", "engine"):
        os.kill(parts[name], signal.SIGKILL)
    for page in pages:
        expect(page.locator("#banner")).to_contain_text("Reconnecting", timeout=5000)
        assert page.locator(OVERLAY).count() == 1  # not known to be free
    for page in pages:
        expect(page.locator("#link")).to_have_text("live", timeout=30_000)
        expect(page.locator(OVERLAY)).to_have_count(0, timeout=30_000)
    told = ended(pages[0], task)
    assert told["state"] in ("done", "failed"), told
    held = fetch(pages[0], "GET", "/v1/resources")["items"]
    assert [one for one in held if one["holders"]] == []
    expect(pages[0].locator(ROW).get_by_role("button", name="Stop")).to_be_enabled(timeout=20_000)
