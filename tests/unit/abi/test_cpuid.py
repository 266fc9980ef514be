"""CPUID: our code is what its comments say, tables answer as processors do, features are where Linux has them."""

import inspect
import os
import platform
import re

import capstone
import pytest

from enisle.abi import cpuid, linux_syscalls
from enisle.abi.cpuid import CpuidTable
from enisle.abi.x86_features import BITS, DEPENDENTS, FEATURES, NAMES, REQUIRES, closed, dependents_of, needs_of
from enisle.kernel import TABLE, load_handlers

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="CPUID is x86's")


@pytest.mark.parametrize("name", ["CPUID", "XGETBV"])
def test_every_line_disassembles_to_its_comment(name: str) -> None:
    source = inspect.getsource(cpuid)
    block = source[source.index(f"{name} = bytes.fromhex(") :]
    comments = re.findall(r'^    "[0-9a-f ]+"  # ([^:\n]+)', block[: block.index("\n)")], re.MULTILINE)
    lines = list(capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm(getattr(cpuid, name), 0))
    assert [f"{line.mnemonic} {line.op_str}".strip() for line in lines] == comments


def test_the_host_answers() -> None:
    table = cpuid.host_table()
    assert table.vendor in ("GenuineIntel", "AuthenticAMD", "HygonGenuine")
    assert {"fpu", "sse2", "lm", "syscall"} <= table.features
    assert table.get(0) == cpuid.execute(0)
    assert cpuid.from_record(cpuid.to_record(table)) == table
    if "osxsave" in table.features:
        assert table.xcr0 == cpuid.xgetbv()
        ends = [576, *(offset + size for bit, (offset, size) in table.layout().items() if table.xcr0 >> bit & 1)]
        assert cpuid.execute(0xD, 0)[1] == max(ends)


def test_family_and_model_are_what_linux_prints() -> None:
    with open("/proc/cpuinfo", encoding="ascii") as file:
        lines = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", file.read().split("\n\n")[0], re.MULTILINE))
    table = cpuid.host_table()
    assert table.model == tuple(int(lines[name]) for name in ("cpu family", "model", "stepping"))
    assert (table.vendor, table.brand) == (lines["vendor_id"], lines["model name"].strip())


def test_taking_a_table_leaves_the_thread_where_it_may_run() -> None:
    before = os.sched_getaffinity(0)
    cpuid.host_table()
    assert os.sched_getaffinity(0) == before


def test_leaves_that_are_not_there_are_zeros_or_the_last_one() -> None:
    intel = {(0, 0): (2, 0x756E_6547, 0x6C65_746E, 0x4965_6E69), (1, 0): (1, 0, 0, 0), (2, 0): (7, 7, 7, 7)}
    table = CpuidTable(dict(intel), 0)
    assert table.is_intel
    assert table.get(9) == table.get(0x8000_0009) == (7, 7, 7, 7)
    other = CpuidTable(intel | {(0, 0): (2, 0, 0, 0)}, 0)
    assert other.get(9) == (0, 0, 0, 0)
    assert other.get(1, 77) == (1, 0, 0, 0), "a leaf without subleaves ignores ECX"
    assert CpuidTable({(0, 0): (0xB, 0, 0, 0), (0xB, 0): (1, 2, 0x100, 5)}, 0).get(0xB, 9) == (0, 0, 9, 5)


def test_a_capture_ends_whatever_a_processor_answers() -> None:
    greedy = cpuid.capture(lambda leaf, subleaf: (0xFFFF_FFFF,) * 4, lambda: 7)
    assert len(greedy.entries) < 3000
    nothing = cpuid.capture(lambda leaf, subleaf: (0, 0, 0, 0), lambda: 7)
    assert nothing.xcr0 == 0


# ---- the table of features -------------------------------------------------------------------------------------------


def test_each_bit_has_one_name() -> None:
    assert len({(*feature.place, feature.bit) for feature in FEATURES.values()}) == len(FEATURES)
    assert all(BITS[feature.place][feature.bit] == feature.name for feature in FEATURES.values())
    assert all(0 <= feature.bit < 32 for feature in FEATURES.values())


def test_well_known_bits_are_where_the_manual_has_them() -> None:
    places = {"avx": (1, 0, 2, 28), "avx2": (7, 0, 1, 5), "sha_ni": (7, 0, 1, 29), "rdpid": (7, 0, 2, 22),
              "lm": (0x8000_0001, 0, 3, 29), "abm": (0x8000_0001, 0, 2, 5), "avx512_bf16": (7, 1, 0, 5),
              "invtsc": (0x8000_0007, 0, 3, 8), "amx_tile": (7, 0, 3, 24), "xsavec": (0xD, 1, 0, 1)}  # fmt: skip
    assert {name: (*FEATURES[name].place, FEATURES[name].bit) for name in places} == places


def test_dependencies_name_features_and_close() -> None:
    assert set(REQUIRES) | frozenset().union(*REQUIRES.values()) <= NAMES
    assert closed(NAMES) == NAMES
    for name in NAMES:
        without = closed(NAMES - {name})
        assert without == NAMES - {name} - dependents_of(name)
        assert needs_of(name) <= closed(NAMES)
    assert {"xcr0_ymm", "osxsave", "xsave", "fxsr"} <= needs_of("avx512vl")
    assert all(name in REQUIRES[dependent] for name in DEPENDENTS for dependent in DEPENDENTS[name])


def test_system_calls_are_named_as_the_kernel_names_them() -> None:
    load_handlers()
    assert {entry.number: entry.name for entry in TABLE if entry} == linux_syscalls.NAMES
    assert set(linux_syscalls.SECONDS) <= set(linux_syscalls.NUMBERS)
