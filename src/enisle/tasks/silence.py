"""How long each host has been silent, and from when on it is lost: its agent has stopped every step by then.

Times are of the monotonic clock, counted from what was heard, never from what a host says. Owned by its dispatcher.
"""

import time
from collections.abc import Iterable

from enisle.tasks.leases import ABANDONED_TTLS

LOSS_MARGIN_S = 1.0
"""Added to a host's silence before it is lost."""
LOOK_S = 0.5
"""How often leases are looked at that should have ended by themselves."""


class Silence:
    """What was heard of hosts whose leases last `ttl_s`."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._heard: dict[str, float] = {}
        """When each host last renewed its lease."""
        self._gone_since: dict[str, float] = {}
        self._looked = self._no_verdict_before = 0.0

    def hear(self, host: str, has_lease: bool) -> None:
        if has_lease:
            self._heard[host] = time.monotonic()
            self._gone_since.pop(host, None)
        else:
            self._heard.pop(host, None)
            self._gone_since.setdefault(host, time.monotonic())

    def begin_anew(self) -> None:
        """All leases are told again: who has none is silent from now on."""
        self._gone_since.clear()

    def spare(self) -> None:
        """The engine was away: hosts could not renew their leases either, so let them before one is lost."""
        self._no_verdict_before = time.monotonic() + 2 * self._ttl_s
        self._heard = dict.fromkeys(self._heard, time.monotonic())

    def forgotten(self, live: Iterable[str]) -> list[str]:
        """Return whose lease should have ended by itself: an engine that was killed has been seen to forget that."""
        now = time.monotonic()
        if now < self._no_verdict_before or now - self._looked <= LOOK_S:
            return []
        self._looked = now
        return [host for host in live if now - self._heard.setdefault(host, now) > ABANDONED_TTLS * self._ttl_s]

    def lost(self, hosts: Iterable[str]) -> list[str]:
        """Return which of these hosts, which have no lease, had none for long enough."""
        now = time.monotonic()
        if now < self._no_verdict_before:
            return []
        return [host for host in hosts if now - self._gone_since.setdefault(host, now) >= LOSS_MARGIN_S]
