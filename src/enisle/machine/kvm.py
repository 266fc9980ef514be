"""The `kvm` backend: a machine on /dev/kvm whose guests run in ring 3.

Registers travel in the mapped `kvm_run` page (KVM_CAP_SYNC_REGS); an exit costs no ioctl but KVM_RUN. Whether SYSCALL
enters ring 0 (VMX, SVM) or stays in ring 3 (software KVM) is measured at the first trap, never assumed.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import signal
import threading
import time

from enisle.abi import host, kvm
from enisle.abi.types import PAGE, Gpa, Hva
from enisle.abi.x86 import (
    GPR_COUNT,
    R11,
    RCX,
    RFLAGS,
    RIP,
    RSP,
    Cr0,
    Cr4,
    Efer,
    Msr,
    PageFaultError,
    Vector,
)
from enisle.errors import HostError
from enisle.machine import layout, supervisor
from enisle.machine.exitless import CallSlot
from enisle.machine.pagetables import AddressSpace
from enisle.machine.processor import BUS_ERROR, INTERRUPTED, SYSCALL, Exit, Halt, PageFault, ProcessorException

KICK_SIGNAL = signal.SIGRTMIN + 4
KVM_RUN = kvm.KVM_RUN.request
DIRTY_REGS = kvm.KVM_SYNC_X86_REGS
DIRTY_ALL = kvm.KVM_SYNC_X86_REGS | kvm.KVM_SYNC_X86_SREGS
USER_RFLAGS = 0x3F7FD5 & ~0x3000  # what ring 3 may set (no IOPL, no VM)
FIXED_RFLAGS = 0x202  # bit 1 is always set; interrupts stay enabled
MASKED_FLAGS = 0x47700  # SFMASK as Linux sets it: TF IF DF IOPL NT AC
KVM_TSS_ADDRESS = 0xFFFB_D000
SPARE_SLOT, SPARE_GPA = 30_000, 1 << 45
FP_USER_CR0 = Cr0.PE | Cr0.MP | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.AM | Cr0.PG
XCR0_X87_SSE = 3
XSAVE_LEGACY_SIZE = 576


def install_kick_handler() -> None:
    """Give the kick signal a C handler that does nothing, so that it only interrupts (sigaction(2), no SA_RESTART)."""
    libc = ctypes.CDLL(None, use_errno=True)
    handler = ctypes.cast(libc.getpid, ctypes.c_void_p).value
    libc.sigaction(int(KICK_SIGNAL), (ctypes.c_uint64 * 19)(handler or 0), None)


class Vm:
    """One KVM virtual machine: its descriptor, memory slots and what its processors have in common."""

    def __init__(self, path: str = "/dev/kvm") -> None:
        self._kvm = _open(path)
        try:
            version = kvm.KVM_GET_API_VERSION(self._kvm)
            if version != kvm.KVM_API_VERSION:
                raise HostError("this KVM is too old", f"API version {version}, not {kvm.KVM_API_VERSION}")
            if kvm.KVM_CHECK_EXTENSION(self._kvm, kvm.KVM_CAP_SYNC_REGS) & DIRTY_ALL != DIRTY_ALL:
                raise HostError("this KVM cannot pass registers in memory", "KVM_CAP_SYNC_REGS is missing")
            self.fd = kvm.KVM_CREATE_VM(self._kvm)
        except BaseException:
            os.close(self._kvm)
            raise
        self._slots = 0
        self.spare: dict[int, int] = {}
        """Descriptors by number of processors that could not be completed: KVM makes each number once."""
        self.syscall_ring: int | None = None
        """The ring in which LSTAR's code runs; None until the first trap."""
        self.run_size = kvm.KVM_GET_VCPU_MMAP_SIZE(self._kvm)
        self.max_processors = max(1, kvm.KVM_CHECK_EXTENSION(self._kvm, kvm.KVM_CAP_MAX_VCPUS))
        self.cpuid = kvm.kvm_cpuid2(nent=kvm.CPUID_ENTRIES)
        kvm.KVM_GET_SUPPORTED_CPUID(self._kvm, self.cpuid)
        self.xcr0 = self._supported_xcr0()
        self.xsave_size = self._xsave_size()
        with contextlib.suppress(OSError):  # needed by VMX without unrestricted guest only
            kvm.KVM_SET_TSS_ADDR(self.fd, KVM_TSS_ADDRESS)

    @property
    def keeps(self) -> int:
        """Components that a processor's `xsave` and `xrstor` keep."""
        return self.xcr0

    def _supported_xcr0(self) -> int:
        for entry in self.cpuid.entries[: self.cpuid.nent]:
            if entry.function == 0xD and entry.index == 0:
                return entry.eax | entry.edx << 32
        return XCR0_X87_SSE

    def _xsave_size(self) -> int:
        """Return where the last enabled component of a standard-format area ends (SDM 1 13.4.3)."""
        ends = [
            entry.ebx + entry.eax
            for entry in self.cpuid.entries[: self.cpuid.nent]
            if entry.function == 0xD and entry.index >= 2 and self.xcr0 >> entry.index & 1
        ]
        return max([XSAVE_LEGACY_SIZE, *ends])

    def take_processor(self, number: int) -> int:
        """Return the descriptor of a bare processor. Raises OSError when the host has no more."""
        return self.spare.pop(number) if number in self.spare else kvm.KVM_CREATE_VCPU(self.fd, number)

    def add_extent(self, gpa: Gpa, hva: Hva, size: int) -> None:
        """Let the guest's physical range [gpa, gpa + size) be the host's memory at `hva`."""
        region = kvm.kvm_userspace_memory_region(self._slots, 0, gpa, size, hva)
        kvm.KVM_SET_USER_MEMORY_REGION(self.fd, region)
        self._slots += 1

    def forget_tables(self) -> None:
        """Make KVM drop every shadow of a guest page table: deleting any memory slot does (kvm_mmu_zap_all_fast)."""
        page = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        for size in (PAGE, 0):
            region = kvm.kvm_userspace_memory_region(SPARE_SLOT, 0, SPARE_GPA, size, address)
            kvm.KVM_SET_USER_MEMORY_REGION(self.fd, region)

    def check_extension(self, number: int) -> int:
        return kvm.KVM_CHECK_EXTENSION(self._kvm, number)

    def counter_khz(self) -> int:
        """Return the rate of the guests' time-stamp counter; 0 when KVM does not say."""
        try:
            return kvm.KVM_GET_TSC_KHZ(self.fd)  # of the VM since Linux 5.18 (KVM_CAP_VM_TSC_CONTROL)
        except OSError:
            return 0

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._kvm)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        hint = "enable virtualization in the firmware and load kvm_intel or kvm_amd; or use --processor emulated"
        raise HostError("no KVM on this computer", f"{path} does not exist", hint) from None
    except PermissionError:
        hint = "add yourself to the group that owns it (often `sudo usermod -aG kvm $USER`), then sign in again"
        raise HostError("KVM may not be used", f"no permission on {path}", hint) from None
    except OSError as error:
        raise HostError("KVM cannot be used", f"{path}: {error.strerror}", "run `enisle doctor`") from error


class KvmProcessor:
    """One virtual processor. Only `kick` may be called from a thread that does not run it."""

    def __init__(self, vm: Vm, machine_supervisor: supervisor.Supervisor, number: int) -> None:
        self._vm = vm
        self._fd = vm.take_processor(number)
        try:
            tss, self._frame = machine_supervisor.add_processor()
            self._map = mmap.mmap(self._fd, vm.run_size)
        except BaseException:
            vm.spare[number] = self._fd
            raise
        view = memoryview(self._map)
        self._words, self._halves = view.cast("Q"), view.cast("I")
        self._immediate = view[kvm.RUN_IMMEDIATE_EXIT : kvm.RUN_IMMEDIATE_EXIT + 1]
        self.gpr = self._words[kvm.RUN_REGS // 8 : kvm.RUN_REGS // 8 + GPR_COUNT]
        self._sregs = kvm.kvm_sregs.from_buffer(self._map, kvm.RUN_SREGS)
        self.exits = 0
        self._thread = 0
        self._sysret = False
        self._dirty = DIRTY_ALL
        self._number = number
        self._redirected, self._next_root = False, Gpa(0)
        self._untouched: list[int] = []
        """The registers as an interrupted run left them, while that run may not be over (`_dirty` is 0)."""
        self.slot: CallSlot | None = None
        self._supervisor, self._memory = machine_supervisor, machine_supervisor.memory
        self._set_up(tss)

    def _set_up(self, tss: int) -> None:
        kvm.KVM_SET_CPUID2(self._fd, self._vm.cpuid)
        sregs = self._sregs
        kvm.KVM_GET_SREGS(self._fd, sregs)
        _set_segments(sregs, tss)
        sregs.cr0, sregs.efer = FP_USER_CR0, Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE
        # No FSGSBASE: bases then change by arch_prctl only, and HWCAP2 says so to programs.
        sregs.cr4 = Cr4.PAE | Cr4.OSFXSR | Cr4.OSXMMEXCPT | (Cr4.OSXSAVE if self._vm.xcr0 > 1 else 0)
        kvm.KVM_SET_SREGS(self._fd, sregs)
        if self._vm.xcr0 > 1:
            with contextlib.suppress(OSError):  # the kernel below keeps its own value then
                kvm.KVM_SET_XCRS(self._fd, kvm.kvm_xcrs(1, 0, (kvm.kvm_xcr * 16)((0, 0, self._vm.xcr0))))
        self._set_msrs({Msr.STAR: supervisor.STAR, Msr.LSTAR: layout.SYSCALL_STUB, Msr.SFMASK: 0})
        with contextlib.suppress(OSError):  # the guest's TSC is the host's, so that the vDSO's clock is
            offset = ctypes.c_uint64(0)
            attribute = kvm.kvm_device_attr(0, kvm.KVM_VCPU_TSC_CTRL, kvm.KVM_VCPU_TSC_OFFSET, ctypes.addressof(offset))
            kvm.KVM_SET_DEVICE_ATTR(self._fd, attribute)
        self._words[kvm.RUN_VALID_REGS // 8] = kvm.KVM_SYNC_X86_REGS

    def _set_msrs(self, values: dict[int, int]) -> None:
        done = kvm.KVM_SET_MSRS(self._fd, kvm.msrs(values))
        if done != len(values):
            raise HostError("this KVM refuses a model-specific register", f"{list(values)[done]:#x}")

    # ---- control over instructions (machine.enforcement) -----------------------------------------------------------

    @property
    def fd(self) -> int:
        return self._fd

    def cpuid_table(self) -> kvm.kvm_cpuid2:
        """Return what this processor was given; whether CPUID shows it is another question."""
        return self._vm.cpuid

    def change_cr4(self, set_bits: int = 0, clear_bits: int = 0) -> None:
        self._sregs.cr4 = self._sregs.cr4 & ~clear_bits | set_bits
        self._dirty = DIRTY_ALL

    # ---- state ---------------------------------------------------------------------------------------------------

    @property
    def fs_base(self) -> int:
        return self._sregs.fs.base

    @fs_base.setter
    def fs_base(self, value: int) -> None:
        self._sregs.fs.base = value
        self._dirty = DIRTY_ALL

    @property
    def gs_base(self) -> int:
        return self._sregs.gs.base

    @gs_base.setter
    def gs_base(self, value: int) -> None:
        self._sregs.gs.base = value
        self._dirty = DIRTY_ALL

    def enter(self, root: Gpa) -> None:
        self._redirected = False
        self._sregs.cr3 = root
        self._dirty = DIRTY_ALL

    def redirect(self, root: Gpa) -> None:
        self._next_root = root
        self._redirected = True
        self.kick()  # one that is about to go in comes back at once: it has not used its old root then
        me = threading.get_native_id()
        while self._redirected and self._thread not in (0, me):
            time.sleep(20e-6)  # lets the processor have the GIL

    def _follow_redirection(self) -> None:
        self._redirected = False  # first: a root that comes meanwhile is looked at once more
        sregs = kvm.kvm_sregs()
        kvm.KVM_GET_SREGS(self._fd, sregs)
        self._sregs.cr2 = sregs.cr2  # a page fault may wait to be delivered
        self._sregs.cr3 = self._next_root
        self._dirty = DIRTY_ALL

    def xsave(self) -> bytes:
        area = kvm.kvm_xsave()
        kvm.KVM_GET_XSAVE(self._fd, area)
        return bytes(area.region)

    def xrstor(self, image: bytes) -> None:
        area = kvm.kvm_xsave.from_buffer_copy(image.ljust(4096, b"\0"))
        kvm.KVM_SET_XSAVE(self._fd, area)

    def open_slot(self, space: AddressSpace) -> CallSlot | None:
        """Bind this processor's call slot to `space` and send system calls through it. Raises OutOfMemory.

        None as long as no trap has shown in which ring the stub would run.
        """
        ring = self._vm.syscall_ring
        if ring is None:
            return None
        if self.slot is None:
            self.slot = CallSlot(self._memory, self._number, ring, self._supervisor.exitless_stub(ring))
        if not self.slot.is_bound:
            self.slot.bind(space)
            self._set_msrs({Msr.LSTAR: self.slot.address})
        return self.slot

    def close_slot(self) -> None:
        """Send system calls through the exit door again."""
        if self.slot and self.slot.is_bound:
            self._set_msrs({Msr.LSTAR: layout.SYSCALL_STUB})
            self.slot.unbind()

    def close(self) -> None:
        del self._sregs
        for view in (self.gpr, self._immediate, self._words, self._halves):
            view.release()
        os.close(self._fd)

    # ---- running -------------------------------------------------------------------------------------------------

    def kick(self) -> None:
        self._immediate[0] = 1
        thread = self._thread  # one look: `run` may end meanwhile
        if thread:
            with contextlib.suppress(ProcessLookupError):  # by number: pthread_kill on an ended thread is a crash
                host.tgkill(os.getpid(), thread, KICK_SIGNAL)

    def run(self) -> Exit:
        gpr = self.gpr
        if gpr[RIP] >> 47:  # a forged return address; VMX would refuse the entry
            return ProcessorException(Vector.GP, 0)
        gpr[RFLAGS] = (gpr[RFLAGS] & USER_RFLAGS) | FIXED_RFLAGS
        if self._redirected:
            self._follow_redirection()
        if self._sysret and not self._dirty & kvm.KVM_SYNC_X86_SREGS:
            if gpr[RIP] == gpr[RCX] and gpr[RFLAGS] == gpr[R11] and gpr[RIP] < layout.SLOTS_END:
                gpr[RIP], gpr[RFLAGS] = supervisor.SYSRET_ADDRESS, 2
            else:
                self._dirty = DIRTY_ALL
        if not self._dirty and gpr.tolist() != self._untouched:
            self._dirty = DIRTY_REGS
        self._words[kvm.RUN_DIRTY_REGS // 8] = self._dirty
        self._thread = threading.get_native_id()
        epoch = self._memory.epoch
        try:
            self._enter_guest()
        except OSError as error:
            return self._failed(error, epoch)
        finally:
            self._thread = 0
            self.exits += 1
        self._dirty = DIRTY_REGS
        reason = self._halves[kvm.RUN_EXIT_REASON // 4]
        if reason == kvm.KVM_EXIT_IO:
            if self._vm.syscall_ring is None:
                self._measure_ring()
            self._sysret = self._vm.syscall_ring == 0
            if self.slot and self.slot.holds(gpr[RIP]):
                return SYSCALL if self.slot.settle(gpr) else INTERRUPTED
            gpr[RIP], gpr[RFLAGS] = gpr[RCX], gpr[R11]
            return SYSCALL
        if reason == kvm.KVM_EXIT_HLT:
            return self._exception()
        return self._unexpected(reason)

    def _enter_guest(self) -> None:
        """KVM_RUN. A kick that comes while ring 0 completes an exception waits until the stub has halted."""
        kicked = 0
        while True:
            try:
                fcntl.ioctl(self._fd, KVM_RUN, 0)
            except InterruptedError:
                if self.gpr[RIP] < layout.SUPERVISOR:
                    raise
                kicked, self._immediate[0] = 1, 0
                self._words[kvm.RUN_DIRTY_REGS // 8] = 0
                continue
            if kicked:
                self._immediate[0] = 1  # still owed: the next run answers it
            return

    def _measure_ring(self) -> None:
        sregs = kvm.kvm_sregs()
        kvm.KVM_GET_SREGS(self._fd, sregs)
        self._vm.syscall_ring = sregs.cs.selector & 3

    def _failed(self, error: OSError, epoch: int) -> Exit:
        self._thread = 0  # out of the guest, before anything is waited for
        if error.errno == errno.EINTR:
            return self._interrupted()
        self._dirty = DIRTY_ALL
        if error.errno == errno.EFAULT:
            # A flush makes the host's mapping unusable for a moment: then just go on.
            return INTERRUPTED if epoch & 1 or self._memory.epoch != epoch else BUS_ERROR
        return Halt(f"KVM_RUN: {error.strerror}")

    def _interrupted(self) -> Exit:
        """Come back from a kick; a guest caught inside a stub is brought to where its program is."""
        self._immediate[0] = 0
        self._sysret = False
        gpr = self.gpr
        entering = False
        # Outside of a stub registers go back only if they are changed: an exception may wait to be delivered, and CR2
        # with it, and KVM_SET_REGS forgets one. A fault comes again; the #BP of an INT3 that RIP is behind does not.
        self._dirty, self._untouched = 0, gpr.tolist()
        if self.slot and self.slot.holds(gpr[RIP]):
            self._dirty = DIRTY_ALL
            entering = self.slot.settle(gpr)
        elif layout.SYSCALL_STUB <= gpr[RIP] < layout.SYSCALL_STUB + PAGE:
            self._dirty = DIRTY_ALL
            entering = gpr[RIP] == layout.SYSCALL_STUB
            gpr[RIP], gpr[RFLAGS] = gpr[RCX], gpr[R11]
        if entering:
            self._immediate[0] = 1  # the kick is still owed: the next run answers it
        return SYSCALL if entering else INTERRUPTED

    def _exception(self) -> Exit:
        """Turn the frame on the processor's stack into an exit, with the ring-3 registers in place."""
        words = self._memory.words[self._frame >> 3 : (self._frame >> 3) + supervisor.FRAME_WORDS].tolist()
        frame = supervisor.ExceptionFrame(*words)
        if frame.cs & 3 != 3:
            return Halt(f"exception in a stub: {frame}")
        gpr = self.gpr
        gpr[RIP], gpr[RSP], gpr[RFLAGS] = frame.rip, frame.rsp, frame.rflags
        self._sysret = False
        self._dirty = DIRTY_ALL  # leave ring 0: load the ring-3 segments
        if frame.vector == Vector.PF:
            code = frame.error_code
            return PageFault(
                frame.cr2,  # type: ignore[arg-type]  # the processor's own word
                bool(code & PageFaultError.WRITE),
                bool(code & PageFaultError.FETCH),
                bool(code & PageFaultError.PRESENT),
            )
        return ProcessorException(frame.vector, frame.error_code)

    def _unexpected(self, reason: int) -> Exit:
        if reason == kvm.KVM_EXIT_INTR:
            return self._interrupted()
        detail = self._words[kvm.RUN_UNION // 8]
        return Halt(f"KVM exit {reason} (detail {detail:#x}) at {self.gpr[RIP]:#x}")


def _set_segments(sregs: kvm.kvm_sregs, tss: int) -> None:
    """Put the processor into ring 3 of a flat 64-bit machine (SDM 3A 3.4.5)."""
    flat = {"base": 0, "limit": 0xFFFF_FFFF, "present": 1, "dpl": 3, "s": 1, "g": 1, "avl": 0, "unusable": 0}
    for name in ("ds", "es", "fs", "gs", "ss"):
        setattr(sregs, name, kvm.kvm_segment(selector=supervisor.USER_DS, type=3, db=1, l=0, **flat))
    sregs.cs = kvm.kvm_segment(selector=supervisor.USER_CS, type=11, db=0, l=1, **flat)
    limit = supervisor.TSS_SIZE + supervisor.IO_BITMAP_BYTES
    sregs.tr = kvm.kvm_segment(base=tss, limit=limit, selector=supervisor.TSS_SELECTOR, type=11, present=1)
    sregs.ldt = kvm.kvm_segment(unusable=1)
    sregs.gdt = kvm.kvm_dtable(base=layout.GDT, limit=len(supervisor.GDT) - 1)
    sregs.idt = kvm.kvm_dtable(base=layout.IDT, limit=32 * 16 - 1)
