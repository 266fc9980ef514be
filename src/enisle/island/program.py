"""Find the program to start as execvp(3) does, and say in the user's terms why one cannot be started.

Looks through the island's root only: runs in the island process.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from errno import E2BIG, EACCES, EIO, EISDIR, ELIBBAD, ELOOP, ENOENT, ENOEXEC, ENOMEM, ENOTDIR
from typing import TypeVar

from enisle.errors import EnisleError, InvalidRequest, LinuxError, NotFound

NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""What env(1) and every shell exit with."""

EM_X86_64 = 62
ARCHITECTURES = {
    3: "32-bit x86",
    8: "MIPS",
    20: "PowerPC",
    21: "PowerPC64",
    22: "S/390",
    40: "32-bit ARM",
    183: "64-bit ARM",
    243: "RISC-V",
    258: "LoongArch",
}

Started = TypeVar("Started")


def start_program(argv: Sequence[str], environment: Mapping[str, str], start: Callable[[bytes], Started]) -> Started:
    """Call `start` with each path that `argv[0]` may mean until one can be started.

    Raises NotFound (exit code 127) or InvalidRequest (126).
    """
    failed: tuple[str, int] | None = None
    for path in _candidates(argv[0], environment):
        try:
            return start(os.fsencode(path))
        except (LinuxError, OSError) as error:
            errno = error.errno or EIO
            if errno not in (ENOENT, ENOTDIR, EACCES):
                raise explain(path, errno) from error
            # execvp(3): a file that is there but may not be executed is remembered, and the search goes on.
            if failed is None or (failed[1] != EACCES and (errno == EACCES or os.path.lexists(path))):
                failed = (path, errno)
    if failed is None or (failed[1] != EACCES and not os.path.lexists(failed[0])):
        raise _not_found(argv[0], environment)
    raise explain(*failed)


def _candidates(name: str, environment: Mapping[str, str]) -> list[str]:
    if not name:
        return []
    if "/" in name:
        return [name]
    return [f"{directory or '.'}/{name}" for directory in environment.get("PATH", "/bin:/usr/bin").split(":")]


def _not_found(name: str, environment: Mapping[str, str]) -> EnisleError:
    if "/" in name:
        where, hint = "it does not exist in the island", "--mount SRC:DST shows a directory of the host"
    else:
        where, hint = f"not in PATH={environment.get('PATH', '')}", "give its whole path, or --env PATH=…"
    return _with_code(NotFound(f"cannot find the program {name!r}", where, hint), NOT_FOUND)


def explain(path: str, errno: int) -> EnisleError:
    """Return the error for a program that is there but cannot be started."""
    what, hint = _reason(path, errno)
    return _with_code(InvalidRequest(f"cannot run {path}", what, hint), NOT_EXECUTABLE)


def _reason(path: str, errno: int) -> tuple[str, str]:
    if errno in (ENOENT, ELIBBAD):
        return _missing_interpreter(path), "install it, or show its directory with --mount"
    if errno in (EACCES, EISDIR):
        if os.path.isdir(path):
            return "it is a directory", "name a program"
        return "it is not executable, or may not be read", f"chmod +x {path}, or run it with its interpreter"
    if errno == ENOEXEC:
        return _foreign(path), "only x86-64 Linux programs and #! scripts can run"
    if errno == ENOMEM:
        return "the island has too little memory for it", "raise --memory"
    if errno == E2BIG:
        return "its arguments and environment are too long", "pass them in a file"
    if errno == ELOOP:
        return "too many symbolic links or #! lines in a row", "name the program itself"
    return os.strerror(errno), "run with --debug to see more"


def _head(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 256)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _missing_interpreter(path: str) -> str:
    head = _head(path)
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n")[0].split()
        return f"its interpreter {os.fsdecode(words[0]) if words else '(none)'} is not in the island"
    return "the loader it asks for (its ELF interpreter) is not in the island"


def _foreign(path: str) -> str:
    head = _head(path)
    if not head:
        return "it is empty"
    if not head.startswith(b"\x7fELF"):
        return "it is neither an ELF program nor a script that starts with #!"
    if len(head) < 20:
        return "it is cut short"
    machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    if machine != EM_X86_64:
        return f"it is a program for {ARCHITECTURES.get(machine, f'another architecture ({machine})')}"
    return "it is damaged: its ELF headers make no sense"


def _with_code(error: EnisleError, code: int) -> EnisleError:
    error.exit_code = code
    return error
