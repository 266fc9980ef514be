"""Tokens: who may do what, for whom, until when. The store keeps hashes; secrets are shown once.

A book learns of every token from a watch, so a check asks nobody; a revocation is seen within the watch's delay (some
milliseconds). That a token was used is written once in `USED_S`. The local admin token is a file of the state directory
and works without the engine. One event loop owns a book.
"""

import asyncio
import contextlib
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from enisle.control import make_token
from enisle.errors import EnisleError, HostError, NotFound
from enisle.tasks import Change, Conflict, Store, Unavailable, audit_record

PREFIX = "enisle_"
IMPLIED = {
    "admin": frozenset({"admin", "write", "read", "join"}),
    "write": frozenset({"write", "read"}),
    "read": frozenset({"read"}),
    "join": frozenset({"join"}),
}
SESSION_S = 12 * 3600.0
USED_S = 60.0
"""How precisely it is kept when a token was last used."""


class Principal(msgspec.Struct, frozen=True):
    """Who asks: `actor` for the records, `scopes` with all they imply."""

    actor: str
    tenant: str
    scopes: frozenset[str]
    token: str = ""
    """The identity of the token; empty: the local admin token."""


LOCAL = Principal("local", "default", IMPLIED["admin"])


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def local_token(path: Path) -> str:
    """Return the token in a file, made with mode 0600 when there is none. Raises HostError."""
    make_token(path)
    text = path.read_text().strip()
    if len(text) < 40:
        raise HostError(f"{path} holds no token", "it is too short", "remove it; a new one is made")
    return text


class TokenBook:
    """The tokens of the store, and the local one."""

    def __init__(self, store: Store, local: str, now: Callable[[], float] = time.time) -> None:
        self._store, self._now = store, now
        self._local = digest(local)
        self._known: dict[str, dict[str, Any]] = {}
        self._used: dict[str, float] = {}

    async def run(self) -> None:
        """Follow the store's tokens for ever."""
        async for entry in self._store.watch("token."):
            if entry is None:
                self._known.clear()
            elif entry.key and entry.value:
                self._known[entry.key.removeprefix("token.")] = entry.value
            elif entry.key:
                self._known.pop(entry.key.removeprefix("token."), None)

    async def keep_used(self, every_s: float = USED_S) -> None:
        """Write when tokens were used, for ever."""
        while True:
            await asyncio.sleep(every_s)
            used, self._used = self._used, {}
            for identity, when in used.items():
                with contextlib.suppress(EnisleError):  # revoked meanwhile; or the engine is away: told the next time
                    entry = await self._store.get_leader(f"token.{identity}")
                    if entry.value and (entry.value.get("used") or 0) + every_s / 2 < when:
                        await self._store.cas(entry.key, {**entry.value, "used": when}, entry.revision)

    async def note(self, act: str, actor: str, tenant: str, reason: str = "", **more: object) -> None:
        """Put an act into the audit. Raises Unavailable."""
        key, value = audit_record(act, actor, tenant, reason, **more)
        await self._store.cas(key, value, 0)

    def everything(self) -> list[dict[str, Any]]:
        """Return what is known of the tokens there are, without their hashes, oldest first."""
        valid = [record for record in self._known.values() if self._lasts(record)]
        return [self._shown(record) for record in sorted(valid, key=lambda record: record["created"])]

    def _shown(self, record: dict[str, Any]) -> dict[str, Any]:
        told = {name: value for name, value in record.items() if name != "sha256"}
        used = max(record.get("used") or 0.0, self._used.get(record["id"], 0.0))
        return told | {"used": used or None}

    async def create(
        self, name: str, scopes: list[str], tenant: str, expires_s: float = 0, kind: str = "token", actor: str = ""
    ) -> tuple[dict[str, Any], str]:
        """Make a token; return what is known of it, and its secret. Raises Unavailable."""
        identity, now = secrets.token_hex(6), self._now()
        secret = f"{PREFIX}{identity}_{secrets.token_urlsafe(32)}"
        record = {
            "id": identity,
            "name": name,
            "kind": kind,
            "sha256": digest(secret),
            "scopes": sorted(set(scopes)),
            "tenant": tenant,
            "created": now,
            "expires": now + expires_s if expires_s else None,
        }
        act = "sign-in" if kind == "session" else "create-token"
        told = audit_record(act, actor or f"{kind}:{name}", tenant, token=identity, name=name, scopes=record["scopes"])
        await self._store.batch([Change(f"token.{identity}", record, 0), Change(*told, 0)])
        self._known[identity] = record
        return self._shown(record), secret

    async def revoke(self, identity: str, actor: str = "") -> None:
        """End a token, for good; by nobody (`actor`) when it has expired. Raises NotFound, Unavailable."""
        while True:
            entry = await self._store.get_leader(f"token.{identity}")
            if entry.value is None:
                raise NotFound(f"there is no token {identity}", "", "`enisle token ls`")
            try:
                changes = [Change(entry.key, None, entry.revision)]
                if actor:
                    name, own = entry.value["name"], actor == f"session:{entry.value['name']}"
                    act = "sign-out" if own and entry.value["kind"] == "session" else "revoke-token"
                    told = audit_record(act, actor, entry.value["tenant"], token=identity, name=name)
                    changes.append(Change(*told, 0))
                await self._store.batch(changes)
                self._known.pop(identity, None)
                return
            except Conflict:
                continue

    def find_known(self, secret: str) -> Principal | None:
        """Return whose secret it is as far as is known here."""
        hashed = digest(secret)
        if hmac.compare_digest(hashed, self._local):
            return LOCAL
        return self._principal(self._known.get(identity_of(secret)), hashed)

    async def find(self, secret: str) -> Principal | None:
        """Return whose secret it is; asks the engine for a token made a moment ago elsewhere. Raises Unavailable."""
        found = self.find_known(secret)
        identity = identity_of(secret)
        if found or not identity or identity in self._known:
            return found
        entry = await self._store.get_leader(f"token.{identity}")
        return self._principal(entry.value, digest(secret))

    def _principal(self, record: dict[str, Any] | None, hashed: str) -> Principal | None:
        if record is None or not hmac.compare_digest(hashed, str(record["sha256"])) or not self._lasts(record):
            return None
        self._used[record["id"]] = self._now()
        scopes = frozenset[str]().union(*(IMPLIED.get(scope, frozenset()) for scope in record["scopes"]))
        return Principal(f"{record['kind']}:{record['name']}", record["tenant"], scopes, record["id"])

    def _lasts(self, record: dict[str, Any]) -> bool:
        return record["expires"] is None or record["expires"] > self._now()

    async def sweep(self) -> None:
        """Delete what has expired: nobody asks for it again."""
        for identity in [record["id"] for record in self._known.values() if not self._lasts(record)]:
            try:
                await self.revoke(identity)
            except (NotFound, Unavailable):
                pass


def identity_of(secret: str) -> str:
    """Return the identity that stands in a secret, or "" for what cannot be one."""
    parts = secret.split("_", 2)
    right = len(parts) == 3 and parts[0] == "enisle" and len(parts[1]) == 12 and parts[1].isascii()
    return parts[1] if right and parts[1].isalnum() else ""
