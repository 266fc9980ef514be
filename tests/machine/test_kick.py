"""Interrupting a processor from other threads, and sharing the host between processors."""

import random
import threading
import time

from enisle.abi.x86 import RAX, RCX, RDI, RIP
from enisle.machine import Interrupted, Machine, Syscall
from machine.guest import CODE, DATA, SPIN, SYSCALL, Guest

PROMPT = 2.0
"""Seconds; far above what a kick takes, far below a hang."""


class Running:
    """A processor running on a thread of its own."""

    def __init__(self, guest: Guest, processor: object = None) -> None:
        self.exit: object = None
        self.processor = guest.processor
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        self.exit = self.processor.run()

    def join(self) -> object:
        self.thread.join(PROMPT)
        assert not self.thread.is_alive(), "the processor does not come back"
        return self.exit


def test_a_kick_before_the_run_is_not_lost(guest: Guest) -> None:
    guest.load(SPIN)
    guest.processor.kick()
    assert isinstance(guest.processor.run(), Interrupted)
    assert guest.gpr[RIP] == CODE


def test_a_kick_interrupts_an_endless_loop(guest: Guest) -> None:
    guest.load(b"\x48\xff\xc0\xeb\xfb")  # again: inc rax; jmp again
    running = Running(guest)
    time.sleep(0.02)
    guest.processor.kick()
    assert isinstance(running.join(), Interrupted)
    assert guest.gpr[RAX] > 0
    assert guest.gpr[RIP] in (CODE, CODE + 3)


def test_work_goes_on_after_a_kick_as_if_nothing_had_been(guest: Guest) -> None:
    rounds = 3_000_000
    guest.load(b"\x48\xff\x07\x48\xff\xc0\xff\xc9\x75\xf6" + SYSCALL)  # inc [rdi]; inc rax; dec ecx; jnz
    guest.gpr[RDI], guest.gpr[RCX] = DATA, rounds
    done = threading.Event()

    def pester() -> None:
        while not done.is_set():
            time.sleep(0.001)
            guest.processor.kick()

    thread = threading.Thread(target=pester)
    thread.start()
    exits = 0
    while isinstance(guest.processor.run(), Interrupted):
        exits += 1
    done.set()
    thread.join()
    assert guest.gpr[RAX] == guest.word(guest.data) == rounds
    assert guest.gpr[RIP] == CODE + 12


def test_no_kick_is_lost_at_any_moment(guest: Guest) -> None:
    guest.load(SPIN)
    chance = random.Random(1)
    for _ in range(60):
        running = Running(guest)
        time.sleep(chance.random() * 0.002)
        guest.processor.kick()
        assert isinstance(running.join(), Interrupted)


def test_no_kick_is_lost_among_system_calls(guest: Guest) -> None:
    guest.load(SYSCALL + b"\xeb\xfc")
    interrupted = threading.Event()
    stop = threading.Event()
    counts = {Syscall: 0, Interrupted: 0}

    def run() -> None:
        while not stop.is_set():
            kind = type(guest.processor.run())
            counts[kind] += 1
            if kind is Interrupted:
                interrupted.set()

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(50):
        guest.processor.kick()
        assert interrupted.wait(PROMPT), "a kick was lost"
        interrupted.clear()
    stop.set()
    thread.join(PROMPT)
    assert counts[Syscall] > 0


def test_a_processor_that_only_computes_does_not_starve_one_with_many_system_calls(guest: Guest) -> None:
    guest.load(SPIN)
    guest.memory.write(guest.code, SPIN.ljust(16, b"\x90") + SYSCALL + b"\xeb\xfc")
    running = Running(guest)
    calls = 0
    with guest.another() as busy:
        guest.begin(busy, CODE + 16)
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            assert isinstance(busy.run(), Syscall)
            calls += 1
    guest.processor.kick()
    assert isinstance(running.join(), Interrupted)
    assert calls >= 60


def test_several_computing_processors_all_get_on(guest: Guest) -> None:
    guest.load(b"\x48\xff\x07\xeb\xfb")
    exits: list[object] = []
    processors = [guest.machine.acquire_processor() for _ in range(3)]
    for index, processor in enumerate(processors):
        processor.enter(guest.space.root)
        guest.begin(processor)
        processor.gpr[RDI] = DATA + 64 * index
    threads = [threading.Thread(target=lambda own=processor: exits.append(own.run())) for processor in processors]
    for thread in threads:
        thread.start()
    time.sleep(0.4)
    for processor in processors:
        processor.kick()
    for thread in threads:
        thread.join(PROMPT)
        assert not thread.is_alive()
    assert [type(exit) for exit in exits] == [Interrupted] * 3
    counts = [guest.word(guest.data, 64 * index) for index in range(3)]
    assert min(counts) * 20 > max(counts) > 0


def test_a_waiting_processor_can_be_kicked(guest: Guest) -> None:
    guest.load(SPIN)
    running = [Running(guest)]
    others = [guest.machine.acquire_processor() for _ in range(2)]
    exits: list[object] = []
    threads: list[threading.Thread] = []
    for processor in others:
        processor.enter(guest.space.root)
        guest.begin(processor)
        threads.append(threading.Thread(target=lambda own=processor: exits.append(own.run())))
        threads[-1].start()
    time.sleep(0.01)
    for processor, thread in zip(others, threads, strict=True):
        processor.kick()
        thread.join(PROMPT)
        assert not thread.is_alive()
    guest.processor.kick()
    running[0].join()
    assert [type(exit) for exit in exits] == [Interrupted] * 2


def test_processors_are_reused(machine: Machine) -> None:
    first = machine.acquire_processor()
    second = machine.acquire_processor()
    assert first is not second
    machine.release_processor(first)
    assert machine.acquire_processor() is first
    assert machine.statistics().processors == 2
