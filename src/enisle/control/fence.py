"""The highest fencing tokens an island has seen, kept on disk: who comes with an older one is refused.

A task that holds the island alone must not be older than any; one that shares it, not older than the last that held it
alone: those that share do not outdate each other. The file has its size from the beginning, and two places written in
turn with a checksum each, so that neither a full disk nor a torn write can lower it. Any thread may ask.
"""

import os
import struct
import threading
from binascii import crc32

from enisle.control.wire import StaleToken

PLACE = struct.Struct("<QQI")


class Fence:
    """`Fence(path).admit(token, shared)`."""

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.alone, self.highest, self._turn = self._load()

    def _load(self) -> tuple[int, int, int]:
        content = os.pread(self._descriptor, 2 * PLACE.size, 0)
        if len(content) < 2 * PLACE.size:
            os.pwrite(self._descriptor, bytes(2 * PLACE.size), 0)
            os.fsync(self._descriptor)
            return 0, 0, 0
        best = (0, 0, 0)
        for turn in (0, 1):
            alone, highest, check = PLACE.unpack_from(content, turn * PLACE.size)
            if check == crc32(struct.pack("<QQ", alone, highest)) and (alone, highest) >= best[:2]:
                best = (alone, highest, 1 - turn)
        return best

    def admit(self, token: int, shared: bool) -> None:
        """Remember a token. Raises StaleToken when a newer one was here."""
        with self._lock:
            newest = self.alone if shared else max(self.alone, self.highest)
            if token < newest:
                why = f"its token is {token}, and {newest} has been here"
                raise StaleToken("the island takes no orders from a task that was replaced", why, "")
            alone, highest = self.alone if shared else token, max(self.highest, token)
            if (alone, highest) != (self.alone, self.highest):
                check = crc32(struct.pack("<QQ", alone, highest))
                os.pwrite(self._descriptor, PLACE.pack(alone, highest, check), self._turn * PLACE.size)
                os.fsync(self._descriptor)
                self.alone, self.highest, self._turn = alone, highest, 1 - self._turn

    def close(self) -> None:
        os.close(self._descriptor)
