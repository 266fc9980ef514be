"""The debugger's protocol against a stub of our own, and watching through it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from enisle.errors import GuestError, HostError
from enisle.introspect import Debugger
from enisle.introspect.gdb import REGISTERS, arguments_of

TEXT = 0xFFFF_FFFF_8100_0000


class Stub:
    """Answers like QEMU's: a guest that passes `addresses` one after the other."""

    def __init__(self, connection: socket.socket, addresses: list[int], refuses: bool = False) -> None:
        self.connection, self.addresses, self.refuses = connection, addresses, refuses
        self.set: set[int] = set()
        self.at = 0
        self.log: list[str] = []

    def serve(self) -> None:
        buffer = b""
        while True:
            try:
                more = self.connection.recv(4096)
            except OSError:
                return
            if not more:
                return
            buffer += more.replace(b"+", b"")
            while b"#" in buffer and len(buffer) >= buffer.index(b"#") + 3:
                packet = buffer[buffer.index(b"$") + 1 : buffer.index(b"#")].decode()
                buffer = buffer[buffer.index(b"#") + 3 :]
                self.log.append(packet)
                self.answer(packet)
            if buffer.startswith(b"\x03"):
                buffer = buffer[1:]
                self.send("T02thread:p01.01;")

    def send(self, content: str) -> None:
        self.connection.sendall(b"+$%s#%02x" % (content.encode(), sum(content.encode()) & 0xFF))

    def answer(self, packet: str) -> None:
        if packet.startswith("qSupported"):
            self.send("T02thread:p01.01;")  # the stop that connecting brought
            self.send("PacketSize=1000;vContSupported+")
        elif packet == "vCont?":
            self.send("vCont;c;C;s;S")
        elif packet[0] in "Zz":
            address = int(packet.split(",")[1], 16)
            (self.set.add if packet[0] == "Z" else self.set.discard)(address)
            self.send("E22" if self.refuses else "OK")
        elif packet.startswith("vCont;s"):
            self.send("T05thread:p01.02;")
        elif packet == "vCont;c":
            while self.at < len(self.addresses) and self.addresses[self.at] not in self.set:
                self.at += 1
            if self.at < len(self.addresses):
                self.send("T05thread:p01.02;")
        elif packet == "g":
            values = {name: number for number, name in enumerate(REGISTERS)} | {"rip": self.addresses[self.at]}
            self.at += 1
            self.send("".join(values[name].to_bytes(8, "little").hex() for name in REGISTERS) + "00" * 40)
        else:
            self.send("OK")


@contextmanager
def _stub(addresses: list[int], refuses: bool = False) -> Iterator[tuple[Debugger, Stub]]:
    ours, theirs = socket.socketpair()
    stub = Stub(theirs, addresses, refuses)
    thread = threading.Thread(target=stub.serve)
    thread.start()
    try:
        yield Debugger(ours), stub
    finally:
        ours.close()
        thread.join()
        theirs.close()


def test_it_stops_where_it_was_told_to() -> None:
    with _stub([TEXT + 8, TEXT, TEXT + 16]) as (debugger, stub):
        debugger.set_breakpoint(TEXT)
        debugger.resume()
        stop = debugger.wait(5)
        assert stop is not None
        assert (stop.signal, stop.processor) == (5, 1)
        registers = debugger.registers(stop.thread)
        assert registers["rip"] == TEXT
        assert arguments_of(registers) == (5, 4, 3, 2, 8, 9)
        debugger.clear_breakpoint(TEXT)
        assert stub.set == set()


def test_no_packet_writes_memory() -> None:
    with _stub([TEXT]) as (debugger, stub):
        debugger.set_breakpoint(TEXT)
        debugger.resume()
        debugger.wait(5)
        debugger.detach()
    assert not [packet for packet in stub.log if packet[0] in "MXGP" or packet.startswith("Z0")]


def test_a_stub_that_refuses_is_told() -> None:
    with _stub([], refuses=True) as (debugger, _), pytest.raises(HostError, match="set a hardware breakpoint"):
        debugger.set_breakpoint(TEXT)


def test_a_guest_that_ends_is_told() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises((GuestError, HostError)):
        Debugger(ours)
