"""Writes docs/software-instructions.md from the handlers of `machine.software`.

Names are capstone's, a dependency of the tests.
"""

from collections.abc import Iterator
from itertools import product

import capstone

from enisle.machine.software.decode import Instruction, decode
from enisle.machine.software.execute import LENGTHS, MANDATORY, MAPS, all_handlers, find

HEAD = """# Instructions executed in software

What a blocking value may say `emulate` of, as far as instructions are concerned: executed with the results, flags and
faults of a processor, compared with one on random operands (`tests/unit/machine/software/`). Generated from the
handlers (`python tools/software_instructions.py > docs/software-instructions.md`); a test compares.

- Floating point is exact: every rounding mode, denormals, flags and unmasked exceptions as MXCSR has them.
- What is missing ends in SIGILL: AVX's approximations (VRCPPS, VRSQRTPS), dot products (VDPPS, VDPPD) and string
  comparisons (VPCMPxSTRx), and everything of AVX-512.
- Flags that the manual leaves undefined keep their value. A fault leaves everything as it was; a gather that faults
  starts again from its beginning.
- Legacy SSE operands in memory must be aligned; processors of AMD do not insist on it for SHA.
- On the emulated processor AVX in software is for programs that use it now and then: a trip out of the processor takes
  0.2 to 0.5 ms, and with AVX2 shown glibc's string functions use it too. CPython does not get through its start so.
- RDRAND and RDSEED take the host's random numbers. AES in software is no defence against timing.

"""
PREFIXES = {"np": b"", "66": b"\x66", "F3": b"\xf3", "F2": b"\xf2"}
ESCAPES = {"0F": b"\x0f", "0F38": b"\x0f\x38", "0F3A": b"\x0f\x3a"}
ORACLE = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)


def instances(encoding: str) -> Iterator[Instruction]:
    """Yield instructions of an encoding: registers and memory, both widths, both lengths."""
    words = encoding.split()
    is_vex = words[0].startswith("VEX")
    lengths = (LENGTHS[words[0]],) if words[0] in LENGTHS else (0, 1)
    prefix, map_name, opcode, *rest = words[1:] if is_vex else words
    group = int(rest[0][1:]) << 3 if rest and rest[0][0] == "/" else 0
    tails = (
        [bytes([int(rest[0], 16)])]
        if rest and rest[0][0] != "/"
        else [bytes([0xC1 | group]), bytes([0x04 | group, 0x16])]
    )
    for w, length, vvvv, tail in product((0, 1), lengths, (15, 5), tails):
        if is_vex:
            head = bytes([0xC4, 0xE0 | MAPS[map_name], w << 7 | vvvv << 3 | length << 2 | MANDATORY[prefix]])
        else:
            head = PREFIXES[prefix] + (b"\x48" if w else b"") + ESCAPES[map_name]
        code = head + bytes([int(opcode, 16)]) + tail
        found = decode(code) or decode(code + b"\0")
        if found and find(found):
            yield found


def name_of(instruction: Instruction) -> str:
    return next((name for _, _, name, _ in ORACLE.disasm_lite(instruction.bytes, 0, 1)), "")


def by_feature() -> dict[str, set[str]]:
    """Return the names of the instructions of every feature."""
    found: dict[str, set[str]] = {}
    for encoding in all_handlers():
        for instruction in instances(encoding):
            feature = " ".join(instruction.features) or "(always there)"
            name = name_of(instruction)
            if name:  # capstone does not know every meaningless use of W
                found.setdefault(feature, set()).add(name)
    return found


def render() -> str:
    """Return the whole document."""
    lines = [HEAD + "| feature | instructions |", "|---|---|"]
    lines += [f"| {feature} | {' '.join(sorted(names))} |" for feature, names in sorted(by_feature().items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(render(), end="")
