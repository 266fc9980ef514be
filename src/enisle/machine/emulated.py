"""The `emulated` backend: processors in software, for hosts without /dev/kvm and for tests.

Satisfies the same contract as `kvm`: guests in ring 3, our page tables, the same exits. The processors of a machine
take turns (`emulated_turns`); what an engine must forget is told by `emulated_code`. Differences that a program can
see: no AVX, but for what software executes under a blocking value; no #AC and no #XM; `BusError` comes a little late.
"""

import os
import struct
import threading
import time
from typing import TYPE_CHECKING

from enisle.abi.types import PAGE_SHIFT, Gpa, Hva
from enisle.abi.x86 import R11, RCX, RFLAGS, RIP, PageFaultError, Pte, Vector
from enisle.machine import emulated_bus as bus
from enisle.machine.emulated_code import CodeWatch, WatchedPageTables
from enisle.machine.emulated_engine import (
    ERR_INSN_INVALID,
    INT_LENGTH,
    NO_VECTOR,
    REG_FS_BASE,
    REG_GS_BASE,
    SYSCALL_LENGTH,
    Engine,
    load_library,
)
from enisle.machine.emulated_fpu import AVX, INITIAL, XSAVE_SIZE, FpuState
from enisle.machine.emulated_turns import Runner, Turns
from enisle.machine.memory import GuestMemory
from enisle.machine.processor import (
    BUS_ERROR,
    INTERRUPTED,
    SYSCALL,
    Exit,
    Halt,
    PageFault,
    ProcessorException,
)
from enisle.machine.supervisor import Supervisor

if TYPE_CHECKING:
    from enisle.machine.emulated_traps import CodeTraps
    from enisle.machine.exitless import CallSlot
    from enisle.machine.pagetables import AddressSpace
    from enisle.machine.walks import Walker, Walks

USER_RFLAGS = 0x3F7FD5 & ~0x3000  # what ring 3 may set (no IOPL, no VM)
FIXED_RFLAGS = 0x202
XCR0_X87_SSE = 3
DROP_LIMIT = 64
"""Runs of changed code above which forgetting all of it is cheaper."""
GIGABYTE_SHIFT = 30
IDENTITY_LIMIT = 512 << GIGABYTE_SHIFT
IDENTITY_LEAF = Pte.PRESENT | Pte.USER | Pte.HUGE
NOWHERE = 1 << 39
"""An address that the boot space never maps."""


class Vm:
    """What the emulated processors of one machine share."""

    xcr0 = XCR0_X87_SSE
    xsave_size = XSAVE_SIZE
    keeps = XCR0_X87_SSE | AVX
    """Components that `xsave` and `xrstor` keep: the upper halves of YMM registers are software's."""
    max_processors = 1 << 16
    guest_tsc = os.uname().machine == "x86_64"
    """RDTSC reads the host's time-stamp counter."""

    def __init__(self) -> None:
        self.library = load_library()
        self.extents: list[tuple[Gpa, Hva, int]] = []
        self.turns = Turns()
        self.watch = CodeWatch(self._shoot_down)
        self.last: EmulatedProcessor | None = None
        self.traps: CodeTraps | None = None
        """Where processors stop before an instruction that they would get wrong; under a blocking value."""
        self.walks: Walks | None = None
        """Counters of page-table reads, when they are wanted."""
        self._boot_root: Gpa | None = None

    def add_extent(self, gpa: Gpa, hva: Hva, size: int) -> None:
        """Let the guest's physical range [gpa, gpa + size) be the host's memory at `hva`."""
        self.extents.append((gpa, hva, size))
        self._shoot_down()  # an engine that met memory it does not know would lose a store

    def page_tables(self, memory: GuestMemory) -> WatchedPageTables:
        """Return page tables for the memory of this machine; from now on we hear of its changes."""
        memory.watcher = self.watch
        bus.add_claim(self._claim)
        return WatchedPageTables(memory, self.watch)

    def boot_root(self, supervisor: Supervisor) -> Gpa:
        """Return tables that map the SYSRET stub, and guest-physical memory at its own addresses."""
        if self._boot_root is None:
            space, memory = supervisor.new_address_space(), supervisor.memory
            leaves = range(IDENTITY_LEAF, IDENTITY_LEAF + IDENTITY_LIMIT, 1 << GIGABYTE_SHIFT)
            directory = space.ops.alloc(2)
            memory.write(directory, struct.pack("<512Q", *leaves))
            space.ops.set(space.table, 0, directory | Pte.PRESENT | Pte.USER)
            self._boot_root = space.root
        return self._boot_root

    def trap_code(self) -> "CodeTraps":
        """Return the traps of this machine; from now on its processors stop there."""
        from enisle.machine.emulated_traps import CodeTraps

        self.traps = CodeTraps(self._shoot_down)
        return self.traps

    def forget_tables(self) -> None:
        """Drop what processors remember of page tables."""
        self._shoot_down()

    def _shoot_down(self) -> None:
        """Return when no processor computes with what it knew before."""
        owner = self.turns.owner
        if isinstance(owner, EmulatedProcessor):
            owner.halt_and_wait()

    def _claim(self, page: int) -> bool:
        owner = self.turns.owner
        return isinstance(owner, EmulatedProcessor) and owner.claim_bus_error(page)

    def close(self) -> None:
        bus.remove_claim(self._claim)


class EmulatedProcessor(Runner):
    """One virtual processor. Only `kick` may be called from a thread that does not run it."""

    def __init__(self, vm: Vm, machine_supervisor: Supervisor, number: int) -> None:
        super().__init__()
        self.number = number
        self.exits = 0
        self._vm, self._memory = vm, machine_supervisor.memory
        self._engine = Engine(vm.library)
        self.gpr = self._engine.gpr
        self._extents = 0
        self._map_extents()
        self._boot_root = vm.boot_root(machine_supervisor)
        self._map_extents()
        self._engine.enter_ring_3(self._boot_root, NOWHERE)
        self._root = self._entered = self._boot_root
        self._walker: Walker | None = None
        if vm.walks:
            vm.walks.uncounted = self._boot_root
            self._walker = vm.walks.walker(self._boot_root)
            self._engine.walk_by(self._walker)
        self._generation, self._code = vm.watch.generation, vm.watch.position
        self._trapped: tuple[Gpa, int] | None = None
        self._traps: frozenset[int] = frozenset()
        self._inside = self._thread = 0
        self._covered: list[tuple[int, int]] = []
        self._fpu = FpuState(self._engine)
        self._fpu.load(INITIAL)

    # ---- state ---------------------------------------------------------------------------------------------------

    @property
    def fs_base(self) -> int:
        return self._engine.base(REG_FS_BASE)

    @fs_base.setter
    def fs_base(self, value: int) -> None:
        self._engine.set_base(REG_FS_BASE, value)

    @property
    def gs_base(self) -> int:
        return self._engine.base(REG_GS_BASE)

    @gs_base.setter
    def gs_base(self, value: int) -> None:
        self._engine.set_base(REG_GS_BASE, value)

    def enter(self, root: Gpa) -> None:
        self._root = root

    def redirect(self, root: Gpa) -> None:
        self._root = root
        self.halt_and_wait()

    def open_slot(self, space: "AddressSpace") -> "CallSlot | None":
        """Return None: an exit is cheaper here than a slot."""
        return None

    def close_slot(self) -> None:
        pass

    def xsave(self) -> bytes:
        return self._fpu.save()

    def xrstor(self, image: bytes) -> None:
        self._fpu.load(image)

    def close(self) -> None:
        self.gpr.release()
        self._engine.close()

    # ---- running -------------------------------------------------------------------------------------------------

    def kick(self) -> None:
        self.kicked = True
        self._vm.turns.wake(self)
        if self._inside & 1 and self._thread != threading.get_ident():
            self.halt_and_wait()

    def halt(self) -> None:
        if self._inside & 1:
            self._engine.stop()

    def halt_and_wait(self) -> None:
        """Return when the engine has come out once; one that is just going in does not hear the first call."""
        inside = self._inside
        delay = 0.0
        while inside & 1 and self._inside == inside and self._thread != threading.get_ident():
            self._engine.stop()
            time.sleep(delay)  # lets the processor have the GIL
            delay = 50e-6

    def run(self) -> Exit:
        gpr = self.gpr
        if gpr[RIP] >> 47:
            return ProcessorException(Vector.GP, 0)
        gpr[RFLAGS] = (gpr[RFLAGS] & USER_RFLAGS) | FIXED_RFLAGS
        turns = self._vm.turns
        self.exits += 1
        if not turns.take(self):
            self.kicked = False
            return INTERRUPTED
        try:
            self._engine.load()
            self._thread = threading.get_ident()
            while not self.kicked:
                if exit := self._compute():
                    return exit
                if self.preempted:
                    turns.leave(self)
                    if not turns.take(self):
                        break
            self.kicked = False
            return INTERRUPTED
        finally:
            if turns.owner is self:
                turns.leave(self)

    def _compute(self) -> Exit | None:
        """Let the engine run; return None when it only stopped."""
        engine, vm = self._engine, self._vm
        self._inside += 1  # first: who makes a translation stale looks at it last
        if self._walker and vm.walks:
            self._walker.node = vm.walks.node_of_processor(self)
        if self._extents != len(vm.extents):
            self._map_extents()
        if self._entered != self._root:
            self._entered = root = self._root  # one look: another thread may redirect us
            engine.set_root(root)
            self._generation = vm.watch.generation
        elif self._generation != vm.watch.generation:
            self._generation = vm.watch.generation
            engine.flush_translations()
        if self._code != vm.watch.log_start + len(vm.watch.log) or vm.last is not self:
            self._forget_code()
        if vm.traps:
            self._prepare_traps(vm.traps)
        failure = engine.start()
        self._inside += 1
        if self._covered:
            return self._bus_error()
        if engine.vector != NO_VECTOR:
            return self._exception()
        if engine.in_system_call():
            gpr = self.gpr
            gpr[RCX], gpr[R11] = gpr[RIP], gpr[RFLAGS]
            return SYSCALL
        if failure:
            return self._failed(failure)
        return ProcessorException(Vector.UD, 0) if self.gpr[RIP] in self._traps else None

    def _prepare_traps(self, traps: "CodeTraps") -> None:
        if self._trapped != traps.version(self._root):
            self._trapped = traps.version(self._root)
            self._traps = traps.addresses(self._root)
            self._engine.set_exits(self._traps)

    def _failed(self, failure: int) -> Exit:
        if failure == ERR_INSN_INVALID:
            return ProcessorException(Vector.UD, 0)
        return Halt(f"Unicorn error {failure} at {self.gpr[RIP]:#x}")

    def _exception(self) -> Exit:
        vector, code, by_instruction = self._engine.take_exception()
        if by_instruction and vector not in (Vector.BP, Vector.OF):
            # INT n through a gate that ring 3 may not use: #GP at the instruction (SDM 3A 6.12.1.1)
            self.gpr[RIP] -= INT_LENGTH
            return ProcessorException(Vector.GP, vector << 3 | 2)
        if vector == Vector.PF:
            if self.gpr[RIP] in self._traps and self._engine.fault_address == self.gpr[RIP] - 1:
                return ProcessorException(Vector.UD, 0)  # Unicorn looks where an empty block would have ended
            return PageFault(
                self._engine.fault_address,  # type: ignore[arg-type]  # the processor's own word
                bool(code & PageFaultError.WRITE),
                bool(code & PageFaultError.FETCH),
                bool(code & PageFaultError.PRESENT),
            )
        return ProcessorException(vector, 0 if by_instruction else code)

    # ---- memory --------------------------------------------------------------------------------------------------

    def _map_extents(self) -> None:
        """Tell the engine of new memory."""
        extents = self._vm.extents[self._extents :]
        for gpa, hva, size in extents:
            self._engine.map(gpa, hva, size)
        self._extents += len(extents)

    def _forget_code(self) -> None:
        vm, watch = self._vm, self._vm.watch
        position = watch.position
        runs = watch.since(self._code)
        if runs is not None and vm.last is not self:
            runs = runs + [(frame, 1) for frame in watch.volatile]
        self._code, vm.last = position, self
        if runs:
            runs = sorted(set(runs))
        if runs is None or len(runs) > DROP_LIMIT or (runs and runs[-1][0] << PAGE_SHIFT >= IDENTITY_LIMIT):
            self._engine.flush_code()
        elif runs:
            self._drop_code(runs)

    def _drop_code(self, runs: list[tuple[int, int]]) -> None:
        """Forget code by physical address: where the boot space maps physical memory at its own address."""
        self._engine.set_root(self._boot_root)
        for frame, count in runs:
            self._engine.drop_code(frame << PAGE_SHIFT, count << PAGE_SHIFT)
        self._engine.set_root(self._entered)

    def claim_bus_error(self, page: int) -> bool:
        """Deal with SIGBUS in guest memory while this processor computes on the calling thread."""
        base = self._memory.base
        if not base <= page < base + self._memory.size or self._thread != threading.get_ident() or not self._inside & 1:
            return False
        self._covered.append((page, bus.cover(page)))
        self._engine.stop()
        return True

    def _bus_error(self) -> Exit:
        for page, aside in self._covered:
            bus.uncover(page, aside)
        self._covered.clear()
        if self._engine.vector != NO_VECTOR:
            self._engine.take_exception()  # the instruction is repeated
        elif self._engine.in_system_call():
            self.gpr[RIP] -= SYSCALL_LENGTH
        return BUS_ERROR
