"""ELF64 for x86-64 (System V gABI, AMD64 psABI): headers, segments and the auxiliary vector."""

import struct

ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
MAGIC = b"\x7fELF"
ELFCLASS64, ELFDATA2LSB = 2, 1
ET_EXEC, ET_DYN = 2, 3
EM_X86_64 = 62
PT_LOAD, PT_INTERP, PT_PHDR = 1, 3, 6
PT_GNU_STACK = 0x6474_E551
PF_X, PF_W, PF_R = 1, 2, 4


class Auxv:
    """Keys of the auxiliary vector (getauxval(3))."""

    NULL = 0
    PHDR = 3
    PHENT = 4
    PHNUM = 5
    PAGESZ = 6
    BASE = 7
    FLAGS = 8
    ENTRY = 9
    UID = 11
    EUID = 12
    GID = 13
    EGID = 14
    PLATFORM = 15
    HWCAP = 16
    CLKTCK = 17
    SECURE = 23
    RANDOM = 25
    HWCAP2 = 26
    EXECFN = 31
    SYSINFO_EHDR = 33
    MINSIGSTKSZ = 51
