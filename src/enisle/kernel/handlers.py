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
)


def load_handlers() -> None:
    """Import every handler module; idempotent."""
    for name in MODULES:
        import_module(f"enisle.kernel.{name}")
