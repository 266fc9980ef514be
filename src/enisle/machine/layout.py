"""The memory map of an island's machine: the one page with addresses.

Guest-physical                                  Guest-virtual
  0                frames: single 4 KiB pages     0x0000_0000_0001_0000  user: programs, stacks, mappings
  +span            chunks: 2 MiB pieces           0x0000_7fff_f000_0000  user end; stub, call slots from here on
  +2 span          window: host files             0xffff_8000_0000_0000  supervisor: GDT IDT TSS stubs stacks
`span` is the memory limit rounded up to an extent; address space is not memory: frames are what is charged.
"""

from itertools import pairwise

from enisle.abi.types import HUGE, PAGE

EXTENT_SHIFT = 27
EXTENT = 1 << EXTENT_SHIFT
"""Guest-physical memory is given to the hypervisor in pieces of this size, when first used."""

WINDOW = 64 << 30
"""Room for host mappings (files, shared memory), bytes."""

USER_START = 0x1_0000
USER_END = 0x7FFF_F000_0000
"""First address after the user part. Far below the canonical hole, so that no SYSCALL can end in a non-canonical RIP
(Intel's SYSRET faults in ring 0 there)."""

SYSCALL_STUB = 0x7FFF_F000_0000
"""The one page of ours that ring 3 may execute: a software KVM enters LSTAR without leaving ring 3, and has no room
for a guest in the upper half."""
VVAR = SYSCALL_STUB + PAGE
VDSO = VVAR + PAGE
"""Pages of the kernel that every process may read: clock parameters, and the code that uses them right after."""
SLOTS = 0x7FFF_F100_0000
"""Call slots and their stubs, one page each per processor of the process; part of no VMA."""
SLOT_STRIDE = 2 * PAGE
SLOTS_END = 0x7FFF_FC00_0000
STEPS = SLOTS_END
"""Where instructions of pages that stay non-executable run, one page each per thread of the process that needs one:
executable, read-only, part of no VMA (`machine.enforcement`)."""
STEPS_END = 0x7FFF_FFFF_0000

SUPERVISOR = 0xFFFF_8000_0000_0000
GDT = SUPERVISOR
IDT = SUPERVISOR + PAGE
EXCEPTION_STUBS = SUPERVISOR + 2 * PAGE
PROCESSOR_PAGES = SUPERVISOR + HUGE
PROCESSOR_STRIDE = 2 * PAGE
"""Per processor: its TSS with the I/O bitmap, and its exception stack."""
SUPERVISOR_END = SUPERVISOR + (1 << 30)

SYSCALL_PORT = 0x42
"""The port a system call leaves the guest through."""

_regions = [
    ("user", USER_START, USER_END),
    ("common pages", SYSCALL_STUB, VDSO + PAGE),
    ("call slots", SLOTS, SLOTS_END),
    ("steps", STEPS, STEPS_END),
    ("gdt", GDT, GDT + PAGE),
    ("idt", IDT, IDT + PAGE),
    ("exception stubs", EXCEPTION_STUBS, EXCEPTION_STUBS + PAGE),
    ("processors", PROCESSOR_PAGES, SUPERVISOR_END),
]
for (_name, _start, _end), (_next, _next_start, _) in pairwise(_regions):
    assert _start < _end <= _next_start, f"{_name} overlaps {_next}: {_end=:#x} {_next_start=:#x}"
