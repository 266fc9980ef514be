"""The kernel's own access to a guest process's memory: read, write, pin, strings; EFAULT where the guest may not.

Guest rights are respected, page boundaries crossed, lazily mapped pages faulted in. No view on guest memory escapes a
call: `pinned` gives them for one host call and keeps their frames from being freed until it is over.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from errno import EFAULT, ENAMETOOLONG

from enisle.abi.linux import PATH_MAX
from enisle.abi.types import PAGE, PAGE_MASK, PAGE_SHIFT, Gpa
from enisle.abi.x86 import PTE_ADDRESS, Pte
from enisle.errors import LinuxError
from enisle.machine import USER_END, USER_START, AddressSpace, GuestMemory

PRESENT, WRITABLE = Pte.PRESENT, Pte.WRITABLE
STRING_PIECE = 256


class UserMemory(ABC):
    """Access to one address space. All public methods take the lock; those with an underscore require it."""

    def __init__(self, memory: GuestMemory, space: AddressSpace) -> None:
        self.memory, self.space = memory, space
        self.lock = threading.RLock()
        self._readable: dict[int, int] = {}
        self._writable: dict[int, int] = {}
        self._pins = 0
        self._deferred: list[int] = []

    @abstractmethod
    def fault(self, address: int, write: bool, execute: bool, guest: bool = True) -> int | None:
        """Make an access possible; None when it is."""

    @property
    def has_pins(self) -> bool:
        """Return whether a host call has views on frames now. Requires: lock."""
        return bool(self._pins)

    def _forget(self) -> None:
        """Forget cached translations: the page tables are about to change."""
        self._readable.clear()
        self._writable.clear()

    def _translate(self, page: int, write: bool) -> int:
        """Return the frame of page number `page`, faulted in. Raises EFAULT."""
        cache = self._writable if write else self._readable
        frame = cache.get(page)
        if frame is not None:
            return frame
        address = page << PAGE_SHIFT
        for _ in range(3):
            entry = self.space.entry(address) if USER_START <= address < USER_END else 0
            if entry & PRESENT and (not write or entry & WRITABLE):
                cache[page] = frame = entry & PTE_ADDRESS
                return frame
            if not USER_START <= address < USER_END or self.fault(address, write, False, guest=False) is not None:
                break
        raise LinuxError(EFAULT)

    def _spans(self, gva: int, size: int, write: bool) -> Iterator[tuple[int, int]]:
        """Yield (guest-physical address, bytes) pieces of a range, physically contiguous ones joined."""
        start = length = 0
        end = gva + size
        while gva < end:
            frame = self._translate(gva >> PAGE_SHIFT, write)
            offset = gva & PAGE_MASK
            here = min(PAGE - offset, end - gva)
            if length and start + length == frame + offset:
                length += here
            else:
                if length:
                    yield start, length
                start, length = frame + offset, here
            gva += here
        if length:
            yield start, length

    def read(self, gva: int, size: int) -> bytes:
        """Return `size` bytes of guest memory. Raises EFAULT."""
        with self.lock:
            try:
                if (gva & PAGE_MASK) + size <= PAGE:
                    if not size:
                        return b""
                    return self.memory.read(Gpa(self._translate(gva >> PAGE_SHIFT, False) + (gva & PAGE_MASK)), size)
                return b"".join([self.memory.read(Gpa(gpa), length) for gpa, length in self._spans(gva, size, False)])
            except OSError:  # beyond the end of a mapped file
                raise LinuxError(EFAULT) from None

    def write(self, gva: int, content: bytes) -> None:
        """Store `content` in guest memory. Raises EFAULT (earlier pages may have been written, as on Linux)."""
        with self.lock:
            try:
                done = 0
                for gpa, length in self._spans(gva, len(content), True):
                    self.memory.write(Gpa(gpa), content[done : done + length])
                    done += length
            except OSError:
                raise LinuxError(EFAULT) from None

    @contextmanager
    def pinned(self, ranges: list[tuple[int, int]], write: bool) -> Generator[list[memoryview], None, None]:
        """Give views of (address, size) ranges for one host call's iovec; their frames stay until it is over.

        `write`: the host call stores into them. Raises EFAULT.
        """
        with self.lock:
            views = [
                self.memory.pin(Gpa(gpa), length)
                for address, size in ranges
                if size
                for gpa, length in self._spans(address, size, write)
            ]
            self._pins += 1
        try:
            yield views
        finally:
            for view in views:
                view.release()
            with self.lock:
                self._pins -= 1
                if not self._pins and self._deferred:
                    self._release_deferred()

    def pin(self, address: int, size: int, write: bool) -> list[memoryview]:
        """Give views of one range as `pinned` does, until `unpin`: the short way of read and write. Raises EFAULT."""
        with self.lock:
            page = address >> PAGE_SHIFT
            last = (address + size - 1) >> PAGE_SHIFT
            cache = self._writable if write else self._readable
            frame = cache.get(page)
            if frame is not None:
                start = frame + (address & PAGE_MASK)
                while page < last:
                    page += 1
                    frame += PAGE
                    if cache.get(page) != frame:
                        break
                else:
                    self._pins += 1
                    return [self.memory.pin(Gpa(start), size)]
            views = [self.memory.pin(Gpa(gpa), length) for gpa, length in self._spans(address, size, write)]
            self._pins += 1
            return views

    def unpin(self, views: list[memoryview]) -> None:
        for view in views:
            view.release()
        with self.lock:
            self._pins -= 1
            if not self._pins and self._deferred:
                self._release_deferred()

    def reach(self, address: int, size: int, write: bool) -> int:
        """Return how many bytes from `address` the guest may access, up to `size`."""
        end = address + size
        with self.lock:
            for page in range(address >> PAGE_SHIFT, (end + PAGE_MASK) >> PAGE_SHIFT):
                try:
                    self._translate(page, write)
                except LinuxError:
                    return max(0, (page << PAGE_SHIFT) - address)
        return size

    def _release_deferred(self) -> None:
        deferred, self._deferred = self._deferred, []
        for frame in deferred:
            self.memory.release(Gpa(frame), 1)

    def read_string(self, gva: int, limit: int) -> bytes:
        """Return the C string at `gva` without its NUL, which must be within `limit` bytes (ENAMETOOLONG)."""
        pieces: list[bytes] = []
        size = 0
        while size < limit:
            piece = self.read(gva, min(PAGE - (gva & PAGE_MASK), limit - size, STRING_PIECE))
            end = piece.find(0)
            if end >= 0:
                pieces.append(piece[:end])
                return b"".join(pieces)
            pieces.append(piece)
            size += len(piece)
            gva += len(piece)
        raise LinuxError(ENAMETOOLONG)

    def read_path(self, gva: int) -> bytes:
        return self.read_string(gva, PATH_MAX)

    def read_u32(self, gva: int) -> int:
        return int.from_bytes(self.read(gva, 4), "little")

    def read_u64(self, gva: int) -> int:
        return int.from_bytes(self.read(gva, 8), "little")

    def write_u32(self, gva: int, value: int) -> None:
        self.write(gva, (value & 0xFFFF_FFFF).to_bytes(4, "little"))

    def write_u64(self, gva: int, value: int) -> None:
        self.write(gva, (value & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little"))

    def frame_of(self, gva: int, write: bool = False) -> int:
        """Return the guest-physical address behind `gva`: the identity of a futex. Raises EFAULT."""
        with self.lock:
            return self._translate(gva >> PAGE_SHIFT, write) + (gva & PAGE_MASK)
