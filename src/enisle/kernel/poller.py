"""Serves system calls without an exit: one host thread that watches the call slots of busy guest threads.

It watches only while calls keep coming, never when the guest's threads need all cores, and sends to the exit door
whatever would sleep, needs every register, or meets a signal. Turning it off changes speed only.
"""

import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from enisle.abi.linux import ERESTARTSYS
from enisle.abi.x86 import RAX
from enisle.kernel.table import U64
from enisle.kernel.wait import MustLeave, Waiter
from enisle.machine import POSTED, STATE_WORD, CallSlot, OutOfMemory

if TYPE_CHECKING:
    from enisle.kernel.kernel import Kernel
    from enisle.kernel.thread import Thread

HOT_NS = 300_000
"""Calls of a thread that come closer together than this are hot."""
HEAT = 8
"""Hot calls in a row before a thread's slot is opened."""
IDLE_NS = 100_000
"""How long the poller spins without a call before it closes the slots and sleeps."""
SPINS_PER_LOOK = 32
SWITCH_INTERVAL = 0.0002


class Poller:
    """The poller of one island; its host thread starts with the first hot thread."""

    def __init__(self, kernel: "Kernel", cores: int | None = None) -> None:
        self.kernel = kernel
        self.cores = cores or len(os.sched_getaffinity(0))
        self.enabled = kernel.machine.exitless and self.cores > 1 and not kernel.trace
        self.served = self.sent_away = 0
        self._open: tuple[tuple[CallSlot, Thread], ...] = ()
        self._lock = threading.Lock()
        self._bell = Waiter()
        self._host: threading.Thread | None = None

    # ---- on the guest's own thread -----------------------------------------------------------------------------------

    def note(self, thread: "Thread") -> None:
        """A call of `thread` came through the exit door: open its slot when such calls come in a row."""
        now = time.perf_counter_ns()
        since, thread.last_call_ns = now - thread.last_call_ns, now
        if since > HOT_NS:
            thread.heat = 0
            return
        thread.heat += 1
        if thread.heat >= HEAT and self._has_room():
            thread.heat = 0
            self._watch(thread)

    def _has_room(self) -> bool:
        """Return whether a core is left for polling beside the threads that compute now."""
        return sum(thread.in_guest for thread in list(self.kernel.threads.values())) + 1 < self.cores

    def _watch(self, thread: "Thread") -> None:
        try:
            slot = thread.processor.open_slot(thread.mm.space)
        except OutOfMemory:
            return
        if slot is None:
            return
        thread.slot = slot
        with self._lock:
            if all(other is not slot for other, _ in self._open):
                self._open = (*self._open, (slot, thread))
            slot.set_open(True)
            if self._host is None:
                sys.setswitchinterval(SWITCH_INTERVAL)  # the poller holds the interpreter while it spins
                self._host = threading.Thread(target=self._main, name="poller", daemon=True)
                self._host.start()
        self._bell.wake()

    def forget(self, thread: "Thread") -> None:
        """The thread leaves its address space or ends: take its slot away."""
        slot, thread.slot = thread.slot, None
        if slot:
            with self._lock:
                self._open = tuple(pair for pair in self._open if pair[0] is not slot)
            while slot.serving:
                time.sleep(0)
            thread.processor.close_slot()

    # ---- on the poller's thread --------------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            while True:
                self._bell.sleep()
                self._poll()
        except BaseException as error:
            self.kernel.panic(error)

    def _poll(self) -> None:
        """Serve calls until none has come for a while or the guest needs the core."""
        spins, last = 0, time.perf_counter_ns()
        while True:
            for slot, thread in self._open:
                if slot.halves[STATE_WORD] == POSTED and slot.take():
                    self._serve(slot, thread)
                    last, spins = time.perf_counter_ns(), 0
            spins += 1
            if spins % SPINS_PER_LOOK == 0:
                time.sleep(0)  # let a thread that has left its guest have the interpreter
                if time.perf_counter_ns() - last > IDLE_NS or self._crowded():
                    self._close()
                    return

    def _crowded(self) -> bool:
        return sum(thread.in_guest for thread in list(self.kernel.threads.values())) >= self.cores

    def _close(self) -> None:
        """Tell every stub that nobody polls; one that has posted a call leaves with it."""
        with self._lock:
            for slot, _ in self._open:
                slot.set_open(False)
            self._open = ()

    def _serve(self, slot: CallSlot, thread: "Thread") -> None:
        number = slot.registers[RAX] & 0xFFFF_FFFF
        entry = self.kernel.find(number)
        # A slot posted while its thread is not in the guest was forged by a sibling.
        if entry is None or entry.exit_door or thread.work or not thread.in_guest:
            self.sent_away += 1
            slot.send_away()
            return
        thread.waiter.may_sleep = False
        if self.kernel.nodes:
            self.kernel.nodes.lend(thread)
        try:
            result = thread.guarded(entry.call, slot.registers)
        except MustLeave:
            self.sent_away += 1
            thread.waiter.may_sleep = True
            slot.send_away()
            return
        thread.waiter.may_sleep = True
        thread.syscalls += 1
        self.served += 1
        if thread.work or result <= -ERESTARTSYS or thread.restore_mask is not None:
            thread.answered = result  # signals come first: the thread takes the result through the exit door
            slot.send_away()
        else:
            slot.answer(result & U64)
