"""A full Linux machine seen from Python: started, looked into, stopped.

    with VirtualMachine.start(VmConfig(kernel="vmlinuz", initrd="initrd.gz")) as machine:
        with machine.paused():
            print(machine.registers()[0].rip, machine.msrs()[0][0xC0000082])

An attached machine ends with its object or its process; a detached one is found again by its name. Any thread may
call. Promises: a machine that was running runs again after any look into it, whatever goes wrong.
"""

import mmap
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from enisle.errors import HostError, StateError
from enisle.linuxvm import launch, state
from enisle.linuxvm.configuration import VmConfig, from_record
from enisle.linuxvm.dump import Dump, write_dump
from enisle.linuxvm.memory_map import Range, parse_memory_map
from enisle.linuxvm.qemu import RAM
from enisle.linuxvm.registers import ProcessorRegisters, parse_registers
from enisle.linuxvm.stream import read_stream
from enisle.linuxvm.talk import Talkative
from enisle.linuxvm.vmstate import parse_msrs
from enisle.records import Record

STARTING, RUNNING, PAUSED, ENDED, HANGING = "starting", "running", "paused", "ended", "hanging"


class VmStatus(Record):
    """What is known of a machine."""

    name: str
    state: str
    """"starting", "running", "paused", "hanging" (QEMU does not answer) or "ended"."""
    accelerator: str
    memory: int
    processors: int
    kernel: str
    detached: bool
    pid: int
    """QEMU's; 0 when it has ended."""
    seconds: float
    """Since its start."""
    reason: str
    jail: str


class VirtualMachine(Talkative):
    """One machine, running or ended."""

    def __init__(self, directory: Path, record: state.MachineRecord, started: "launch.Started | None" = None) -> None:
        super().__init__(directory)
        self.accelerator = record.accelerator
        self.config: VmConfig = from_record(record.config)
        self.notes: tuple[str, ...] = started.notes if started else ()
        """What the user should know of it, one line each."""
        self._record = record
        self._started = started
        self._ram: memoryview | None = None

    @classmethod
    def start(
        cls, config: VmConfig, *, detached: bool = False, progress: Callable[[str], None] | None = None
    ) -> "VirtualMachine":
        """Start a machine; return it when QEMU answers. Raises InvalidRequest, StateError or HostError.

        `progress` is told in a few words what is being done.
        """
        started = launch.start(config, detached, progress or (lambda words: None))
        return cls(started.directory, started.record, started)

    @classmethod
    def find(cls, name: str) -> "VirtualMachine":
        """Return a machine by its name. Raises NotFound."""
        return cls(*state.find(name))

    # ---- life ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> "VirtualMachine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End an attached machine and wait until nothing is left of it; let a detached one be. May be called again."""
        if self._started is not None:
            self._started.close()
        self._ram = None

    def reason(self) -> str:
        """Why it ended, as far as that is known."""
        told = self._started.wait(0) if self._started is not None and self._started.attached else None
        return told or super().reason()

    def status(self) -> VmStatus:
        """Return what is known of it now."""
        record = state.try_read(self.directory) or self._record._replace(state=ENDED)
        alive = self.is_alive and record.state != ENDED
        return VmStatus(
            name=self.name,
            state=(STARTING if record.state == STARTING else self._run_state()) if alive else ENDED,
            accelerator=record.accelerator,
            memory=self.config.memory,
            processors=self.config.processors,
            kernel=self.config.kernel,
            detached=record.detached,
            pid=record.qemu if alive else 0,
            seconds=time.time() - record.started if record.started and alive else 0.0,
            reason=record.reason,
            jail=record.jail,
        )

    def _run_state(self) -> str:
        try:
            with self.monitor(timeout=2.0) as monitor:
                return RUNNING if monitor.execute("query-status")["running"] else PAUSED
        except HostError:
            return HANGING
        except StateError:
            return ENDED

    def wait(self, timeout: float | None = None) -> str | None:
        """Wait for its end; return the reason, or None when `timeout` seconds were not enough."""
        if self._started is not None and self._started.attached:
            return self._started.wait(timeout)
        record = state.try_read(self.directory) or self._record
        try:
            guardian = os.pidfd_open(record.guardian) if record.guardian and self.is_alive else -1
        except ProcessLookupError:
            guardian = -1
        if guardian >= 0:
            try:
                if not select.select([guardian], [], [], timeout)[0]:
                    return None
            finally:
                os.close(guardian)
        ended = state.try_read(self.directory)
        return ended.reason if ended and ended.reason else "it is gone"

    def stop(self, timeout: float = 10.0, *, force: bool = False) -> str:
        """End the machine: by its power button, then by QEMU's quit, then by SIGKILL. Return the reason told.

        `force` leaves the guest no time. Raises StateError when it has ended already.
        """
        self.require_alive()
        (self.directory / "stopping").touch()
        patience = 2.0
        try:
            if not force:
                with self.monitor() as monitor:
                    if monitor.execute("query-status")["running"]:
                        monitor.execute("system_powerdown")
                if (reason := self.wait(timeout)) is not None:
                    return reason
            with self.monitor(timeout=1.0) as monitor:
                monitor.execute("quit")
        except StateError:
            pass  # it ends already
        except HostError:
            patience = 0.0  # it hangs
        if (reason := self.wait(patience)) is None:
            self._kill()
            reason = self.wait(5.0)
        if reason is None:
            why = "even after SIGKILL: the host kernel holds it"
            raise HostError(f"{self.name} does not end", why, "look at dmesg")
        return reason

    def _kill(self) -> None:
        record = state.try_read(self.directory)
        if record is None or not record.qemu:
            return
        try:
            handle = os.pidfd_open(record.qemu)
        except ProcessLookupError:
            return
        try:
            if self.is_alive:  # its number is its own as long as the guardian, its parent, has not reaped it
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            pass  # just now
        finally:
            os.close(handle)

    def remove(self) -> None:
        """Forget a machine that has ended. Raises StateError while it runs."""
        state.remove(self.directory)

    # ---- looking ---------------------------------------------------------------------------------------------------

    def registers(self) -> tuple[ProcessorRegisters, ...]:
        """Return the registers of every processor; of one moment only while it is paused."""
        with self.monitor() as monitor:
            return parse_registers(monitor.human("info registers -a"))

    def msrs(self) -> tuple[dict[int, int], ...]:
        """Return the model-specific registers of every processor by number; it stands still meanwhile (20 ms)."""
        with self.paused(), self.monitor() as monitor:
            return parse_msrs(read_stream(monitor))

    def memory_map(self) -> tuple[Range, ...]:
        """Return where guest-physical memory lies in `ram`, as QEMU has it now."""
        with self.monitor() as monitor:
            return parse_memory_map(monitor.human("info mtree -f"), RAM)

    @property
    def ram(self) -> memoryview:
        """The guest's memory as it is, read-only, by offset (`memory_map` tells which address lies where).

        A page the guest never touched takes room once it is read here; `open_ram` and pread(2) leave it a hole.
        """
        if self._ram is None:
            descriptor = self.open_ram()
            try:
                mapped = mmap.mmap(descriptor, self.config.memory, prot=mmap.PROT_READ)
            finally:
                os.close(descriptor)
            self._ram = memoryview(mapped)
        return self._ram

    def open_ram(self, *, writable: bool = False) -> int:
        """Return a descriptor of the guest's memory, the caller's to close. Raises StateError when it has ended."""
        self.require_alive()
        record = state.try_read(self.directory) or self._record
        try:
            path = f"/proc/{record.guardian}/fd/{record.ram}"
            descriptor = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(
                f"cannot open the memory of {self.name}", error.strerror or "", "run as its owner"
            ) from error
        if os.fstat(descriptor).st_size != self.config.memory or not self.is_alive:
            os.close(descriptor)
            raise StateError(f"the machine {self.name} has ended", "its memory is gone", "enisle vm ps")
        return descriptor

    def dump(self, path: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None) -> Dump:
        """Write its memory and the state of its processors to a new directory (`linuxvm.dump` tells the format).

        It stands still meanwhile. Raises InvalidRequest when `path` is there already, HostError when it cannot write.
        """
        with self.paused():
            registers, msrs, ranges = self.registers(), self.msrs(), self.memory_map()
            descriptor = self.open_ram()
            try:
                return write_dump(Path(path), self.name, self.config, descriptor, ranges, registers, msrs, progress)
            finally:
                os.close(descriptor)


def machines() -> list[VirtualMachine]:
    """Return all machines of this user, running or ended, by name."""
    base = state.base_directory()
    return [VirtualMachine(base / record.name, record) for record in state.records()]
