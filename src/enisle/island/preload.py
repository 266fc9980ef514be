"""Everything the island process will ever import, imported before the door closes; then no import is possible.

After the pivot a module path leads into the island, where the guest can write: importing from there would run the
guest's code in our process. `seal` makes any such attempt fail and be remembered. Owned by the main thread.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec
from types import ModuleType, TracebackType
from typing import Any

from enisle import kernel, machine
from enisle.abi import host

LATE = (
    "encodings.ascii",
    "encodings.latin_1",
    "encodings.utf_8",
    "array",
    "fcntl",
    "mmap",
    "resource",
    "select",
    "signal",
    "struct",
    "termios",
    "threading",
)
"""Modules that Python or our kernel may first need in the middle of a call."""

UNNEEDED = ("emulated", "findings", "_")
"""The emulator takes long to import, and is, by the machine that needs it; findings are the doctor's."""

refused: list[str] = []
"""Names that were asked for after the door closed. Each is a bug of ours."""


def preload() -> None:
    """Import what is needed late. Requires: not pivoted yet."""
    for name in LATE:
        import_module(name)
    kernel.load_handlers()
    # The rooms import some of their modules where they are used, to break cycles; none may be missing then.
    for room in (machine, kernel):
        for name in sorted(os.listdir(room.__path__[0])):
            if name.endswith(".py") and not name.startswith(UNNEEDED):
                import_module(f"{room.__name__}.{name[:-3]}")
    host.load_library("libgcc_s.so.1")  # pthread_exit(3) of glibc loads it by name when a thread ends early


class _Closed:
    """A finder that finds nothing and says so."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        refused.append(fullname)
        raise ImportError(f"{fullname} was not imported before the island's door closed", name=fullname)


def seal() -> None:
    """Close the door for imports, and have errors reported without reading source files."""
    finders: list[Any] = [BuiltinImporter, FrozenImporter, _Closed]
    sys.meta_path[:] = finders
    sys.path[:] = []
    sys.path_importer_cache.clear()
    sys.excepthook = _print_report


def report(error: BaseException) -> str:
    """Return a traceback of names and line numbers: like Python's, without the lines of the source."""
    parts: list[str] = []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        parts.append(report(cause) + "\nwhich led to:\n")
    parts.append("Traceback (most recent call last):\n")
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        parts.append(f'  File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_qualname}\n')
        trace = trace.tb_next
    return "".join(parts) + f"{type(error).__name__}: {error}"


def _print_report(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    sys.stderr.write(report(error) + "\n")
