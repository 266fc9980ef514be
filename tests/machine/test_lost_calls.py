"""No system call goes by unserved, however often other threads stop the processor at it."""

import threading
import time
from collections.abc import Callable

import pytest

from enisle.abi.x86 import R12, RAX, RBX
from enisle.machine import Interrupted, Processor, Syscall
from machine.guest import Guest

# l: inc rbx; mov rax, rbx; syscall; sub rax, rbx; add r12, rax; jmp l
COUNTING = b"\x48\xff\xc3\x48\x89\xd8\x0f\x05\x48\x29\xd8\x49\x01\xc4\xeb\xf0"
SECONDS = 1.5


class Disturber:
    """Threads that do something to a processor all the time: more than there are cores, so that they are held up."""

    def __init__(self, disturb: Callable[[], None]) -> None:
        self.disturb, self.stopped = disturb, False
        self.threads = [threading.Thread(target=self._run) for _ in range(3)]

    def _run(self) -> None:
        while not self.stopped:
            self.disturb()
            time.sleep(0.0003)

    def __enter__(self) -> None:
        for thread in self.threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self.stopped = True
        for thread in self.threads:
            thread.join()


@pytest.mark.parametrize("how", ["kick", "redirect"])
def test_every_call_is_served_once(guest: Guest, how: str) -> None:
    processor: Processor = guest.processor
    guest.load(COUNTING)
    disturb = processor.kick if how == "kick" else lambda: processor.redirect(guest.space.root)
    served = 0
    end = time.monotonic() + SECONDS
    with Disturber(disturb):
        while time.monotonic() < end:
            exit = processor.run()
            if isinstance(exit, Interrupted):
                continue
            assert isinstance(exit, Syscall), exit
            served += 1
            assert (guest.gpr[RBX], guest.gpr[RAX], guest.gpr[R12]) == (served, served, 0)
    assert served > 100
