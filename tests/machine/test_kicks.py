"""Kicks at any moment: the registers that come up are the program's, never a stub's."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from enisle.abi.types import PAGE, Gva
from enisle.abi.x86 import GPR_COUNT, RDI, RIP, RSP
from enisle.machine import Interrupted, Machine, PageFault, leaf_flags

CODE, STACK, NOWHERE = Gva(0x40_0000), Gva(0x50_0000), 0x70_0000
STORE = bytes.fromhex("488907")  # mov [rdi], rax: to where nothing is


def storm(stop: threading.Event, kick: Callable[[], None]) -> None:
    while not stop.is_set():
        kick()
        stop.wait(0.0001)


@pytest.mark.kvm
def test_a_kick_never_shows_the_inside_of_an_exception_stub() -> None:
    with Machine("kvm", 32 << 20) as machine:
        space, processor = machine.new_address_space(), machine.acquire_processor()
        for address, rights in ((CODE, (True, False, True)), (STACK, (True, True, False))):
            frame = machine.memory.allocate_frame()
            machine.memory.write(frame, STORE)
            space.map(address, frame, 1, leaf_flags(*rights))
        for index in range(GPR_COUNT):
            processor.gpr[index] = 0
        processor.gpr[RIP], processor.gpr[RSP], processor.gpr[RDI] = CODE, STACK + PAGE - 16, NOWHERE
        processor.enter(space.root)
        stop = threading.Event()
        kicker = threading.Thread(target=storm, args=(stop, processor.kick))
        kicker.start()
        seen: list[Any] = []
        try:
            for _ in range(6000):
                seen.append(processor.run())
                assert (processor.gpr[RIP], processor.gpr[RSP]) == (CODE, STACK + PAGE - 16), seen[-1]
        finally:
            stop.set()
            kicker.join()
        faults = [event for event in seen if isinstance(event, PageFault)]
        assert {(event.address, event.write) for event in faults} == {(NOWHERE, True)}
        assert len(faults) > 100
        assert any(isinstance(event, Interrupted) for event in seen)
