"""Memory calls: mmap and its family (mmap(2), mprotect(2), mremap(2), madvise(2), msync(2), mlock(2))."""

import os
from collections.abc import Callable
from errno import EACCES, EBADF, EFAULT, EINVAL, ENODEV, ENOMEM
from stat import S_ISCHR, S_ISREG

from enisle.abi import linux_mman as m
from enisle.abi.types import PAGE, PAGE_MASK, Fd, Gva, page_down, page_up
from enisle.errors import LinuxError
from enisle.kernel import memory_files
from enisle.kernel.limits import RLIM_INFINITY, RLIMIT_AS, RLIMIT_DATA
from enisle.kernel.mm import Mm
from enisle.kernel.table import Int, Long, Size, Support, syscall
from enisle.kernel.thread import Thread
from enisle.kernel.vma import SHARED_ANONYMOUS, Backing, Vma
from enisle.machine import USER_END, USER_START

O_ACCMODE = 3
KNOWN_PROT = m.PROT_READ | m.PROT_WRITE | m.PROT_EXEC | m.PROT_GROWSDOWN | m.PROT_GROWSUP | 8
HARMLESS_ADVICE = frozenset(
    {m.MADV_NORMAL, m.MADV_RANDOM, m.MADV_SEQUENTIAL, m.MADV_WILLNEED, m.MADV_MERGEABLE, m.MADV_UNMERGEABLE}
    | {m.MADV_HUGEPAGE, m.MADV_NOHUGEPAGE, m.MADV_DONTDUMP, m.MADV_DODUMP, m.MADV_COLD, m.MADV_PAGEOUT}
    | {m.MADV_COLLAPSE}
)


@syscall(9, Support.FULL)
def sys_mmap(thread: Thread, addr: Gva, length: Size, prot: Int, flags: Int, fd: Fd, offset: Long) -> int:
    kind = flags & m.MAP_TYPE
    if kind not in (m.MAP_SHARED, m.MAP_PRIVATE, m.MAP_SHARED_VALIDATE) or not length or offset & PAGE_MASK:
        raise LinuxError(EINVAL)
    if offset < 0 or length > USER_END:
        raise LinuxError(ENOMEM if length > USER_END else EINVAL)
    if flags & m.MAP_HUGETLB:
        raise LinuxError(ENOMEM)  # no hugetlbfs pool, as on a host without one
    check_limit(thread, page_up(length), flags)
    rights = prot & KNOWN_PROT
    placed = (flags & ~m.MAP_TYPE) | (m.MAP_PRIVATE if kind == m.MAP_PRIVATE else m.MAP_SHARED)
    if not flags & m.MAP_ANONYMOUS:
        backing = backing_of(thread, fd, rights, placed)
        return thread.mm.mmap(addr, length, rights, placed, backing, offset)
    if placed & m.MAP_SHARED:
        return map_shared_anonymous(thread.mm, addr, length, rights, placed)
    return thread.mm.mmap(addr, length, rights, placed)


def check_limit(thread: Thread, size: int, flags: int) -> None:
    limits, mm = thread.process.limits, thread.mm
    total = limits.soft(RLIMIT_AS)
    if total != RLIM_INFINITY and not flags & m.MAP_FIXED and mm.vmas.pages * PAGE + size > total:
        raise LinuxError(ENOMEM)


def backing_of(thread: Thread, fd: Fd, prot: int, flags: int) -> Backing:
    """Return the file to map, checked against the descriptor's access mode as mmap(2) demands."""
    file = thread.files.get(fd)
    access = file.flags & O_ACCMODE
    if file.flags & os.O_PATH:
        raise LinuxError(EBADF)
    if access == os.O_WRONLY or (flags & m.MAP_SHARED and prot & m.PROT_WRITE and access != os.O_RDWR):
        raise LinuxError(EACCES)
    status = os.fstat(file.fd)
    if S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 5):  # /dev/zero is anonymous memory
        return zero_backing(file.path)
    if not S_ISREG(status.st_mode):
        raise LinuxError(ENODEV)
    writable = access == os.O_RDWR and bool(flags & m.MAP_SHARED)
    return memory_files.backing_of(file, status, writable)


def zero_backing(path: bytes) -> Backing:
    return shared_backing(path, USER_END - USER_START)


def shared_backing(path: bytes, size: int) -> Backing:
    """Return fresh zeroed memory that several processes can map."""
    fd = memory_files.open_memory()
    os.ftruncate(fd, min(size, 1 << 40))
    status = os.fstat(fd)
    return Backing(fd, status.st_dev, status.st_ino, path, writable=True)


def map_shared_anonymous(mm: Mm, addr: int, length: int, prot: int, flags: int) -> int:
    backing = shared_backing(SHARED_ANONYMOUS, page_up(length))
    return mm.mmap(addr, length, prot, flags & ~m.MAP_ANONYMOUS, backing, 0)


@syscall(11, Support.FULL)
def sys_munmap(thread: Thread, addr: Gva, length: Size) -> None:
    thread.mm.munmap(addr, length)


@syscall(10, Support.FULL)
def sys_mprotect(thread: Thread, addr: Gva, length: Size, prot: Int) -> None:
    if prot & ~KNOWN_PROT:
        raise LinuxError(EINVAL)
    if length:
        thread.mm.mprotect(addr, length, prot & 7)
    elif addr & PAGE_MASK:
        raise LinuxError(EINVAL)


@syscall(12, Support.FULL)
def sys_brk(thread: Thread, brk: Gva) -> int:
    mm = thread.mm
    with mm.lock:
        data = thread.process.limits.soft(RLIMIT_DATA)
        if brk < mm.start_brk or brk > USER_END or (data != RLIM_INFINITY and brk - mm.start_brk > data):
            return mm.brk
        old, new = page_up(mm.brk), page_up(brk)
        try:
            if new > old:
                check_limit(thread, new - old, 0)
                _grow_heap(mm, old, new)
            elif new < old:
                mm.munmap(new, old - new)
        except LinuxError:
            return mm.brk
        mm.brk = brk
        return brk


def _grow_heap(mm: Mm, old: int, new: int) -> None:
    if mm.vmas.overlapping(old, new):
        raise LinuxError(ENOMEM)
    mm.map_named(old, new - old, m.PROT_READ | m.PROT_WRITE, b"[heap]")


@syscall(25, Support.FULL)
def sys_mremap(thread: Thread, old: Gva, old_size: Size, new_size: Size, flags: Int, target: Gva) -> int:
    if flags & ~7 or old & PAGE_MASK or not new_size or new_size > USER_END:
        raise LinuxError(EINVAL)
    if flags & (m.MREMAP_FIXED | m.MREMAP_DONTUNMAP) and not flags & m.MREMAP_MAYMOVE:
        raise LinuxError(EINVAL)
    if flags & m.MREMAP_DONTUNMAP and page_up(old_size) != page_up(new_size):
        raise LinuxError(EINVAL)
    place = None
    if flags & m.MREMAP_FIXED:
        place = target
        if target & PAGE_MASK or (target < old + old_size and old < target + new_size):
            raise LinuxError(EINVAL)
    return thread.mm.mremap(old, page_up(old_size), page_up(new_size), flags, place)


@syscall(28, Support.PARTIAL, note="advice that only tunes the host is accepted and ignored")
def sys_madvise(thread: Thread, addr: Gva, length: Size, advice: Int) -> None:
    if addr & PAGE_MASK:
        raise LinuxError(EINVAL)
    mm, end = thread.mm, addr + page_up(length)
    known = advice in HARMLESS_ADVICE or advice in _ADVICE
    if not known or end < addr:
        raise LinuxError(EINVAL)
    if end == addr:
        return
    if end > USER_END:
        raise LinuxError(ENOMEM)
    if advice in _ADVICE:
        _ADVICE[advice](mm, addr, end)
    if not mm.vmas.covers(addr, end):
        raise LinuxError(ENOMEM)


def _populate(mm: Mm, start: int, end: int, write: bool) -> None:
    for page in range(start, end, PAGE):
        code = mm.fault(page, write, False, guest=False)
        if code is not None:
            raise LinuxError(ENOMEM if mm.vmas.find(page) is None else EFAULT)


def _mark(name: str, value: bool) -> Callable[[Mm, int, int], None]:
    def mark(mm: Mm, start: int, end: int) -> None:
        def change(vma: Vma) -> None:
            setattr(vma, name, value)

        mm.change(start, end, change)

    return mark


def _remove(mm: Mm, start: int, end: int) -> None:
    """MADV_REMOVE: punch the pages out of a shared mapping's file."""
    for vma in mm.vmas.overlapping(start, end):
        if not vma.shared or not vma.backing or not vma.backing.writable:
            raise LinuxError(EACCES if vma.shared else EINVAL)
        mm.punch(vma, max(start, vma.start), min(end, vma.end))


_ADVICE: dict[int, Callable[[Mm, int, int], None]] = {
    m.MADV_DONTNEED: Mm.discard,
    m.MADV_DONTNEED_LOCKED: Mm.discard,
    m.MADV_FREE: Mm.discard,
    m.MADV_REMOVE: _remove,
    m.MADV_DONTFORK: _mark("dont_fork", True),
    m.MADV_DOFORK: _mark("dont_fork", False),
    m.MADV_WIPEONFORK: _mark("wipe_on_fork", True),
    m.MADV_KEEPONFORK: _mark("wipe_on_fork", False),
    m.MADV_POPULATE_READ: lambda mm, start, end: _populate(mm, start, end, False),
    m.MADV_POPULATE_WRITE: lambda mm, start, end: _populate(mm, start, end, True),
}


@syscall(26, Support.FULL)
def sys_msync(thread: Thread, addr: Gva, length: Size, flags: Int) -> None:
    if addr & PAGE_MASK or flags & ~7 or (flags & m.MS_ASYNC and flags & m.MS_SYNC):
        raise LinuxError(EINVAL)
    mm, end = thread.mm, addr + page_up(length)
    if not mm.vmas.covers(addr, end):
        raise LinuxError(ENOMEM)
    if flags & m.MS_SYNC:
        for vma in mm.vmas.overlapping(addr, end):
            if vma.shared and vma.backing:
                os.fdatasync(vma.backing.fd)  # dirty pages of the mapping are the file's page cache


MINCORE_PIECE = 1 << 16


@syscall(27, Support.PARTIAL, note="reports pages that have a frame, not host residency")
def sys_mincore(thread: Thread, addr: Gva, length: Size, vec: Gva) -> None:
    if addr & PAGE_MASK:
        raise LinuxError(EINVAL)
    mm, end = thread.mm, addr + page_up(length)
    if not mm.vmas.covers(addr, end):
        raise LinuxError(ENOMEM)
    for start in range(addr, end, MINCORE_PIECE * PAGE):  # Linux answers a page of bytes at a time too
        present = bytearray(min(MINCORE_PIECE, (end - start) // PAGE))
        with mm.lock:
            for page, _ in mm.space.entries(Gva(start), len(present)):
                present[(page - start) // PAGE] = 1
        mm.write(vec + (start - addr) // PAGE, bytes(present))


def _check_mapped(mm: Mm, addr: int, length: int) -> None:
    if length and not mm.vmas.covers(page_down(addr), page_up(addr + length)):
        raise LinuxError(ENOMEM)


@syscall(149, Support.PARTIAL, note="guest memory is never swapped by the island; the host decides")
def sys_mlock(thread: Thread, addr: Gva, length: Size) -> None:
    _check_mapped(thread.mm, addr, length)


@syscall(325, Support.PARTIAL, note="as mlock")
def sys_mlock2(thread: Thread, addr: Gva, length: Size, flags: Int) -> None:
    if flags & ~1:
        raise LinuxError(EINVAL)
    _check_mapped(thread.mm, addr, length)


@syscall(150, Support.PARTIAL, note="as mlock")
def sys_munlock(thread: Thread, addr: Gva, length: Size) -> None:
    _check_mapped(thread.mm, addr, length)


@syscall(151, Support.PARTIAL, note="as mlock")
def sys_mlockall(thread: Thread, flags: Int) -> None:
    if not flags or flags & ~7 or flags == 4:
        raise LinuxError(EINVAL)


@syscall(152, Support.PARTIAL, note="as mlock")
def sys_munlockall(thread: Thread) -> None:
    pass


@syscall(216, Support.ABSENT, note="remap_file_pages is deprecated")
def sys_remap_file_pages(thread: Thread) -> None:
    raise LinuxError(EINVAL)


@syscall(329, Support.ABSENT, note="no protection keys")
def sys_pkey_mprotect(thread: Thread, addr: Gva, length: Size, prot: Int, key: Int) -> None:
    if key != -1:
        raise LinuxError(EINVAL)
    sys_mprotect(thread, addr, length, prot)


@syscall(330, Support.ABSENT, note="no protection keys")
def sys_pkey_alloc(thread: Thread) -> None:
    raise LinuxError(EINVAL)


@syscall(331, Support.ABSENT, note="no protection keys")
def sys_pkey_free(thread: Thread) -> None:
    raise LinuxError(EINVAL)
