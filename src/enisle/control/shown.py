"""How islands, machines and hosts are shown: what was asked for (records) joined with what is so (live). Pure."""

from collections.abc import Mapping
from typing import Any

from enisle.island import parse_size
from enisle.tasks import EXCLUSIVE, Lock

Json = dict[str, Any]
DEFAULT_MEMORY = 4 << 30
SETTLING_S = 6.0
"""A host that came back tells what runs on it within this time; nothing is called lost before."""


def island_json(
    name: str, record: Json | None, live: Json | None, lock: Lock | None, host: Json | None, now: float
) -> Json:
    """Return an island. `host` is the lease of the host it is on, None when that is not connected."""
    told = {**(live or {}), **(record or {})}
    state, notes = _state(record, live, host, now)
    seen: Json = live or {}
    started = seen.get("started")
    running = state == "running"
    return {
        "name": name,
        "host": told.get("host", ""),
        "tenant": told.get("tenant", "default"),
        "state": state,
        "configuration": told.get("configuration") or {},
        "program": told.get("program") or [],
        "created": told.get("created") or 0.0,
        "backend": seen.get("backend") or told.get("backend") or "",
        "exit_code": seen.get("exit_code"),
        "memory_used": seen.get("memory_used") if running else None,
        "memory_limit": seen.get("memory_limit") or memory_limit(told.get("configuration") or {}),
        "processes": seen.get("processes") if running else None,
        "age": max(0.0, now - started) if running and started else None,
        "holder": holder(lock),
        "notes": [*notes, *(told.get("notes") or [])],
    }


def _state(record: Json | None, live: Json | None, host: Json | None, now: float) -> tuple[str, list[str]]:
    if record is None:
        why = "nobody asked the platform for it: its record is missing; it was found running"
        return str((live or {}).get("state", "lost")), [why]
    if live is not None and live.get("host") == record.get("host"):
        reason = live.get("reason")
        notes = [str(reason)] if reason else []
        if host is None:
            notes.append(f"host {record.get('host')} is not connected; this is what it said last")
        return str(live.get("state")), notes
    if host is None:
        return str(record.get("state")), [f"host {record.get('host')} is not connected"]
    if now - float(host.get("started") or 0) < SETTLING_S or record.get("state") == "stopped":
        return str(record.get("state")), []
    return "lost", [f"host {record.get('host')} knows nothing of it: what it kept of it is gone"]


def is_superseded(record: Json, live: Json) -> bool:
    """Whether an island was made by an earlier attempt of the task that made the recorded one: it was never told of."""
    made, token = live.get("task"), live.get("token")
    return bool(made) and made == record.get("task") and isinstance(token, int) and token < (record.get("token") or 0)


def duplicate_notes(record: Json, elsewhere: Mapping[str, Json]) -> list[str]:
    """Return what is to be said of islands of the same name that other hosts have."""
    return [
        f"host {host} has an older one, of an attempt that was lost: it is being ended"
        if is_superseded(record, live)
        else f"duplicate: host {host} has another island of this name ({live.get('state')}); it takes this one's place "
        "once this one is removed"
        for host, live in sorted(elsewhere.items())
    ]


def memory_limit(configuration: Json) -> int:
    """Return the bytes that programs of an island may take: files have a quarter."""
    memory = parse_size(str(configuration["memory"])) if configuration.get("memory") else DEFAULT_MEMORY
    return memory - memory // 4


def holder(lock: Lock | None) -> str | None:
    """Return the task that holds something alone."""
    return lock.holders[0] if lock and lock.mode == EXCLUSIVE and lock.holders else None


def vm_json(
    name: str, record: Json | None, live: Json | None, lock: Lock | None, host: Json | None, now: float
) -> Json:
    """Return a machine, as `island_json` does an island."""
    told = {**(record or {}), **(live or {})}
    state, notes = _state(record, live, host, now)
    return {
        "name": name,
        "host": told.get("host", ""),
        "tenant": told.get("tenant", "default"),
        "state": state,
        "memory": told.get("memory") or 0,
        "processors": told.get("processors") or 0,
        "accelerator": told.get("accelerator") or "",
        "kernel": told.get("kernel") or "",
        "configuration": told.get("configuration") or {},
        "created": told.get("created") or 0.0,
        "age": max(0.0, now - told["started"]) if state in ("running", "paused") and "started" in told else None,
        "holder": holder(lock),
        "notes": [*notes, *(told.get("notes") or [])],
    }


def host_json(name: str, lease: Json | None, member: Json | None, dead: Json | None, counts: Mapping[str, int]) -> Json:
    """Return a host, with what it said of itself last; `since`: when it became what it is, 0 when that is not known."""
    known = member or {}
    told: Json = lease or known.get("facts") or {}
    state, since, why = _host_state(lease, member, dead)
    return {
        "name": name,
        "state": state,
        "processors": told.get("processors") or 0,
        "memory": told.get("memory") or 0,
        "version": told.get("version") or "",
        "address": told.get("address") or "",
        "islands": counts.get("island", 0),
        "vms": counts.get("vm", 0),
        "tasks": counts.get("task", 0),
        "since": since,
        "joined": known.get("joined") or 0.0,
        "why": why,
    }


def _host_state(lease: Json | None, member: Json | None, dead: Json | None) -> tuple[str, float, str]:
    drained: Json | None = (member or {}).get("drained")
    if lease is not None:
        state, why = ("draining", str(drained.get("why", ""))) if drained else ("live", "")
        return state, lease.get("started") or 0.0, why
    if dead is not None:
        return "gone", dead.get("at") or 0.0, f"declared dead: {dead.get('why', '')}"
    if member is None:
        return "gone", 0.0, "it was removed; records of what ran there are left"
    if member.get("state") == "gone":
        return "gone", member.get("since") or 0.0, "its agent ended in order"
    # Its lease has just ended, or nobody was there to note when.
    return "lost", (member.get("since") or 0.0) if member.get("state") == "lost" else 0.0, "nothing is heard of it"
