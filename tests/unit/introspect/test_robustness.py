"""Guests that are none, or mean harm: a typed error with a reason, soon, and nothing believed."""

import os
import struct
import time

import pytest

from enisle.errors import EnisleError
from enisle.introspect import Introspection, Unsupported
from enisle.introspect.dump import SavedGuest
from enisle.introspect.memory import Segments
from synthetic_kernel import DATA, READ_ONLY, START, TEXT, Builder, ksymtab, processor

SIZE = 16 << 20


def _attach(memory: bytes | bytearray, **registers: int) -> Introspection:
    pieces = [(0, len(memory), 0)]
    return Introspection.attach(SavedGuest("x", Segments(memoryview(memory), pieces), [processor(**registers)]))


def _recursive() -> bytearray:
    memory = bytearray(SIZE)
    for index in range(512):
        struct.pack_into("<Q", memory, 0x1000 + index * 8, 0x1003)
    return memory


def _aliased(seed: bytes = b"") -> bytearray:
    memory = bytearray(seed or os.urandom(SIZE))
    for index in range(512):
        struct.pack_into("<Q", memory, 0x1000 + index * 8, 0x2003)
        struct.pack_into("<Q", memory, 0x2000 + index * 8, 0x3003)
        struct.pack_into("<Q", memory, 0x3000 + index * 8, 0x83 | (index << 21) % SIZE)
    return memory


@pytest.mark.parametrize("cr4", [0x20, 0x1020], ids=["4 levels", "5 levels"])
@pytest.mark.parametrize("name", ["zero", "random", "recursive", "aliased"])
def test_memory_without_a_kernel_is_unsupported_soon(name: str, cr4: int) -> None:
    memory = {"zero": lambda: bytes(SIZE), "random": lambda: os.urandom(SIZE), "recursive": _recursive,
              "aliased": _aliased}[name]()  # fmt: skip
    began = time.process_time()
    for idt in (0xFFFF_FE00_0000_0000, 0xFFFF_FFFF_8000_0000):
        with pytest.raises(Unsupported, match="unsupported, because"):
            _attach(memory, cr4=cr4, idt_base=idt)
    assert time.process_time() - began < 4


@pytest.mark.parametrize(
    ("registers", "reason"),
    [
        ({"cr0": 0x6000_0010}, "real mode"),
        ({"cr0": 0x11}, "paging is off"),
        ({"efer": 0}, "32-bit"),
        ({"cr3": 1 << 45}, "no usable page table"),
    ],
)
def test_states_that_are_no_kernel_at_work_are_named(registers: dict[str, int], reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        _attach(bytes(1 << 20), **registers)


def test_a_guest_without_processors_is_told() -> None:
    with pytest.raises(Unsupported, match="it has no processor"):
        Introspection.attach(SavedGuest("x", Segments(memoryview(b""), []), []))


def _kernel(extra: dict[int, tuple[bytes, int]] | None = None) -> Builder:
    """Return a machine with interrupt gates into code, and nothing that makes a Linux."""
    builder = Builder()
    builder.place(START, b"\xc3" * 0x2000, TEXT)
    gates = b""
    for vector in range(256):
        target = START + 16 * vector
        gates += struct.pack("<HHBBHII", target & 0xFFFF, 16, 0, 0x8E, target >> 16 & 0xFFFF, target >> 32, 0)
    builder.place(0xFFFF_FE00_0000_0000, gates, READ_ONLY)
    for address, (content, flags) in (extra or {}).items():
        builder.place(address, content, flags)
    return builder


def test_a_kernel_that_is_no_linux_is_told() -> None:
    with pytest.raises(Unsupported, match="it is no Linux that we know"):
        Introspection.attach(_kernel().guest())


def _exporting(flags: int) -> Builder:
    names_at = START + 0x2_0000
    symbols = {b"symbol_%04d" % number: START + number for number in range(200)}
    table, names = ksymtab(START + 0x1_0000, names_at, symbols | {b"init_task": START + 0x3_0000})
    extra = {
        START + 0x1_0000: (table.ljust(0x1_0000, b"\0") + names, flags),
        START + 0x3_0000: (b"swapper/0".rjust(0x700, b"\0").ljust(0x3000, b"\0"), DATA),
    }
    return _kernel(extra)


def test_exports_alone_make_no_fact_and_no_trouble() -> None:
    session = Introspection.attach(_exporting(READ_ONLY).guest())
    assert len(session.kernel.exports.by_name) == 201
    assert [fact.name for fact in session.kernel.facts if fact.value is not None] == []
    assert session.processes().incomplete
    assert session.modules().incomplete
    assert (session.locks(), session.syscalls()) == ([], [])
    assert session.check().findings == ()


def test_a_decoy_table_in_writable_memory_is_not_believed() -> None:
    builder = _exporting(DATA)
    builder.place(START + 0x8_0000, bytes(0x1000), READ_ONLY)
    with pytest.raises(Unsupported, match="it is no Linux that we know"):
        Introspection.attach(builder.guest())


def test_a_processor_with_fred_is_noted() -> None:
    session = Introspection.attach(_exporting(READ_ONLY).guest(cr4=1 << 32 | 0x20))
    assert any("CR4.FRED=1" in note for note in session.notes)


def test_every_flip_of_a_page_table_bit_ends_well() -> None:
    builder = _exporting(READ_ONLY)
    for bit in range(0, 4096 * 8, 97):
        memory = bytearray(builder.memory)
        memory[builder.root + bit // 8] ^= 1 << bit % 8
        try:
            _attach(memory, cr3=builder.root).processes()
        except EnisleError:
            pass
