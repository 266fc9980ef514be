"""Where a task runs: with what it holds, where it is pinned, where it was wished, or where least is to do. Pure."""

from dataclasses import dataclass

from enisle.tasks.picture import Picture
from enisle.tasks.records import PINNED, Failure, Task


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task runs. `bound_by`: the resource whose record says so; `failure`: it can run nowhere."""

    host: str = ""
    live: bool = False
    bound_by: str = ""
    failure: Failure | None = None


def find_place(picture: Picture, task: Task) -> Place:
    """Return where a task may run: with what it holds, where it is pinned, or on the live host with least to do.

    The record of a resource on a host that is declared dead binds nobody: only so can it be removed.
    """
    bound = {
        str(record["host"]): f"{resource.kind}/{resource.id}"
        for resource in reversed(task.resources)
        if (record := picture.records.get(resource.name)) and record.get("host")
        if record["host"] in picture.live or record["host"] not in picture.dead
    }
    pinned = task.placement == PINNED and not task.bound_by
    if pinned:
        bound.setdefault(task.host, "")
    if len(bound) > 1:
        told = [f"{by} is on {host}" if by else f"it is pinned to {host}" for host, by in sorted(bound.items())]
        why = Failure("it cannot run on two hosts", " and ".join(told), "hold what is on one host")
        return Place(failure=why)
    if bound:
        host, by = next(iter(bound.items()))
        return Place(host, host in picture.live, "" if pinned else by)
    host = choose_host(picture, task)
    return Place(host, bool(host))


def choose_host(picture: Picture, task: Task) -> str:
    """Return the host that was wished for, or the one with the fewest orders; "" when there is none.

    It is live and not drained: what is bound or pinned to a drained host still runs there, nothing else does.
    """
    there = picture.live - picture.drained if picture.drained else picture.live
    if task.host in there and not task.attempt:
        return task.host
    return min(sorted(there), key=picture.load, default="")
