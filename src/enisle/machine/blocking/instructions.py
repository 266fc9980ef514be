"""The instruction classes a blocking value speaks of, what may be done with one, and what a refusal looks like.

Two kinds of class. *Coded* ones execute several functions, told apart by a code in a register (`CODES`): CPUID by
leaf, RDMSR by ECX … *Levels* are families of instructions behind one or more features of CPUID (`LEVELS`); their code
is the index of the feature in that tuple. Data only; imported when a machine has a blocking value.
"""

from enum import IntEnum, StrEnum

from enisle.abi.x86 import VECTORS_WITH_ERROR_CODE, Vector
from enisle.records import Record


class Action(IntEnum):
    """What becomes of a function, from the freest to the strictest: levels compose by the largest."""

    ALLOW = 0
    EMULATE = 1
    """Software answers it (CPUID, MSRs …) or executes it (instructions that are missing); the function is visible."""
    BLOCK = 2
    """The program exception, and nothing else changes; the function is not visible."""


class Refusal(IntEnum):
    """What a blocked system call answers; stricter ones are larger."""

    NONE = 0
    ENOSYS = 1
    EPERM = 2
    SIGSYS = 3
    """As SECCOMP_RET_TRAP (seccomp(2)): the thread gets SIGSYS, the registers keep the call."""
    EXCEPTION = 4
    """The program exception of `Instruction.SYSCALL`, RIP at the instruction."""


class Outcome(Record):
    """The program exception of a blocked function."""

    vector: int
    error_code: int = 0


UD, GP = Outcome(Vector.UD), Outcome(Vector.GP)


class Instruction(StrEnum):
    """A class of instructions."""

    CPUID = "cpuid"
    XGETBV = "xgetbv"
    XSETBV = "xsetbv"
    RDMSR = "rdmsr"
    WRMSR = "wrmsr"
    RDPMC = "rdpmc"
    RDTSC = "rdtsc"
    RDTSCP = "rdtscp"
    RDRAND = "rdrand"
    RDSEED = "rdseed"
    RDPID = "rdpid"
    SYSCALL = "syscall"
    VMCALL = "vmcall"
    # levels
    FSGSBASE = "fsgsbase"
    SSE3 = "sse3"
    SSSE3 = "ssse3"
    SSE4_1 = "sse4_1"
    SSE4_2 = "sse4_2"
    SSE4A = "sse4a"
    POPCNT = "popcnt"
    LZCNT = "lzcnt"
    BMI1 = "bmi1"
    BMI2 = "bmi2"
    ADX = "adx"
    MOVBE = "movbe"
    CMPXCHG16B = "cmpxchg16b"
    LAHF = "lahf"
    AES = "aes"
    PCLMUL = "pclmul"
    SHA = "sha"
    GFNI = "gfni"
    XSAVE = "xsave"
    AVX = "avx"
    F16C = "f16c"
    FMA = "fma"
    AVX2 = "avx2"
    VAES = "vaes"
    VPCLMUL = "vpclmul"
    AVX_VNNI = "avx_vnni"
    AVX512 = "avx512"
    AMX = "amx"
    XOP = "xop"
    FMA4 = "fma4"
    TBM = "tbm"
    LWP = "lwp"
    RTM = "rtm"
    MPX = "mpx"
    PKU = "pku"
    CLFLUSHOPT = "clflushopt"
    CLWB = "clwb"
    CLZERO = "clzero"
    RDPRU = "rdpru"
    MONITORX = "monitorx"
    WAITPKG = "waitpkg"
    MOVDIR = "movdir"
    SERIALIZE = "serialize"

    __hash__ = str.__hash__  # pyright: ignore[reportAssignmentType]  # Enum's own is Python: a fifth of a judgement


CODES: dict[Instruction, str] = {
    Instruction.CPUID: "leaf",
    Instruction.XGETBV: "ecx",
    Instruction.XSETBV: "ecx",
    Instruction.RDMSR: "ecx",
    Instruction.WRMSR: "ecx",
    Instruction.RDPMC: "ecx",
    Instruction.RDTSC: "",
    Instruction.RDTSCP: "",
    Instruction.RDRAND: "",
    Instruction.RDSEED: "",
    Instruction.RDPID: "",
    Instruction.SYSCALL: "number",
    Instruction.VMCALL: "rax",
}
"""Where each class has its function code; "" where it has one function only."""
CODE_WIDTH = {instruction: (1 << 64) - 1 if code == "rax" else 0xFFFF_FFFF for instruction, code in CODES.items()}
"""Bits of the register that count: the rest of RAX or ECX is ignored (SDM 2: CPUID, RDMSR, RDPMC, XGETBV). Linux
takes the number of a system call from EAX (do_syscall_64)."""

AVX512 = (
    "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl", "avx512ifma", "avx512vbmi", "avx512_vbmi2",
    "avx512_vnni", "avx512_bitalg", "avx512_vpopcntdq", "avx512_bf16", "avx512_fp16", "avx512_vp2intersect",
    "avx512er", "avx512pf", "avx512_4vnniw", "avx512_4fmaps",
)  # fmt: skip
LEVELS: dict[Instruction, tuple[str, ...]] = {
    Instruction.RDTSC: ("tsc",),
    Instruction.RDTSCP: ("rdtscp",),
    Instruction.RDRAND: ("rdrand",),
    Instruction.RDSEED: ("rdseed",),
    Instruction.RDPID: ("rdpid",),
    Instruction.FSGSBASE: ("fsgsbase",),
    Instruction.SSE3: ("pni",),
    Instruction.SSSE3: ("ssse3",),
    Instruction.SSE4_1: ("sse4_1",),
    Instruction.SSE4_2: ("sse4_2",),
    Instruction.SSE4A: ("sse4a",),
    Instruction.POPCNT: ("popcnt",),
    Instruction.LZCNT: ("abm",),
    Instruction.BMI1: ("bmi1",),
    Instruction.BMI2: ("bmi2",),
    Instruction.ADX: ("adx",),
    Instruction.MOVBE: ("movbe",),
    Instruction.CMPXCHG16B: ("cx16",),
    Instruction.LAHF: ("lahf_lm",),
    Instruction.AES: ("aes",),
    Instruction.PCLMUL: ("pclmulqdq",),
    Instruction.SHA: ("sha_ni",),
    Instruction.GFNI: ("gfni",),
    Instruction.XSAVE: ("xsave", "xsaveopt", "xsavec"),  # XSAVES is for ring 0 alone
    Instruction.AVX: ("avx",),
    Instruction.F16C: ("f16c",),
    Instruction.FMA: ("fma",),
    Instruction.AVX2: ("avx2",),
    Instruction.VAES: ("vaes",),
    Instruction.VPCLMUL: ("vpclmulqdq",),
    Instruction.AVX_VNNI: ("avx_vnni", "avx_ifma", "avx_vnni_int8", "avx_vnni_int16", "avx_ne_convert"),
    Instruction.AVX512: AVX512,
    Instruction.AMX: ("amx_tile", "amx_bf16", "amx_int8", "amx_fp16", "amx_complex"),
    Instruction.XOP: ("xop",),
    Instruction.FMA4: ("fma4",),
    Instruction.TBM: ("tbm",),
    Instruction.LWP: ("lwp",),
    Instruction.RTM: ("rtm", "hle", "tsxldtrk"),
    Instruction.MPX: ("mpx",),
    Instruction.PKU: ("pku",),
    Instruction.CLFLUSHOPT: ("clflushopt",),
    Instruction.CLWB: ("clwb",),
    Instruction.CLZERO: ("clzero",),
    Instruction.RDPRU: ("rdpru",),
    Instruction.MONITORX: ("mwaitx",),
    Instruction.WAITPKG: ("waitpkg",),
    Instruction.MOVDIR: ("movdiri", "movdir64b"),
    Instruction.SERIALIZE: ("serialize",),
}
"""The features behind each class; the first one stands for the class."""
OF_FEATURE = {
    feature: (instruction, code) for instruction, features in LEVELS.items() for code, feature in enumerate(features)
}
"""Class and code of each feature that has instructions."""

OUTCOMES = {
    Instruction.CPUID: GP,  # as with CPUID faulting (Intel 323850-004, "Virtualization Technology FlexMigration")
    Instruction.XGETBV: GP,  # SDM 2: an ECX that selects no register
    Instruction.XSETBV: GP,
    Instruction.RDMSR: GP,
    Instruction.WRMSR: GP,
    Instruction.RDPMC: GP,
    Instruction.RDTSC: GP,  # SDM 2, RDTSC: CR4.TSD
}
"""The exception of a blocked function where it is not #UD, the exception of an instruction that is not there."""
FAULTS = {
    "#DE": Vector.DE, "#BR": Vector.BR, "#UD": Vector.UD, "#NM": Vector.NM, "#TS": Vector.TS, "#NP": Vector.NP,
    "#SS": Vector.SS, "#GP": Vector.GP, "#MF": Vector.MF, "#AC": Vector.AC, "#XM": Vector.XM, "#CP": Vector.CP,
}  # fmt: skip
"""Exceptions a blocked function may raise: faults, which leave RIP at the instruction (SDM 3A table 6-1)."""
WITH_ERROR_CODE = VECTORS_WITH_ERROR_CODE

REQUIRE = {"none": 0, "detect": 1, "enforced": 2, "step": 2, "patch": 3, "hw": 4}
"""What a policy may ask of every block, as the smallest tier that will do (0 advisory, 1 detect, 2 step, 3 patch, 4
hardware: `enforcement.tiers.Tier`)."""
