"""The room's interface: attach to a guest, ask for views.

    with Introspection.attach(guest) as kernel:
        for process in kernel.processes().processes: ...

Every view stops the guest for as long as it reads (`pauses` says how long), or, `live`, reads while it runs and tries
again until two readings agree. Guest memory is never written. One session belongs to one thread.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from enisle.introspect import cache, recipes
from enisle.introspect.discover import Kernel, Progress, discover
from enisle.introspect.image import KERNEL_START, entry_note
from enisle.introspect.integrity import Report, judge
from enisle.introspect.look import Baseline, Look, look, take_baseline
from enisle.introspect.maps import CodeHash, Maps, code_hashes, mappings
from enisle.introspect.memory import Guest, ProcessorState
from enisle.introspect.modules import MODULE_AREA, Module, list_modules
from enisle.introspect.processes import ProcessList, list_processes
from enisle.introspect.tables import (
    GateRow,
    LockRow,
    MsrRow,
    SystemCall,
    list_gates,
    list_locks,
    list_msrs,
    list_syscalls,
)
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.introspect.exports import Exports
    from enisle.introspect.facts import Facts
    from enisle.introspect.image import Image
    from enisle.introspect.syscalls import Dispatch

MOST_TRIES = 10
SETTLING = 0.05
"""Seconds between two looks at something that does not seem right."""
T = TypeVar("T")


class Pause(Record):
    """One time the guest stood still for us."""

    why: str
    seconds: float


class ModuleList(Record):
    modules: tuple[Module, ...]
    incomplete: str = ""


class LiveResult(Record):
    """What was read of a running guest, how often it was read, and whether two readings agreed."""

    value: Any
    tries: int
    torn: bool


class Introspection:
    """A look into one guest's kernel."""

    def __init__(self, guest: Guest, kernel: Kernel, pauses: list[Pause]) -> None:
        self.guest = guest
        self.kernel = kernel
        self.pauses = pauses

    @classmethod
    def attach(
        cls,
        guest: Guest,
        progress: Progress = lambda stage: None,
        use_exports: bool = True,
        keep: Path | None = None,
    ) -> Self:
        """Find the kernel and its facts, kept ones if `keep` has them. Raises Unsupported with the reason."""
        pauses: list[Pause] = []

        @contextmanager
        def hold(why: str) -> Generator[None]:
            with _held(guest, pauses, why):
                yield

        keys: list[str | None] = []

        def known(image: "Image", exports: "Exports") -> "tuple[Facts, Dispatch, int] | None":
            keys.append(cache.identity(image, exports, recipes.fingerprint()))
            return cache.load(keys[0], image, keep) if keys[0] and keep is not None else None

        kernel = discover(guest, progress, use_exports, hold, known)
        if keep is not None and not kernel.cached and use_exports and keys and keys[0] is not None:
            cache.save(kernel, keys[0], keep)
        return cls(guest, kernel, pauses)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        """Nothing is held between views."""

    @property
    def notes(self) -> list[str]:
        """Return what a reader of the views should know of this guest."""
        notes = {note for state in self.kernel.processors if (note := entry_note(state))}
        if not self.kernel.exports.by_name:
            notes.add("no exported functions were found or used (the kernel may have none, or be booting): fewer facts")
        return sorted(notes)

    def processes(self) -> ProcessList:
        """Return all processes with their threads."""
        return self._paused("ps", lambda: list_processes(self.kernel))

    def processes_live(self) -> LiveResult:
        """Return the processes read without stopping the guest; torn readings are repeated and flagged."""
        before = None
        for tries in range(1, MOST_TRIES + 1):
            self.kernel.space.forget()
            now = list_processes(self.kernel)
            if now.complete and before is not None and _same(before, now):
                return LiveResult(now, tries, False)
            before = now
        return LiveResult(before, MOST_TRIES, True)

    def modules(self) -> ModuleList:
        """Return the loaded modules, newest first."""

        def read() -> ModuleList:
            modules, walk = list_modules(self.kernel)
            return ModuleList(tuple(modules), walk.broken)

        return self._paused("lsmod", read)

    def syscalls(self) -> list[SystemCall]:
        return list_syscalls(self.kernel)

    def gates(self) -> list[GateRow]:
        return list_gates(self.kernel)

    def msrs(self) -> list[MsrRow]:
        return list_msrs(self.kernel, self.processors())

    def locks(self) -> list[LockRow]:
        return self._paused("locks", lambda: list_locks(self.kernel))

    def maps(self) -> Maps:
        """Return what the kernel's part of the address space maps: its image and its modules, with rights."""
        return self._paused("maps", lambda: mappings(self.kernel.space, KERNEL_START, MODULE_AREA[1]))

    def hashes(self) -> list[CodeHash]:
        """Return a hash of every run of code there that cannot be written."""
        return self._paused("hashes", lambda: [*code_hashes(self.kernel.space, KERNEL_START, MODULE_AREA[1])])

    def check(self, baseline: Baseline | None = None) -> Report:
        """Compare what must agree in a kernel that nobody tampered with."""
        report = judge(self.kernel, self._look("check"), baseline)
        if report.clean:
            return report
        # A fork caught half-way, or code being patched, looks the same: only what is still there a moment later counts.
        time.sleep(SETTLING)
        again = judge(self.kernel, self._look("check again"), baseline)
        return again._replace(findings=tuple(finding for finding in again.findings if finding in report.findings))

    def baseline(self) -> Baseline:
        """Return what `check` compares with later."""
        return take_baseline(self.kernel, self._look("baseline"))

    def _look(self, why: str) -> Look:
        return look(self.kernel, self.guest, lambda label: _held(self.guest, self.pauses, label), why)

    def processors(self) -> Sequence[ProcessorState]:
        """Return the processors as they stand now."""
        return self._paused("registers", self.guest.processors)

    def _paused(self, why: str, read: Callable[[], T]) -> T:
        with _held(self.guest, self.pauses, why):
            self.kernel.space.forget()
            return read()


@contextmanager
def _held(guest: Guest, pauses: list[Pause], why: str) -> Generator[None]:
    guest.pause()
    began = time.perf_counter()
    try:
        yield
    finally:
        guest.resume()
        pauses.append(Pause(why, time.perf_counter() - began))


def _same(one: ProcessList, other: ProcessList) -> bool:
    """Return whether two readings tell of the same processes with the same names."""
    return [(p.pid, p.ppid, p.comm, len(p.threads)) for p in one.processes] == [
        (p.pid, p.ppid, p.comm, len(p.threads)) for p in other.processes
    ]
