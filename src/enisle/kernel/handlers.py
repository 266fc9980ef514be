"""The modules whose import fills the system-call table, in one list."""

from importlib import import_module

MODULES = (
    "sys_process",
    "sys_memory",
    "sys_wait",
    "sys_signal",
    "sys_kill",
    "signalfd",
    "sys_open",
    "sys_io",
    "pipes",
    "sys_stat",
    "sys_dirs",
    "sys_futex",
    "sys_time",
    "sys_timers",
    "sys_timerfd",
    "sys_identity",
    "sys_limits",
    "sys_prctl",
    "sys_sched",
    "sys_system",
    "sys_attributes",
    "sys_xattr",
    "sys_fcntl",
    "sys_copy",
    "sys_extent",
    "sys_special",
    "sys_socket",
    "sys_socket_messages",
    "sys_poll",
    "sys_epoll",
)


def load_handlers() -> None:
    """Import every handler module; idempotent."""
    for name in (*MODULES, "sys_absent"):  # the last one leaves a number that has a handler alone
        import_module(f"enisle.kernel.{name}")
