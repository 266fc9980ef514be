"""Host calls about timers and barriers that Python 3.11 does not offer: timerfd_create(2), membarrier(2)."""

from ctypes import c_char_p, c_int, c_uint, create_string_buffer

from enisle.abi.host import libc_call, system_call
from enisle.abi.linux_time import ITIMERSPEC

timerfd_create = libc_call("timerfd_create", c_int, c_int)
_timerfd_settime = libc_call("timerfd_settime", c_int, c_int, c_char_p, c_char_p)
_timerfd_gettime = libc_call("timerfd_gettime", c_int, c_char_p)
membarrier = system_call(324, "membarrier", c_int, c_uint, c_int)


def timerfd_settime(fd: int, flags: int, value: bytes) -> bytes:
    """Arm or disarm with a struct itimerspec; return the old one."""
    assert len(value) == ITIMERSPEC.size, f"{len(value)=}"
    old = create_string_buffer(ITIMERSPEC.size)
    _timerfd_settime(fd, flags, value, old)
    return old.raw


def timerfd_gettime(fd: int) -> bytes:
    """Return the timer's struct itimerspec."""
    value = create_string_buffer(ITIMERSPEC.size)
    _timerfd_gettime(fd, value)
    return value.raw
