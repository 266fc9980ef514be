"""No file of the host is imported once the door is closed: a module is imported before, kept in memory, or refused.

After the pivot a module path leads into the island, where the guest can write: importing from there would run the
guest's code in our process, and a directory of the host kept open would be a way out. So `preload` takes the byte code
of all that a program may need, and after `seal` a module is imported from that, when the program needs it. Anything
else fails and is remembered. Owned by the main thread; any thread imports.
"""

import marshal
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec
from importlib.util import MAGIC_NUMBER, cache_from_source
from types import CodeType, ModuleType
from typing import Any

from enisle import abi, kernel, machine
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

UNNEEDED = ("emulated", "findings", "node_machine", "replica_", "replication", "walks", "_")
"""The emulator and replicas are imported, whole, by the machine that needs them; findings are the doctor's."""
KERNEL_PARTS = ("calls", "proc")
LIBRARY = {
    "weakref": "weakref",
    "json": "json/__init__",
    "json.decoder": "json/decoder",
    "json.encoder": "json/encoder",
    "json.scanner": "json/scanner",
}
"""Modules of the standard library, each a file of Python, that only kept modules import."""
ANSWERS = "enisle.island.answers"
"""What the hatch imports when somebody asks."""
HEADER = 16
"""Bytes before the code in a cached file (PEP 552)."""

refused: list[str] = []
"""Names that were asked for after the door closed. Each is a bug of ours."""


def preload() -> None:
    """Import or keep what is needed late. Requires: the machine is made, the door is open."""
    for name in LATE:
        import_module(name)
    keep = _Kept.modules
    for package in (abi, machine, kernel, *(import_module(f"{kernel.__name__}.{part}") for part in KERNEL_PARTS)):
        directory = package.__path__[0]
        for file in os.listdir(directory):
            name = f"{package.__name__}.{file[:-3]}"
            if file.endswith(".py") and not file.startswith(UNNEEDED) and name not in sys.modules:
                keep[name] = read_code(f"{directory}/{file}")
    for name, file in LIBRARY.items():
        if name not in sys.modules:
            keep[name] = read_code(f"{os.path.dirname(os.__file__)}/{file}.py")
    keep[ANSWERS] = read_code(f"{os.path.dirname(__file__)}/{ANSWERS.rpartition('.')[2]}.py")
    host.load_library("libgcc_s.so.1")  # pthread_exit(3) of glibc loads it by name when a thread ends early


def read_code(source: str) -> tuple[str, bytes, bool]:
    """Return (path, content, whether that is byte code): what Python has cached for a source file, else its text.

    The cache counts when its header tells the source's time and size, as in Python's own imports.
    """
    status = os.stat(source)
    stamp = (int(status.st_mtime) & 0xFFFF_FFFF).to_bytes(4, "little") + status.st_size.to_bytes(4, "little")
    try:
        content = _read(cache_from_source(source))
    except FileNotFoundError:
        content = b""
    if content.startswith(MAGIC_NUMBER + bytes(4) + stamp):
        return source, content, True
    return source, _read(source), False


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


class _Kept:
    """Finds and loads the modules that were kept in memory."""

    modules: dict[str, tuple[str, bytes, bool]] = {}

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        kept = cls.modules.get(fullname)
        loader: Any = cls()
        return ModuleSpec(fullname, loader, origin=kept[0], is_package="__init__" in kept[0]) if kept else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        path, content, compiled = self.modules[module.__name__]
        code: CodeType = marshal.loads(content[HEADER:]) if compiled else compile(content, path, "exec")
        exec(code, module.__dict__)


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
    finders: list[Any] = [BuiltinImporter, FrozenImporter, _Kept, _Closed]
    sys.meta_path[:] = finders
    sys.path[:] = []
    sys.path_importer_cache.clear()
    sys.excepthook = print_report
