"""The mode auto on real guests: copies come where tables are walked from afar, and go where they are only written."""

import struct
import threading
import time
from collections.abc import Callable

import pytest

from enisle.abi.types import PAGE, Gva
from enisle.abi.x86 import RAX, RDI
from enisle.machine import Interrupted, PageFault
from enisle.machine.replication_policy import TLB_ENTRIES
from machine.guest import READ_ONLY, READ_WRITE, SPIN
from machine.test_replicas_guest import NodeGuest, make

AREA, PAGES = 1 << 32, 8192
assert PAGES > 2 * TLB_ENTRIES
UPDATE = (
    b"\x48\x69\xc0\x6d\x4e\xc6\x41"  # l: imul rax, rax, 0x41c64e6d
    b"\x48\x05\x39\x30\x00\x00"  # add rax, 0x3039
    b"\x48\x89\xc3\x48\xc1\xeb\x10"  # mov rbx, rax; shr rbx, 16
    b"\x81\xe3" + struct.pack("<I", PAGES * PAGE - 8) + b"\x48\x83\x04\x1f\x01"  # and ebx, …; add qword [rdi+rbx], 1
    b"\xeb\xdf"  # jmp l
)


class Spinning:
    """Processors, one on each node, that run some code without end until they are told to stop."""

    def __init__(self, guest: NodeGuest, code: bytes) -> None:
        self.guest, self.stopped = guest, False
        self.failures: list[object] = []
        guest.memory.write(guest.code, code)
        self.threads = [threading.Thread(target=self._run, args=(node,)) for node in range(guest.nodes)]
        for thread in self.threads:
            thread.start()

    def _run(self, node: int) -> None:
        processor = self.guest.on[node]
        self.guest.begin(processor)
        processor.gpr[RDI], processor.gpr[RAX] = AREA, 77 + node
        while not self.stopped:
            exit = processor.run()
            if isinstance(exit, Interrupted) or (isinstance(exit, PageFault) and self.guest.serve(node, exit)):
                continue
            self.failures.append(exit)
            return

    def stop(self) -> None:
        self.stopped = True
        for processor in self.guest.on:
            processor.kick()
        for thread in self.threads:
            thread.join()
        assert not self.failures


def wait_for(condition: Callable[[], bool], seconds: float) -> float:
    """Return after how long the condition held; fail the test when it never did."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - begun


def fill(guest: NodeGuest, pages: int) -> None:
    address = AREA
    for gpa, count in guest.memory.allocate(pages):
        for start in range(0, count, 256):  # below 2 MiB: no large leaves
            here = min(256, count - start)
            guest.space.map(Gva(address), gpa + start * PAGE, here, READ_WRITE)  # type: ignore[arg-type]
            address += here * PAGE


@pytest.mark.kvm
@pytest.mark.timeout(60)
def test_random_updates_bring_copies_and_churn_takes_them() -> None:
    with make("kvm", 2, "off") as machine:
        guest = NodeGuest(machine, 2)
        fill(guest, PAGES)
        updating = Spinning(guest, UPDATE)
        time.sleep(0.2)
        guest.replication.set_mode("auto")
        seen: list[float] = []

        def chosen() -> bool:
            seen.append(guest.replication.statistics().remote_walks or 0.0)
            return guest.replication.chosen(guest.space)

        try:
            wait_for(chosen, 6)
        finally:
            updating.stop()
        assert max(seen) > 1000  # walks per second from afar, estimated while there was one tree
        assert guest.replication.pilot
        assert guest.replication.pilot.failure is None
        assert len(guest.replication.describe(guest.space).trees) == 2
        idling = Spinning(guest, SPIN)
        end = time.monotonic() + 8
        try:
            while guest.replication.chosen(guest.space):
                assert time.monotonic() < end, "copies stay though they are only written"
                with guest.replication.lock_of(guest.space):
                    for rights in (READ_ONLY, READ_WRITE):
                        guest.space.protect(Gva(AREA), 1024, rights)
        finally:
            idling.stop()
        assert len(guest.replication.describe(guest.space).trees) == 1
        guest.replication.verify()
        guest.replication.set_mode("off")


@pytest.mark.kvm
def test_nothing_is_copied_for_a_program_on_its_own_node() -> None:
    with make("kvm", 2, "auto") as machine:
        guest = NodeGuest(machine, 2)
        fill(guest, PAGES)
        for processor in guest.on:
            guest.replication.place(processor, 0)
        guest.replication.launch()
        updating = Spinning(guest, UPDATE)
        time.sleep(2.0)
        updating.stop()
        assert guest.replication.pilot
        assert guest.replication.pilot.looks > 2
        assert guest.replication.statistics().remote_walks == 0.0
        assert not guest.replication.chosen(guest.space)
        guest.replication.set_mode("off")
