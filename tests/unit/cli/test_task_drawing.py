"""Tasks in words: what a person sees of any task, of whatever it consists."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from enisle.cli.task_drawing import bar, fit, how_far, line, ordinal, row, title, waits_for
from enisle.cli.watch import Picture
from fake_platform import ended, task

PROGRESS = {"fraction": 0.42, "phase": "copying", "left_s": 3.0, "attempt": 1}
words = st.text(max_size=40)
progresses = st.none() | st.fixed_dictionaries(
    {
        "fraction": st.floats(allow_nan=False, allow_infinity=False),
        "phase": words,
        "left_s": st.none() | st.floats(-10, 1e7),
        "attempt": st.integers(0, 100),
    }
)
blockages = st.none() | st.fixed_dictionaries(
    {"resource": words, "by": words, "position": st.integers(0, 1000), "since": st.floats(0, 1e10)}
)
resources = st.lists(st.fixed_dictionaries({"kind": words, "id": words, "mode": words}), max_size=70)
tasks = st.builds(
    lambda **changes: task(**changes),
    id=words,
    routine=words,
    state=st.sampled_from(["queued", "blocked", "running", "interrupted"]),
    blocked=blockages,
    progress=progresses,
    resources=resources,
    cancel=words,
) | st.builds(
    lambda state, failure: ended(state, failure=failure),
    st.sampled_from(["done", "failed", "cancelled"]),
    st.none() | st.fixed_dictionaries({"message": words, "why": words, "hint": words}),
)


def test_a_task_that_waits_shows_who_has_what_it_wants_and_how_far_that_is() -> None:
    blocked = {"resource": "island/web", "by": "feedfeedfeedfeedfeedfeed", "position": 2, "since": 1000.0}
    waiting = task(routine="island.stop@1", state="blocked", blocked=blocked)
    holder = task(id="feedfeedfeedfeedfeedfeed", progress=PROGRESS)
    assert line(waiting, holder) == (
        "island.stop web  waits for island/web, held by feedfeedfeed island.exec web (2nd in the row)  "
        "████████░░░░░░░░░░░░  42% copying 3s left"
    )
    assert waits_for(waiting, None) == "waits for island/web, held by feedfeedfeed (2nd in the row)"


def test_what_waits_for_a_host_names_no_task() -> None:
    waiting = task(state="queued", blocked={"resource": "host/any", "by": "", "position": 0, "since": 1000.0})
    assert waits_for(waiting, None) == "waits for host/any"


def test_a_later_attempt_is_shown() -> None:
    assert how_far(PROGRESS | {"attempt": 3}).endswith("(attempt 3)")


def test_ordinals_are_those_of_english() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 112)] == [
        "1st",
        "2nd",
        "3rd",
        "4th",
        "11th",
        "12th",
        "13th",
        "21st",
        "112th",
    ]


@given(st.floats(allow_nan=False), st.integers(1, 80))
def test_a_bar_is_as_long_as_it_is_whatever_it_shows(fraction: float, width: int) -> None:
    assert len(bar(fraction, width)) == width


@given(tasks, st.none() | tasks, st.integers(3, 200))
def test_whatever_a_task_says_is_one_line_that_no_terminal_obeys(
    told: dict[str, Any], holder: dict[str, Any] | None, columns: int
) -> None:
    cells = (*row(told, 2000.0, True), *row(told, 2000.0, False))
    for text in (line(told, holder), title(told), *cells):
        assert text.isprintable()
    assert len(fit(line(told, holder), columns)) < columns


@given(st.lists(tasks, max_size=30), st.integers(20, 200), st.integers(5, 60))
def test_a_page_of_any_tasks_fits_the_terminal(many: list[dict[str, Any]], columns: int, lines: int) -> None:
    picture = Picture()
    for index, told in enumerate(many):
        picture.learn(("task", str(index), told))
        picture.learn(("lock", f"disk.{index}", {"mode": "shared", "holders": [told["id"]], "waiting": []}))
    page = picture.page(1003.0, columns, lines).splitlines()
    assert len(page) < lines
    assert all(len(text) < columns and text.isprintable() for text in page)


def test_a_picture_is_what_the_events_say_and_a_reset_empties_it() -> None:
    picture = Picture()
    identity = task()["id"]
    picture.learn(("progress", identity, PROGRESS))  # of a task never heard of
    picture.learn(("task", identity, task()))
    picture.learn(("progress", identity, PROGRESS))
    picture.learn(("host", "h1", {"state": "live"}))
    picture.learn(("unheard", "x", {}))
    page = picture.page(1003.0, 200, 24)
    assert "1 host, 0 running islands, 1 running task, 0 waiting" in page
    assert "42% copying" in page
    picture.learn(("task", identity, None))
    assert "no task is going on" in picture.page(1003.0, 200, 24)
    picture.learn(("reset", "", None))
    assert not picture.hosts
