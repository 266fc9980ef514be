"""What is typed on its way to a command of the platform: kept until it was taken, sent again when an answer was lost.

Its writer's name and offset make that safe: the host leaves out what it has. Ctrl-P Ctrl-Q leaves. One thread owns it.
"""

import os
import time

from enisle.cli.following import PATIENCE_S
from enisle.cli.reach import Door
from enisle.errors import HostError

PIECE = 64 << 10
"""Bytes of a request; as many are read ahead."""
PREFIX, DETACH = b"\x10", b"\x10\x11"
"""Ctrl-P Ctrl-Q, as with other tools."""


class Typed:
    """The input of one command from here. `keys`: whether the keys to leave are looked for."""

    def __init__(self, door: Door, task: str, keys: bool) -> None:
        self._door, self._path, self._keys = door, f"/v1/tasks/{task}/input", keys
        self._writer = os.urandom(8).hex()
        self._offset = 0
        self._pending = bytearray()
        self._held = b""
        self._ended = self._told_end = False
        self._lost = 0.0

    @property
    def has_room(self) -> bool:
        return not self._ended and len(self._pending) < PIECE

    @property
    def waits(self) -> bool:
        """Whether there is something to send."""
        return bool(self._pending) or (self._ended and not self._told_end)

    def add(self, typed: bytes) -> bool:
        """Take what was typed, nothing at its end; return whether it asks to leave."""
        if not typed:
            self._pending += self._held
            self._held, self._ended = b"", True
            return False
        if not self._keys:
            self._pending += typed
            return False
        typed, self._held = self._held + typed, b""
        at = typed.find(DETACH)
        if at >= 0:
            self._pending += typed[:at]
            return True
        if typed.endswith(PREFIX):
            typed, self._held = typed[:-1], PREFIX
        self._pending += typed
        return False

    def send(self) -> bool:
        """Send a piece; return whether all of it was taken. Raises HostError when nobody answered for long."""
        piece = bytes(self._pending[:PIECE])
        last = self._ended and len(piece) == len(self._pending)
        query = {"offset": self._offset, "writer": self._writer} | ({"end": "true"} if last else {})
        try:
            told = self._door.upload(self._path, query, piece, "", "POST")
        except HostError:
            self._lost = self._lost or time.monotonic()
            if time.monotonic() - self._lost > PATIENCE_S:
                raise
            return False
        self._lost = 0.0
        del self._pending[: told["next"] - self._offset]
        self._offset = told["next"]
        self._told_end = last and not told["later"]
        return not told["later"]
