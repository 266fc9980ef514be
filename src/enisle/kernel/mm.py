"""The address space of a guest process: mappings over page tables, faults, and the kernel's own access to it.

Memory is filled eagerly while there is plenty of it, because a guest fault costs an exit and a host fault does not;
near the limit it is filled on demand. All methods take the lock; those with a leading underscore require it.
"""

from collections.abc import Callable, Iterable
from errno import EACCES, EEXIST, EFAULT, EINVAL, ENOMEM
from typing import TYPE_CHECKING

from enisle.abi import host
from enisle.abi.linux_mman import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_PRIVATE,
    MREMAP_DONTUNMAP,
    MREMAP_MAYMOVE,
    PROT_EXEC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from enisle.abi.types import FRAMES_PER_HUGE, HUGE, HUGE_MASK, PAGE, PAGE_MASK, PAGE_SHIFT, Gpa, Gva, page_down, page_up
from enisle.abi.x86 import PTE_ADDRESS, Pte
from enisle.errors import LinuxError
from enisle.kernel.policy import fault_around, fill_eagerly
from enisle.kernel.usermem import UserMemory
from enisle.kernel.vma import Backing, Vma, VmaList
from enisle.machine import USER_END, USER_START, Machine, OutOfMemory, leaf_flags

if TYPE_CHECKING:
    from enisle.kernel.executable import Executable

PRESENT, WRITABLE, COW = Pte.PRESENT, Pte.WRITABLE, Pte.COW
SEGV_MAPERR, SEGV_ACCERR = 1, 2
STACK_GUARD = 256 * PAGE
MOST_MAPPINGS = 65530
"""Mappings a process may have (vm.max_map_count)."""
OUT_OF_MEMORY = -1
"""What `fault` returns when the island's limit is reached: the process must die."""


def flags_of(prot: int) -> int:
    return leaf_flags(bool(prot & PROT_READ), bool(prot & PROT_WRITE), bool(prot & PROT_EXEC))


class Mm(UserMemory):
    """One address space (`struct mm_struct`), shared by the threads of a process and by vfork."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.memory, machine.new_address_space())
        self.machine = machine
        self.vmas = VmaList()
        self.users = 1
        self.mmap_base = USER_END - (1 << 30)
        self.start_brk = self.brk = 0
        self.start_code = self.end_code = self.start_data = self.end_data = self.start_stack = 0
        self.arguments: tuple[int, int] = (0, 0)
        self.environment: tuple[int, int] = (0, 0)
        self.auxv = b""
        self.exe: Backing | None = None
        self.faults = 0
        self.limit_pages: int | None = None
        self.barriers = 0
        """Which membarrier commands the program has registered for."""
        self.no_huge_pages = False
        self.executable = self._make_executable() if machine.enforcement else None
        """What a page goes through before it executes, where a blocking value says so."""
        if machine.replication:
            machine.replication.adopt(self.space, self.lock)

    def _make_executable(self) -> "Executable":
        from enisle.kernel.executable import Executable

        return Executable(self)

    def _flags(self, prot: int) -> int:
        return flags_of(prot) if self.executable is None else self.executable.flags(prot)

    def release_frame(self, frame: Gpa) -> None:
        """Drop the reference of a frame no longer mapped, after the host calls that have views. Requires: lock."""
        if self._pins:
            self._deferred.append(frame)
        else:
            self.memory.release(frame, 1)

    def forget_pages(self, pages: Iterable[int]) -> None:
        """Forget the translations of pages, by number: they have other rights or frames. Requires: lock."""
        for page in pages:
            self._readable.pop(page, None)
            self._writable.pop(page, None)

    # ---- mapping -------------------------------------------------------------------------------------------------

    def mmap(
        self, address: int, size: int, prot: int, flags: int, backing: Backing | None = None, offset: int = 0
    ) -> int:
        """Map anonymous memory, or `backing` from `offset`; return the address. mmap(2) without the descriptor."""
        size = page_up(size)
        if not size or size > USER_END or offset & PAGE_MASK:
            raise LinuxError(ENOMEM if size > USER_END else EINVAL)
        with self.lock:
            self._require_place()
            start = self._place(address, size, flags, huge=backing is None and size >= HUGE)
            kept = flags & ~(MAP_FIXED | MAP_FIXED_NOREPLACE)
            vma = Vma(start, start + size, prot, kept, backing.path if backing else b"", offset)
            vma.backing = backing
            self._fill_new(vma)
            self.vmas.add(vma)
            return start

    def _require_place(self) -> None:
        """Raise ENOMEM when there are too many mappings for one more."""
        if len(self.vmas) >= MOST_MAPPINGS:
            raise LinuxError(ENOMEM)

    def _place(self, address: int, size: int, flags: int, huge: bool) -> int:
        if flags & (MAP_FIXED | MAP_FIXED_NOREPLACE):
            if address & PAGE_MASK:
                raise LinuxError(EINVAL)
            if address < USER_START or address + size > USER_END:
                raise LinuxError(ENOMEM)
            if flags & MAP_FIXED_NOREPLACE and self.vmas.overlapping(address, address + size):
                raise LinuxError(EEXIST)
            self._unmap(address, address + size)
            return address
        hint = page_up(address)
        if hint >= USER_START and hint + size <= USER_END and not self.vmas.overlapping(hint, hint + size):
            return hint
        start = self.vmas.find_gap(size, USER_START, self.mmap_base, HUGE if huge else PAGE)
        if start is None:
            start = self.vmas.find_gap(size, USER_START, USER_END)
        if start is None:
            raise LinuxError(ENOMEM)
        return start

    def _fill_new(self, vma: Vma) -> None:
        """Give a new mapping its translations: a file's all at once, anonymous memory as the policy says."""
        try:
            if vma.backing:
                self._map_file(vma)
            elif vma.prot != PROT_NONE and fill_eagerly(vma.pages, vma.flags, self.memory):
                self._fill(vma.start, vma.end, self._flags(vma.prot))
        except OutOfMemory:
            self.space.unmap(Gva(vma.start), vma.pages)
            raise LinuxError(ENOMEM) from None

    def _map_file(self, vma: Vma) -> None:
        assert vma.backing
        backing = vma.backing
        gpa = self.memory.place_file(backing.fd, vma.offset, vma.pages, vma.shared, backing.writable)
        if vma.prot & PROT_WRITE and not vma.shared:
            try:
                self.memory.charge_copies(gpa, vma.pages)
            except OutOfMemory:
                self.memory.release(gpa, vma.pages)
                raise
        self.space.map(Gva(vma.start), gpa, vma.pages, self._flags(vma.prot))

    def _fill(self, start: int, end: int, flags: int) -> None:
        """Back an unmapped anonymous range with frames: 2 MiB chunks where alignment allows, single frames around."""
        first_chunk, last_chunk = (start + HUGE_MASK) & ~HUGE_MASK, end & ~HUGE_MASK
        if first_chunk >= last_chunk:
            self._fill_frames(start, end, flags)
            return
        self._fill_frames(start, first_chunk, flags)
        address = first_chunk
        for gpa, count in self.memory.allocate_chunks((last_chunk - first_chunk) // HUGE):
            self.space.map(Gva(address), gpa, count, flags)
            address += count << PAGE_SHIFT
        self._fill_frames(last_chunk, end, flags)

    def _fill_frames(self, start: int, end: int, flags: int) -> None:
        if start < end:
            address = start
            for gpa, count in self.memory.allocate((end - start) >> PAGE_SHIFT):
                self.space.map(Gva(address), gpa, count, flags)
                address += count << PAGE_SHIFT

    def _fill_missing(self, start: int, end: int, flags: int) -> None:
        """Back the pages of an anonymous range that have no frame yet."""
        gap = start
        for address, _ in self.space.entries(Gva(start), (end - start) >> PAGE_SHIFT):
            if gap < address:
                self._fill(gap, address, flags)
            gap = address + PAGE
        if gap < end:
            self._fill(gap, end, flags)

    def munmap(self, address: int, size: int) -> None:
        size = page_up(size)
        if address & PAGE_MASK or not size or address + size > USER_END:
            raise LinuxError(EINVAL)
        with self.lock:
            around = self.vmas.find(address)
            if around and around.start < address and address + size < around.end:
                self._require_place()
            self._unmap(address, address + size)

    def _unmap(self, start: int, end: int) -> None:
        for piece in self.vmas.remove(start, end):
            self._drop_pages(piece.start, piece.end)

    def _drop_pages(self, start: int, end: int) -> None:
        """Remove translations; frames still pinned by a host call are freed when the last pin goes."""
        self._forget()
        if self.executable is not None:
            self.executable.forget(start, end)
        if not self._pins:
            self.space.unmap(Gva(start), (end - start) >> PAGE_SHIFT)
            return
        for _, entry in self.space.entries(Gva(start), (end - start) >> PAGE_SHIFT):
            frame = entry & PTE_ADDRESS
            self.memory.share(Gpa(frame), 1)
            self._deferred.append(frame)
        self.space.unmap(Gva(start), (end - start) >> PAGE_SHIFT)

    def mprotect(self, address: int, size: int, prot: int) -> None:
        """Change rights; memory that becomes accessible is filled. mprotect(2)."""
        if address & PAGE_MASK:
            raise LinuxError(EINVAL)
        end = address + page_up(size)
        with self.lock:
            self._require_place()
            if not self.vmas.covers(address, end):
                raise LinuxError(ENOMEM)
            for vma in self.vmas.overlapping(address, end):
                if prot & PROT_WRITE and vma.shared and vma.backing and not vma.backing.writable:
                    raise LinuxError(EACCES)
                if prot & PROT_WRITE and not vma.shared and vma.backing:
                    self._charge_copies(max(vma.start, address), min(vma.end, end))
            self._forget()
            if self.executable is not None:
                self.executable.settle(address, end)
            for piece in self.vmas.remove(address, end):
                piece.prot = prot
                self.space.protect(Gva(piece.start), piece.pages, self._flags(prot))
                if not piece.backing and prot != PROT_NONE and fill_eagerly(piece.pages, piece.flags, self.memory):
                    try:
                        self._fill_missing(piece.start, piece.end, self._flags(prot))
                    except OutOfMemory:
                        pass  # filled on demand then, or the process dies there
                self.vmas.add(piece)

    def _charge_copies(self, start: int, end: int) -> None:
        """Account for the pages of a private file mapping that become writable. Raises ENOMEM."""
        try:
            for _, entry in self.space.entries(Gva(start), (end - start) >> PAGE_SHIFT):
                gpa = Gpa(entry & PTE_ADDRESS)
                if self.memory.is_window(gpa):
                    self.memory.charge_copies(gpa, 1)
        except OutOfMemory:
            raise LinuxError(ENOMEM) from None

    def discard(self, start: int, end: int) -> None:
        """Throw the contents of private pages away; they read as zero or as the file again (MADV_DONTNEED)."""
        with self.lock:
            for vma in self.vmas.overlapping(start, end):
                if vma.shared:
                    continue
                low, high = max(start, vma.start), min(end, vma.end)
                self._drop_pages(low, high)
                if vma.backing:
                    self._map_file(vma.part(low, high))

    def map_named(self, start: int, size: int, prot: int, name: bytes) -> None:
        """Map private anonymous memory at a free, fixed place under a name of the kernel's ([heap])."""
        with self.lock:
            vma = Vma(start, start + size, prot, MAP_PRIVATE | MAP_ANONYMOUS, name)
            self._fill_new(vma)
            self.vmas.add(vma)

    def change(self, start: int, end: int, change: Callable[[Vma], None]) -> None:
        """Change a property of every mapping in the range, splitting those that reach beyond it."""
        with self.lock:
            for piece in self.vmas.remove(start, end):
                change(piece)
                self.vmas.add(piece)

    def punch(self, vma: Vma, start: int, end: int) -> None:
        """Punch the range out of a shared mapping's file; it reads as zero afterwards (fallocate(2))."""
        assert vma.backing
        host.fallocate(
            vma.backing.fd,
            host.FALLOC_FL_PUNCH_HOLE | host.FALLOC_FL_KEEP_SIZE,
            vma.offset + start - vma.start,
            end - start,
        )

    def mremap(self, old: int, old_size: int, new_size: int, flags: int, target: int | None) -> int:
        """Resize or move one mapping; return its address. mremap(2), arguments checked by the caller."""
        with self.lock:
            vma = self.vmas.find(old)
            if vma is None or old + old_size > vma.end:
                raise LinuxError(EFAULT)
            if target is None and new_size <= old_size and not flags & MREMAP_DONTUNMAP:
                if new_size < old_size:
                    self._unmap(old + new_size, old + old_size)
                return old
            if target is None and old + old_size == vma.end and not flags & MREMAP_DONTUNMAP:
                end = old + new_size
                if end <= USER_END and not self.vmas.overlapping(vma.end, end):
                    self._extend(vma, vma.end, end)
                    return old
            if not flags & MREMAP_MAYMOVE:
                raise LinuxError(ENOMEM)
            return self._move(vma.part(old, old + old_size), new_size, flags, target)

    def _extend(self, like: Vma, start: int, end: int) -> None:
        """Map [start, end) as the continuation of `like`."""
        more = Vma(start, end, like.prot, like.flags, like.name, like.offset + (start - like.start))
        more.backing, more.policy = like.backing, like.policy
        more.dont_fork, more.wipe_on_fork = like.dont_fork, like.wipe_on_fork
        self._fill_new(more)
        self.vmas.add(more)

    def _move(self, vma: Vma, new_size: int, flags: int, target: int | None) -> int:
        old, size = vma.start, vma.end - vma.start
        if target is None:
            start = self._place(0, new_size, 0, huge=not vma.backing and new_size >= HUGE)
        else:
            start = self._place(target, new_size, MAP_FIXED, huge=False)
        kept = min(size, new_size)
        self._forget()
        if self.executable is not None:
            self.executable.settle(old, old + size)
        self.space.move(Gva(old), Gva(start), kept >> PAGE_SHIFT)
        moved = vma.part(old, old + kept)
        moved.start, moved.end = start, start + kept
        if flags & MREMAP_DONTUNMAP:
            if vma.backing:
                self._map_file(vma)
        else:
            self._unmap(old, old + size)
        self.vmas.add(moved)
        if new_size > size:
            self._extend(moved.part(start, start + kept), start + kept, start + new_size)
        return start

    # ---- faults --------------------------------------------------------------------------------------------------

    def fault(self, address: int, write: bool, execute: bool, guest: bool = True) -> int | None:
        """Make an access possible; return None when it is, else the si_code of SIGSEGV or OUT_OF_MEMORY.

        `guest`: a processor has just faulted there (its own stale translation is gone).
        """
        with self.lock:
            self.faults += 1
            vma = self.vmas.find(address) or self._grow_stack(address)
            if vma is None:
                return SEGV_MAPERR
            needed = PROT_WRITE if write else PROT_EXEC if execute else PROT_READ
            # x86 has no write-only pages: whatever is accessible can be read.
            if not vma.prot & needed and not (needed == PROT_READ and vma.prot):
                return SEGV_ACCERR
            try:
                self._fault_in(vma, Gva(page_down(address)), write, guest)
            except OutOfMemory:
                return OUT_OF_MEMORY
            return None

    def _fault_in(self, vma: Vma, page: Gva, write: bool, guest: bool) -> None:
        entry = self.space.entry(page)
        if entry & PRESENT:
            if write and self.executable is not None and self.executable.write(vma, page):
                return
            if write and entry & COW:
                self._readable.pop(page >> PAGE_SHIFT, None)
                self.space.break_cow(page, flush=not guest or self.users > 1)
            elif guest:
                self.memory.flush(Gpa(entry & PTE_ADDRESS), 1)  # the processor holds a stale translation
            return
        start, end = fault_around(page, vma.start, vma.end, self.memory)
        if vma.policy and vma.policy.nodes:
            with self.machine.preferring(vma.policy.nodes, vma.policy.turns):
                self._fill_missing(start, end, self._flags(vma.prot))
            return
        self._fill_missing(start, end, self._flags(vma.prot))

    def _grow_stack(self, address: int) -> Vma | None:
        above = self.vmas.next_after(address)
        if above is None or not above.grows_down or above.start - address > (8 << 20):
            return None
        start = page_down(address)
        if self.vmas.overlapping(start - STACK_GUARD, start):
            return None
        grown = Vma(start, above.start, above.prot, above.flags, above.name)
        self.vmas.add(grown)
        return self.vmas.find(address)

    # ---- life ----------------------------------------------------------------------------------------------------

    def fork(self) -> "Mm":
        """Return a copy: private memory copy-on-write, shared memory shared. Raises ENOMEM."""
        child = Mm(self.machine)
        with self.lock:
            self._forget()
            try:
                self._copy_into(child)
            except OutOfMemory:
                child.release()
                raise LinuxError(ENOMEM) from None
        for name in ("mmap_base", "start_brk", "brk", "start_code", "end_code", "start_data", "end_data"):
            setattr(child, name, getattr(self, name))
        child.start_stack, child.auxv, child.exe = self.start_stack, self.auxv, self.exe
        child.arguments, child.environment = self.arguments, self.environment
        child.barriers, child.no_huge_pages = self.barriers, self.no_huge_pages
        return child

    def _copy_into(self, child: "Mm") -> None:
        downgraded: list[tuple[Gpa, int]] = []
        for vma in self.vmas:
            if vma.dont_fork:
                continue
            copy = vma.part(vma.start, vma.end)
            child.vmas.add(copy)
            if not vma.wipe_on_fork:
                downgraded += self.space.clone_range(child.space, Gva(vma.start), vma.pages, not vma.shared)
        if self.executable is not None and child.executable is not None:
            self.executable.copy_to(child.executable)
        for gpa, count in coalesce(downgraded, self.memory.is_window):
            self.memory.flush(gpa, count)

    def release(self) -> None:
        """A user is gone; the last one frees everything."""
        with self.lock:
            self.users -= 1
            if self.users:
                return
            self._forget()
            self.machine.release_address_space(self.space)
            self.vmas = VmaList()
            self.exe = None


def coalesce(runs: list[tuple[Gpa, int]], is_window: Callable[[int], bool]) -> list[tuple[Gpa, int]]:
    """Join runs to flush: near ones into one range, since a flush costs more than the pages between."""
    joined: list[tuple[Gpa, int]] = []
    for gpa, count in sorted(runs):
        if joined and not is_window(gpa):
            start, length = joined[-1]
            if gpa - start <= (length + FLUSH_GAP) << PAGE_SHIFT:
                joined[-1] = (start, max(length, ((gpa - start) >> PAGE_SHIFT) + count))
                continue
        joined.append((gpa, count))
    return joined


FLUSH_GAP = 8 * FRAMES_PER_HUGE
