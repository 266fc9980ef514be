"""The vDSO's code is what its text says, and its ELF file is what C libraries look for."""

import shutil
import struct
import subprocess

import capstone
import pytest

from enisle.abi.types import PAGE
from enisle.kernel import vdso, vvar


def lines() -> list[tuple[int, str, bytes]]:
    code = vdso.assemble()
    offset = 0
    found: list[tuple[int, str, bytes]] = []
    for text, raw in code.lines:
        found.append((offset, text, raw))
        offset += len(raw)
    return found


def test_every_line_disassembles_to_its_own_text() -> None:
    machine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    labels = vdso.assemble().labels
    operands = {"seq": vvar.SEQUENCE, "mode": vvar.MODE, "base": vvar.BASE_TSC, "mult": vvar.MULTIPLIER}
    operands |= {"bases": vvar.BASES, "processors": vvar.PROCESSORS}
    for offset, text, raw in lines():
        [instruction] = list(machine.disasm(raw, vdso.CODE_OFFSET + offset))
        expected = text
        for name, place in operands.items():
            displacement = place - PAGE - (vdso.CODE_OFFSET + offset + len(raw))
            expected = expected.replace(f"[{name}]", f"[rip - {-displacement:#x}]")
        mnemonic, _, target = expected.partition(" ")
        if target in labels:
            expected = f"{mnemonic} {vdso.CODE_OFFSET + labels[target]:#x}"
        shown = f"{instruction.mnemonic} {instruction.op_str}".strip()
        assert shown.replace("dword ptr [rip", "[rip").replace("qword ptr [rip", "[rip") == expected.replace(
            "dword ptr [rip", "[rip"
        ).replace("qword ptr [rip", "[rip"), text


def test_every_symbol_is_found_as_glibc_and_musl_find_it() -> None:
    image = vdso.image()
    dynamic_at, dynamic_size = (
        struct.unpack_from("<QQ", image, 120 + 16)[0],
        struct.unpack_from("<Q", image, 120 + 32)[0],
    )
    dynamic = dict(struct.iter_unpack("<qQ", image[dynamic_at : dynamic_at + dynamic_size]))
    strings, symbols = dynamic[vdso.DT_STRTAB], dynamic[vdso.DT_SYMTAB]

    def name_at(offset: int) -> str:
        return image[strings + offset : image.index(0, strings + offset)].decode()

    buckets, count = struct.unpack_from("<2I", image, dynamic[vdso.DT_HASH])
    bucket = struct.unpack_from("<I", image, dynamic[vdso.DT_HASH] + 8)[0]
    chain = struct.unpack_from(f"<{count}I", image, dynamic[vdso.DT_HASH] + 12)
    assert buckets == 1
    found = {}
    index = bucket
    while index:
        name, _, _, section, value, _ = struct.unpack_from("<IBBHQQ", image, symbols + 24 * index)
        version = struct.unpack_from("<H", image, dynamic[vdso.DT_VERSYM] + 2 * index)[0]
        assert (section, version) == (1, 2)
        found[name_at(name)] = value
        index = chain[index]
    assert {
        "__vdso_clock_gettime",
        "__vdso_gettimeofday",
        "__vdso_time",
        "__vdso_getcpu",
        "__vdso_clock_getres",
    } <= set(found)
    assert vdso.elf_hash("LINUX_2.6") == 61765110  # as glibc's sysdep-vdso.h has it
    assert name_at(dynamic[vdso.DT_SONAME]) == "linux-vdso.so.1"


def test_readelf_finds_nothing_wrong(tmp_path) -> None:  # type: ignore[no-untyped-def]
    if not shutil.which("readelf"):
        pytest.skip("binutils is not installed")
    path = tmp_path / "vdso.so"
    path.write_bytes(vdso.image())
    told = subprocess.run(["readelf", "-aW", path], capture_output=True, text=True, check=True)
    assert told.stderr == ""
