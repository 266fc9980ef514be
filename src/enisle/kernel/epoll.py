"""epoll instances: a host epoll each, whose entries carry the guest's own data.

An entry is a guest descriptor and a description, as on Linux. The host knows entries by its descriptors, so the second
entry for one description watches a duplicate, which is closed together with the description. Guarded by `lock`.
"""

import fcntl
import os
import threading
from errno import EEXIST, ENOENT

from enisle.abi import host_socket
from enisle.abi import linux_socket as n
from enisle.errors import LinuxError
from enisle.kernel.files import OpenFile
from enisle.kernel.readiness import askable
from enisle.records import Record

PURGE_AT = 64


class Entry(Record):
    """A watched description and the host descriptor that stands for the entry: its own or a duplicate."""

    file: OpenFile
    host: int


class EpollFile(OpenFile):
    """An open epoll instance."""

    kind = "epoll"
    seekable = False

    def __init__(self) -> None:
        super().__init__(host_socket.epoll_create(), os.O_RDWR, b"anon_inode:[eventpoll]")
        self.lock = threading.Lock()
        self.entries: dict[tuple[int, int], Entry] = {}
        """By guest descriptor and id() of the description, which the entry keeps alive."""
        self._purge_at = PURGE_AT

    def add(self, fd: int, file: OpenFile, events: int, content: int) -> None:
        """Raises EEXIST, and from the host EPERM (a regular file), ELOOP, ENOSPC, EINVAL."""
        with self.lock:
            if (fd, id(file)) in self.entries:
                raise LinuxError(EEXIST)
            self._purge()
            event = pack(file, events, content)
            host = file.fd
            try:
                host_socket.epoll_ctl(self.fd, n.EPOLL_CTL_ADD, host, event)
            except FileExistsError:
                host = self._add_duplicate(file, event)
            self.entries[fd, id(file)] = Entry(file, host)

    def _add_duplicate(self, file: OpenFile, event: bytes) -> int:
        host = fcntl.fcntl(file.fd, fcntl.F_DUPFD_CLOEXEC, 3)
        try:
            host_socket.epoll_ctl(self.fd, n.EPOLL_CTL_ADD, host, event)
        except OSError:
            os.close(host)
            raise
        file.companions = (*file.companions, host)
        return host

    def modify(self, fd: int, file: OpenFile, events: int, content: int) -> None:
        """Raises ENOENT, and from the host EINVAL."""
        with self.lock:
            entry = self._entry(fd, file)
            host_socket.epoll_ctl(self.fd, n.EPOLL_CTL_MOD, entry.host, pack(file, events, content))

    def remove(self, fd: int, file: OpenFile) -> None:
        """Raises ENOENT."""
        with self.lock:
            entry = self._entry(fd, file)
            del self.entries[fd, id(file)]
            host_socket.epoll_ctl(self.fd, n.EPOLL_CTL_DEL, entry.host, bytes(n.EPOLL_EVENT.size))
            release(entry)

    def _entry(self, fd: int, file: OpenFile) -> Entry:
        entry = self.entries.get((fd, id(file)))
        if entry is None:
            raise LinuxError(ENOENT)
        return entry

    def _purge(self) -> None:
        """Forget entries whose description is closed: the host has. Requires: lock."""
        if len(self.entries) >= self._purge_at:
            self.entries = {key: entry for key, entry in self.entries.items() if entry.file.fd >= 0}
            self._purge_at = max(PURGE_AT, 2 * len(self.entries))

    def poll(self, count: int) -> bytes:
        """Return up to `count` struct epoll_event that are there now."""
        return host_socket.epoll_poll(self.fd, count)

    def close(self) -> None:
        with self.lock:
            entries, self.entries = self.entries, {}
        super().close()
        for entry in entries.values():
            release(entry)


def pack(file: OpenFile, events: int, content: int) -> bytes:
    return n.EPOLL_EVENT.pack(askable(file, events & 0xFFFF) | events & 0xFFFF_0000, content)


def release(entry: Entry) -> None:
    """Close the duplicate an entry had, unless its description's end has."""
    file = entry.file
    if entry.host in file.companions:
        file.companions = tuple(host for host in file.companions if host != entry.host)
        os.close(entry.host)
