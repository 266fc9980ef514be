"""What each control over a ring-3 instruction really does on this host: each is set in a scratch machine and tried.

Nothing is read back and believed: some hypervisors accept a mask or a control bit, return it when asked, and go on as
before. A control counts as effective only when the instruction itself behaved differently. Runs on the calling thread.
"""

import contextlib
from collections.abc import Callable

from enisle.abi import kvm, kvm_control
from enisle.abi.types import PAGE, Gpa, Gva
from enisle.abi.x86 import GPR_COUNT, RAX, RBX, RCX, RDX, RIP, RSI, RSP, Cr4, Msr, Vector
from enisle.machine.kvm import KvmProcessor
from enisle.machine.machine import MINIMUM_MEMORY, Machine
from enisle.machine.pagetables import leaf_flags
from enisle.machine.processor import Exit, PageFault, Processor, ProcessorException, Syscall
from enisle.records import Record

CODE, STACK, DATA = Gva(0x40_0000), Gva(0x50_0000), Gva(0x60_0000)
END = b"\x0f\x05"  # syscall
CPUID, XGETBV, RDTSC, RDPMC = b"\x0f\xa2", b"\x0f\x01\xd0", b"\x0f\x31", b"\x0f\x33"
RDFSBASE, SGDT = b"\xf3\x48\x0f\xae\xc0", b"\x0f\x01\x06"  # rdfsbase rax; sgdt [rsi]
VADDPS_YMM = b"\xc5\xf4\x58\xc2"
VADDPS_ZMM = b"\x62\xf1\x74\x48\x58\xc2"
RDMSR, XSETBV = b"\x0f\x32", b"\x0f\x01\xd1"
SAMPLES = {
    name: bytes.fromhex(code)
    for name, code in {
        "avx": "c5f458c2",  # vaddps ymm0, ymm1, ymm2
        "f16c": "c4e27d13c1",  # vcvtph2ps ymm0, xmm1
        "fma": "c4e27598c2",  # vfmadd132ps ymm0, ymm1, ymm2
        "avx2": "c5f5fec2",  # vpaddd ymm0, ymm1, ymm2
        "vaes": "c4e275dcc2",  # vaesenc ymm0, ymm1, ymm2
        "vpclmul": "c4e37544c200",  # vpclmulqdq ymm0, ymm1, ymm2, 0
        "avx_vnni": "c4e27550c2",  # vpdpbusd ymm0, ymm1, ymm2
        "avx512": "62f1744858c2",  # vaddps zmm0, zmm1, zmm2
        "amx": "c4e27849c0",  # tilerelease
        "xop": "8fe878c2c101",  # vprotd xmm0, xmm1, 1
        "fma4": "c4e37168c230",  # vfmaddps xmm0, xmm1, xmm2, xmm3
        "bmi1": "c4e270f2c2",  # andn eax, ecx, edx
        "bmi2": "c4e268f5c1",  # bzhi eax, ecx, edx
        "tbm": "8fe97801d1",  # blsfill eax, ecx
        "rtm": "0f01d6",  # xtest
    }.items()
}
"""One instruction of each class that cannot be trapped: what CPUID does not announce may execute all the same."""
SHORT_AVX = bytes.fromhex("c5f058c2")
"""vaddps xmm0, xmm1, xmm2, which Unicorn takes for ADDPS, although it refuses the one of 256 bits."""
AES_BIT, AVX_BIT = 1 << 25, 1 << 28
XCR0_SSE, XCR0_AVX = 3, 7


class Matrix(Record):
    """Which controls were seen to work. A false one may still be accepted by the hypervisor."""

    backend: str
    cpuid_mask: bool = False
    """Bits taken out of KVM_SET_CPUID2 are gone from what CPUID returns in ring 3."""
    cpuid_fault: bool = False
    """MSR_MISC_FEATURES_ENABLES makes CPUID fault in ring 3."""
    xcr0: bool = False
    """A component outside of XCR0 cannot be used, and XGETBV shows XCR0."""
    osxsave: bool = False
    tsd: bool = False
    rdpmc: bool = False
    """RDPMC faults in ring 3 while CR4.PCE is clear."""
    fsgsbase: bool = False
    umip: bool = False
    rdmsr: bool = False
    """RDMSR and WRMSR fault in ring 3."""
    xsetbv: bool = False
    """XSETBV faults in ring 3."""
    msr_filter: bool = False
    """KVM_X86_SET_MSR_FILTER with KVM_CAP_X86_USER_SPACE_MSR is there."""
    patch: bool = False
    """UD2 faults at itself, pages can be made non-executable, and taking that right away is seen."""
    step: bool = False
    """INT3 stops right after itself."""
    audit: bool = False
    """The host sees that a guest has used a vector component, and can take it away."""
    short_vectors: bool = False
    """VEX-encoded instructions of 128 bits execute where there is no AVX: an emulator takes them for those of SSE."""
    undefined: tuple[str, ...] = ()
    """Classes of which an instruction was undefined, whatever CPUID says."""


class Bench:
    """A scratch machine: one page of code, one of stack, one of data."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.memory = machine, machine.memory
        self.space = machine.new_address_space()
        self.code = self._page(CODE, leaf_flags(True, False, True))
        self._page(STACK, leaf_flags(True, True, False))
        self._page(DATA, leaf_flags(True, True, False))

    def _page(self, address: Gva, flags: int) -> Gpa:
        frame = self.memory.allocate_frame()
        self.space.map(address, frame, 1, flags)
        return frame

    def run(self, code: bytes, processor: Processor | None = None, **registers: int) -> tuple[Exit, list[int]]:
        """Run `code` on a processor (a fresh one when none is given); return how it ended and the registers."""
        processor = processor or self.processor()
        self.memory.write(self.code, code + END)
        gpr = processor.gpr
        for index in range(GPR_COUNT):
            gpr[index] = 0
        gpr[RIP], gpr[RSP] = CODE, STACK + PAGE - 64
        gpr[RAX], gpr[RCX], gpr[RSI] = registers.get("rax", 0), registers.get("rcx", 0), DATA
        exit = processor.run()
        return exit, [gpr[index] for index in range(GPR_COUNT)]

    def processor(self) -> Processor:
        processor = self.machine.acquire_processor()
        processor.enter(self.space.root)
        return processor

    def faults(self, code: bytes, prepare: Callable[[KvmProcessor], None] | None = None, **registers: int) -> bool:
        """Return whether `code` ends in #UD or #GP at itself on a processor prepared so."""
        processor = self.processor()
        if prepare and isinstance(processor, KvmProcessor):
            prepare(processor)
        exit, gpr = self.run(code, processor, **registers)
        return isinstance(exit, ProcessorException) and exit.vector in (Vector.UD, Vector.GP) and gpr[RIP] == CODE


def measure(backend: str) -> Matrix:
    """Try every control. Takes some 20 ms on KVM. Raises HostError when there is no such backend."""
    with Machine(backend, MINIMUM_MEMORY) as machine:
        bench = Bench(machine)
        bench.run(b"")  # the first trap tells in which ring a call arrives
        kvm = machine.backend == "kvm"
        return Matrix(
            machine.backend,
            cpuid_mask=kvm and _masks(bench),
            cpuid_fault=bench.faults(CPUID, _set_cpuid_fault),
            xcr0=_limits_components(bench),
            osxsave=bench.faults(XGETBV, lambda processor: processor.change_cr4(clear_bits=Cr4.OSXSAVE)),
            tsd=bench.faults(RDTSC, lambda processor: processor.change_cr4(set_bits=Cr4.TSD)),
            rdpmc=bench.faults(RDPMC),
            fsgsbase=bench.faults(RDFSBASE, lambda processor: processor.change_cr4(clear_bits=Cr4.FSGSBASE)),
            umip=bench.faults(SGDT, lambda processor: processor.change_cr4(set_bits=Cr4.UMIP)),
            rdmsr=bench.faults(RDMSR, rcx=Msr.FS_BASE),
            xsetbv=bench.faults(XSETBV),
            msr_filter=kvm and _filters(machine),
            patch=_patches(bench),
            step=_steps(bench),
            audit=kvm and _audits(bench),
            short_vectors=bench.faults(SAMPLES["avx"]) and not bench.faults(SHORT_AVX),
            undefined=tuple(name for name, code in SAMPLES.items() if bench.faults(code)),
        )


# ---- controls --------------------------------------------------------------------------------------------------------


def _set_cpuid_fault(processor: KvmProcessor) -> None:
    with contextlib.suppress(OSError):
        kvm.KVM_SET_MSRS(processor.fd, kvm.msrs({Msr.PLATFORM_INFO: 1 << 31}))
        kvm.KVM_SET_MSRS(processor.fd, kvm.msrs({Msr.MISC_FEATURES_ENABLES: 1}))


def set_xcr0(processor: KvmProcessor, value: int) -> bool:
    """Ask KVM for this XCR0; return whether it was accepted, which says nothing about its effect."""
    try:
        kvm.KVM_SET_XCRS(processor.fd, kvm.kvm_xcrs(1, 0, (kvm.kvm_xcr * 16)((0, 0, value))))
    except OSError:
        return False
    return True


def _masks(bench: Bench) -> bool:
    """Take features out of leaf 1 and look whether ring 3 still sees one of them."""
    full = bench.run(CPUID, rax=1)[1][RCX]
    wanted = full & (AES_BIT | AVX_BIT)
    if not wanted:
        return False  # nothing here that could be seen to vanish
    processor = bench.processor()
    assert isinstance(processor, KvmProcessor)
    table = kvm.kvm_cpuid2.from_buffer_copy(processor.cpuid_table())
    for entry in table.entries[: table.nent]:
        if entry.function == 1:
            entry.ecx &= ~wanted & 0xFFFF_FFFF
    try:
        kvm.KVM_SET_CPUID2(processor.fd, table)
    except OSError:
        return False
    exit, gpr = bench.run(CPUID, processor, rax=1)
    return isinstance(exit, Syscall) and not gpr[RCX] & wanted and bool(gpr[RBX] | gpr[RDX])


def _limits_components(bench: Bench) -> bool:
    """Take AVX out of XCR0 and look whether its instructions fault. A processor without AVX has no such component."""

    def limit(processor: KvmProcessor) -> None:
        set_xcr0(processor, XCR0_SSE)

    return bench.faults(VADDPS_YMM, limit)


def _filters(machine: Machine) -> bool:
    check = machine.check_extension
    return bool(check(kvm_control.KVM_CAP_X86_MSR_FILTER) and check(kvm_control.KVM_CAP_X86_USER_SPACE_MSR))


def _audits(bench: Bench) -> bool:
    """Let a guest use YMM registers; look whether XSTATE_BV tells, and whether the state can be taken away."""
    processor = bench.processor()
    processor.xrstor(_initial_area())
    exit, _ = bench.run(b"\xc5\xfc\x28\xc1" + VADDPS_YMM, processor)  # vmovaps ymm0, ymm1
    if not isinstance(exit, Syscall):
        return False
    return bool(processor.xsave()[512] & 4) or _audits_values(bench, processor)


def _audits_values(bench: Bench, processor: Processor) -> bool:
    """YMM registers that are all zero need not be marked in use: give them a value (vpcmpeqd is AVX2)."""
    exit, _ = bench.run(b"\xc5\xfd\x76\xc0", processor)
    return isinstance(exit, Syscall) and bool(processor.xsave()[512] & 4)


def _initial_area() -> bytes:
    area = bytearray(576)
    area[0:2], area[24:28], area[512] = b"\x7f\x03", b"\x80\x1f\x00\x00", 3
    return bytes(area)


def _patches(bench: Bench) -> bool:
    """UD2 faults at itself; a page loses its right to execute and the processor sees that."""
    if not bench.faults(b"\x0f\x0b"):
        return False
    processor = bench.processor()
    if not isinstance(bench.run(b"", processor)[0], Syscall):
        return False
    bench.space.protect(CODE, 1, leaf_flags(True, False, False))
    exit, gpr = bench.run(b"", processor)
    bench.space.protect(CODE, 1, leaf_flags(True, False, True))
    works = isinstance(exit, PageFault) and exit.execute and gpr[RIP] == CODE
    return works and isinstance(bench.run(b"", processor)[0], Syscall)


def _steps(bench: Bench) -> bool:
    exit, gpr = bench.run(b"\xcc")
    return isinstance(exit, ProcessorException) and exit.vector == Vector.BP and gpr[RIP] == CODE + 1
