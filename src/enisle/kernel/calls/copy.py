"""Bytes from one file to another without the guest's memory: sendfile(2), splice(2), tee(2), copy_file_range(2)."""

from collections.abc import Callable
from errno import EBADF, EINVAL
from typing import TYPE_CHECKING

from enisle.abi import host_fs
from enisle.abi import linux_fs as fs
from enisle.abi.types import Fd, Gva
from enisle.errors import LinuxError
from enisle.kernel.files import POLLIN, POLLOUT, OpenFile
from enisle.kernel.table import Size, Support, Uint, syscall
from enisle.kernel.transfer import broken_pipe, has_size_limit, read_into, read_iovec, require_size, write_from
from enisle.kernel.wait import MustLeave

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

PIECE = 16 << 20
"""Bytes moved by one host call, between which a signal may end the copy."""
BOUNDED_PIECE = 1 << 20
SPLICE_FLAGS = fs.SPLICE_F_MOVE | fs.SPLICE_F_NONBLOCK | fs.SPLICE_F_MORE | fs.SPLICE_F_GIFT


class Offset:
    """A file offset in guest memory (loff_t *), or none: then the description's own is used."""

    def __init__(self, thread: "Thread", address: int) -> None:
        self.thread, self.address = thread, address
        self.cell = host_fs.buffer(8) if address else None
        if self.cell:
            self.cell.raw = thread.mm.read(address, 8)

    def store(self) -> None:
        if self.cell:
            self.thread.mm.write(self.address, self.cell.raw)


def ready(file: OpenFile, events: int) -> bool:
    import select

    poll = select.poll()
    poll.register(file.fd, events)
    return bool(poll.poll(0))


def move(thread: "Thread", source: OpenFile, target: OpenFile, call: Callable[[], int], may_wait: bool) -> int:
    """Do a host call that moves bytes, waiting for whichever side is not ready. Raises EAGAIN, EPIPE with SIGPIPE."""
    while True:
        try:
            return call()
        except BlockingIOError:
            if not may_wait:
                raise
        except BrokenPipeError:
            raise broken_pipe(thread) from None
        if source.waits and not ready(source, POLLIN):
            thread.wait_fd(source.fd, POLLIN)
        elif target.waits and not ready(target, POLLOUT):
            thread.wait_fd(target.fd, POLLOUT)
        else:
            thread.sleep(0.001)  # the host sees less room than poll: a pipe whose last page is partly full


def room_for(thread: "Thread", target: OpenFile, place: Offset, size: int) -> int:
    """Return how much of `size` may be written at once to a file that may not grow without limit. Raises ENOSPC."""
    if not target.bounded:
        return size
    size = min(size, BOUNDED_PIECE)
    at = int.from_bytes(place.cell.raw, "little") if place.cell else target.seek(0, fs.SEEK_CUR)
    target.require_room(thread, at + size)
    return size


def all_of(
    thread: "Thread", source: OpenFile, target: OpenFile, count: int, call: Callable[[int], int], may_wait: bool
) -> int:
    """Repeat `call(size)` until `count` bytes are moved, the source ends or a signal comes."""
    if not thread.waiter.may_sleep and (source.waits or target.waits):
        raise MustLeave
    done = 0
    while done < count:
        size = min(PIECE, count - done)
        try:
            moved = move(thread, source, target, lambda size=size: call(size), may_wait)
        except (OSError, LinuxError):
            if done:
                return done
            raise
        done += moved
        if not moved or (moved < size and not may_wait) or thread.interrupted():
            break
    return done


@syscall(40, Support.FULL)
def sys_sendfile(thread: "Thread", target_fd: Fd, source_fd: Fd, place: Gva, count: Size) -> int:
    source, target = hold_two(thread, source_fd, target_fd)
    try:
        offset = Offset(thread, place)
        if has_size_limit(thread) and target.kind == "file":
            require_size(thread, target.seek(0, fs.SEEK_CUR))
        may_wait = not target.flags & fs.O_NONBLOCK
        count = Size(min(count, fs.MAX_RW_COUNT))

        def send(size: int) -> int:
            size = room_for(thread, target, Offset(thread, 0), size)
            return host_fs.sendfile(target.fd, source.fd, offset.cell, size)

        if not count:
            return send(0)
        done = all_of(thread, source, target, count, send, may_wait)
        offset.store()
        return done
    finally:
        source.drop()
        target.drop()


def hold_two(thread: "Thread", source: Fd, target: Fd) -> tuple[OpenFile, OpenFile]:
    one = thread.files.hold(source)
    try:
        return one, thread.files.hold(target)
    except LinuxError:
        one.drop()
        raise


@syscall(275, Support.FULL)
def sys_splice(
    thread: "Thread", source_fd: Fd, source_place: Gva, target_fd: Fd, target_place: Gva, count: Size, flags: Uint
) -> int:
    if flags & ~SPLICE_FLAGS:
        raise LinuxError(EINVAL)
    if not count:
        return 0
    source, target = hold_two(thread, source_fd, target_fd)
    try:
        one, two = Offset(thread, source_place), Offset(thread, target_place)
        asked = flags | fs.SPLICE_F_NONBLOCK
        pipes = [file.flags for file in (source, target) if file.kind == "pipe"]
        may_wait = not flags & fs.SPLICE_F_NONBLOCK and not any(kept & fs.O_NONBLOCK for kept in pipes)

        def splice() -> int:
            size = room_for(thread, target, two, min(count, fs.MAX_RW_COUNT))
            return host_fs.splice(source.fd, one.cell, target.fd, two.cell, size, asked)

        moved = move(thread, source, target, splice, may_wait)
        one.store()
        two.store()
        return moved
    finally:
        source.drop()
        target.drop()


@syscall(276, Support.FULL)
def sys_tee(thread: "Thread", source_fd: Fd, target_fd: Fd, count: Size, flags: Uint) -> int:
    if flags & ~SPLICE_FLAGS:
        raise LinuxError(EINVAL)
    if not count:
        return 0
    source, target = hold_two(thread, source_fd, target_fd)
    try:
        may_wait = not flags & fs.SPLICE_F_NONBLOCK and not (source.flags | target.flags) & fs.O_NONBLOCK
        asked = flags | fs.SPLICE_F_NONBLOCK
        return move(thread, source, target, lambda: host_fs.tee(source.fd, target.fd, count, asked), may_wait)
    finally:
        source.drop()
        target.drop()


@syscall(278, Support.PARTIAL, note="copies instead of sharing pages")
def sys_vmsplice(thread: "Thread", fd: Fd, vector: Gva, count: Size, flags: Uint) -> int:
    if flags & ~SPLICE_FLAGS:
        raise LinuxError(EINVAL)
    file = thread.files.hold(fd)
    try:
        if file.kind != "pipe":
            raise LinuxError(EBADF)
        ranges = read_iovec(thread, vector, count)
        if not ranges:
            return 0
        if file.flags & fs.O_ACCMODE == fs.O_RDONLY:
            return read_into(thread, file, ranges)
        return write_from(thread, file, ranges)
    finally:
        file.drop()


@syscall(326, Support.FULL)
def sys_copy_file_range(
    thread: "Thread", source_fd: Fd, source_place: Gva, target_fd: Fd, target_place: Gva, count: Size, flags: Uint
) -> int:
    if flags:
        raise LinuxError(EINVAL)
    source, target = hold_two(thread, source_fd, target_fd)
    try:
        one, two = Offset(thread, source_place), Offset(thread, target_place)
        if has_size_limit(thread) and target.kind == "file":
            at = int.from_bytes(two.cell.raw, "little") if two.cell else target.seek(0, fs.SEEK_CUR)
            require_size(thread, at)
        size = room_for(thread, target, two, min(count, PIECE))
        moved = host_fs.copy_file_range(source.fd, one.cell, target.fd, two.cell, size, 0)
        one.store()
        two.store()
        return moved
    finally:
        source.drop()
        target.drop()
