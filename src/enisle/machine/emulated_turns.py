"""Turns: emulated processors of one machine run one at a time, because an emulator's locked instructions are atomic
only against its own instance.

The processor that was served least goes first, and a newcomer that was served less than the running one interrupts it
early, so that a thread making many short system calls keeps up with one that only computes.
A waiting processor can be kicked. All fields are guarded by the one lock; nothing is called while it is held.
"""

import threading
import time

QUANTUM = 0.008
"""Seconds a processor may keep others waiting that were served as much."""
SHORT_QUANTUM = 0.0005
CREDIT = 0.010
"""Seconds that a processor which slept may be behind the others."""


class Runner:
    """One contender. The owner overrides `halt`, which makes it come back from wherever it computes."""

    def __init__(self) -> None:
        self.preempted = False
        """Somebody else should have the turn; cleared when the turn is given."""
        self.kicked = False
        """Set before `wake` by whoever wants it back."""
        self._gate = threading.Lock()
        self._gate.acquire()
        self._signalled = False
        self._served = self._since = 0.0

    def halt(self) -> None:
        raise NotImplementedError


class Turns:
    """Hands the turn round."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.owner: Runner | None = None
        self._waiting: list[Runner] = []
        self._floor = 0.0

    def take(self, runner: Runner) -> bool:
        """Wait for the turn; return whether it came (False: `wake` was called)."""
        with self._lock:
            if self.owner is None:
                self._grant(runner)
                return True
            if runner.kicked:
                return False
            runner._served = max(runner._served, self._floor - CREDIT)
            self._waiting.append(runner)
        while not runner._gate.acquire(timeout=SHORT_QUANTUM if self._is_owed(runner) else QUANTUM):
            self._preempt(runner)
        with self._lock:
            runner._signalled = False
            if self.owner is runner:
                return True
            self._waiting.remove(runner)
            return False

    def leave(self, runner: Runner) -> None:
        """Give the turn to whoever was served least."""
        with self._lock:
            assert self.owner is runner, "gave away a turn that it did not have"
            runner._served += time.perf_counter() - runner._since
            self._floor = max(self._floor, runner._served)
            self.owner = None
            candidates = [waiting for waiting in self._waiting if not waiting._signalled]
            if candidates:
                chosen = min(candidates, key=lambda waiting: waiting._served)
                self._waiting.remove(chosen)
                self._grant(chosen)
                self._signal(chosen)

    def wake(self, runner: Runner) -> None:
        """Make a waiting `take` return."""
        with self._lock:
            if runner in self._waiting and not runner._signalled:
                self._signal(runner)

    def _grant(self, runner: Runner) -> None:
        self.owner = runner
        runner.preempted = False
        runner._since = time.perf_counter()

    def _signal(self, runner: Runner) -> None:
        runner._signalled = True
        runner._gate.release()

    def _is_owed(self, runner: Runner) -> bool:
        owner = self.owner
        return owner is not None and runner._served < owner._served + time.perf_counter() - owner._since

    def _preempt(self, runner: Runner) -> None:
        with self._lock:
            owner = self.owner
            if owner is None or owner is runner:
                return
            held = time.perf_counter() - owner._since
            if held < (SHORT_QUANTUM if runner._served < owner._served + held else QUANTUM):
                return
            owner.preempted = True
        owner.halt()
