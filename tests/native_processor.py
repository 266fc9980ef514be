"""The processor of this host as an oracle: a small C program executes single instructions on given states."""

import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from enisle.records import Record

CODE, MEMORY, SIZE = 0x1000_0000, 0x2000_0000, 256
"""Where the program puts the instruction and the memory it may touch."""
RECORD = struct.Struct(f"<Q16s16QQ512s{SIZE}sQ")
RETURN = b"\xc3"


class State(Record):
    """What an instruction reads and writes. `gpr` is by number in an instruction; RSP is not used."""

    gpr: tuple[int, ...]
    flags: int
    vectors: bytes
    memory: bytes
    mxcsr: int = 0x1F80


Case = tuple[bytes, State]


class NativeProcessor:
    """Executes instructions in a process of its own."""

    def __init__(self, source: Path, program: Path) -> None:
        subprocess.run(["gcc", "-O1", "-mavx", "-no-pie", "-o", program, source], check=True)
        self._program = program

    def execute(self, cases: Sequence[Case]) -> list[tuple[int, State]]:
        """Return the signal, 0 when there was none, and the state after each case."""
        given = b"".join(
            RECORD.pack(0, code + RETURN, *state.gpr, state.flags, state.vectors, state.memory, state.mxcsr)
            for code, state in cases
        )
        answer = subprocess.run([self._program], input=given, stdout=subprocess.PIPE, check=True).stdout
        assert len(answer) == len(given)
        return [
            (status, State(tuple(gpr), flags, vectors, memory, mxcsr))
            for status, _, *gpr, flags, vectors, memory, mxcsr in RECORD.iter_unpack(answer)
        ]
