"""The web console in Chromium, on a platform that does as it is told: what is shown, asked for and refused."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from console_fake import CONSOLE, Fake, host, island, output, problem, task
from console_pages import REFUSALS, Session, chromium, page_of, session_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(60)]
BUDGET, PAINT_MS = 100_000, 300
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, chromium(playwright) as browser:
        yield browser


@pytest.fixture
def fake() -> Iterator[Fake]:
    with Fake() as fake:
        fake.put("host", "h1", host("h1"))
        fake.put("island", "web", island("web"))
        fake.put("island", "db", island("db", state="stopped", program=[], memory_used=None))
        yield fake


@pytest.fixture(scope="module")
def session(browser: Browser) -> Iterator[Session]:
    with session_of(browser) as session:
        yield session


@pytest.fixture
def page(session: Session, fake: Fake) -> Iterator[Page]:
    with session.at(fake.url) as page:
        yield page


def test_the_console_is_small_and_needs_nothing_from_elsewhere() -> None:
    files = [path for path in CONSOLE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert sum(path.stat().st_size for path in files) < BUDGET
    for path in files:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text), path
    assert not re.search(r"\son\w+=|\sstyle=|<script>", (CONSOLE / "index.html").read_text())


def test_the_first_paint_comes_within_300_ms(browser: Browser, fake: Fake) -> None:
    """With a cold cache and a hundred islands; the best of five, since other tests run beside it."""
    fake.put_all("island", {f"i{number}": island(f"i{number}") for number in range(100)})
    paints: list[float] = []
    while len(paints) < 5 and min(paints, default=1000) >= PAINT_MS:
        with page_of(browser, fake.url) as page:
            page.wait_for_selector("[role=row][data-resource]")
            paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    assert min(paints) < PAINT_MS, paints


def test_every_module_that_is_imported_is_there() -> None:
    modules = {path.name for path in CONSOLE.glob("*.js")}
    for path in CONSOLE.glob("*.js"):
        for name in re.findall(r'from "\./([\w.]+)"', Path(path).read_text()):
            assert name in modules, (path.name, name)


def test_islands_are_listed_filtered_and_opened(page: Page) -> None:
    row = page.locator("[role=row]", has_text="web")
    expect(row).to_contain_text("running")
    expect(row).to_contain_text("96M / 512M")
    expect(row).to_contain_text("python3 -m http.server")
    page.locator("#filter").fill("stopp")
    expect(row).to_have_count(0)
    expect(page.locator("[role=row]", has_text="db")).to_be_visible()
    assert page.url.endswith("#/islands?q=stopp")
    page.reload()
    expect(page.locator("#filter")).to_have_value("stopp")
    page.locator("#filter").fill("")
    row.click()
    expect(page.locator("h1")).to_have_text("web")
    assert page.url.endswith("#/islands/web")
    expect(page.locator("#strip")).to_contain_text("enisle island show web")
    page.go_back()
    expect(page.locator("h1")).to_have_text("Islands")


def test_what_changes_is_shown_at_once(page: Page, fake: Fake) -> None:
    row = page.locator("[role=row]", has_text="web")
    expect(row).to_contain_text("running")
    fake.put("island", "web", island("web", state="exited", exit_code=137))
    expect(row).to_contain_text("exited 137", timeout=500)
    fake.put("island", "new", island("new"))
    expect(page.locator("[role=row]", has_text="new")).to_be_visible(timeout=500)
    fake.put("island", "web", None)
    expect(row).to_have_count(0, timeout=500)


def test_an_island_is_created_with_the_line_that_does_the_same(page: Page, fake: Fake) -> None:
    made = task("made", "island.create@1", "island.api")
    fake.answer("POST", "/v1/islands", made)
    page.keyboard.press("c")
    page.fill("[name=name]", "api")
    page.fill("[name=program]", "python3 -m 'http server' 8080")
    page.fill("[name=env]", "A=1\nB=x=y z")
    expect(page.locator("dialog .line code")).to_have_text(
        "enisle island create --memory 512M --env A=1 --env 'B=x=y z' api -- python3 -m 'http server' 8080"
    )
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.locator("h1")).to_have_text("api")
    asked = next(body for method, path, body in fake.asked if (method, path) == ("POST", "/v1/islands"))
    assert asked["program"] == ["python3", "-m", "http server", "8080"]
    assert (asked["name"], asked["memory"], asked["env"]) == ("api", "512M", {"A": "1", "B": "x=y z"})
    expect(page.locator("#notes")).to_contain_text("Creating api")


def test_a_refusal_says_why_and_what_to_do(page: Page, fake: Fake) -> None:
    fake.lock("island.db", holder := task("t1", "island.start@1", "island.db"), 0.3, "booting")
    fake.end("island.db", holder, "done")
    refusal = problem(409, "island/web is in use", "task t2 has it", "`enisle task wait t2`, then again", holder="t2")
    fake.answer("POST", "/v1/islands/web/stop", refusal)
    page.locator("[role=row]", has_text="web").get_by_role("button", name="Stop").click()
    expect(page.locator("dialog .same code")).to_have_text("enisle island stop web")
    page.locator("dialog").get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("dialog .problem")).to_contain_text("island/web is in use")
    expect(page.locator("dialog .problem")).to_contain_text("task t2 has it")
    expect(page.locator("dialog .problem code").first).to_have_text("enisle task wait t2")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_be_hidden()


def test_removing_what_runs_must_be_meant(page: Page, fake: Fake) -> None:
    page.locator("[role=row]", has_text="web").get_by_role("button", name="Remove").click()
    page.locator("dialog").get_by_role("button", name="Remove", exact=True).click()
    assert not [one for one in fake.asked if one[0] == "DELETE"]
    page.locator("dialog [type=checkbox]").check()
    expect(page.locator("dialog .same code")).to_have_text("enisle island rm --force web")
    page.locator("dialog").get_by_role("button", name="Remove", exact=True).click()
    expect(page.locator("dialog")).to_be_hidden()
    assert ("DELETE", "/v1/islands/web", {"force": "1"}) in fake.asked


def test_a_command_is_run_and_its_output_drawn(page: Page, fake: Fake) -> None:
    running = task("run1", "island.exec@1", "island.web")
    fake.answer("POST", "/v1/islands/web/exec", running)
    fake.answer(
        "GET", "/v1/tasks/run1/output", output("\x1b[3", "1mred\x1b[0m 10%\r99%\n", "\x1b[?25lend <b>bold</b>\n")
    )
    ended = running | {"state": "done", "result": {"exit_code": 3, "seconds": 0.5, "timed_out": False}}
    fake.answer("GET", "/v1/tasks/run1", lambda _: time.sleep(0.3) or ended)
    page.goto(f"{fake.url}#/islands/web/run")
    page.fill("#command", "echo a | wc")
    expect(page.locator("#strip")).to_contain_text("enisle island exec web -- sh -c 'echo a | wc'")
    page.keyboard.press("Enter")
    terminal = page.locator(".terminal")
    expect(terminal).to_contain_text("99% 10%"[:3])
    expect(terminal).to_contain_text("exit 3 after 500 ms")
    lines = page.locator(".terminal > div").all_inner_texts()
    assert lines[:3] == ["$ echo a | wc", "99% 10%", "end <b>bold</b>"]
    exec_body = next(body for method, path, body in fake.asked if path.endswith("/exec"))
    assert exec_body == {"argv": ["sh", "-c", "echo a | wc"], "if_blocked": "fail"}
    page.goto(f"{fake.url}#/tasks")
    page.goto(f"{fake.url}#/islands/web/run")
    expect(terminal).to_contain_text("exit 3 after 500 ms")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#command")).to_have_value("echo a | wc")
    page.evaluate(
        """() => {
            const field = document.getElementById("command");
            field.value = "faster than a drawing";
            field.dispatchEvent(new Event("input"));
            field.form.requestSubmit();
        }"""
    )
    expect(terminal).to_contain_text("$ faster than a drawing")
    expect(page.locator("#command")).to_have_value("")


def test_a_line_editor_is_drawn_and_what_is_typed_arrives_once(page: Page, fake: Fake) -> None:
    fake.put("task", "t1", task("t1", "island.exec@1", arguments={"input": "open", "terminal": [24, 80]}))
    shown = [
        "> abcdef\b\b\x1b[1PX\x1b[2D",  # e is taken away, f written over, and the cursor goes back
        "\x1b[@Y\r\n\x1b[32mgreen\x1b[0m line\x1b[5D\x1b[K",
        "\r\nlast\x1b[A\rGREEN\x1b[B\x1b[3G!!\x1b[7mon\x1b[27m",
    ]
    fake.answer("GET", "/v1/tasks/t1/output", output(*shown, ended=False))
    lost = iter([problem(503, "its agent is away"), {"next": 2, "later": True}])

    def take(request: Any) -> Any:
        offset = int(request.query_params["offset"])
        return next(lost, {"next": offset + 4 if offset else 9, "later": False})

    fake.answer("POST", "/v1/tasks/t1/input", take)
    fake.answer("POST", "/v1/tasks/t1/terminal", {})
    page.goto(f"{fake.url}#/tasks/t1/output")
    terminal = page.locator(".terminal")
    expect(terminal).to_contain_text("!!on")
    lines = [one.rstrip() for one in page.locator(".terminal > div").all_inner_texts()]
    assert lines == ["> abcYdX", "GREEN", "la!!on"], lines
    assert page.locator(".cursor").count() == 1
    page.keyboard.type("ls")
    page.keyboard.press("Control+c")
    page.keyboard.press("ArrowUp")

    def typed() -> list[Any]:
        return [asked for method, path, asked in fake.asked if path.endswith("/input") and method == "POST"]

    for _ in range(100):
        if len(typed()) > 2:
            break
        page.wait_for_timeout(50)
    first, again, rest = typed()[:3]
    assert again["offset"] == first["offset"] == "0"
    assert again["writer"] == first["writer"]
    assert rest["offset"] == "2"
    assert (b"ls\x03\x1b[A").startswith(first["body"])
    sizes = [asked for _, path, asked in fake.asked if path.endswith("/terminal")]
    assert sizes[0]["columns"] > 40


def test_long_output_is_bounded(page: Page, fake: Fake) -> None:
    fake.put("task", "t1", task("t1", "island.exec@1", state="done", finished=time.time()))
    fake.answer(
        "GET",
        "/v1/tasks/t1/output",
        output(*["".join(f"line {n}\n" for n in range(k, k + 1000)) for k in range(0, 30_000, 1000)]),
    )
    page.goto(f"{fake.url}#/tasks/t1/output")
    expect(page.locator(".terminal")).to_contain_text("line 29999", timeout=10_000)
    assert page.locator(".terminal > div").count() <= 5002
    expect(page.locator(".terminal .dropped")).to_contain_text("earlier lines")


def test_nothing_from_the_platform_becomes_markup(page: Page, fake: Fake) -> None:
    evil = task(
        "evil",
        HOSTILE,
        f"island.{HOSTILE}",
        state="blocked",
        actor=HOSTILE,
        host=HOSTILE,
        blocked={"resource": HOSTILE, "by": HOSTILE, "position": 1, "since": 1.0},
    )
    failed = task(
        "bad",
        HOSTILE,
        state="failed",
        finished=time.time(),
        failure={"message": HOSTILE, "why": HOSTILE, "hint": f"`{HOSTILE}`"},
        arguments={HOSTILE: HOSTILE},
    )
    done = task(
        "fine",
        HOSTILE,
        state="done",
        finished=time.time(),
        result={"stdout": HOSTILE, "stderr": HOSTILE, HOSTILE: HOSTILE, "exit_code": 0},
    )
    for one in (evil, failed, done):
        fake.put("task", one["id"], one)
    fake.put(
        "island",
        HOSTILE,
        island(
            HOSTILE, program=[HOSTILE], state=HOSTILE, host=HOSTILE, notes=[HOSTILE], configuration={HOSTILE: HOSTILE}
        ),
    )
    fake.put("host", HOSTILE, host(HOSTILE, version=HOSTILE, state=HOSTILE))
    fake.put("vm", HOSTILE, {"name": HOSTILE, "state": HOSTILE, "host": HOSTILE, "memory": HOSTILE, "x": HOSTILE})
    fake.lock("island.web", task("lock", HOSTILE, "island.web"), 0.1, HOSTILE)
    fake.answer("GET", "/v1/tasks/fine/output", output(f"\x1b]0;{HOSTILE}\x07{HOSTILE}\x1b[31m{HOSTILE}\n"))
    fake.answer("GET", "/v1/islands/web/listing", {"items": [{"name": HOSTILE, "mode": HOSTILE, "size": 1}]})
    fake.answer(
        "GET",
        "/v1/islands/web/processes",
        {"items": [{"pid": 1, "ppid": HOSTILE, "state": HOSTILE, "threads": 1, "name": HOSTILE}]},
    )
    fake.answer("GET", "/v1/islands/web/logs", problem(409, HOSTILE, HOSTILE, HOSTILE, holder=HOSTILE))
    places = [
        "islands",
        "islands/web",
        "islands/web/log",
        "islands/web/files",
        "islands/web/processes",
        "tasks",
        "tasks/evil",
        "tasks/bad",
        "tasks/bad/request",
        "tasks/fine",
        "tasks/fine/output",
        "hosts",
        "vms",
        "events",
        f"islands/{HOSTILE}",
        f"tasks/{HOSTILE}",
        "%zz",
        "nowhere",
    ]
    for place in places:
        page.goto(f"{fake.url}#/{place}")
        fake.put("progress", "lock", {"fraction": 0.2, "phase": HOSTILE, "left_s": 1, "attempt": 1})
        page.wait_for_timeout(60)
        assert page.locator("#page img, #page script, #notes img, dialog img").count() == 0, place
        assert page.title() != "owned"
    page.goto(f"{fake.url}#/islands")
    expect(page.locator("#page")).to_contain_text("<img src=x")


def test_tasks_are_filtered_and_tell_why_they_wait(page: Page, fake: Fake) -> None:
    holder = task("aaaa", "island.stop@1", "island.web")
    fake.lock("island.web", holder, 0.42, "ending processes")
    fake.put(
        "task",
        "bbbb",
        task(
            "bbbb",
            "island.exec@1",
            "island.web",
            state="blocked",
            started=None,
            blocked={"resource": "island/web", "by": "aaaa", "position": 1, "since": time.time()},
        ),
    )
    failure = {"message": "no memory", "why": "h1 is full", "hint": "`enisle host ls`"}
    fake.put(
        "task",
        "cccc",
        task("cccc", "island.create@1", "island.x", state="failed", finished=time.time(), failure=failure),
    )
    page.goto(f"{fake.url}#/tasks")
    expect(page.locator("#page [role=row]")).to_have_count(4)
    page.get_by_role("button", name="blocked").click()
    expect(page.locator("#page [role=row]")).to_have_count(2)
    expect(page.locator("#strip")).to_contain_text("enisle task ls --state blocked")
    row = page.locator("[role=row]", has_text="bbbb")
    expect(row).to_contain_text("waits for island/web, held by island.stop aaaa")
    row.get_by_role("link", name="island.exec").click()
    expect(page.locator(".callout")).to_contain_text("number 1 in the row")
    expect(page.locator(".callout [role=progressbar]")).to_have_attribute("aria-valuenow", "42")
    page.locator(".callout").get_by_role("link").click()
    expect(page.locator("h1")).to_have_text("island.stop")
    expect(page.locator(".steps")).to_contain_text("ending processes")
    page.goto(f"{fake.url}#/tasks/cccc")
    expect(page.locator(".callout.bad")).to_contain_text("no memory")
    expect(page.locator(".callout.bad")).to_contain_text("h1 is full")
    expect(page.locator(".callout.bad code")).to_have_text("enisle host ls")


def test_a_task_is_cancelled_retried_and_found_in_the_history(page: Page, fake: Fake) -> None:
    fake.put("task", "aaaa", task("aaaa"))
    page.goto(f"{fake.url}#/tasks/aaaa")
    page.get_by_role("button", name="Cancel").click()
    page.locator("dialog input").fill("not needed")
    expect(page.locator("dialog .same code")).to_have_text("enisle task cancel --why 'not needed' aaaa")
    page.get_by_role("button", name="Cancel the task").click()
    expect(page.locator("dialog")).to_be_hidden()
    assert ("POST", "/v1/tasks/aaaa/cancel", {"why": "not needed"}) in fake.asked
    fake.put("task", "aaaa", task("aaaa", state="cancelled", finished=time.time(), cancel="not needed"))
    fake.put("task", "again", task("again"))
    fake.answer("POST", "/v1/tasks/aaaa/retry", task("again"))
    page.get_by_role("button", name="Retry").click()
    page.wait_for_url("**/#/tasks/again")
    old = task(
        "old1", "island.remove@1", "island.gone", state="done", finished=time.time() - 9e5, submitted=time.time() - 9e5
    )
    fake.answer("GET", "/v1/tasks", {"items": [old], "next": None})
    page.goto(f"{fake.url}#/tasks")
    page.get_by_role("button", name="Older tasks").click()
    expect(page.locator("[role=row]", has_text="old1")).to_contain_text("10 d ago")


def test_a_host_is_declared_dead_with_a_reason(page: Page, fake: Fake) -> None:
    page.goto(f"{fake.url}#/hosts/h1")
    expect(page.get_by_role("button", name="Declare dead…")).to_be_disabled()
    fake.put("host", "h1", host("h1", state="lost"))
    page.get_by_role("button", name="Declare dead…").click()
    page.locator("dialog").get_by_role("button", name="Declare dead", exact=True).click()
    assert not [one for one in fake.asked if one[0] == "POST"]
    page.locator("dialog input").fill("on fire")
    page.locator("dialog").get_by_role("button", name="Declare dead", exact=True).click()
    expect(page.locator("dialog")).to_be_hidden()
    assert ("POST", "/v1/hosts/h1/declare-dead", {"reason": "on fire"}) in fake.asked


def test_files_are_looked_at_fetched_and_put(page: Page, fake: Fake) -> None:
    fake.answer(
        "GET",
        "/v1/islands/web/listing",
        lambda request: (
            problem(409, "not a directory")
            if request.query_params["path"] == "/a.txt"
            else {
                "items": [
                    {"name": "a.txt", "mode": "-rw-r--r--", "size": 9},
                    {"name": "sub", "mode": "drwxr-xr-x", "size": 40},
                ]
            }
        ),
    )
    fake.answer("GET", "/v1/islands/web/files", b"some text")
    page.goto(f"{fake.url}#/islands/web/files")
    expect(page.locator("#page [role=cell].mono a")).to_have_text(["sub/", "a.txt"])
    page.get_by_role("button", name="Upload…").click()
    page.locator("dialog [type=file]").set_input_files({"name": "n.txt", "mimeType": "text/plain", "buffer": b"new"})
    expect(page.locator("dialog .same code")).to_have_text("enisle island files put web /n.txt n.txt")
    page.locator("dialog").get_by_role("button", name="Upload", exact=True).click()
    expect(page.locator("dialog")).to_be_hidden()
    assert ("PUT", "/v1/islands/web/files", {"path": "/n.txt", "body": b"new"}) in fake.asked
    page.get_by_role("link", name="a.txt").click()
    expect(page.locator("pre")).to_have_text("some text")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "a.txt"


def test_an_administrator_sees_whose_things_are_and_acts_for_their_owner(page: Page, fake: Fake) -> None:
    expect(page.locator("[role=columnheader]", has_text="Tenant")).to_have_count(0)
    fake.put("island", "theirs", island("theirs", tenant="acme"))
    row = page.locator("[role=row]", has_text="theirs")
    expect(row).to_contain_text("acme")
    expect(page.locator("[role=columnheader]", has_text="Tenant")).to_be_visible()
    expect(page.locator("#strip")).to_contain_text("enisle --tenant '*' island ls")
    row.focus()
    expect(page.locator("#strip")).to_contain_text("enisle --tenant acme island show theirs")
    row.get_by_role("button", name="Stop").click()
    expect(page.locator("dialog .same code")).to_have_text("enisle --tenant acme island stop theirs")
    page.locator("dialog").get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("dialog")).to_be_hidden()
    assert ("POST", "/v1/islands/theirs/stop", {"tenant": "acme"}) in fake.asked


def test_who_is_no_administrator_asks_for_nothing_of_others(session: Session, fake: Fake) -> None:
    fake.administrator = False
    with session.at(fake.url) as page:
        page.goto(f"{fake.url}#/tasks")
        page.get_by_role("button", name="Older tasks").click()
        expect(page.get_by_text("No tasks yet")).to_be_visible()
        expect(page.locator("#strip code")).to_have_text("enisle task ls")
        assert [asked for asked in fake.asked if asked[:2] == ("GET", "/v1/tasks")] == [
            ("GET", "/v1/tasks", {"limit": "100"})
        ]


def test_events_flow_pause_and_are_filtered(page: Page, fake: Fake) -> None:
    page.goto(f"{fake.url}#/events")
    expect(page.locator("#page")).to_contain_text("Quiet")
    fake.put("island", "web", island("web", state="stopped"))
    row = page.locator("[role=row]", has_text="island")
    expect(row).to_contain_text("stopped")
    page.get_by_role("button", name="Pause").click()
    fake.put("host", "h2", host("h2"))
    expect(page.get_by_role("button", name="Resume (1 new)")).to_be_visible()
    assert page.locator("[role=row]", has_text="h2").count() == 0
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("[role=row]", has_text="h2")).to_be_visible()
    page.locator("#filter").fill("stopped")
    expect(page.locator("[role=row]", has_text="h2")).to_have_count(0)
    expect(row).to_be_visible()


def test_the_keyboard_reaches_everything(page: Page, fake: Fake) -> None:
    page.keyboard.press("/")
    expect(page.locator("#filter")).to_be_focused()
    page.keyboard.type("web")
    expect(page.locator("#page [role=row][tabindex]")).to_have_count(1)
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.locator("#page [role=row][tabindex]")).to_have_count(2)
    page.keyboard.press("j")
    expect(page.locator("[role=row]", has_text="db")).to_be_focused()
    page.keyboard.press("j")
    expect(page.locator("[role=row]", has_text="web")).to_be_focused()
    expect(page.locator("#strip")).to_contain_text("enisle island show web")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("web")
    page.keyboard.press("Escape")
    expect(page.locator("h1")).to_have_text("Islands")
    page.keyboard.press("g")
    page.keyboard.press("t")
    expect(page.locator("h1")).to_have_text("Tasks")
    page.keyboard.press("?")
    expect(page.locator("dialog")).to_contain_text("next and previous row")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_be_hidden()


def test_nothing_is_wider_than_a_phone(browser: Browser, fake: Fake) -> None:
    fake.put("island", "n" * 64, island("n" * 64, program=["word"] * 60))
    fake.lock(
        "island.web", task("lock", "island.stop@1", "island.web"), 0.4, "a phase with a long name that goes on and on"
    )
    fake.put(
        "task",
        "t" * 24,
        task(
            "t" * 24,
            "routine.with.a.long.name@12",
            f"island.{'n' * 64}",
            state="failed",
            failure={"message": "m" * 200, "why": "w" * 300, "hint": "h" * 200},
        ),
    )
    fake.answer("GET", "/v1/tasks/" + "t" * 24 + "/output", output("x" * 3000 + "\n"))
    with page_of(browser, fake.url, width=360, height=740) as page:
        for place in (
            "islands",
            f"islands/{'n' * 64}",
            "islands/web",
            "islands/web/run",
            "tasks",
            "tasks/" + "t" * 24,
            "tasks/" + "t" * 24 + "/output",
            "hosts",
            "hosts/h1",
            "vms",
            "events",
        ):
            page.goto(f"{fake.url}#/{place}")
            page.wait_for_timeout(80)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, place


def test_light_and_dark_are_chosen_and_kept(page: Page) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.locator("#theme").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark


def test_empty_lists_say_what_to_type(browser: Browser) -> None:
    with Fake() as fake, page_of(browser, fake.url) as page:
        for place, line in {
            "islands": "enisle island create --memory 512M web",
            "tasks": "enisle island create web",
            "hosts": "enisle join --token TOKEN",
            "vms": "enisle task submit vm.run@1",
        }.items():
            page.goto(f"{fake.url}#/{place}")
            expect(page.locator(".empty .line code")).to_contain_text(line)


def test_without_a_session_a_token_is_asked_for(browser: Browser, fake: Fake) -> None:
    fake.signed_in = False
    with page_of(browser, fake.url, allowed=(*REFUSALS, "the server responded with a status of 401")) as page:
        expect(page.locator("h1")).to_have_text("Sign in")
        page.fill("[name=token]", "bad")
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator(".problem")).to_contain_text("this token is not valid")
        page.fill("[name=token]", "good")
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("[role=row]", has_text="web")).to_be_visible()


def test_names_are_roles_for_those_who_do_not_see(page: Page, fake: Fake) -> None:
    fake.lock("island.web", task("lock", "island.stop@1", "island.web"), 0.4, "ending")
    expect(page.get_by_role("table", name="Islands")).to_be_visible()
    expect(page.get_by_role("columnheader", name="Memory")).to_be_visible()
    expect(page.get_by_role("link", name="web is held by island.stop, ending, 40 %. Open the task.")).to_be_visible()
    expect(page.get_by_role("progressbar", name="island.stop")).to_have_attribute("aria-valuenow", "40")
    expect(page.get_by_role("link", name=re.compile("^Islands"))).to_have_attribute("aria-current", "page")
