"""Arguments and results too large for a key: pieces of a bucket, named by the hash of the whole, kept for an hour.

The same content is one object however often it is put; what is read is what was put, or an error. Disks of machines
never go this way. Owned by the event loop of its store.
"""

import asyncio
import base64
import hashlib
import re

from enisle.errors import InvalidRequest, NotFound
from enisle.tasks.store import ABSENT, Conflict, Store, Value

CHUNK = 512 << 10
"""Of one key: with base64 it stays below the engine's largest message of 1 MiB."""
MAX_OBJECT = 64 << 20
AT_ONCE = 4
HASH = re.compile(r"[0-9a-f]{64}\Z")


class Objects:
    """`Objects(JetStream(url, bucket=OBJECTS))`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, content: bytes) -> Value:
        """Keep content; return what names it: {"object", "size"}. Raises InvalidRequest, Unavailable."""
        if len(content) > MAX_OBJECT:
            raise InvalidRequest("an object is too large", f"{len(content)} bytes, at most {MAX_OBJECT}", "")
        name = hashlib.sha256(content).hexdigest()
        pieces = [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)]
        room = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for number, piece in enumerate(pieces):
                group.create_task(self._put_piece(room, f"obj.{name}.{number}", piece))
        return {"object": name, "size": len(content)}

    async def _put_piece(self, room: asyncio.Semaphore, key: str, piece: bytes) -> None:
        value, expected = {"data": base64.b64encode(piece).decode()}, ABSENT
        async with room:
            while True:
                try:
                    await self._store.cas(key, value, expected)
                    return
                except Conflict as conflict:
                    expected = conflict.found  # there already: put anew, so that it lives another hour

    async def get(self, reference: Value) -> bytes:
        """Return the content. Raises NotFound when it is gone or not what it was, InvalidRequest, Unavailable."""
        name, size = reference.get("object"), reference.get("size")
        if not (isinstance(name, str) and HASH.match(name) and isinstance(size, int) and 0 <= size <= MAX_OBJECT):
            raise InvalidRequest("this names no object", repr(reference)[:120], 'like {"object": hash, "size": bytes}')
        content = bytearray()
        for number in range(-(-size // CHUNK)):
            entry = await self._store.get_leader(f"obj.{name}.{number}")
            if entry.value is None:
                raise NotFound("the object is gone", f"{name[:16]}… is kept for an hour", "make it again")
            content += base64.b64decode(entry.value["data"])
        if hashlib.sha256(content).hexdigest() != name:
            raise NotFound("the object is not what it was", f"{name[:16]}… has another hash", "make it again")
        return bytes(content)
