"""Tasks in words and bars. Pure: tasks as the API tells them, and a time, in; text out."""

from collections.abc import Sequence
from typing import Any

from enisle.cli.output import plain
from enisle.cli.ps import age

Json = dict[str, Any]
ENDED = frozenset({"done", "failed", "cancelled"})
BAR = 20
WHEEL = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
SHORT = 12
"""So much of an id is shown where people read it; every verb takes it for the whole."""


def short(identity: object) -> str:
    return plain(identity)[:SHORT]


def holder_id(task: Json) -> str:
    """Return the id of the task that another one waits for; empty when none is known."""
    blocked: Json | None = task.get("blocked")
    return str(blocked["by"]) if blocked else ""


def title(task: Json) -> str:
    """Return what a task is about: `island.exec web`."""
    names = [f"{plain(one['id'])}" for one in task["resources"]]
    shown = names if len(names) <= 3 else [*names[:2], f"and {len(names) - 2} more"]
    return " ".join((plain(task["routine"]).partition("@")[0], *shown))


def bar(fraction: float, width: int = BAR) -> str:
    """Return how far something is; what cannot be is taken for the nearest that can."""
    whole = round(max(0.0, min(1.0, fraction)) * width)
    return "█" * whole + "░" * (width - whole)


def how_far(progress: Json | None) -> str:
    """Return a bar, its number, the phase and what is left; empty when nothing is known."""
    if not progress:
        return ""
    parts = [bar(progress["fraction"]), f"{max(0.0, min(1.0, progress['fraction'])):4.0%}"]
    if progress.get("phase"):
        parts.append(plain(progress["phase"]))
    if progress.get("left_s") is not None:
        parts.append(f"{age(max(0.0, progress['left_s']))} left")
    if (progress.get("attempt") or 1) > 1:
        parts.append(f"(attempt {progress['attempt']})")
    return " ".join(parts)


def waits_for(task: Json, holder: Json | None) -> str:
    """Return what a task waits for and who has that: `waits for island/web, held by 3f… island.exec web`."""
    blocked = task.get("blocked")
    if not blocked:
        return "cancelling" if task.get("cancel") else plain(task["state"])
    text = f"waits for {plain(blocked['resource'])}"
    if holder is not None:
        text += f", held by {short(holder['id'])} {title(holder)}"
    elif blocked.get("by"):
        text += f", held by {short(blocked['by'])}"
    if blocked.get("position", 0) > 1:
        text += f" ({ordinal(blocked['position'])} in the row)"
    return text


def ordinal(number: int) -> str:
    """Return 2nd, 3rd, 11th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def line(task: Json, holder: Json | None = None) -> str:
    """Return a task in one line. One that waits shows how far the one is that it waits for."""
    shown = holder if task.get("blocked") and holder else task
    parts = (title(task), waits_for(task, holder), how_far(shown.get("progress")))
    return "  ".join(part for part in parts if part)


def fit(text: str, columns: int) -> str:
    """Return no more than what a line of a terminal holds; every character of ours is one column wide."""
    return text if len(text) < columns else text[: max(1, columns - 2)] + "…"


def spent(task: Json) -> float:
    """Return the seconds from a task's submission to its end."""
    return max(0.0, (task.get("finished") or task["submitted"]) - task["submitted"])


def lasted(seconds: float) -> str:
    """Return how long something took, as precisely as anybody wants to know."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


HEAD = ("TASK", "ROUTINE", "STATE", "HOLDS", "HOST", "AGE", "ABOUT")


def row(task: Json, now: float, whole: bool) -> Sequence[str]:
    """Return a task's line in a table; `whole`: with its whole id, for programs."""
    held = ",".join(f"{plain(one['kind'])}/{plain(one['id'])}" for one in task["resources"])
    return (
        plain(task["id"]) if whole else short(task["id"]),
        plain(task["routine"]),
        plain(task["state"]),
        held or "-",
        plain(task["host"]) or "-",
        age(max(0.0, now - task["submitted"])),
        about(task) or "-",
    )


def about(task: Json) -> str:
    """Return what is to be said about a task beyond its state."""
    if task["state"] in ENDED:
        failure = task.get("failure")
        if failure:
            return plain(failure["message"])
        return plain(task["cancel"]) if task["state"] == "cancelled" else f"in {lasted(spent(task))}"
    if task.get("blocked"):
        return waits_for(task, None)
    progress = task.get("progress")
    return " ".join(f"{progress['fraction']:.0%} {plain(progress.get('phase') or '')}".split()) if progress else ""
