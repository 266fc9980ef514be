"""`enisle introspect TARGET VIEW`: what a guest's kernel does, found from outside without symbols.

TARGET is a running machine (`enisle vm ps`), a saved one (a directory of `enisle vm dump`, or a memory image with its
registers beside it), or an island (`enisle ps`). This file joins the machines of `linuxvm` with `introspect`.
"""

import json
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enisle.cli.grammar import Options
from enisle.cli.introspect_island import VIEWS as MAP_VIEWS
from enisle.cli.introspect_island import IslandSession, refuse
from enisle.cli.introspect_rows import HEADS, ROWS, report_lines, status_line
from enisle.cli.output import mutter, plain, say, table
from enisle.errors import InvalidRequest, NotFound, StateError
from enisle.introspect import Baseline, Introspection, LiveGuest, cache_directory, open_saved
from enisle.island import Entry, find

if TYPE_CHECKING:
    from enisle.introspect import Guest
    from enisle.linuxvm import VirtualMachine

VIEWS = ("facts", "ps", "lsmod", "syscalls", "idt", "msr", "creds", "locks", "check", "watch", *MAP_VIEWS)
KERNEL = "kernel"
FOUND = 1
"""Exit status of `check` when something is not as it must be."""


def introspect(options: Options) -> int:
    """Show one view. Returns 1 when a check found something."""
    if len(options.words) < 2:
        raise InvalidRequest("introspect needs a target and a view", ", ".join(VIEWS), "enisle introspect NAME ps")
    target, view = options.words[:2]
    if view not in VIEWS:
        raise InvalidRequest(f"there is no view {view!r}", f"views: {', '.join(VIEWS)}", "enisle introspect --help")
    _check_words(options, view)
    try:
        if options.context or options.url or options.tenant:
            from enisle.cli.introspect_away import look_away

            return look_away(target, view, options)
        return _look(target, view, options)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _check_words(options: Options, view: str) -> None:
    """Raise InvalidRequest for a function or an option that the view has no use for."""
    named = len(options.words) == 3
    if view == "watch" and not named:
        why = "a function of the facts, an exported one, or sys:NAME, a system call"
        raise InvalidRequest("watch needs a function", why, "enisle introspect NAME watch sys:openat")
    if view != "watch" and named:
        why = "watch alone takes a third word, a function"
        raise InvalidRequest(f"{view} takes no {options.words[2]!r}", why, f"enisle introspect NAME {view}")
    wanted = {
        "--live": (options.live, ("ps", "creds")),
        "--baseline": (bool(options.baseline), ("check",)),
        "--record": (options.record, ("check",)),
        "--count": (bool(options.count), ("watch",)),
        "--seconds": (options.seconds is not None, ("watch",)),
    }
    for flag, (given, views) in wanted.items():
        if given and view not in views:
            why = f"it belongs to {' and '.join(views)}"
            raise InvalidRequest(f"{view} has no use for {flag}", why, "enisle introspect --help")
    if options.record and not options.baseline:
        raise InvalidRequest("--record needs a file", "the baseline is written to it", "--baseline FILE --record")
    if options.watch and (view in ("watch", "check") or options.interval <= 0):
        what = f"{view} is not shown again and again" if options.interval > 0 else "--interval must be more than 0"
        raise InvalidRequest(what, "--watch --interval SECONDS shows a list anew", "enisle introspect NAME ps --watch")
    if options.count < 0 or (options.seconds or 0) < 0:
        why = "--count and --seconds say when watching ends"
        raise InvalidRequest("watching cannot end before it begins", why, "--count 10")


def _look(target: str, view: str, options: Options) -> int:
    """Show one view, interruptible: a guest that was stopped for it runs on."""
    for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signo) is not signal.SIG_IGN:
            signal.signal(signo, _interrupt)
    opened = _open(target)
    if isinstance(opened, Entry):
        if view not in MAP_VIEWS:
            raise refuse(opened, view)
        return _show(IslandSession(opened), view, options)
    guest, machine = opened
    with _progress() as tell:
        session = Introspection.attach(guest, tell, not options.without_exports, cache_directory())
    for note in session.notes:
        mutter(f"enisle: note: {note}\n")
    if view == "check":
        return _check(session, options)
    if view == "watch":
        return _watch(session, machine, options)
    return _show(session, view, options)


def _interrupt(signo: int, frame: object) -> None:
    raise KeyboardInterrupt


def _open(target: str) -> "tuple[Guest, VirtualMachine | None] | Entry":
    """Return the guest, and the machine when it runs; or an island. Raises NotFound."""
    if Path(target).exists():
        return open_saved(target), None
    from enisle.linuxvm import VirtualMachine

    try:
        machine = VirtualMachine.find(target)
    except NotFound as error:
        try:
            return find(target)
        except NotFound:
            why = "no machine, no island and no file has that name"
            hint = "enisle vm ps lists machines, enisle ps islands; enisle vm dump saves a machine"
            raise NotFound(f"there is nothing to look into called {target!r}", why, hint) from error
    return LiveGuest(machine), machine


@contextmanager
def _progress() -> Generator[Callable[[str], None]]:
    """Give what tells stages on a terminal, once they take longer than people like to wait; then clear the line."""
    began, told = time.monotonic(), False

    def tell(stage: str) -> None:
        nonlocal told
        if sys.stderr.isatty() and time.monotonic() - began > 0.3:
            mutter(f"\r\x1b[Klooking: {stage} …")
            told = True

    try:
        yield tell
    finally:
        if told:
            mutter("\r\x1b[K")


# ---- views -----------------------------------------------------------------------------------------------------------


def _show(session: Introspection | IslandSession, view: str, options: Options) -> int:
    aligned = sys.stdout.isatty()
    while True:
        began, before = time.perf_counter(), len(session.pauses)
        records, troubles = _read(session, view, options.live)
        paused = sum(pause.seconds for pause in session.pauses[before:])
        if options.json:
            value: dict[str, Any] = {
                "view": view,
                "rows": [_plain(record) for record in records],
                "incomplete": troubles,
            }
            value["paused_seconds"] = paused
            say(json.dumps(value) + "\n")
        else:
            rows = [[plain(cell) for cell in ROWS[view](record)] for record in records]
            say(("\x1b[H\x1b[2J" if aligned and options.watch else "") + table(HEADS[view], rows, aligned))
            for trouble in troubles:
                mutter(f"enisle: incomplete: {plain(trouble)}\n")
            if aligned:
                mutter(status_line(len(rows), time.perf_counter() - began, paused))
        if not options.watch:
            return 0
        time.sleep(options.interval)


def _read(session: Introspection | IslandSession, view: str, live: bool) -> tuple[Sequence[Any], list[str]]:
    """Return the records of a view, and why they are not all."""
    if view in MAP_VIEWS:
        return _read_maps(session, view)
    assert isinstance(session, Introspection)
    if view in ("ps", "creds"):
        if live:
            result = session.processes_live()
            torn = [f"torn: no two of {result.tries} readings agreed"] if result.torn else []
            return result.value.processes, [*result.value.incomplete, *torn]
        listed = session.processes()
        return listed.processes, list(listed.incomplete)
    if view == "lsmod":
        modules = session.modules()
        return modules.modules, [modules.incomplete] if modules.incomplete else []
    readers: dict[str, Callable[[], Sequence[Any]]] = {
        "facts": lambda: sorted(session.kernel.facts, key=lambda fact: (fact.kind, fact.name)),
        "syscalls": session.syscalls,
        "idt": session.gates,
        "msr": session.msrs,
        "locks": session.locks,
    }
    return readers[view](), []


def _read_maps(session: Introspection | IslandSession, view: str) -> tuple[Sequence[Any], list[str]]:
    """Return (whose, record) of what is mapped, and why that is not all."""
    if view == "hashes":
        hashes = session.hashes()
        return (hashes if isinstance(session, IslandSession) else [(KERNEL, each) for each in hashes]), []
    if isinstance(session, IslandSession):
        runs, troubles = session.maps()
    else:
        seen = session.maps()
        runs = [(KERNEL, run) for run in seen.runs]
        troubles = ["more page tables than are read"] * seen.truncated
    return [(whose, run) for whose, run in runs if view == "maps" or (run.writable and run.executable)], troubles


def _plain(record: Any) -> Any:
    """Return what JSON can hold of a record."""
    if hasattr(record, "_asdict"):
        return {name: _plain(value) for name, value in record._asdict().items()}
    if isinstance(record, tuple) and len(record) == 2 and hasattr(record[1], "_asdict"):  # pyright: ignore[reportUnknownArgumentType]
        return {"process": record[0]} | _plain(record[1])
    if isinstance(record, tuple):
        return [_plain(value) for value in record]  # pyright: ignore[reportUnknownVariableType]
    return record


def _check(session: Introspection, options: Options) -> int:
    path = Path(options.baseline) if options.baseline else None
    if path is not None and options.record:
        session.baseline().save(path)
        mutter(f"recorded the baseline {path}\n")
        return 0
    report = session.check(Baseline.load(path) if path is not None else None)
    if options.json:
        say(json.dumps(_plain(report) | {"clean": report.clean}) + "\n")
    else:
        say("".join(plain(line) + "\n" for line in report_lines(report)))
    return 0 if report.clean else FOUND


def _watch(session: Introspection, machine: "VirtualMachine | None", options: Options) -> int:
    from enisle.introspect import Debugger, Hit, address_of, wait_until, watch

    name = options.words[2]
    address = address_of(session.kernel, name)
    if machine is None:
        raise StateError("a saved guest does not run", "there is nothing to stop", "watch a running machine")
    if not machine.config.gdb:
        why = f"{machine.name} was started without a debugger's socket"
        raise StateError(f"{name} cannot be watched", why, "enisle vm run --gdb …")

    def tell(hit: Hit) -> None:
        arguments = ", ".join(f"{value:#x}" for value in hit.arguments)
        if options.json:
            say(json.dumps(hit._asdict() | {"function": name}) + "\n")
        else:
            say(f"{hit.number}\t{name}({arguments})\t{plain(hit.task)}\tprocessor {hit.processor}\n")

    if sys.stderr.isatty():
        mutter(f"watching {name} at {address:#x}; Ctrl-C ends it\n")
    hits = 0

    def count(hit: Hit) -> None:
        nonlocal hits
        hits = hit.number
        tell(hit)

    with machine.connect("gdb") as connection:
        try:
            watch(session.kernel, Debugger(connection), address, count, options.count or None,
                  wait_until(options.seconds))  # fmt: skip
        except KeyboardInterrupt:
            pass
    mutter(f"{name} ran {hits} times; the guest goes on\n")
    return 0
