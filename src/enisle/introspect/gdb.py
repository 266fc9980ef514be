"""The debugger's remote protocol, as much as it takes to stop at an address and go on (GDB manual, appendix E).

Speaks to QEMU's stub over a connected socket. Breakpoints are the processor's own (Z1): no guest memory is written.
One thread owns a connection.
"""

import select
import socket

from enisle.errors import GuestError, HostError
from enisle.introspect.walk import SYSV
from enisle.records import Record

REGISTERS = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip",
)  # fmt: skip
"""Order of the first registers of a `g` packet for x86-64 (gdb/features/i386/64bit-core.xml)."""
PATIENCE = 10.0
"""Seconds a stub may take to answer."""


class Stop(Record):
    """The guest stopped."""

    signal: int
    thread: str
    """As the stub calls it; QEMU numbers processors from 1."""

    @property
    def processor(self) -> int:
        return max(int(self.thread.rpartition(".")[2] or "1", 16) - 1, 0)


class Debugger:
    """A conversation with a stub. The guest stands still from the beginning until `resume` or `detach`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self.ask("qSupported:vContSupported+;multiprocess+")
        self._vcont = b"s" in self.ask("vCont?")

    def ask(self, packet: str, patience: float = PATIENCE) -> bytes:
        """Send a packet and return the answer. Raises HostError."""
        self._send(packet)
        answer = self._receive(patience)
        while answer is not None and answer[:1] == b"T":  # a stop that was under way, such as that of connecting
            answer = self._receive(patience)
        if answer is None:
            raise HostError("the debugger's stub does not answer", f"{packet!r} brought nothing in {patience:g} s")
        return answer

    def set_breakpoint(self, address: int) -> None:
        """Make the processors stop at an address. Raises HostError."""
        self._expect_ok(f"Z1,{address:x},1", "set a hardware breakpoint")

    def clear_breakpoint(self, address: int) -> None:
        self._expect_ok(f"z1,{address:x},1", "clear a hardware breakpoint")

    def resume(self) -> None:
        """Let the guest run; `wait` tells when it stops."""
        self._send("vCont;c" if self._vcont else "c")

    def wait(self, timeout: float) -> Stop | None:
        """Return why the guest stopped, None when it still runs. Raises GuestError when it has ended."""
        answer = self._receive(timeout)
        if answer is None:
            return None
        if answer[:1] in (b"W", b"X"):
            raise GuestError("the guest ended while it was watched", answer.decode("ascii", "replace"))
        if answer[:1] not in (b"T", b"S"):
            raise HostError("the debugger's stub says what was not asked", answer[:60].decode("ascii", "replace"))
        thread = next((part[7:] for part in answer[3:].split(b";") if part.startswith(b"thread:")), b"1")
        return Stop(int(answer[1:3], 16), thread.decode("ascii", "replace"))

    def interrupt(self) -> Stop | None:
        """Stop the guest (a break)."""
        self._connection.sendall(b"\x03")
        return self.wait(PATIENCE)

    def registers(self, thread: str) -> dict[str, int]:
        """Return the general registers of a stopped processor."""
        self.ask(f"Hg{thread}")
        content = self.ask("g")
        try:
            values = [
                int.from_bytes(bytes.fromhex(content[16 * n : 16 * n + 16].decode()), "little") for n in range(17)
            ]
        except ValueError:
            raise HostError("the debugger's stub told no registers", content[:60].decode("ascii", "replace")) from None
        return dict(zip(REGISTERS, values, strict=True))

    def step(self, thread: str) -> Stop | None:
        """Execute one instruction on one processor while the others stand still."""
        self._send(f"vCont;s:{thread}" if self._vcont else "s")
        return self.wait(PATIENCE)

    def detach(self) -> None:
        """Let the guest run, unwatched."""
        self.ask("D;1" if self._vcont else "D")

    def _expect_ok(self, packet: str, what: str) -> None:
        if (answer := self.ask(packet)) != b"OK":
            told = answer.decode("ascii", "replace") or "it knows none"
            raise HostError(f"the debugger's stub cannot {what}", told, "another debugger may hold all of them")

    def _send(self, packet: str) -> None:
        content = packet.encode()
        try:
            self._connection.sendall(b"$%s#%02x" % (content, sum(content) & 0xFF))
        except OSError as error:
            raise HostError("the debugger's stub is gone", error.strerror or "") from error

    def _receive(self, timeout: float) -> bytes | None:
        """Return the content of the next packet, acknowledged; None when none came in time."""
        while True:
            start, end = self._buffer.find(b"$"), self._buffer.find(b"#")
            if start >= 0 and end > start and len(self._buffer) >= end + 3:
                content = self._buffer[start + 1 : end]
                self._buffer = self._buffer[end + 3 :]
                self._connection.sendall(b"+")
                return content
            if not select.select([self._connection], [], [], timeout)[0]:
                return None
            more = self._connection.recv(4096)
            if not more:
                raise GuestError("the guest ended while it was watched", "its debugger's connection was closed")
            self._buffer += more


def arguments_of(registers: dict[str, int]) -> tuple[int, ...]:
    """Return what the first six arguments are at a function's entry (System V)."""
    return tuple(registers[name] for name in SYSV)
