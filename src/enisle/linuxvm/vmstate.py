"""Model-specific registers, read from the stream QEMU writes to migrate a guest (docs/devel/migration.rst).

The stream ends with a JSON description of every field before it ("vmdesc"), so no layout is assumed; with
x-ignore-shared it holds no RAM (300 KB). Each section found is checked against its footer. Pure.
"""

import json
import re
import struct
from collections.abc import Iterator
from typing import Any, cast

from enisle.errors import GuestError

MAGIC = b"QEVM"
VMDESCRIPTION, FOOTER, SUBSECTION = 0x06, 0x7E, 0x05
MOST_FIELDS = 100_000
MSRS = {
    "env.sysenter_cs": 0x174,
    "env.sysenter_esp": 0x175,
    "env.sysenter_eip": 0x176,
    "env.pat": 0x277,
    "env.efer": 0xC000_0080,
    "env.star": 0xC000_0081,
    "env.lstar": 0xC000_0082,
    "env.cstar": 0xC000_0083,
    "env.fmask": 0xC000_0084,
    "env.kernelgsbase": 0xC000_0102,
    "env.tsc_aux": 0xC000_0103,
    "env.mtrr_deftype": 0x2FF,
    "env.mcg_cap": 0x179,
    "env.mcg_status": 0x17A,
    "env.mcg_ctl": 0x17B,
    "env.system_time_msr": 0x4B56_4D01,
    "env.wall_clock_msr": 0x4B56_4D00,
    "env.xss": 0xDA0,
    "env.msr_ia32_misc_enable": 0x1A0,
    "env.spec_ctrl": 0x48,
    "env.tsc_adjust": 0x3B,
}
"""Fields of target/i386/machine.c by the register they hold (SDM 4, table 2-2; AMD APM 2, appendix A)."""
NEEDED = frozenset({"env.lstar", "env.star", "env.kernelgsbase"})


def parse_msrs(stream: bytes) -> tuple[dict[int, int], ...]:
    """Return the registers of each processor by number. Raises GuestError for a stream that makes no sense."""
    if stream[:4] != MAGIC:
        raise _broken("it does not begin with QEVM")
    found: dict[int, dict[int, int]] = {}
    for device in _devices(stream):
        if device.get("name") == "cpu" and device.get("vmsd_name") == "cpu":
            instance = _integer(device, "instance_id")
            found[instance] = _processor(stream, device, instance)
    if sorted(found) != list(range(len(found))) or not found:
        raise _broken(f"it describes the processors {sorted(found)}")
    return tuple(found[instance] for instance in range(len(found)))


def _devices(stream: bytes) -> list[dict[str, Any]]:
    """Return the devices of the JSON description at the end."""
    # QEMU_VM_VMDESCRIPTION, u32 length, the text: the length must reach exactly to the end.
    for match in re.finditer(rb"\x06(....)\{", stream, re.DOTALL):
        start = match.end() - 1
        if int.from_bytes(match[1], "big") == len(stream) - start:
            break
    else:
        raise _broken("its description is missing: it was cut short")
    try:
        described = json.loads(stream[start:])
        return [device for device in described["devices"] if isinstance(device, dict)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _broken(f"its description cannot be read: {error}") from None


def _processor(stream: bytes, device: dict[str, Any], instance: int) -> dict[int, int]:
    places = dict(_places(device))
    for start, section in _sections(stream, b"cpu", instance):
        end = start + sum(_size(field) for field in _list(device, "fields"))
        values = {name: (start + at, size) for name, (at, size) in places.items()}
        for subsection in _list(device, "subsections"):
            end = _enter_subsection(stream, subsection, end, values)
        if stream[end : end + 5] == struct.pack(">BI", FOOTER, section):
            return _read(stream, values)
    raise _broken(f"the section of processor {instance} is not as it is described")


def _sections(stream: bytes, name: bytes, instance: int) -> Iterator[tuple[int, int]]:
    """Yield (where its fields begin, its number) of what may be full sections of a device."""
    # QEMU_VM_SECTION_FULL, u32 section, u8 length and name, u32 instance, u32 version.
    pattern = rb"\x04(....)" + bytes((len(name),)) + name + struct.pack(">I", instance) + rb"...."
    for match in re.finditer(pattern, stream, re.DOTALL):
        yield match.end(), int.from_bytes(match[1], "big")


def _enter_subsection(stream: bytes, described: dict[str, Any], at: int, values: dict[str, tuple[int, int]]) -> int:
    """Note where the fields of a subsection lie; return where it ends."""
    name = str(described.get("vmsd_name", "")).encode()
    head = struct.pack(">BB", SUBSECTION, len(name) & 0xFF) + name
    if stream[at : at + len(head)] != head:
        raise _broken(f"its subsection {name.decode()} is not where it is described")
    start = at + len(head) + 4
    values |= {field: (start + offset, size) for field, (offset, size) in _places(described)}
    end = start + sum(_size(field) for field in _list(described, "fields"))
    for nested in _list(described, "subsections"):
        end = _enter_subsection(stream, nested, end, values)
    return end


def _places(described: dict[str, Any]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield (name, (offset, size)) of the plain fields."""
    at = 0
    for field in _list(described, "fields"):
        yield str(field.get("name")), (at, _integer(field, "size"))
        at += _size(field)


def _size(field: dict[str, Any]) -> int:
    # An element told apart by "index" stands for itself; otherwise "array_len" elements follow each other.
    count = 1 if "index" in field else _integer(field, "array_len", 1)
    return count * _integer(field, "size")


def _read(stream: bytes, values: dict[str, tuple[int, int]]) -> dict[int, int]:
    if missing := NEEDED - values.keys():
        raise _broken(f"it has no {', '.join(sorted(missing))}")
    return {
        MSRS[name]: int.from_bytes(stream[at : at + size], "big") for name, (at, size) in values.items() if name in MSRS
    }


def _list(described: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = described.get(name, [])
    if not isinstance(value, list) or len(cast("list[Any]", value)) > MOST_FIELDS:
        raise _broken(f"its {name} are no list")
    items = cast("list[Any]", value)
    if not all(isinstance(item, dict) for item in items):
        raise _broken(f"its {name} are not told by objects")
    return items


def _integer(described: dict[str, Any], name: str, default: int | None = None) -> int:
    value = described.get(name, default)
    if not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise _broken(f"{name} is {value!r}")
    return value


def _broken(why: str) -> GuestError:
    return GuestError(
        "QEMU's record of the processors cannot be read", why, "this version of QEMU may write it otherwise"
    )
