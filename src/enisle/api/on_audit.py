"""Handlers: who did what. Joined from what the store still has and what the history keeps; nothing here is written."""

import asyncio
from typing import Any

from enisle.api import forms
from enisle.api.cursors import read_cursor, write_cursor
from enisle.api.services import Json
from enisle.api.table import Answer, Call
from enisle.tasks import EVERY, act_fits, act_of, act_place

SUBMIT = "submit"
PLAIN = ("id", "act", "at", "actor", "tenant", "address", "reason")


async def index(call: Call) -> Answer:
    asked: forms.AuditFilter = call.query
    tenant = "" if asked.tenant == EVERY else asked.tenant
    filters = f"audit {asked.actor} {tenant} {asked.action} {asked.since!r}"
    before = read_cursor(filters, asked.cursor) if asked.cursor else None
    chosen: Json = {"actor": asked.actor, "tenant": tenant, "since": asked.since}
    found = _of_store(call, asked.action, chosen) | await _of_history(call, asked, chosen, before)
    rows = sorted(found.values(), key=act_place, reverse=True)
    rows = [row for row in rows if before is None or act_place(row) < before]
    page = rows[: asked.limit]
    more = write_cursor(filters, *act_place(page[-1])) if len(rows) > len(page) else None
    return Answer({"items": [_shown(row) for row in page], "next": more})


def _of_store(call: Call, action: str, chosen: Json) -> dict[str, Json]:
    """Return what the history may not have yet."""
    view = call.services.view
    records = [{"id": name, **value} for name, value in view.audits.items()]
    if action in ("", SUBMIT):
        records += [act_of(task) for task in view.tasks.values()]
    return {one["id"]: one for one in records if act_fits(one, act=action, **chosen)}


async def _of_history(
    call: Call, asked: forms.AuditFilter, chosen: Json, before: tuple[float, str] | None
) -> dict[str, Json]:
    history = call.services.history
    more: dict[str, Any] = {**chosen, "before": before, "limit": asked.limit + 1}
    records: list[Json] = []
    if asked.action != SUBMIT:
        records += await asyncio.to_thread(history.audit, act=asked.action, **more)
    if asked.action in ("", SUBMIT):
        records += await asyncio.to_thread(history.submitted, **more)
    return {one["id"]: one for one in records}


def _shown(record: Json) -> Json:
    """Return a record as `schemas.Act` describes it."""
    about = {name: value for name, value in record.items() if name not in PLAIN}
    told = {name: str(record.get(name) or "") for name in ("id", "actor", "tenant", "address", "reason")}
    return {**told, "time": float(record["at"]), "action": str(record["act"]), "about": about}
