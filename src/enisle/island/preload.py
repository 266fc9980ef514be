"""Everything the island process will ever import, imported before the door closes; then no import is possible.

After the pivot a module path leads into the island, where the guest can write: importing from there would run the
guest's code in our process. `seal` makes any such attempt fail and be remembered. Owned by the main thread.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec
from types import ModuleType
from typing import Any

from enisle import kernel, machine
from enisle.abi import host
from enisle.island.tracebacks import print_report

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
    sys.excepthook = print_report
