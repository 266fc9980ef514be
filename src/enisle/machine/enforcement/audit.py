"""The DETECT tier: vector state that a program must not have in use is seen at its exits, and taken away.

Where XCR0 has no effect in ring 3 an AVX instruction cannot be kept from executing, but it leaves a mark: XSTATE_BV of
the processor's XSAVE area (SDM 1 13.6). A ticker makes a processor that computes exit for a look, at moments that the
program can neither choose nor foresee, two within 10 ms; and other exits are looked at as they come. What a program
uses and clears again in between (VZEROUPPER) is seen only when a look falls into its use: that is the limit of this
tier. The ticker is one thread per machine and sleeps with the guests.
"""

import random
import threading
import time
from collections import Counter

from enisle.abi.x86 import RIP, Vector
from enisle.machine.processor import SYSCALL, Exit, Halt, Interrupted, Processor, ProcessorException

LONGEST, SCALE = 0.0048, 0.008
"""Seconds until a processor that computes is made to exit: exponentially distributed, so that a look says nothing about
when the next one comes, but for the longest wait. 3.6 ms in the mean."""
SHORTEST = 0.0005
"""Seconds that the ticker sleeps at least: a kick takes a while to arrive."""
BETWEEN = 0.002
"""Seconds between two looks at exits of the program's own."""
XSTATE_BV = slice(512, 520)
SYSCALL_LENGTH = 2


class Offence(ProcessorException):
    """#UD for a program that has used a component it must not; RIP is where it was when that was seen."""

    __slots__ = ()


class Auditor:
    """Looks at the processors of one machine. `forbidden`: components that must not be in use."""

    def __init__(self, forbidden: int, counts: "Counter[str]") -> None:
        self.forbidden, self.counts = forbidden, counts
        self.bell = threading.Event()
        self.asleep = True
        self._audited: list[Audited] = []
        self._ticker: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    def attach(self, processor: Processor) -> None:
        """Look at a processor at its exits from now on."""
        audited = Audited(self, processor)
        with self._lock:
            self._audited.append(audited)
        processor.run = audited.run  # type: ignore[method-assign]  # an unaudited processor pays nothing

    def wake(self) -> None:
        """Start the ticker, or wake it: a guest computes."""
        with self._lock:
            self.asleep = False
            if self._ticker is None:
                self._ticker = threading.Thread(target=self._tick, name="auditor", daemon=True)
                self._ticker.start()
        self.bell.set()

    def close(self) -> None:
        """Stop for good."""
        self._closed = True
        self.bell.set()
        if self._ticker:
            self._ticker.join()

    def _tick(self) -> None:
        while not self._closed:
            now = time.monotonic()
            computing = [audited for audited in self._audited if audited.computing]
            for audited in computing:
                if audited.due <= now:
                    audited.processor.kick()
            if computing:
                soonest = min(audited.due for audited in computing) - time.monotonic()
                time.sleep(max(soonest, SHORTEST))
            else:
                self.asleep = True
                self.bell.clear()
                if not any(audited.computing for audited in self._audited):
                    self.bell.wait()


def wait() -> float:
    """Return the seconds until the next look."""
    return min(random.expovariate(1 / SCALE), LONGEST)


class Audited:
    """One processor and when it was looked at: at any exit, and at a moment the program does not choose."""

    __slots__ = ("_auditor", "_run", "computing", "due", "looked", "processor")

    def __init__(self, auditor: Auditor, processor: Processor) -> None:
        self._auditor, self.processor, self._run = auditor, processor, processor.run
        self.looked = time.monotonic()
        self.due = self.looked + wait()
        self.computing = False

    def run(self) -> Exit:
        """Run the processor; return an `Offence` in place of an exit that would come again."""
        self.computing = True
        if self._auditor.asleep:
            self._auditor.wake()
        exit = self._run()
        self.computing = False
        now = time.monotonic()
        if isinstance(exit, Interrupted):
            # A program that clears the state before each of its calls would never be seen using it there.
            if now < self.due:
                return exit
            self.due = now + wait()
        elif now - self.looked < BETWEEN or isinstance(exit, ProcessorException | Halt):
            return exit
        self.looked = now
        return self._convict(exit) if self._is_offending() else exit

    def _is_offending(self) -> bool:
        auditor = self._auditor
        auditor.counts["audits"] += 1
        in_use = int.from_bytes(self.processor.xsave()[XSTATE_BV], "little")
        return bool(in_use & auditor.forbidden)

    def _convict(self, exit: Exit) -> Exit:
        """Take the state away; the exit is put off to when the program comes there again."""
        auditor, processor = self._auditor, self.processor
        auditor.counts["offences"] += 1
        area = bytearray(processor.xsave())
        in_use = int.from_bytes(area[XSTATE_BV], "little")
        area[XSTATE_BV] = (in_use & ~auditor.forbidden).to_bytes(8, "little")
        processor.xrstor(bytes(area))
        if exit is SYSCALL:
            processor.gpr[RIP] -= SYSCALL_LENGTH
        elif isinstance(exit, Interrupted):
            processor.kick()  # whoever wanted it back still does
        return Offence(Vector.UD, 0)
