"""read(2), write(2) and their relatives. `sys_read` and `sys_write` are the hot path of the house."""

import os
from collections.abc import Sequence
from errno import EINVAL, EOPNOTSUPP, ESPIPE
from typing import TYPE_CHECKING

from enisle.abi.linux_fs import (
    RWF_APPEND,
    RWF_DSYNC,
    RWF_HIPRI,
    RWF_NOWAIT,
    RWF_SYNC,
)
from enisle.abi.types import Fd, Gva
from enisle.errors import LinuxError
from enisle.kernel.files import POLLIN, OpenFile
from enisle.kernel.table import Int, Long, Size, Support, syscall
from enisle.kernel.transfer import (
    SMALL,
    Operation,
    Ranges,
    broken_pipe,
    has_size_limit,
    one_range,
    read_into,
    read_iovec,
    within_size_limit,
    write_from,
)
from enisle.machine import USER_END

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread

PIPE_BUF = 4096
KNOWN_RWF = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND


@syscall(0, Support.FULL)
def sys_read(thread: "Thread", fd: Fd, buf: Gva, count: Size) -> int:
    file = thread.files.hold(fd)
    try:
        if count > SMALL or buf + count > USER_END:
            return read_into(thread, file, one_range(buf, count))
        mm = thread.mm
        while True:
            try:
                views = mm.pin(buf, count, True)
            except LinuxError:
                return read_into(thread, file, one_range(buf, count))
            try:
                return file.readv(thread, views)
            except BlockingIOError:
                pass
            finally:
                mm.unpin(views)
            file.block(thread, POLLIN)
    finally:
        file.drop()


@syscall(1, Support.FULL)
def sys_write(thread: "Thread", fd: Fd, buf: Gva, count: Size) -> int:
    file = thread.files.hold(fd)
    try:
        if count > SMALL or buf + count > USER_END or (count > PIPE_BUF and file.waits) or has_size_limit(thread):
            return write_from(thread, file, within_size_limit(thread, file, one_range(buf, count), None))
        mm = thread.mm
        try:
            views = mm.pin(buf, count, False)
        except LinuxError:
            return write_from(thread, file, one_range(buf, count))
        try:
            done = file.writev(thread, views)
        except BlockingIOError:
            done = 0
        except BrokenPipeError:
            raise broken_pipe(thread) from None
        finally:
            mm.unpin(views)
        if done == count or not file.waits or (done and file.flags & os.O_NONBLOCK):
            return done
        return write_from(thread, file, [(buf + done, count - done)], done=done)
    finally:
        file.drop()


def at_offset(file: OpenFile, offset: int, write: bool) -> Operation:
    """Return the operation of pread or pwrite, which goes on where its last piece ended."""
    if offset < 0:
        raise LinuxError(EINVAL)
    if not file.seekable:
        raise LinuxError(ESPIPE)
    position = offset

    def operation(thread: "Thread", views: Sequence[memoryview]) -> int:
        nonlocal position
        moved = (file.pwritev if write else file.preadv)(thread, views, position)
        position += moved
        return moved

    return operation


def read_at(thread: "Thread", fd: Fd, ranges: Ranges, offset: int) -> int:
    file = thread.files.hold(fd)
    try:
        return read_into(thread, file, ranges, at_offset(file, offset, False))
    finally:
        file.drop()


def write_at(thread: "Thread", fd: Fd, ranges: Ranges, offset: int) -> int:
    file = thread.files.hold(fd)
    try:
        operation = at_offset(file, offset, True)
        return write_from(thread, file, within_size_limit(thread, file, ranges, offset), operation)
    finally:
        file.drop()


@syscall(17, Support.FULL)
def sys_pread64(thread: "Thread", fd: Fd, buf: Gva, count: Size, offset: Long) -> int:
    return read_at(thread, fd, one_range(buf, count), offset)


@syscall(18, Support.FULL)
def sys_pwrite64(thread: "Thread", fd: Fd, buf: Gva, count: Size, offset: Long) -> int:
    return write_at(thread, fd, one_range(buf, count), offset)


def read_vector(thread: "Thread", fd: Fd, ranges: Ranges) -> int:
    file = thread.files.hold(fd)
    try:
        return read_into(thread, file, ranges)
    finally:
        file.drop()


def write_vector(thread: "Thread", fd: Fd, ranges: Ranges) -> int:
    file = thread.files.hold(fd)
    try:
        return write_from(thread, file, within_size_limit(thread, file, ranges, None))
    finally:
        file.drop()


@syscall(19, Support.FULL)
def sys_readv(thread: "Thread", fd: Fd, vector: Gva, count: Size) -> int:
    return read_vector(thread, fd, read_iovec(thread, vector, count))


@syscall(20, Support.FULL)
def sys_writev(thread: "Thread", fd: Fd, vector: Gva, count: Size) -> int:
    return write_vector(thread, fd, read_iovec(thread, vector, count))


@syscall(295, Support.FULL)
def sys_preadv(thread: "Thread", fd: Fd, vector: Gva, count: Size, offset: Long) -> int:
    return read_at(thread, fd, read_iovec(thread, vector, count), offset)


@syscall(296, Support.FULL)
def sys_pwritev(thread: "Thread", fd: Fd, vector: Gva, count: Size, offset: Long) -> int:
    return write_at(thread, fd, read_iovec(thread, vector, count), offset)


def with_flags(file: OpenFile, offset: int, flags: int, write: bool) -> Operation:
    """Return the operation of preadv2 or pwritev2 with flags, for the host to judge."""
    if flags & ~KNOWN_RWF:
        raise LinuxError(EOPNOTSUPP)
    call = os.pwritev if write else os.preadv
    position = offset

    def operation(_thread: "Thread", views: Sequence[memoryview]) -> int:
        nonlocal position
        moved = call(file.fd, views, position, flags)
        if position != -1:
            position += moved
        return moved

    return operation


@syscall(327, Support.FULL)
def sys_preadv2(thread: "Thread", fd: Fd, vector: Gva, count: Size, offset: Long, _high: Long, flags: Int) -> int:
    ranges = read_iovec(thread, vector, count)
    if not flags:
        return read_vector(thread, fd, ranges) if offset == -1 else read_at(thread, fd, ranges, offset)
    file = thread.files.hold(fd)
    try:
        return read_into(thread, file, ranges, with_flags(file, offset, flags, False))
    finally:
        file.drop()


@syscall(328, Support.FULL)
def sys_pwritev2(thread: "Thread", fd: Fd, vector: Gva, count: Size, offset: Long, _high: Long, flags: Int) -> int:
    ranges = read_iovec(thread, vector, count)
    if not flags:
        return write_vector(thread, fd, ranges) if offset == -1 else write_at(thread, fd, ranges, offset)
    file = thread.files.hold(fd)
    try:
        ranges = within_size_limit(thread, file, ranges, None if offset == -1 else offset)
        return write_from(thread, file, ranges, with_flags(file, offset, flags, True))
    finally:
        file.drop()


@syscall(8, Support.FULL)
def sys_lseek(thread: "Thread", fd: Fd, offset: Long, whence: Int) -> int:
    return thread.files.get(fd).seek(offset, whence)
