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
        "age": told.get("seconds") if state in ("running", "paused") else None,
        "holder": holder(lock),
        "notes": [*notes, *(told.get("notes") or [])],
    }


def host_json(name: str, lease: Json | None, dead: bool, counts: Mapping[str, int]) -> Json:
    """Return a host; what it said of itself when it is connected."""
    told = lease or {}
    return {
        "name": name,
        "state": "live" if lease is not None else "gone" if dead else "lost",
        "processors": told.get("processors") or 0,
        "memory": told.get("memory") or 0,
        "version": told.get("version") or "",
        "address": told.get("address") or "",
        "islands": counts.get("island", 0),
        "vms": counts.get("vm", 0),
        "tasks": counts.get("task", 0),
        "since": told.get("started") or 0.0,
    }
