"""x86-64 as the Intel SDM and the AMD APM define it: registers, page-table bits, MSRs, vectors."""

# Order of `struct kvm_regs` (linux/arch/x86/include/uapi/asm/kvm.h); also the order of `Processor.gpr`.
RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8, R9, R10, R11, R12, R13, R14, R15, RIP, RFLAGS = range(18)
GPR_COUNT = 18


class Pte:
    """Page-table entry bits (SDM 3A 4.5.5); bits 9-11 are free for software."""

    PRESENT = 1 << 0
    WRITABLE = 1 << 1
    USER = 1 << 2
    ACCESSED = 1 << 5
    DIRTY = 1 << 6
    HUGE = 1 << 7
    GLOBAL = 1 << 8
    COW = 1 << 9
    """Software: writable by its owner, shared until the first write."""
    HELD = 1 << 10
    """Software: the entry owns its frame although it is not present (PROT_NONE)."""
    NX = 1 << 63


PTE_ADDRESS = 0x000F_FFFF_FFFF_F000


class Rflags:
    CF = 1 << 0
    FIXED = 1 << 1
    PF = 1 << 2
    AF = 1 << 4
    ZF = 1 << 6
    SF = 1 << 7
    TF = 1 << 8
    IF = 1 << 9
    DF = 1 << 10
    OF = 1 << 11
    IOPL = 3 << 12
    NT = 1 << 14
    RF = 1 << 16
    AC = 1 << 18
    ID = 1 << 21


class Cr0:
    PE = 1 << 0
    MP = 1 << 1
    ET = 1 << 4
    NE = 1 << 5
    WP = 1 << 16
    AM = 1 << 18
    PG = 1 << 31


class Cr4:
    TSD = 1 << 2
    PAE = 1 << 5
    PCE = 1 << 8
    OSFXSR = 1 << 9
    OSXMMEXCPT = 1 << 10
    UMIP = 1 << 11
    FSGSBASE = 1 << 16
    OSXSAVE = 1 << 18


class Efer:
    SCE = 1 << 0
    LME = 1 << 8
    LMA = 1 << 10
    NXE = 1 << 11


class Msr:
    PLATFORM_INFO = 0xCE
    MISC_FEATURES_ENABLES = 0x140
    STAR = 0xC000_0081
    LSTAR = 0xC000_0082
    SFMASK = 0xC000_0084
    FS_BASE = 0xC000_0100
    GS_BASE = 0xC000_0101


class Vector:
    """Exceptions (SDM 3A table 6-1)."""

    DE = 0
    DB = 1
    NMI = 2
    BP = 3
    OF = 4
    BR = 5
    UD = 6
    NM = 7
    DF = 8
    TS = 10
    NP = 11
    SS = 12
    GP = 13
    PF = 14
    MF = 16
    AC = 17
    MC = 18
    XM = 19
    CP = 21


VECTORS_WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21, 29, 30})


class PageFaultError:
    """Error code of #PF (SDM 3A 4.7)."""

    PRESENT = 1 << 0
    WRITE = 1 << 1
    USER = 1 << 2
    RESERVED = 1 << 3
    FETCH = 1 << 4
