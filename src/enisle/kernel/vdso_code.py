"""The machine code of the vDSO: a table of instructions, each as its text and its bytes (a test disassembles them).

A text may end in `@name`: four bytes of distance to that label are appended. Labels end in a colon; those that begin
with a dot belong to their function. No function uses the stack, so one line of unwind data serves all.
Arguments stay in RDI and RSI until the answer is known: whatever the page cannot answer is asked by SYSCALL.
"""

import struct
from collections.abc import Iterable, Mapping

from enisle.kernel import vvar

Row = tuple[str, str]

# In: R9 = 16 * clock. Out: RAX = nanoseconds. Changes RCX RDX R8 R10.
READ_CLOCK: tuple[Row, ...] = (
    ("lea r8, [rip + @vvar]", "4c 8d 05"),
    ("mov ecx, 0x40", "b9 40 00 00 00"),  # patience: a writer that lost its processor is waited for in the kernel
    (".again:", ""),
    ("mov r10d, dword ptr [r8]", "45 8b 10"),
    ("test r10b, 1", "41 f6 c2 01"),
    ("jne @.busy", "0f 85"),
    ("lfence", "0f ae e8"),  # SDM 2B, RDTSC: or it may run before the load above
    ("rdtsc", "0f 31"),
    ("shl rdx, 0x20", "48 c1 e2 20"),
    ("or rax, rdx", "48 09 d0"),
    ("sub rax, qword ptr [r8 + 8]", "49 2b 40 08"),
    ("cmp rax, qword ptr [r8 + 0x10]", "49 3b 40 10"),  # too long ago, before the base, or an empty page
    ("jae @.ask", "0f 83"),
    ("mov rdx, qword ptr [r8 + r9 + 0x28]", "4b 8b 54 08 28"),
    ("test rdx, rdx", "48 85 d2"),
    ("je @.ask", "0f 84"),
    ("mul rdx", "48 f7 e2"),
    ("shrd rax, rdx, 0x30", "48 0f ac d0 30"),
    ("add rax, qword ptr [r8 + r9 + 0x20]", "4b 03 44 08 20"),
    ("cmp r10d, dword ptr [r8]", "45 3b 10"),
    ("jne @.busy", "0f 85"),
)
assert (vvar.SEQUENCE, vvar.BASE, vvar.VALID, vvar.CLOCKS, vvar.STRIDE, vvar.SHIFT) == (0, 8, 0x10, 0x20, 16, 0x30)

# RAX nanoseconds -> RDX seconds, RCX the rest: 10**9 is 2**9 * 5**9, and the reciprocal of 5**9 (Granlund and
# Montgomery, PLDI 1994) takes a tenth of the time of a DIV of older processors.
SPLIT: tuple[Row, ...] = (
    ("mov rcx, rax", "48 89 c1"),
    ("shr rax, 9", "48 c1 e8 09"),
    ("movabs rdx, 0x44b82fa09b5a53", "48 ba 53 5a 9b a0 2f b8 44 00"),
    ("mul rdx", "48 f7 e2"),
    ("shr rdx, 0xb", "48 c1 ea 0b"),
    ("imul rax, rdx, 0x3b9aca00", "48 69 c2 00 ca 9a 3b"),
    ("sub rcx, rax", "48 29 c1"),
)

# The end of every function that reads a clock; falls into .ask.
BUSY: tuple[Row, ...] = (
    (".busy:", ""),
    ("pause", "f3 90"),
    ("dec ecx", "ff c9"),
    ("jne @.again", "0f 85"),
)
REALTIME: Row = ("xor r9d, r9d", "45 31 c9")
SUCCEED: tuple[Row, ...] = (("xor eax, eax", "31 c0"), ("ret", "c3"))


def _ask(number: int) -> tuple[Row, ...]:
    call = (f"mov eax, {number:#x}", "b8" + struct.pack("<I", number).hex())
    return ((".ask:", ""), call, ("syscall", "0f 05"), ("ret", "c3"))


CLOCK_GETTIME: tuple[Row, ...] = (
    ("cmp edi, 0xb", "83 ff 0b"),
    ("ja @.ask", "0f 87"),
    ("mov r9d, edi", "41 89 f9"),
    ("shl r9d, 4", "41 c1 e1 04"),
    *READ_CLOCK,
    *SPLIT,
    ("mov qword ptr [rsi], rdx", "48 89 16"),
    ("mov qword ptr [rsi + 8], rcx", "48 89 4e 08"),
    *SUCCEED,
    *BUSY,
    *_ask(228),
)
assert vvar.CLOCK_COUNT == 0xB + 1

GETTIMEOFDAY: tuple[Row, ...] = (
    ("test rdi, rdi", "48 85 ff"),
    ("je @.zone", "0f 84"),
    REALTIME,
    *READ_CLOCK,
    *SPLIT,
    ("mov qword ptr [rdi], rdx", "48 89 17"),
    ("imul rax, rcx, 0x10624dd3", "48 69 c1 d3 4d 62 10"),  # / 1000, right for all 32-bit values
    ("shr rax, 0x26", "48 c1 e8 26"),
    ("mov qword ptr [rdi + 8], rax", "48 89 47 08"),
    (".zone:", ""),
    ("test rsi, rsi", "48 85 f6"),
    ("je @.done", "0f 84"),
    ("mov qword ptr [rsi], 0", "48 c7 06 00 00 00 00"),  # UTC, as the system call answers
    (".done:", ""),
    *SUCCEED,
    *BUSY,
    *_ask(96),
)

# Precise, not coarse as Linux's: a file written now must not be younger than time() says.
TIME: tuple[Row, ...] = (
    REALTIME,
    *READ_CLOCK,
    *SPLIT,
    ("mov rax, rdx", "48 89 d0"),
    ("test rdi, rdi", "48 85 ff"),
    ("je @.done", "0f 84"),
    ("mov qword ptr [rdi], rax", "48 89 07"),
    (".done:", ""),
    ("ret", "c3"),
    *BUSY,
    *_ask(201),
)

# The number of the only processor is 0. With several, the number a thread is told follows its affinity and is known to
# the kernel alone: RDPID and RDTSCP give the host's processor, or what the host wrote there for its own vDSO.
GETCPU: tuple[Row, ...] = (
    ("lea r8, [rip + @vvar]", "4c 8d 05"),
    ("mov edx, dword ptr [r8 + 4]", "41 8b 50 04"),
    ("test edx, edx", "85 d2"),
    ("je @.ask", "0f 84"),
    ("xor eax, eax", "31 c0"),
    ("test rdi, rdi", "48 85 ff"),
    ("je @.node", "0f 84"),
    ("mov dword ptr [rdi], eax", "89 07"),
    (".node:", ""),
    ("test rsi, rsi", "48 85 f6"),
    ("je @.done", "0f 84"),
    ("mov dword ptr [rsi], eax", "89 06"),
    (".done:", ""),
    ("ret", "c3"),
    *_ask(309),
)
assert vvar.ONE_PROCESSOR == 4

# REALTIME, MONOTONIC, MONOTONIC_RAW, BOOTTIME and TAI have a resolution of 1 ns; the others the kernel knows.
CLOCK_GETRES: tuple[Row, ...] = (
    ("cmp edi, 0xb", "83 ff 0b"),
    ("ja @.ask", "0f 87"),
    ("mov eax, 0x893", "b8 93 08 00 00"),
    ("bt eax, edi", "0f a3 f8"),
    ("jae @.ask", "0f 83"),
    ("test rsi, rsi", "48 85 f6"),
    ("je @.done", "0f 84"),
    ("mov qword ptr [rsi], 0", "48 c7 06 00 00 00 00"),
    ("mov qword ptr [rsi + 8], 1", "48 c7 46 08 01 00 00 00"),
    (".done:", ""),
    *SUCCEED,
    *_ask(229),
)

# Where programs may not read the counter, every clock is the kernel's to read.
ASKING: Mapping[str, tuple[Row, ...]] = {
    "clock_gettime": _ask(228),
    "gettimeofday": _ask(96),
    "time": _ask(201),
    "getcpu": GETCPU,
    "clock_getres": CLOCK_GETRES,
}
FUNCTIONS: Mapping[str, tuple[Row, ...]] = {
    "clock_gettime": CLOCK_GETTIME,
    "gettimeofday": GETTIMEOFDAY,
    "time": TIME,
    "getcpu": GETCPU,
    "clock_getres": CLOCK_GETRES,
}
ALIGNMENT = 16
PADDING = b"\xcc"


def assemble(functions: Mapping[str, Iterable[Row]], labels: Mapping[str, int]) -> tuple[bytes, dict[str, int]]:
    """Return the code of all functions and the offset of every label; `labels` are known ones outside the code."""
    code, places = bytearray(), dict(labels)
    distances: list[tuple[int, str]] = []
    for function, rows in functions.items():
        code += PADDING * (-len(code) % ALIGNMENT)
        places[function] = len(code)
        for text, encoding in rows:
            if text.endswith(":"):
                places[local(function, text[:-1])] = len(code)
                continue
            code += bytes.fromhex(encoding)
            if "@" in text:
                code += bytes(4)
                distances.append((len(code), local(function, target(text))))
        places[local(function, ".end")] = len(code)
    for end, label in distances:
        struct.pack_into("<i", code, end - 4, places[label] - end)
    return bytes(code), places


def target(text: str) -> str:
    """Return the label an instruction refers to."""
    return text.partition("@")[2].rstrip("]")


def local(function: str, label: str) -> str:
    """Return the full name of a label as written inside `function`."""
    return function + label if label.startswith(".") else label
