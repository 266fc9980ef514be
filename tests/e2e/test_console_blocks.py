"""What a task holds is blocked in every open browser, and free again after every kind of end; streams that break."""

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from console_fake import Fake, host, island, problem, task
from console_pages import Session, appears, chromium, page_of, session_of, vanishes

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]
AT_ONCE_S = 0.5
ROW = "[data-resource='island.web'][role=row]"
OVERLAY = f"{ROW} > .overlay"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, chromium(playwright) as browser:
        yield browser


@pytest.fixture
def fake() -> Iterator[Fake]:
    with Fake() as fake:
        fake.put("host", "h1", host("h1"))
        fake.put("island", "web", island("web"))
        fake.put("island", "other", island("other"))
        yield fake


@pytest.fixture(scope="module")
def sessions(browser: Browser) -> Iterator[tuple[Session, Session]]:
    with session_of(browser) as first, session_of(browser) as second:
        yield first, second


@pytest.fixture
def pages(sessions: tuple[Session, Session], fake: Fake) -> Iterator[tuple[Page, Page]]:
    """Two people."""
    with sessions[0].at(fake.url) as first, sessions[1].at(fake.url) as second:
        for page in (first, second):
            expect(page.locator(ROW)).to_be_visible()
        yield first, second


def test_a_task_blocks_what_it_holds_in_both_browsers_and_says_who_it_is(fake: Fake, pages: tuple[Page, Page]) -> None:
    watches = [appears(page, OVERLAY) for page in pages]
    began = time.time()
    fake.lock("island.web", task("t1", "island.stop@1", "island.web"), 0.42, "ending processes")
    assert all(watch() - began < AT_ONCE_S for watch in watches)
    for page in pages:
        overlay = page.locator(OVERLAY)
        expect(overlay).to_contain_text("island.stop")
        expect(overlay).to_contain_text("ending processes")
        expect(overlay).to_contain_text("42 %")
        assert overlay.get_attribute("href") == "#/tasks/t1"
        for button in page.locator(f"{ROW} button").all():
            expect(button).to_be_disabled()
        expect(page.locator("[data-resource='island.other'] .overlay")).to_have_count(0)
        page.locator(ROW).click()
        expect(page.locator("h1")).to_have_text("island.stop")
    assert not [one for one in fake.asked if one[0] != "GET"]


def test_a_reload_keeps_the_block_and_a_detail_shows_it_too(fake: Fake, pages: tuple[Page, Page]) -> None:
    fake.lock("island.web", task("t1", "island.stop@1", "island.web"), 0.42, "ending processes")
    pages[0].reload()
    expect(pages[0].locator(OVERLAY)).to_contain_text("42 %")
    pages[0].goto(f"{fake.url}#/islands/web")
    expect(pages[0].locator(".actions > .overlay")).to_contain_text("island.stop")
    expect(pages[0].get_by_role("button", name="Stop", exact=True)).to_be_disabled()
    pages[0].goto(f"{fake.url}#/islands/web/run")
    expect(pages[0].get_by_role("button", name="Run", exact=True)).to_be_disabled()


@pytest.mark.parametrize("state", ["done", "failed", "cancelled", "crash"])
def test_every_end_frees_it_in_both_browsers(fake: Fake, pages: tuple[Page, Page], state: str) -> None:
    holder = task("t1", "island.stop@1", "island.web")
    fake.lock("island.web", holder, 0.1, "ending")
    for page in pages:
        expect(page.locator(OVERLAY)).to_be_visible()
    watches = [vanishes(page, OVERLAY) for page in pages]
    if state == "crash":
        # Everything died, and what came back (a new epoch) knows of no lock.
        fake.epoch += 1
        fake.things.pop(("lock", "island.web"))
        began = time.time()
        fake.cut()
        assert all(watch() - began < 2 * AT_ONCE_S for watch in watches)
    else:
        began = time.time()
        fake.end("island.web", holder, state)
        assert all(watch() - began < AT_ONCE_S for watch in watches)
    for page in pages:
        expect(page.locator(ROW).get_by_role("button", name="Stop")).to_be_enabled()


def test_an_interrupted_task_keeps_what_it_holds_and_says_what_it_waits_for(
    fake: Fake, pages: tuple[Page, Page]
) -> None:
    fake.lock("island.web", task("t1", "island.stop@1", "island.web", state="interrupted"), 0.2, "ending")
    for page in pages:
        expect(page.locator(OVERLAY)).to_contain_text("interrupted, waits for h1")


def test_what_is_shared_is_marked_and_stays_usable(fake: Fake, pages: tuple[Page, Page]) -> None:
    fake.lock("island.web", task("t1", "island.exec@1", "island.web"), 0.5, "running", mode="shared")
    for page in pages:
        expect(page.locator(f"{ROW} > .used [role=progressbar]")).to_have_attribute("aria-valuenow", "50")
        expect(page.locator(OVERLAY)).to_have_count(0)
        expect(page.locator(ROW).get_by_role("button", name="Stop")).to_be_enabled()
    pages[0].locator(ROW).get_by_role("button", name="Stop").click()
    expect(pages[0].locator("dialog")).to_contain_text("1 command in it will be cancelled.")


def test_progress_never_goes_back_but_for_another_attempt(fake: Fake, pages: tuple[Page, Page]) -> None:
    fake.lock("island.web", task("t1", "island.stop@1", "island.web"), 0.5, "late")
    overlay = pages[0].locator(OVERLAY)
    expect(overlay).to_contain_text("50 %")
    fake.put("progress", "t1", {"fraction": 0.2, "phase": "stale", "left_s": None, "attempt": 1})
    fake.put("island", "marker", island("marker"))
    expect(pages[0].locator("[role=row]", has_text="marker")).to_be_visible()
    expect(overlay).to_contain_text("50 %")
    fake.put("progress", "t1", {"fraction": 0.1, "phase": "again", "left_s": None, "attempt": 2})
    expect(overlay).to_contain_text("10 %")


def test_a_broken_stream_is_told_and_resumed_where_it_ended(fake: Fake, pages: tuple[Page, Page]) -> None:
    page = pages[0]
    fake.stalled = True
    fake.cut()
    expect(page.locator("#banner")).to_contain_text("Reconnecting")
    expect(page.locator("#banner")).to_contain_text("the platform is in safe mode")
    expect(page.locator("#banner code")).to_have_text("enisle down; enisle up --accept-store")
    fake.put("island", "meanwhile", island("meanwhile"))
    mark = f"{fake.epoch}-{fake.revision - 1}"
    fake.stalled = False
    expect(page.locator("[role=row]", has_text="meanwhile")).to_be_visible()
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator("#link")).to_have_text("live")
    assert fake.resumed[-2:] == [mark, mark]


def test_after_a_reset_only_what_is_still_there_stays(fake: Fake, pages: tuple[Page, Page]) -> None:
    fake.things.pop(("island", "other"))
    fake.put("island", "web", island("web", state="stopped"))
    fake.floor = fake.revision + 1
    fake.cut()
    for page in pages:
        expect(page.locator("[role=row]", has_text="other")).to_have_count(0)
        expect(page.locator("[role=row]", has_text="web")).to_contain_text("stopped")


def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_key(browser: Browser, fake: Fake) -> None:
    with page_of(browser, fake.url) as page:
        keys: list[str] = []

        def lose_the_first(route):  # type: ignore[no-untyped-def]
            keys.append(route.request.headers["idempotency-key"])
            route.abort() if len(keys) == 1 else route.continue_()

        page.route("**/v1/islands/web/stop", lose_the_first)
        page.locator(ROW).get_by_role("button", name="Stop").click()
        page.locator("dialog").get_by_role("button", name="Stop", exact=True).click()
        expect(page.locator("#notes")).to_contain_text("Stopping web")
        assert len(keys) == 2
        assert keys[0] == keys[1]


def test_a_task_that_fails_afterwards_is_told_with_its_hint(fake: Fake, pages: tuple[Page, Page]) -> None:
    page = pages[0]
    fake.answer("POST", "/v1/islands/web/stop", task("t9", "island.stop@1", "island.web"))
    page.locator(ROW).get_by_role("button", name="Stop").click()
    page.locator("dialog").get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#notes")).to_contain_text("enisle island stop web")
    failure = {
        "message": "it does not end",
        "why": "a process ignores signals",
        "hint": "`enisle island rm --force web`",
    }
    fake.put("task", "t9", task("t9", "island.stop@1", state="failed", finished=time.time(), failure=failure))
    expect(page.locator("#notes .problem")).to_contain_text("it does not end")
    expect(page.locator("#notes .problem")).to_contain_text("a process ignores signals")
    expect(page.locator("#notes .problem code")).to_have_text("enisle island rm --force web")


def test_two_hundred_busy_tasks_end_as_they_are(fake: Fake, pages: tuple[Page, Page]) -> None:
    page = pages[0]
    page.goto(f"{fake.url}#/tasks?state=active")
    names = [f"t{n:03}" for n in range(200)]
    fake.put_all("task", {name: task(name) for name in names})
    expect(page.locator("#page [role=row]")).to_have_count(201)
    for step in range(20):
        fake.put_all(
            "progress",
            {name: {"fraction": step / 20, "phase": f"step {step}", "left_s": 1, "attempt": 1} for name in names},
        )
        time.sleep(0.05)
    fake.put_all("task", {name: task(name, state="done", finished=time.time()) for name in names})
    expect(page.locator("#page [role=row]")).to_have_count(0, timeout=15_000)
    page.get_by_role("button", name="done").click()
    expect(page.locator("[data-state=done]")).to_have_count(200)


def test_a_wrong_place_to_resume_at_starts_anew(fake: Fake, pages: tuple[Page, Page]) -> None:
    page = pages[0]
    refused: list[str] = []

    def refuse_once(route):  # type: ignore[no-untyped-def]
        given = route.request.headers.get("last-event-id", "")
        if given and not refused:
            refused.append(given)
            status, document = problem(400, "no event is named so")
            route.fulfill(status=status, json=document)
        else:
            route.continue_()

    page.route("**/v1/events*", refuse_once)
    fake.cut()
    fake.put("island", "later", island("later"))
    expect(page.locator("[role=row]", has_text="later")).to_be_visible()
    assert refused
    assert fake.resumed.count("") >= 3
