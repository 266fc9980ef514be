"""The hatch: a running island can be asked from outside, through a socket that only its owner's processes reach.

Opened before the jail, served by a thread of its own that does nothing until somebody connects. Promises: no request
and no client blocks the island or makes it grow: one connection at a time, one request each, of bounded size, in
bounded time. A guest is never answered: a client must pass a descriptor of its mount name space, which no guest can
get (its /proc is ours), even where its owner shows it the directory with the socket.
"""

import os
import time
from _socket import MSG_PEEK, SHUT_RDWR
from _socket import socket as Socket
from threading import Thread
from typing import TYPE_CHECKING, Any

from enisle.island.registry import publish

if TYPE_CHECKING:
    from enisle.island.process import IslandProcess

BREATH, PATIENCE = 0.2, 1.0
"""Seconds to wait when the host has no descriptor for a connection, and for the first byte of one."""


class Hatch:
    """One island's socket. Made and closed by the main thread."""

    def __init__(self, name: str) -> None:
        """Publish it. Raises StateError when the name is taken, HostError when there is no place for it."""
        self.published = publish(name)
        self.began = time.monotonic()
        self._directory = -1
        self._closed = False

    def open(self, island: "IslandProcess", directory: int) -> None:
        """Begin to answer. `directory` is a detached mount of our own directory, to unlink from; -1: there is none."""
        self._directory = directory
        Thread(target=self._serve, args=(island,), name="hatch", daemon=True).start()

    def _serve(self, island: "IslandProcess") -> None:
        listener: Any = self.published.listener
        while not self._closed:
            try:
                peer = Socket(fileno=listener._accept()[0])
            except OSError:
                time.sleep(BREATH)
                continue
            try:
                peer.settimeout(PATIENCE)
                if peer.recv(1, MSG_PEEK):  # else somebody only wanted to know whether we live
                    # Only now, from memory: an island that nobody asks does not pay for it.
                    from enisle.island.answers import answer

                    answer(island, self, peer)
            except OSError:
                pass  # the client was too slow, or is gone
            finally:
                peer.close()

    def close(self) -> None:
        """Take the socket back. Its empty directory is swept by the next island or by `enisle ps`."""
        if self._closed:
            return
        self._closed = True
        entry = self.published.entry
        try:
            self.published.listener.shutdown(SHUT_RDWR)  # whoever connects from now on is refused
            if self._directory >= 0:
                os.unlink(f"{entry.pid}.{entry.id}", dir_fd=self._directory)
            else:
                os.unlink(f"{self.published.path}/{entry.pid}.{entry.id}")  # not in the jail yet
        except OSError:
            pass  # swept already
