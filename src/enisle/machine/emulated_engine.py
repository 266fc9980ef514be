"""One Unicorn engine: a thin typed layer over libunicorn 2.1, which is QEMU's translator in a library.

The engine walks our page tables itself (CPU TLB, CR3) in ring 3, so rights, accessed and dirty bits and error codes of
page faults are QEMU's. System calls stop it without entering Python: the hooks are libunicorn's own `uc_context_save`
(its copy of the registers tells us that SYSCALL ran) and `uc_emu_stop`. Used by one thread at a time, but for `stop`.
"""

import ctypes
import mmap
import os
import struct
from collections.abc import Collection
from ctypes import addressof, byref, c_char, c_int, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from enisle.abi.types import PAGE, Gpa, Hva
from enisle.abi.x86 import GPR_COUNT, R8, RFLAGS, RIP, Cr0, Cr4, Efer, Msr, Vector
from enisle.errors import HostError
from enisle.machine import layout, supervisor

if TYPE_CHECKING:
    from enisle.machine.walks import Walker

# unicorn/unicorn.h, unicorn/x86.h
ARCH_X86, MODE_64, CPU_HASWELL, PROT_ALL = 4, 8, 19, 7
HOOK_INTR, HOOK_INSN, HOOK_TLB_FILL = 1, 2, 1 << 17
INSN_IN, INSN_OUT, INSN_SYSCALL, INSN_SYSENTER = 218, 500, 699, 700
CTL_USE_EXITS, CTL_EXITS, CTL_CPU_MODEL, CTL_REMOVE_CODE, CTL_FLUSH_CODE, CTL_FLUSH_TLB = 4, 6, 7, 9, 10, 11
CTL_BUFFER_SIZE = 13
CTL_CONTEXT_MODE, CONTEXT_CPU, CONTEXT_MEMORY = 14, 1, 2
CTL_TLB_TYPE, TLB_CPU, TLB_VIRTUAL = 12, 0, 1
CTL_WRITE = 1 << 30
HINT_UNKNOWN = "install unicorn 2.1.4"
ERR_INSN_INVALID = 10
REG_CR0, REG_CR2, REG_CR3, REG_CR4, REG_DR0, REG_GDTR, REG_MSR = 50, 52, 53, 54, 66, 243, 248
REG_FS_BASE, REG_GS_BASE, REG_R8, REG_RIP, REG_RFLAGS = 250, 251, 106, 41, 253
REG_GPR = (35, 37, 38, 40, 43, 39, 44, 36, *range(REG_R8, REG_R8 + 8), REG_RIP, REG_RFLAGS)
"""Unicorn's numbers in the order of `abi.x86`."""
CODE_BUFFER = 64 << 20
SYSCALL_LENGTH, INT_LENGTH = 2, 2
NOT_SAVED = 0xFFFF_FFFF_FFFF_FFFF
HEADER = 40
"""Bytes before the registers in a `uc_context`."""
CONTEXT_RIP = HEADER // 8 + 16
NO_VECTOR = -1
REFUSED = -2


_libc = ctypes.CDLL(None)
_libc.malloc_usable_size.argtypes, _libc.malloc_usable_size.restype = (c_void_p,), c_size_t


class _Msr(ctypes.Structure):
    _fields_ = [("index", c_uint32), ("value", c_uint64)]


class _TableRegister(ctypes.Structure):
    _fields_ = [("selector", c_uint16), ("base", c_uint64), ("limit", c_uint32), ("flags", c_uint32)]


_INTERRUPT_HOOK = ctypes.CFUNCTYPE(None, c_void_p, c_uint32)
_REFUSE_HOOK = ctypes.CFUNCTYPE(c_uint32, c_void_p)


def load_library() -> Any:
    """Return libunicorn with its prototypes. Raises HostError."""
    spec = find_spec("unicorn")
    hint = "install it: pip install 'unicorn>=2.1.4,<3'"
    if spec is None or not spec.submodule_search_locations:
        raise HostError("no emulated processor on this computer", "the Unicorn library is not installed", hint)
    path = os.path.join(next(iter(spec.submodule_search_locations)), "lib", "libunicorn.so.2")
    try:
        library = ctypes.CDLL(path)
        version = library.uc_version(None, None)
    except (OSError, AttributeError) as error:
        raise HostError("the Unicorn library cannot be loaded", str(error), hint) from error
    if version < 0x0201_0400:
        raise HostError("the Unicorn library is too old", f"{version >> 24}.{version >> 16 & 255}", hint)
    library.uc_emu_start.argtypes = (c_void_p, c_uint64, c_uint64, c_uint64, c_size_t)
    library.uc_emu_stop.argtypes = (c_void_p,)
    library.uc_reg_read_batch.argtypes = (c_void_p, c_void_p, c_void_p, c_int)
    library.uc_reg_write_batch.argtypes = (c_void_p, c_void_p, c_void_p, c_int)
    library.uc_context_save.argtypes = library.uc_context_restore.argtypes = (c_void_p, c_void_p)
    library.uc_context_free.argtypes = library.uc_close.argtypes = (c_void_p,)
    library.uc_context_size.argtypes, library.uc_context_size.restype = (c_void_p,), c_size_t
    library.uc_mem_map_ptr.argtypes = (c_void_p, c_uint64, c_uint64, c_uint32, c_void_p)
    library.uc_reg_read.argtypes = library.uc_reg_write.argtypes = (c_void_p, c_int, c_void_p)
    SaveAndStop.get(library)  # now: a jailed island may not make memory executable
    return library


class SaveAndStop:
    """A C function `(engine, context)` in memory of its own: `uc_context_save`, then `uc_emu_stop`.

    As two hooks the second is left out when another thread's stop has begun after the first was called; and if that
    thread is held up within `uc_emu_stop`, the engine runs on over the system call. Made once, kept for good.
    """

    address: int | None = None

    @classmethod
    def get(cls, library: Any) -> c_void_p | None:
        """Return the function, None on hosts with other instructions or without memory for them."""
        if cls.address is None and os.uname().machine == "x86_64":
            cls.address = cls._make(library)
        return c_void_p(cls.address) if cls.address else None

    @staticmethod
    def _make(library: Any) -> int:
        save, stop = (ctypes.cast(call, c_void_p).value or 0 for call in (library.uc_context_save, library.uc_emu_stop))
        # push rdi; mov rax, save; call rax; pop rdi; mov rax, stop; jmp rax  (System V ABI: arguments stay in place)
        code = (
            b"\x57\x48\xb8" + struct.pack("<Q", save) + b"\xff\xd0\x5f\x48\xb8" + struct.pack("<Q", stop) + b"\xff\xe0"
        )
        page = mmap.mmap(-1, PAGE)
        page[: len(code)] = code
        address = addressof(c_char.from_buffer(page))
        _kept.append(page)
        return 0 if _libc.mprotect(c_void_p(address), PAGE, mmap.PROT_READ | mmap.PROT_EXEC) else address


_kept: list[mmap.mmap] = []


class Batch:
    """Registers that are read or written by one call, each at its offset from `base` in the host's memory."""

    def __init__(self, base: int, places: list[tuple[int, int]]) -> None:
        self.count = len(places)
        self.registers = (c_int * self.count)(*(register for register, _ in places))
        self.addresses = (c_void_p * self.count)(*(base + offset for _, offset in places))


class Engine:
    """A Haswell without AVX, XSAVE and FSGSBASE: what Unicorn can do. Raises HostError when it cannot be made."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self.vector: int = NO_VECTOR
        """Exception that stopped the engine, or REFUSED for an instruction that ring 3 may not use."""
        handle = c_void_p()
        if library.uc_open(ARCH_X86, MODE_64, byref(handle)):
            raise HostError("no more emulated processors", "Unicorn refuses another engine")
        self._handle = handle
        self.walker: Walker | None = None
        """Whoever walks the tables instead of the engine, to count what it reads."""
        self._contexts: list[c_void_p] = []
        self._control(CTL_CPU_MODEL, c_int(CPU_HASWELL))
        self._control(CTL_BUFFER_SIZE, c_uint32(CODE_BUFFER))
        self._control(CTL_USE_EXITS, c_int(1))  # and none is set: no address means "stop here"
        self._set_up_registers()
        self._saved, self._scratch, self._before = (self._new_context() for _ in range(3))
        self._calibrate()
        self._stop_between_blocks_only()
        self._add_hooks()

    def _set_up_registers(self) -> None:
        self._file = (c_uint64 * GPR_COUNT)()
        self.gpr = memoryview(self._file).cast("B").cast("Q")
        places = [(register, 8 * index) for index, register in enumerate(REG_GPR)]
        self._all = Batch(addressof(self._file), places)
        self._settable = Batch(addressof(self._file), [place for place in places if place[0] != REG_RIP])

    # ---- calls ---------------------------------------------------------------------------------------------------

    def _control(self, kind: int, *arguments: Any) -> None:
        failure = self._library.uc_ctl(self._handle, c_int(kind | len(arguments) << 26 | CTL_WRITE), *arguments)
        assert not failure, f"uc_ctl {kind}: {failure}"

    def _set(self, register: int, value: Any) -> None:
        failure = self._library.uc_reg_write(self._handle, register, byref(value))
        assert not failure, f"uc_reg_write {register}: {failure}"

    def _get(self, register: int) -> int:
        value = c_uint64()
        self._library.uc_reg_read(self._handle, register, byref(value))
        return value.value

    def _new_context(self) -> tuple[c_void_p, memoryview, memoryview]:
        """Return a place for the engine's registers, as 64-bit and as 32-bit words."""
        context = c_void_p()
        if self._library.uc_context_alloc(self._handle, byref(context)) or not context.value:
            raise HostError("no more emulated processors", "Unicorn is out of memory")
        self._contexts.append(context)
        size = self._library.uc_context_size(self._handle) & ~7
        view = memoryview((c_char * size).from_address(context.value)).cast("B")
        return context, view.cast("Q"), view.cast("i")

    def _calibrate(self) -> None:
        """Find the few fields of QEMU's CPUX86State that have no register number, by a pattern in a known neighbour."""
        library, pattern = self._library, 0x5EED_0000_CA11_B8A7
        context, words, _ = self._scratch
        self._set(REG_DR0, c_uint64(pattern))
        self._set(REG_RIP, c_uint64(pattern + 1))
        library.uc_context_save(self._handle, context)
        content = words.tolist()
        self._set(REG_DR0, c_uint64(0))
        if content.count(pattern) != 1 or content[CONTEXT_RIP] != pattern + 1:
            why = "its processor state is laid out differently"
            raise HostError("this Unicorn library is unknown", why, HINT_UNKNOWN)
        # target/i386/cpu.h: int error_code, exception_is_int; u64 next_eip, dr[8]; void *points[4]; int old_exception
        halves = 2 * content.index(pattern)
        self._error_code, self._is_int, self._old_exception = halves - 4, halves - 3, halves + 2 * 12

    def _stop_between_blocks_only(self) -> None:
        """Set `no_exit_request` of `struct uc_struct`, so that `stop` never takes effect inside an instruction.

        Unicorn looks for a stop after every memory access and then puts RIP back to the instruction, although its store
        is done: `inc [mem]` would count twice. With the flag it looks at the start of blocks only.
        """
        # include/uc_priv.h: int context_content, cpu_context_size; u64 next_pc;
        #                    bool hook_insert, first_tb, no_exit_request, init_done
        address, library = self._handle.value or 0, self._library
        content = (c_char * _libc.malloc_usable_size(self._handle)).from_address(address)
        size = library.uc_context_size(self._handle) - HEADER
        found: list[int] = []
        for mode in (CONTEXT_MEMORY, CONTEXT_CPU):
            self._control(CTL_CONTEXT_MODE, c_int(mode))
            found.append(bytes(content).find(struct.pack("<ii", mode, size)))
        booleans = (found[0] + 8 + 7 & ~7) + 8
        flags = bytes(content)[booleans : booleans + 4]
        if found[0] < 0 or found[0] != found[1] or flags[2:] != b"\0\1":
            raise HostError("this Unicorn library is unknown", "its stop requests work differently", HINT_UNKNOWN)
        c_uint8.from_address(address + booleans + 2).value = 1

    def _add_hooks(self) -> None:
        library = self._library
        self._on_interrupt = _INTERRUPT_HOOK(self._interrupted)
        self._on_refused = _REFUSE_HOOK(self._refused)
        stop, save = (ctypes.cast(call, c_void_p) for call in (library.uc_emu_stop, library.uc_context_save))
        refuse = ctypes.cast(self._on_refused, c_void_p)
        both = SaveAndStop.get(library)
        self._hook(HOOK_INSN, both or save, self._saved[0], INSN_SYSCALL)
        if not both:
            self._hook(HOOK_INSN, stop, None, INSN_SYSCALL)
        self._hook(HOOK_INTR, ctypes.cast(self._on_interrupt, c_void_p), None)
        self._hook(HOOK_INTR, stop, None)
        for instruction in (INSN_IN, INSN_OUT, INSN_SYSENTER):  # Unicorn lets every ring use them
            self._hook(HOOK_INSN, refuse, None, instruction)

    def _hook(self, kind: int, callback: c_void_p, argument: c_void_p | None, *extra: int) -> None:
        everywhere = c_uint64(1), c_uint64(0)
        failure = self._library.uc_hook_add(
            self._handle, byref(c_void_p()), kind, callback, argument, *everywhere, *(c_int(word) for word in extra)
        )
        assert not failure, f"uc_hook_add {kind}: {failure}"

    def _interrupted(self, _handle: int, vector: int) -> None:
        if self.vector == NO_VECTOR:
            self.vector = vector

    def _refused(self, _handle: int) -> int:
        """Note an instruction that must not be executed. The engine goes on to the end of its block; `start` undoes it.

        What the rest of the block stores cannot be undone.
        """
        self._library.uc_context_save(self._handle, self._before[0])
        self.vector = REFUSED
        self._library.uc_emu_stop(self._handle)
        return 0

    # ---- running -------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Give the engine the registers of `gpr`."""
        self.write(self._settable)

    def start(self) -> int:
        """Run at `gpr[RIP]` until something stops it; store the registers to `gpr`; return Unicorn's error."""
        library, handle, batch = self._library, self._handle, self._all
        self.vector = NO_VECTOR
        self._saved[1][CONTEXT_RIP] = NOT_SAVED
        failure = library.uc_emu_start(handle, self.gpr[RIP], 0, 0, 0)
        if failure and self.walker and self.walker.refused:
            failure = self._start_unwalked()
        if int(self.vector) == REFUSED:  # set by a hook
            library.uc_context_restore(handle, self._before[0])
        library.uc_reg_read_batch(handle, batch.registers, batch.addresses, batch.count)
        return int(failure)

    def _start_unwalked(self) -> int:
        """Repeat the instruction that our walker could not translate for, with the engine's own walk and its #PF."""
        library, handle, batch = self._library, self._handle, self._all
        if self.walker:
            self.walker.refused = False
        library.uc_reg_read_batch(handle, batch.registers, batch.addresses, batch.count)
        self._control(CTL_TLB_TYPE, c_int(TLB_CPU))
        failure = library.uc_emu_start(handle, self.gpr[RIP], 0, 0, 0)
        self._control(CTL_TLB_TYPE, c_int(TLB_VIRTUAL))
        return int(failure)

    def in_system_call(self) -> bool:
        """Return whether the last `start` ended at SYSCALL; RIP is after it then."""
        return self._saved[1][CONTEXT_RIP] != NOT_SAVED

    def set_exits(self, addresses: Collection[int]) -> None:
        """Stop before the instructions at these addresses, and at no others. Code translated earlier does not stop."""
        content = (c_uint64 * max(len(addresses), 1))(*addresses)
        self._control(CTL_EXITS, content, c_size_t(len(addresses)))

    def stop(self) -> None:
        """Stop a running engine, from any thread. One that is about to start does not notice."""
        self._library.uc_emu_stop(self._handle)

    def take_exception(self) -> tuple[int, int, bool]:
        """Return vector, error code and "by INT n" of the last stop, and let the next exception be a first one."""
        if self.vector == REFUSED:
            return Vector.GP, 0, False
        context, _, halves = self._scratch
        self._library.uc_context_save(self._handle, context)
        # QEMU remembers an exception until it is delivered, to raise #DF; ours is delivered now.
        halves[self._old_exception] = -1
        self._library.uc_context_restore(self._handle, context)
        return self.vector, halves[self._error_code], bool(halves[self._is_int])

    @property
    def fault_address(self) -> int:
        return self._get(REG_CR2)

    def enter_ring_3(self, root: Gpa, nowhere: int) -> None:
        """Turn paging on and leave ring 0 for good. Requires: `root` maps the SYSRET stub, nothing at `nowhere`."""
        self._set(REG_MSR, _Msr(0xC000_0080, Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE))
        self._set(REG_MSR, _Msr(Msr.STAR, supervisor.STAR))
        self._set(REG_GDTR, _TableRegister(base=layout.GDT, limit=len(supervisor.GDT) - 1))
        self._set(REG_CR4, c_uint64(Cr4.PAE | Cr4.OSFXSR | Cr4.OSXMMEXCPT))  # no FSGSBASE, as on KVM
        self.set_root(root)
        self._set(REG_CR0, c_uint64(Cr0.PE | Cr0.MP | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.AM | Cr0.PG))
        self.gpr[2], self.gpr[R8 + 3], self.gpr[RFLAGS] = nowhere, 0x202, 0x2  # SYSRET: RIP := RCX, RFLAGS := R11
        self.load()
        self.gpr[RIP] = supervisor.SYSRET_ADDRESS
        self.start()
        if self.vector != Vector.PF or self.gpr[RIP] != nowhere or not self.take_exception()[1] & 4:
            raise HostError("this Unicorn library is unknown", "its processor does not get to ring 3")

    # ---- memory and state ----------------------------------------------------------------------------------------

    def map(self, gpa: Gpa, hva: Hva, size: int) -> None:
        """Let the physical range be the host's memory at `hva`."""
        if self._library.uc_mem_map_ptr(self._handle, gpa, size, PROT_ALL, hva):
            raise HostError("Unicorn refuses guest memory", f"{size} bytes at {gpa:#x}")

    def set_root(self, root: Gpa) -> None:
        """Translate through the tables at `root`; forgets all translations of addresses."""
        self._set(REG_CR3, c_uint64(root))
        if self.walker:
            self.walker.root = root

    def walk_by(self, walker: "Walker") -> None:
        """Let `walker` read the page tables from now on. Requires: in ring 3."""
        self.walker = walker
        self._hook(HOOK_TLB_FILL, ctypes.cast(walker.callback, c_void_p), None)
        self._control(CTL_TLB_TYPE, c_int(TLB_VIRTUAL))
        self.flush_translations()

    def flush_translations(self) -> None:
        self._control(CTL_FLUSH_TLB)

    def flush_code(self) -> None:
        """Forget all translated code."""
        self._control(CTL_FLUSH_CODE)

    def drop_code(self, address: int, size: int) -> None:
        """Forget the code translated from a range of addresses that is one run of physical memory."""
        self._control(CTL_REMOVE_CODE, c_uint64(address), c_uint64(address + size))

    def base(self, register: int) -> int:
        return self._get(register)

    def set_base(self, register: int, value: int) -> None:
        self._set(register, c_uint64(value))

    def read(self, batch: Batch) -> None:
        self._library.uc_reg_read_batch(self._handle, batch.registers, batch.addresses, batch.count)

    def write(self, batch: Batch) -> None:
        self._library.uc_reg_write_batch(self._handle, batch.registers, batch.addresses, batch.count)

    def close(self) -> None:
        self.gpr.release()
        for _, words, halves in (self._saved, self._scratch, self._before):
            words.release()
            halves.release()
        for context in self._contexts:
            self._library.uc_context_free(context)
        self._library.uc_close(self._handle)
