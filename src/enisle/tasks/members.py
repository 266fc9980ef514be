"""What is kept of a host from its first lease until an operator removes it: `member.<host>`. Pure; time is an argument.

A lease ends by itself and leaves nothing: this record tells of a host that is silent (lost, since when), or that left
in order (gone), with the facts it told last. The leading dispatcher writes it; `drained` is an operator's and stays.
"""

import math
from collections.abc import Iterator, Set

from enisle.tasks.picture import Picture
from enisle.tasks.store import Value

LIVE, LOST, GONE = "live", "lost", "gone"
FACTS = ("processors", "memory", "version", "started", "address", "kvm")
LONGEST = 200


def of_hosts(picture: Picture, touched: Set[str], now: float) -> Iterator[list[tuple[str, Value | None]]]:
    """Yield what to write of hosts: who came back is not dead, and what changed of one is kept."""
    for host in picture.dead.keys() & picture.live:
        yield [(f"dead.{host}", None)]
    for host in list(picture.marked_hosts):
        key = f"member.{host}"
        if key in touched:
            continue
        told = membership(host, picture.leases.get(host), picture.members.get(host), now)
        if told:
            yield [(key, told)]
        else:
            picture.marked_hosts.discard(host)


def membership(host: str, lease: Value | None, member: Value | None, now: float) -> Value | None:
    """Return what is to be kept of a host now, None when that is so already. A lease says what its host likes."""
    if lease is None:
        if member is None or member.get("state") != LIVE:
            return None  # it never was here, or its absence is known
        return {**member, "state": LOST, "since": now}
    facts = {name: lease[name] for name in FACTS if _is_plain(lease.get(name))}
    left, started = lease.get("left"), facts.get("started")
    since = left if left and _is_plain(left) else started
    told = {**(member or {"host": host, "joined": now}), "state": GONE if left else LIVE, "facts": facts}
    told["since"] = since if isinstance(since, (int, float)) else 0.0
    return None if told == member else told


def _is_plain(fact: object) -> bool:
    if isinstance(fact, str):
        return len(fact) <= LONGEST
    return isinstance(fact, (bool, int, float)) and math.isfinite(fact)
