"""Guest memory: one range of host address space, handed out as counted frames, 2 MiB chunks and windows on host files.

Two kinds behind one interface: *anonymous* (huge pages, fastest first touch) and *shared* (a memfd, which can have
aliases). How a stale translation is flushed and how memory goes back to the host belong to the kind; nothing above
asks which it is. Every frame a page table refers to carries one reference per entry; the last one frees it.
Owned by the island. Any thread may call; counters and free runs are changed under one lock, taken after those of the
address spaces.
"""

import ctypes
import mmap
import os
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from errno import EIO
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from enisle.abi.types import FRAMES_PER_HUGE, HUGE_SHIFT, PAGE, PAGE_SHIFT, Gpa, Hva
from enisle.errors import HostError
from enisle.machine import host_pages
from enisle.machine.host_pages import ANONYMOUS, MAP_NORESERVE, READ_WRITE
from enisle.machine.layout import EXTENT, EXTENT_SHIFT, WINDOW
from enisle.machine.runs import RunPool

FRAMES_PER_EXTENT = EXTENT // PAGE
FRAME_IN_EXTENT = FRAMES_PER_EXTENT - 1
EXTENT_OF_FRAME = EXTENT_SHIFT - PAGE_SHIFT

Run = tuple[Gpa, int]
"""A guest-physical run: address and number of 4 KiB frames."""


def _extents_of(start: int, count: int) -> Iterator[tuple[int, int, int]]:
    """Yield (extent, first index, end index) for each extent that a run of frames touches."""
    end = start + count
    while start < end:
        first = start & FRAME_IN_EXTENT
        here = min(end - start, FRAMES_PER_EXTENT - first)
        yield start >> EXTENT_OF_FRAME, first, first + here
        start += here


class OutOfMemory(Exception):
    """The island's memory limit is reached."""


class MemoryWatcher(Protocol):
    """Whoever keeps translations in software and must be told what hardware would notice; frames are 4 KiB."""

    def stale(self) -> None: ...
    def freed(self, frame: int, count: int) -> None: ...
    def written(self, frame: int, count: int) -> None: ...


class Pool(Protocol):
    """Free runs of frames or chunks."""

    def take_some(self, count: int) -> tuple[int, int] | None: ...
    def give(self, start: int, count: int) -> None: ...


P = ParamSpec("P")
R = TypeVar("R")


def _exclusive(method: "Callable[Concatenate[GuestMemory, P], R]") -> "Callable[Concatenate[GuestMemory, P], R]":
    """Run a method under the memory's lock: two address spaces change the same counters and free runs."""

    @wraps(method)
    def locked(self: "GuestMemory", *arguments: P.args, **named: P.kwargs) -> R:
        with self.lock:
            return method(self, *arguments, **named)

    return locked


class GuestMemory:
    """The machine's memory. `limit` bounds the frames handed out, in bytes; `kind` is "anonymous" or "shared"."""

    def __init__(self, limit: int, kind: str = "anonymous", add_extent: Callable[[Gpa, Hva, int], None] | None = None):
        span = max(EXTENT, (limit + EXTENT - 1) & ~(EXTENT - 1))
        self.kind = kind
        self.limit_frames = limit // PAGE
        self.used_frames = 0
        self.window_frames = 0
        self.epoch = 0
        """Odd while a flush is under way; a fault of the host during one is spurious and is retried."""
        self.flushes = 0
        self.lock = threading.RLock()
        self.watcher: MemoryWatcher | None = None
        self._chunks_start, self._window_start, self.size = span, 2 * span, 2 * span + WINDOW
        self._add_extent = add_extent
        self._reserve(span)
        self._extents: dict[int, array[int]] = {}
        self._frames: Pool = RunPool(1, span >> PAGE_SHIFT)  # frame 0 stays unused: an empty entry refers to nothing
        self._chunks: Pool = RunPool(span >> HUGE_SHIFT, self._window_start >> HUGE_SHIFT)
        self._chunk_live: dict[int, int] = {}
        self._windows = RunPool(self._window_start >> PAGE_SHIFT, self.size >> PAGE_SHIFT)
        self._shared: dict[int, bytearray] = {}
        self._copies: dict[int, bytearray] = {}
        """Marks of window frames that are charged, by extent."""
        """Per extent of the window, which frames are shared with their file."""
        self._self_mem = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)

    def _reserve(self, span: int) -> None:
        try:
            self._map = mmap.mmap(-1, self.size, flags=ANONYMOUS, prot=READ_WRITE)
        except OSError as error:
            hint = "allow overcommit (sysctl vm.overcommit_memory=0) or raise `ulimit -v`"
            raise HostError(f"cannot reserve {self.size >> 30} GiB of address space", str(error), hint) from error
        self._view = memoryview(self._map)
        self.words = self._view.cast("Q")
        """The memory as 64-bit words, for the page tables only."""
        self.base = Hva(ctypes.addressof(ctypes.c_char.from_buffer(self._map)))
        self.memfd = -1
        if self.kind == "shared":
            self.memfd = os.memfd_create("guest-memory", os.MFD_CLOEXEC)
            os.ftruncate(self.memfd, 2 * span)
            host_pages.place(self.base, 2 * span, READ_WRITE, mmap.MAP_SHARED, self.memfd)
        else:
            self._map.madvise(mmap.MADV_HUGEPAGE, self._chunks_start, span)

    def close(self) -> None:
        """Give everything back. No processor may run any more."""
        os.close(self._self_mem)
        if self.memfd >= 0:
            os.close(self.memfd)
        self.words.release()
        self._view.release()

    # ---- extents: what the hypervisor knows of -------------------------------------------------------------------

    def _cover(self, start: int, count: int) -> None:
        """Make sure that the frames `[start, start + count)` are known to the hypervisor and have counters."""
        for extent in range(start >> EXTENT_OF_FRAME, ((start + count - 1) >> EXTENT_OF_FRAME) + 1):
            if extent not in self._extents:
                gpa = Gpa(extent << EXTENT_SHIFT)
                if self._add_extent:
                    self._add_extent(gpa, Hva(self.base + gpa), EXTENT)
                self._extents[extent] = array("H", bytes(2 * FRAMES_PER_EXTENT))

    # ---- allocation ----------------------------------------------------------------------------------------------

    def require(self, count: int) -> None:
        """Raise OutOfMemory unless `count` frames are left: before work that must not fail half done."""
        if self.used_frames + count > self.limit_frames:
            raise OutOfMemory

    def _charge(self, count: int) -> None:
        if self.used_frames + count > self.limit_frames:
            raise OutOfMemory
        self.used_frames += count

    @_exclusive
    def allocate(self, count: int) -> list[Run]:
        """Return runs of zeroed frames, `count` in all, each with one reference. Raises OutOfMemory."""
        self._charge(count)
        runs: list[Run] = []
        while count:
            taken = self._frames.take_some(count)
            assert taken, "address space for frames is as large as the limit"
            self._set_references(*taken, 1)
            runs.append((Gpa(taken[0] << PAGE_SHIFT), taken[1]))
            count -= taken[1]
        return runs

    def allocate_frame(self) -> Gpa:
        """Return one zeroed frame."""
        return self.allocate(1)[0][0]

    @_exclusive
    def allocate_chunks(self, count: int) -> list[Run]:
        """Return runs of zeroed memory made of `count` 2 MiB-aligned chunks. Raises OutOfMemory."""
        self._charge(count * FRAMES_PER_HUGE)
        runs: list[Run] = []
        while count:
            taken = self._chunks.take_some(count)
            if not taken:  # chunks kept alive by single frames
                self.used_frames -= count * FRAMES_PER_HUGE
                for gpa, frames in runs:
                    self.release(gpa, frames)
                raise OutOfMemory
            start, length = taken
            for chunk in range(start, start + length):
                self._chunk_live[chunk] = FRAMES_PER_HUGE
            self._set_references(start * FRAMES_PER_HUGE, length * FRAMES_PER_HUGE, 1)
            runs.append((Gpa(start << HUGE_SHIFT), length * FRAMES_PER_HUGE))
            count -= length
        return runs

    @_exclusive
    def place_file(self, fd: int, offset: int, count: int, shared: bool, writable: bool) -> Gpa:
        """Place `count` pages of a host file in the window; return where, each frame with one reference.

        A private mapping is copied on write by the host. Raises OSError, OutOfMemory.
        """
        start = self._windows.take(count)
        if start is None:
            raise OutOfMemory
        gpa = Gpa(start << PAGE_SHIFT)
        prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable or not shared else 0)
        try:
            flags = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE | MAP_NORESERVE
            host_pages.place(self.base + gpa, count << PAGE_SHIFT, prot, flags, fd, offset)
        except OSError:
            self._windows.give(start, count)
            raise
        self._set_references(start, count, 1)
        if shared:
            self._mark_shared(start, count, True)
        self.window_frames += count
        return gpa

    def _mark_shared(self, start: int, count: int, shared: bool) -> None:
        for extent, first, end in _extents_of(start, count):
            if shared or extent in self._shared:
                marks = self._shared.setdefault(extent, bytearray(FRAMES_PER_EXTENT))
                marks[first:end] = bytes((shared,)) * (end - first)

    @_exclusive
    def charge_copies(self, gpa: Gpa, count: int) -> None:
        """Charge frames of a private file mapping, each once: the guest may write, and the host then copies them.

        Raises OutOfMemory; what was charged is given back with the frame.
        """
        for extent, first, end in _extents_of(gpa >> PAGE_SHIFT, count):
            marks = self._copies.setdefault(extent, bytearray(FRAMES_PER_EXTENT))
            self._charge(marks.count(0, first, end))
            marks[first:end] = b"\1" * (end - first)

    def _uncharge_copies(self, start: int, count: int) -> None:
        for extent, first, end in _extents_of(start, count):
            marks = self._copies.get(extent)
            if marks:
                self.used_frames -= marks.count(1, first, end)
                marks[first:end] = bytes(end - first)

    def is_window(self, gpa: int) -> bool:
        return gpa >= self._window_start

    # ---- references ----------------------------------------------------------------------------------------------

    def _set_references(self, start: int, count: int, value: int) -> None:
        self._cover(start, count)
        while count:
            references = self._extents[start >> EXTENT_OF_FRAME]
            first = start & FRAME_IN_EXTENT
            here = min(count, FRAMES_PER_EXTENT - first)
            references[first : first + here] = array("H", [value]) * here
            start, count = start + here, count - here

    def references(self, gpa: Gpa) -> int:
        frame = gpa >> PAGE_SHIFT
        return self._extents[frame >> EXTENT_OF_FRAME][frame & FRAME_IN_EXTENT]

    def shared(self, gpa: Gpa, count: int) -> list[Run]:
        """Return the parts of the run whose frames have more than one reference."""
        runs: list[Run] = []
        frame = gpa >> PAGE_SHIFT
        end = frame + count
        while frame < end:
            references = self._extents[frame >> EXTENT_OF_FRAME]
            first = frame & FRAME_IN_EXTENT
            here = min(end - frame, FRAMES_PER_EXTENT - first)
            if references[first : first + here] != array("H", b"\1\0" * here):
                several = (number > 1 for number in references[first : first + here])
                runs.extend(_runs_of(several, frame))
            frame += here
        return runs

    @_exclusive
    def share(self, gpa: Gpa, count: int) -> None:
        """Add one reference to each frame of the run."""
        frame = gpa >> PAGE_SHIFT
        for index in range(frame, frame + count):
            self._extents[index >> EXTENT_OF_FRAME][index & FRAME_IN_EXTENT] += 1

    @_exclusive
    def release(self, gpa: Gpa, count: int) -> None:
        """Drop one reference of each frame; frames nobody refers to go back to the host, which flushes them."""
        frame = end = gpa >> PAGE_SHIFT
        end += count
        while frame < end:
            references = self._extents[frame >> EXTENT_OF_FRAME]
            first = frame & FRAME_IN_EXTENT
            here = min(end - frame, FRAMES_PER_EXTENT - first)
            if references[first : first + here] == array("H", b"\1\0" * here):
                references[first : first + here] = array("H", bytes(2 * here))
                self._free(frame, here)
            else:
                self._release_each(references, first, frame - first, here)
            frame += here

    def _release_each(self, references: "array[int]", first: int, base: int, count: int) -> None:
        freed = -1
        for index in range(first, first + count):
            left = references[index] - 1
            assert left >= 0, f"frame {base + index:#x} released too often"
            references[index] = left
            if not left and freed < 0:
                freed = index
            elif left and freed >= 0:
                self._free(base + freed, index - freed)
                freed = -1
        if freed >= 0:
            self._free(base + freed, first + count - freed)

    def _free(self, frame: int, count: int) -> None:
        gpa = Gpa(frame << PAGE_SHIFT)
        if self.watcher:
            self.watcher.stale()
            self.watcher.freed(frame, count)
        if gpa >= self._window_start:
            host_pages.place(self.base + gpa, count << PAGE_SHIFT, READ_WRITE, ANONYMOUS)
            self._mark_shared(frame, count, False)
            self._uncharge_copies(frame, count)
            self._windows.give(frame, count)
            self.window_frames -= count
            return
        self.used_frames -= count
        self._discard(gpa, count)
        if gpa < self._chunks_start:
            self._frames.give(frame, count)
            return
        while count:
            chunk = frame // FRAMES_PER_HUGE
            here = min(count, (chunk + 1) * FRAMES_PER_HUGE - frame)
            self._chunk_live[chunk] -= here
            if not self._chunk_live[chunk]:
                del self._chunk_live[chunk]
                self._chunks.give(chunk, 1)
            frame, count = frame + here, count - here

    def _discard(self, gpa: Gpa, count: int) -> None:
        """Give frames back to the host; they read as zero afterwards and no processor has a translation to them."""
        # MADV_DONTNEED keeps the pages of a memfd, MADV_REMOVE punches them out; both end in the mmu notifier.
        advice = mmap.MADV_REMOVE if self.kind == "shared" else mmap.MADV_DONTNEED
        self._map.madvise(advice, gpa, count << PAGE_SHIFT)

    def flush(self, gpa: Gpa, count: int) -> None:
        """Drop every processor's translations to the run, keeping its contents.

        Changes of guest entries made by the host are invisible to a shadow-paging KVM, and stale in the TLB of any,
        until the host's own mapping of the page changes (mmu notifier). Needed after downgrades only.
        """
        self.flushes += 1
        if self.watcher:
            self.watcher.stale()
            return
        self.epoch += 1
        if gpa >= self._window_start:
            self._flush_window(gpa >> PAGE_SHIFT, count)
        elif self.kind == "shared":
            host_pages.refresh_shared(self.base + gpa, count << PAGE_SHIFT)
        else:
            host_pages.refresh_private(self.base + gpa, count << PAGE_SHIFT)
        self.epoch += 1

    def _flush_window(self, start: int, count: int) -> None:
        """Flush parts that are shared with a file, which may be mapped for reading only, apart from private ones."""
        for extent, first, end in _extents_of(start, count):
            marks = self._shared.get(extent)
            while first < end:
                other = -1 if marks is None else marks.find(not marks[first], first, end)
                stop = end if other < 0 else other
                refresh = host_pages.refresh_shared if marks and marks[first] else host_pages.refresh_private
                frame = (extent << EXTENT_OF_FRAME) + first
                refresh(self.base + (frame << PAGE_SHIFT), (stop - first) << PAGE_SHIFT)
                first = stop

    # ---- access --------------------------------------------------------------------------------------------------

    def read(self, gpa: Gpa, size: int) -> bytes:
        """Return `size` bytes. Raises OSError where the host cannot back the page (a truncated file)."""
        if gpa < self._window_start:
            return bytes(self._view[gpa : gpa + size])
        content = os.pread(self._self_mem, size, self.base + gpa)  # a plain load could die of SIGBUS
        if len(content) < size:
            raise OSError(EIO, "the mapped file ends within the range")
        return content

    def write(self, gpa: Gpa, content: bytes | memoryview) -> None:
        """Store `content`. Raises OSError where the host cannot back the page."""
        if self.watcher:
            self._tell_written(gpa, len(content))
        if gpa < self._window_start:
            self._view[gpa : gpa + len(content)] = content
        elif os.pwrite(self._self_mem, content, self.base + gpa) < len(content):
            raise OSError(EIO, "the mapped file ends within the range")

    def pin(self, gpa: Gpa, size: int) -> memoryview:
        """Return a view for one host call's iovec. It must not outlive the call."""
        if self.watcher:
            self._tell_written(gpa, size)
        return self._view[gpa : gpa + size]

    def _tell_written(self, gpa: Gpa, size: int) -> None:
        assert self.watcher
        frame = gpa >> PAGE_SHIFT
        self.watcher.written(frame, ((gpa + size - 1) >> PAGE_SHIFT) - frame + 1)


def _runs_of(marks: Iterable[bool], frame: int) -> Iterator[Run]:
    """Yield the runs of frames, counted from `frame`, that are marked."""
    start = -1
    index = frame
    for index, mark in enumerate(marks, frame):  # its last value ends the last run
        if mark and start < 0:
            start = index
        elif not mark and start >= 0:
            yield Gpa(start << PAGE_SHIFT), index - start
            start = -1
    if start >= 0:
        yield Gpa(start << PAGE_SHIFT), index + 1 - start
