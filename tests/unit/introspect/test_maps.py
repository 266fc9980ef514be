"""Address spaces of our own machine, seen with the same eyes as those of guests."""

import hashlib

from enisle.abi.types import Gva
from enisle.introspect.maps import MachineMemory, code_hashes, mappings, writable_code
from enisle.introspect.paging import AddressSpace as Seen
from enisle.machine import AddressSpace, GuestMemory, leaf_flags
from enisle.machine.pagetables import PlainPageTables
from synthetic_kernel import DATA, Builder

CODE, DATA_AT, BOTH = 0x40_0000, 0x60_0000, 0x7000_0000_0000


def _island() -> tuple[GuestMemory, AddressSpace, Seen]:
    memory = GuestMemory(64 << 20)
    space = AddressSpace(memory, PlainPageTables(memory))
    for at, flags in ((CODE, (True, False, True)), (DATA_AT, (True, True, False)), (BOTH, (True, True, True))):
        for page in range(3):
            frame = memory.allocate_frame()
            memory.write(frame, bytes([page + 1]) * 4096)
            space.map(Gva(at + 4096 * page), frame, 1, leaf_flags(*flags))
    return memory, space, Seen(MachineMemory(memory), space.root, 4)


def test_an_islands_mappings_code_and_rights_are_seen() -> None:
    memory, _, seen = _island()
    found = mappings(seen)
    assert [(run.start, run.size, run.rights) for run in found.runs] == [
        (CODE, 3 * 4096, "r-xu"),
        (DATA_AT, 3 * 4096, "rw-u"),
        (BOTH, 3 * 4096, "rwxu"),
    ]
    assert not found.truncated
    assert [run.start for run in writable_code(seen)] == [BOTH]
    (code,) = code_hashes(seen)
    assert code.sha256 == hashlib.sha256(b"".join(bytes([page + 1]) * 4096 for page in range(3))).hexdigest()
    memory.close()


def test_a_change_of_an_islands_code_changes_its_hash() -> None:
    memory, _, seen = _island()
    before = next(iter(code_hashes(seen))).sha256
    memory.write(seen.translate(CODE + 4096), b"\xcc")
    assert next(iter(code_hashes(seen))).sha256 != before
    memory.close()


def test_code_without_memory_behind_it_is_counted() -> None:
    builder = Builder()
    builder.map(CODE, 1 << 40, 1)
    (code,) = code_hashes(builder.space())
    assert (code.size, code.missing) == (4096, 1)


def test_too_many_tables_are_told() -> None:
    builder = Builder()
    for number in range(20):
        builder.place(number << 31, b"x", DATA)
    assert mappings(builder.space(), budget=10).truncated
    assert not mappings(builder.space()).truncated
