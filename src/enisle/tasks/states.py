"""The life of a task, as a table: what may happen to it in each state, and what it is afterwards.

    queued ──start──▶ running ──finish──▶ done
      │  ▲               │ ├──fail────▶ failed (or queued again: retry)
    block └──unblock──┐  │ ├──stop────▶ cancelled
      ▼               │  │ └──lose────▶ interrupted ──resume──▶ running
    blocked ──────────┘  └──place────▶ running on another host

A state in `ENDED` is the last; a resource is held exactly in the states of `HOLDING`.
"""

from enum import StrEnum

from enisle.errors import StateError


class State(StrEnum):
    """Where a task is in its life."""

    QUEUED = "queued"
    BLOCKED = "blocked"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Event(StrEnum):
    """What happens to a task."""

    BLOCK = "block"
    UNBLOCK = "unblock"
    START = "start"
    FINISH = "finish"
    FAIL = "fail"
    RETRY = "retry"
    STOP = "stop"
    LOSE = "lose"
    PLACE = "place"
    RESUME = "resume"


_UNSTARTED = {Event.START: State.RUNNING, Event.STOP: State.CANCELLED, Event.FAIL: State.FAILED}
LIFE: dict[State, dict[Event, State]] = {
    State.QUEUED: {**_UNSTARTED, Event.BLOCK: State.BLOCKED},
    State.BLOCKED: {**_UNSTARTED, Event.BLOCK: State.BLOCKED, Event.UNBLOCK: State.QUEUED},
    State.RUNNING: {
        Event.FINISH: State.DONE,
        Event.FAIL: State.FAILED,
        Event.RETRY: State.QUEUED,
        Event.STOP: State.CANCELLED,
        Event.LOSE: State.INTERRUPTED,
        Event.PLACE: State.RUNNING,
    },
    State.INTERRUPTED: {Event.RESUME: State.RUNNING, Event.FAIL: State.FAILED, Event.STOP: State.CANCELLED},
    State.DONE: {},
    State.FAILED: {},
    State.CANCELLED: {},
}
ENDED = frozenset(state for state, events in LIFE.items() if not events)
WAITING = frozenset({State.QUEUED, State.BLOCKED})
HOLDING = frozenset({State.RUNNING, State.INTERRUPTED})


def after(state: State, event: Event) -> State:
    """Return the state that follows. Raises StateError when the event cannot happen in this one."""
    try:
        return LIFE[state][event]
    except KeyError:
        why = f"it is {state}" + (" and stays so" if state in ENDED else "")
        raise StateError(f"a task cannot {event} now", why, "`enisle task show` tells its history") from None
