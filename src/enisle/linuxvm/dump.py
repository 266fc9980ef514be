"""Saved machines: a directory with the guest's memory and the state of its processors.

    ram           the memory backend byte for byte; pages the guest never touched are holes
    state.json    {"format": "enisle-vm", "version": 1, "memory": "ram", "name", "config", "taken" (seconds, epoch),
                   "gpa_map": [{"gpa", "size", "offset"}…],
                   "processors": [{"index", "halted", "registers": {name: number}, "msrs": {"0xc0000082": number}}…]}

Promises: the directory appears whole or not at all; only its owner may read it.
"""

import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from enisle.errors import HostError, InvalidRequest
from enisle.linuxvm.configuration import VmConfig
from enisle.linuxvm.memory_map import Range
from enisle.linuxvm.registers import ProcessorRegisters
from enisle.records import Record

FORMAT, VERSION = "enisle-vm", 1
STEP = 16 << 20


class Dump(Record):
    """What was written."""

    path: str
    memory: int
    """Bytes of RAM."""
    written: int
    """Bytes that were not holes."""
    seconds: float


def write_dump(
    place: Path,
    name: str,
    config: VmConfig,
    ram: int,
    ranges: Sequence[Range],
    registers: Sequence[ProcessorRegisters],
    msrs: Sequence[dict[int, int]],
    progress: Callable[[int, int], None] | None = None,
) -> Dump:
    """Write a dump. Requires: the processors stand still. Raises InvalidRequest or HostError."""
    begin = time.monotonic()
    if os.path.lexists(place):
        raise InvalidRequest(f"{place} is there already", "a dump is a new directory", "choose another path")
    try:
        partial = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    except OSError as error:
        raise HostError(f"cannot write {place}", error.strerror or "", "choose another directory") from error
    try:
        written = copy_sparse(ram, partial / "ram", config.memory, progress)
        text = json.dumps(describe(name, config, ranges, registers, msrs), indent=1)
        (partial / "state.json").write_text(text)
        os.rename(partial, place)
    except OSError as error:
        hint = "make room on that disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another directory"
        raise HostError(f"cannot write {place}", error.strerror or "", hint) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Dump(str(place), config.memory, written, time.monotonic() - begin)


def describe(
    name: str,
    config: VmConfig,
    ranges: Sequence[Range],
    registers: Sequence[ProcessorRegisters],
    msrs: Sequence[dict[int, int]],
) -> dict[str, Any]:
    """Return what state.json says."""
    processors = [
        {
            "index": processor.number,
            "halted": processor.halted,
            "registers": processor.flat(),
            "msrs": {f"{number:#x}": value for number, value in sorted(own.items())},
        }
        for processor, own in zip(registers, msrs, strict=True)
    ]
    return {
        "format": FORMAT,
        "version": VERSION,
        "memory": "ram",
        "name": name,
        "config": config._asdict() | {"disks": [disk._asdict() for disk in config.disks]},
        "taken": time.time(),
        "gpa_map": [piece._asdict() for piece in ranges],
        "processors": processors,
    }


def copy_sparse(source: int, target: Path, size: int, progress: Callable[[int, int], None] | None) -> int:
    """Copy a file without its holes (lseek(2), SEEK_DATA); return how many bytes were data."""
    written = 0
    with open(target, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        os.ftruncate(file.fileno(), size)
        at = 0
        while (start := _next_data(source, at, size)) < size:
            end = os.lseek(source, start, os.SEEK_HOLE)
            os.lseek(file.fileno(), start, os.SEEK_SET)
            at = start
            while at < min(end, size):
                sent = os.sendfile(file.fileno(), source, at, min(STEP, min(end, size) - at))
                if sent == 0:
                    raise OSError(errno.EIO, os.strerror(errno.EIO), str(target))
                at += sent
                written += sent
                if progress:
                    progress(at, size)
    return written


def _next_data(source: int, at: int, size: int) -> int:
    try:
        return os.lseek(source, at, os.SEEK_DATA) if at < size else size
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole up to the end
            return size
        raise
