"""Whether the store may be acted on: that it is the one we had, as far as it had come, with every key it held.

A guard beside the dispatcher compares the store with the mark outside of it whenever the engine began a new life, and
keeps the mark at most a second behind. What is missing must be explained by changes since; if not, safe mode: nothing
is decided until an operator accepts the store as it is. Each new life has a new epoch, so no fencing token is lower
than one given before, whatever was lost. One event loop owns a guard.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from enisle.errors import EnisleError
from enisle.tasks.admission import engine_address
from enisle.tasks.engine import require_synced
from enisle.tasks.jetstream import JetStream
from enisle.tasks.names import require_token
from enisle.tasks.store import ABSENT, Conflict, Unavailable
from enisle.tasks.watermark import Mark, Watermark, read_mark

EPOCH = "cfg.epoch"
EPOCH_UNIT_S = 600
"""A first epoch is the time in these units: higher than any before it, also where nothing is left to tell."""
LEASED = ("host.", "lease.")
"""Keys that end by themselves."""
BEHIND_S = 1.0
"""How far the mark may be behind the store."""
LOOK_S = 0.1
CHECKING = "the store is being checked"


class Safety(Protocol):
    """`ok`, or the `reason` why nothing may be decided; the `epoch` of the tokens given now."""

    @property
    def ok(self) -> bool: ...
    @property
    def reason(self) -> str: ...
    @property
    def epoch(self) -> int: ...


class SafetyOnDisk:
    """What the guard found, as any process of the same user sees it: always of this moment."""

    def __init__(self, store: JetStream, directory: Path) -> None:
        self._store, self._directory = store, directory
        self._mark: Mark | None = None
        self._read_at = float("-inf")

    def _now(self) -> Mark | None:
        if time.monotonic() - self._read_at > LOOK_S:
            self._mark, self._read_at = read_mark(self._directory), time.monotonic()
        return self._mark

    @property
    def ok(self) -> bool:
        return not self.reason

    @property
    def reason(self) -> str:
        try:
            mark = self._now()
        except EnisleError as error:
            return f"{error.message}: {error.why}"
        if mark is None or (mark.server != self._store.server and not mark.reason):
            return CHECKING
        return mark.reason

    @property
    def epoch(self) -> int:
        return self._mark.epoch if (self._mark or self._now()) and self._mark else 0


async def check_store(store: JetStream, directory: Path) -> Safety:
    """Return the live verdict on a store, whose guard keeps its mark under `directory`."""
    return SafetyOnDisk(store, directory)


class StoreGuard:
    """`StoreGuard(store, directory).run()` beside a dispatcher. `accept`: an operator takes the store as it is.

    `aside` puts away what a lost stream has left, where the engine's directory is in other hands than ours.
    """

    def __init__(
        self,
        store: JetStream,
        directory: Path,
        accept: bool = False,
        aside: Callable[[str], Awaitable[object]] | None = None,
    ) -> None:
        self._store, self._directory, self._accept = store, directory, accept
        self._aside = aside or self._put_aside
        self._others = SafetyOnDisk(store, directory)
        self._mark: Mark | None = None
        self._seen = ABSENT
        self._changed: dict[str, int | None] = {}
        self._why = CHECKING

    # ---- the verdict -----------------------------------------------------------------------------------------------

    @property
    def ok(self) -> bool:
        return not self.reason

    @property
    def reason(self) -> str:
        if self._mark is None:
            return self._why or self._others.reason
        if self._mark.server != self._store.server:
            return CHECKING  # another life of the engine, not looked at yet
        return self._mark.reason or self._why

    @property
    def epoch(self) -> int:
        return self._mark.epoch if self._mark else self._others.epoch

    # ---- life ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Check, then keep the mark, for as long as the caller lets us."""
        with Watermark(self._directory) as watermark:
            while not await asyncio.to_thread(watermark.take):
                self._why = ""  # another guards this store; its verdict is ours
                await asyncio.sleep(BEHIND_S)
            self._why = CHECKING
            while True:
                try:
                    await self._guard(watermark)
                except Unavailable:
                    await asyncio.sleep(LOOK_S)
                except EnisleError as error:
                    self._why = f"{error.message}: {error.why}"
                    await asyncio.sleep(BEHIND_S)

    async def _guard(self, watermark: Watermark) -> None:
        """Check one life of the engine and follow it to its end."""
        server = self._store.server
        self._mark = None
        await asyncio.to_thread(self._require_synced)
        mark = await self._judge(watermark, server)
        if server != self._store.server:
            return
        self._why, self._mark = "", mark
        if mark.reason:
            while server == self._store.server:
                await asyncio.sleep(LOOK_S)
            return
        following = asyncio.create_task(self._follow())
        try:
            while server == self._store.server and not following.done():
                await asyncio.sleep(BEHIND_S / 2)
                await self._advance(watermark)
            if following.done():
                following.result()
        finally:
            following.cancel()
            await asyncio.wait([following])
            with contextlib.suppress(EnisleError):
                await self._advance(watermark)

    def _require_synced(self) -> None:
        if self._store.state_directory:
            require_synced(engine_address(self._store.state_directory))

    # ---- checking --------------------------------------------------------------------------------------------------

    async def _judge(self, watermark: Watermark, server: str) -> Mark:
        """Compare the store with the mark; write down and return what holds from now on."""
        before = await asyncio.to_thread(read_mark, self._directory)
        last = await self._store.last_revision()
        held = {} if last is None else await self._held()
        epoch = None if last is None else (await self._store.get_leader(EPOCH)).value
        reason = before.reason if before else ""
        if before and not reason:
            known = await asyncio.to_thread(watermark.keys)
            reason = find_damage(before, known, last, held, epoch)
        if reason and not self._accept:
            assert before
            mark = before._replace(server=server, reason=reason)
            await asyncio.to_thread(watermark.write, mark)
            await self._make_anew_what_is_gone(last)
            return mark
        await self._make_anew_what_is_gone(last)
        self._accept = False  # what is damaged later is another matter
        renewed = bool(reason) or (before is not None and before.server != server and self._store.replicas == 1)
        store, number, revision = await self._agree_on_epoch(before, renewed)
        held[EPOCH] = revision
        self._seen = max(revision, last or ABSENT)
        mark = Mark(store, number, self._seen, server)
        await asyncio.to_thread(watermark.write, mark, held)
        return mark

    async def _held(self) -> dict[str, int]:
        """Return the keys the store holds now, but for those that end by themselves."""
        held: dict[str, int] = {}
        async for entry in self._store.watch("", headers_only=True):
            if entry is None:
                held.clear()
                continue
            if entry.value is not None and not entry.key.startswith(LEASED):
                held[entry.key] = entry.revision
            if entry.current:
                break
        return held

    async def _make_anew_what_is_gone(self, last: int | None) -> None:
        """Make the stream where there is none; what its directory still has is put aside, not written over.

        The engine would not read such a directory at its next start either, and lose what it was given until then.
        """
        if last is not None:
            return
        if self._store.state_directory:
            await self._aside(self._store.bucket.stream)
        await self._store.create_stream(anew=True)

    async def _agree_on_epoch(self, before: Mark | None, renewed: bool) -> tuple[str, int, int]:
        """Have an epoch in the store, a new one when `renewed`; return the store's name, the epoch, its revision."""
        while True:
            entry = await self._store.get_leader(EPOCH)
            there = entry.value or {}
            number = max(int(there.get("epoch", 0)), before.epoch if before else 0)
            if entry.value is None or renewed or not before:
                number = max(number + 1, 0 if number else int(time.time() / EPOCH_UNIT_S))
            elif number == there.get("epoch"):
                return str(there["store"]), number, entry.revision
            name = str(there.get("store") or uuid.uuid4().hex)
            try:
                return name, number, await self._store.cas(EPOCH, {"epoch": number, "store": name}, entry.revision)
            except Conflict:
                continue

    async def _put_aside(self, stream: str) -> None:
        await asyncio.to_thread(put_aside, self._store.state_directory or self._directory, stream)

    # ---- keeping the mark ------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Note every change; ends when the store was told anew, for then it must be checked again."""
        begun = False
        async for entry in self._store.watch("", headers_only=True):
            if entry is None:
                if begun:
                    return
                begun = True
                continue
            self._seen = max(self._seen, entry.revision)
            if entry.key and not entry.key.startswith(LEASED):
                self._changed[entry.key] = entry.revision if entry.value is not None else None

    async def _advance(self, watermark: Watermark) -> None:
        changed, self._changed = self._changed, {}
        if self._mark is None or (not changed and self._seen == self._mark.revision):
            return
        kept = [(key, revision) for key, revision in changed.items() if revision is not None]
        gone = [key for key, revision in changed.items() if revision is None]
        try:
            await asyncio.to_thread(watermark.advance, self._seen, kept, gone)
        except EnisleError:
            self._changed = changed | self._changed
            raise
        self._mark = self._mark._replace(revision=self._seen)


def put_aside(directory: Path, stream: str) -> None:
    """Move what a stream that is gone has left away from where the engine over `directory` looks."""
    for number, remains in enumerate((directory / "store").rglob(require_token("a stream", stream))):
        remains.rename(directory / f"lost-{int(time.time())}-{number}")


def find_damage(
    before: Mark, known: dict[str, int], last: int | None, held: dict[str, int], epoch: dict[str, object] | None
) -> str:
    """Return what the store lacks that it had when the mark was made; an empty string when nothing is missing.

    A change since may have taken a key away, but each such change has a revision of its own: more keys gone than
    revisions given cannot be. A key's revision never falls.
    """
    if last is None:
        return "the store is gone"
    if last < before.revision:
        return f"the store ends at revision {last}, but {before.revision} had been given"
    if epoch is None:
        return "the store has lost its epoch"
    if epoch.get("store") != before.store:
        return "it is another store than the one that was here"
    if int(str(epoch.get("epoch", 0))) < before.epoch:
        return f"the store is of epoch {epoch.get('epoch')}, but {before.epoch} had begun"
    if older := [key for key, revision in known.items() if held.get(key, revision) < revision]:
        return f"{older[0]} is older than it was, with {len(older) - 1} more"
    missing = [key for key in known if key not in held]
    if len(missing) > last - before.revision:
        return f"{len(missing)} of {len(known)} keys are gone without a change that took them away, {missing[0]} first"
    return ""
