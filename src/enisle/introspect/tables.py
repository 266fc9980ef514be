"""Views that are tables: system calls, interrupt gates, model-specific registers, locks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from enisle.introspect.facts import GLOBAL, Fact
from enisle.introspect.memory import CSTAR, FMASK, KERNEL_GS_BASE, LSTAR, STAR, ProcessorState, Unmapped
from enisle.introspect.processes import TaskReader
from enisle.introspect.recipes import syscall_names
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.introspect.discover import Kernel

MSR_NAMES = {
    0x174: "IA32_SYSENTER_CS",
    0x175: "IA32_SYSENTER_ESP",
    0x176: "IA32_SYSENTER_EIP",
    0xC000_0080: "EFER",
    STAR: "STAR",
    LSTAR: "LSTAR",
    CSTAR: "CSTAR",
    FMASK: "FMASK",
    0xC000_0100: "FS_BASE",
    0xC000_0101: "GS_BASE",
    KERNEL_GS_BASE: "KERNEL_GS_BASE",
}


class SystemCall(Record):
    """One number: where it leads, and what the table says."""

    number: int
    name: str
    handler: int
    table: int | None
    implemented: bool


class GateRow(Record):
    vector: int
    target: int
    place: str
    """`text`, `freed` (initialisation code that is gone), `outside`, or the name of what exports it."""
    attributes: int
    stack: int


class MsrRow(Record):
    processor: int
    number: int
    name: str
    value: int
    place: str


class LockRow(Record):
    """A lock and whether it is held now."""

    name: str
    address: int
    kind: str
    held: bool | None
    owner: str


def list_syscalls(kernel: "Kernel") -> list[SystemCall]:
    """Return every number the kernel dispatches."""
    way, names = kernel.dispatch, syscall_names()
    return [
        SystemCall(
            number,
            names.get(number, f"#{number}"),
            handler,
            way.entries[number] if number < len(way.entries) else None,
            handler != way.not_implemented,
        )
        for number, handler in enumerate(way.handlers)
    ]


def place_of(kernel: "Kernel", address: int) -> str:
    """Return where in the kernel an address lies."""
    named = kernel.exports.by_address.get(address)
    if named is not None:
        return named
    if kernel.image.is_text(address):
        return "text"
    return "freed" if address in kernel.image else "outside"


def list_gates(kernel: "Kernel") -> list[GateRow]:
    """Return the interrupt gates that are present."""
    return [
        GateRow(gate.vector, gate.target, place_of(kernel, gate.target), gate.attributes, gate.stack)
        for gate in kernel.attached.gates
        if gate.present
    ]


def list_msrs(kernel: "Kernel", processors: Sequence[ProcessorState]) -> list[MsrRow]:
    """Return the model-specific registers the backend could read."""
    return [
        MsrRow(state.number, number, MSR_NAMES.get(number, f"{number:#x}"), value, place_of(kernel, value))
        for state in processors
        for number, value in sorted(state.msrs.items())
    ]


def list_locks(kernel: "Kernel") -> list[LockRow]:
    """Return the locks among the facts, and who holds them."""
    rows: list[LockRow] = []
    for fact in kernel.facts.of_kind(GLOBAL):
        kind = _kind_of(fact)
        if kind and fact.value is not None:
            held, owner = _holder(kernel, fact.value, kind)
            rows.append(LockRow(fact.name, fact.value, kind, held, owner))
    return sorted(rows)


def _kind_of(fact: Fact) -> str:
    """Return what kind of lock a global is, told by the functions it is given to."""
    callees = " ".join(witness.callee for witness in fact.witnesses)
    for word, kind in (("mutex", "mutex"), ("spin", "spinlock"), ("read_lock", "rwlock"), ("write_lock", "rwlock")):
        if word in callees:
            return "rt" if "rt_" in callees else kind
    if "down_read" in callees or "down_write" in callees:
        return "rwsem"
    return "semaphore" if "down" in callees.split() or "down_trylock" in callees else ""


def _holder(kernel: "Kernel", address: int, kind: str) -> tuple[bool | None, str]:
    """Return (held, owner). Layouts: kernel/locking/mutex.c, qspinlock_types.h, qrwlock_types.h, rwsem.c."""
    try:
        word = kernel.space.u64(address)
    except Unmapped:
        return None, ""
    if kind == "mutex":
        return word != 0, _task_name(kernel, word & ~7)
    if kind == "spinlock":
        return bool(word & 0xFF), ""
    if kind == "rwlock":
        return bool(word & 0xFFFF_FFFF), ""
    if kind == "rwsem":
        return bool(word & 1 or word >> 8 & 0xFF_FFFF_FFFF), ""
    return None, ""


def _task_name(kernel: "Kernel", task: int) -> str:
    reader = TaskReader(kernel)
    if not task or reader.missing:
        return ""
    try:
        thread = reader.thread(task)
    except Unmapped:
        return "?"
    return f"{thread.comm}/{thread.tid}"
