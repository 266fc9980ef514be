"""Look into a running Linux guest and compare with what it says of itself; tamper with a saved one.

One kernel serves all tests (ENISLE_KERNEL chooses it); ENISLE_SOAK=1 makes them longer. `python -m bench.kernels` runs
all kernels.
"""

import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench.kernel_guest import TestGuest, differing_tasks, running, wrong_facts

from enisle.introspect import (
    Baseline,
    Debugger,
    Hit,
    Introspection,
    Overlay,
    address_of,
    open_saved,
    wait_until,
    watch,
)
from enisle.introspect.dump import SavedGuest
from enisle.introspect.memory import LSTAR
from enisle.introspect.patching import NOP5, PatchSites
from tests_of_introspection import ACTIONS, actions

KERNEL = os.environ.get("ENISLE_KERNEL", "6.1-cloud")
SOAK = bool(os.environ.get("ENISLE_SOAK"))
pytestmark = [pytest.mark.qemu, pytest.mark.timeout(3600 if SOAK else 300)]
LISTINGS = 1000 if SOAK else 15
EVIL = 0xFFFF_FFFF_C046_4000
"""An address where modules lie."""


@pytest.fixture(scope="module")
def guest() -> Iterator[TestGuest]:
    with running(KERNEL, "PROCESSES=180 MODULES=12", files={"bin/actions": actions()}) as booted:
        booted.dump()
        yield booted


@pytest.fixture(scope="module")
def session(guest: TestGuest) -> Introspection:
    return Introspection.attach(guest.guest)


@pytest.fixture(scope="module")
def saved(guest: TestGuest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "guest"
    guest.machine.dump(path)
    return path


def test_no_fact_is_wrong_and_many_are_found(guest: TestGuest, session: Introspection) -> None:
    assert wrong_facts(session, guest.oracle) == []
    known = [fact for fact in session.kernel.facts if fact.value is not None]
    assert sum(fact.kind in ("global", "function") for fact in known) >= 100
    assert sum(fact.kind == "offset" for fact in known) >= 30
    by_pattern = {p: sum(any(w.pattern == p for w in f.witnesses) for f in known) for p in ("P1", "P2", "P3", "P4")}
    assert all(by_pattern[pattern] >= least for pattern, least in {"P1": 20, "P2": 5, "P3": 3, "P4": 3}.items())
    assert all(len({w.root for w in fact.witnesses}) >= 2 for fact in known if fact.status == "confirmed")
    assert all(fact.trace for fact in known)


def test_all_exports_are_found_and_none_is_wrong(guest: TestGuest, session: Introspection) -> None:
    symbols = guest.oracle.symbols()
    exports = session.kernel.exports.by_name
    assert [name for name, value in exports.items() if value not in symbols.get(name, ())] == []
    told = {name.removeprefix("__ksymtab_") for name in symbols if name.startswith("__ksymtab_")}
    assert len(told - exports.keys()) <= 0.001 * len(told)


def test_processes_threads_and_modules_are_the_guests_own(guest: TestGuest, session: Introspection) -> None:
    before = guest.ask()
    with guest.machine.paused():
        listed = session.processes()
        modules = session.modules()
    after = guest.ask()
    assert listed.complete
    assert len(listed.processes) >= 200
    assert differing_tasks(session, before, after, listed.processes) == []
    assert [module.name for module in modules.modules] == after.modules()
    assert len(modules.modules) >= 10


def test_system_calls_alone_are_roots_enough(guest: TestGuest, session: Introspection) -> None:
    alone = Introspection.attach(guest.guest, use_exports=False)
    assert wrong_facts(alone, guest.oracle) == []
    for name in ("current_task", "task_struct.cred", "task_struct.real_parent", "cred.uid", "cred.euid"):
        assert alone.kernel.facts.value(name) == session.kernel.facts.value(name) is not None, name
    assert alone.kernel.facts.value("sys_call_table") == session.kernel.facts.value("sys_call_table")
    assert len(alone.processes().processes) >= 200


def test_kept_facts_serve_the_next_attachment(guest: TestGuest, session: Introspection, tmp_path: Path) -> None:
    first = Introspection.attach(guest.guest, keep=tmp_path)
    second = Introspection.attach(guest.guest, keep=tmp_path)
    assert (first.kernel.cached, second.kernel.cached) == (False, True)
    assert [*second.kernel.facts] == [*first.kernel.facts]
    assert len(second.processes().processes) >= 200


def test_a_running_guest_is_listed_without_stopping_it(guest: TestGuest, session: Introspection) -> None:
    guest.run('LOOPS=; for i in 1 2 3; do (while :; do sh -c :; done) & LOOPS="$LOOPS $!"; done')
    try:
        results = [session.processes_live() for _ in range(LISTINGS)]
        assert all(len(result.value.processes) >= 100 for result in results if not result.torn)
        assert all(result.value.complete for result in results if not result.torn)
        assert not session.check().findings
    finally:
        guest.run("kill $LOOPS", 60)


def _until_done(guest: TestGuest) -> Callable[[], bool]:
    late = wait_until(60)
    return lambda: guest.is_done() or late()


def test_watching_counts_what_the_guest_does_and_writes_nothing(guest: TestGuest, session: Introspection) -> None:
    baseline = session.baseline()
    for function, (command, count) in ACTIONS.items():
        hits: list[Hit] = []
        address = address_of(session.kernel, function)
        with guest.machine.connect("gdb") as connection:
            debugger = Debugger(connection)
            guest.start(command)
            ran = watch(session.kernel, debugger, address, hits.append, None, _until_done(guest))
        assert guest.is_done()
        assert ran == count, function
        assert {hit.task.partition("/")[0] for hit in hits} == {"actions"}
    report = session.check(baseline)
    assert report.findings == ()


# ---- tampering, on a saved guest -------------------------------------------------------------------------------------


class Tampered:
    """A saved guest whose memory can be changed in a copy."""

    def __init__(self, path: Path, keep: Path | None = None) -> None:
        origin = open_saved(path)
        self.memory = Overlay(origin.memory)
        self.processors = list(origin.processors())
        self.guest = SavedGuest("tampered", self.memory, self.processors)
        self.session = Introspection.attach(self.guest, keep=keep)

    def write(self, address: int, content: bytes) -> None:
        for at, byte in enumerate(content, address):
            self.memory.write(self.session.kernel.space.translate(at), bytes([byte]))

    def read(self, address: int, size: int) -> bytes:
        return self.session.kernel.space.read(address, size)

    def unlink(self, node: int) -> None:
        following, before = struct.unpack("<QQ", self.read(node, 16))
        self.write(before, struct.pack("<Q", following))
        self.write(following + 8, struct.pack("<Q", before))

    def jump(self, at: int, target: int) -> None:
        self.write(at, b"\xe9" + struct.pack("<i", target - at - 5))


@pytest.fixture(scope="module")
def baseline(saved: Path) -> Baseline:
    session = Tampered(saved, saved.parent / "keep").session
    session.baseline().save(saved.parent / "baseline")
    baseline = Baseline.load(saved.parent / "baseline")
    assert session.check(baseline).clean
    return baseline


@pytest.fixture
def tampered(saved: Path) -> Tampered:
    return Tampered(saved, saved.parent / "keep")


def _table_to_module(t: Tampered) -> None:
    t.write(t.session.kernel.dispatch.table + 8 * 62, struct.pack("<Q", EVIL))


def _table_to_function(t: Tampered) -> None:
    way = t.session.kernel.dispatch
    t.write(way.table + 8 * 62, struct.pack("<Q", way.handlers[39]))


def _switch_leaf(t: Tampered) -> None:
    way = t.session.kernel.dispatch
    code = t.read(way.switch, 0x3000)
    for at in range(len(code) - 6):
        size = 6 if code[at] == 0x0F and code[at + 1] & 0xF0 == 0x80 else 5 if code[at] == 0xE9 else 0
        if size and way.switch + at + size + struct.unpack_from("<i", code, at + size - 4)[0] == way.handlers[62]:
            end = way.switch + at + size
            t.write(end - 4, struct.pack("<i", way.handlers[39] - end))
            return
    pytest.fail("the switch has no leaf for kill")


def _prologue(t: Tampered) -> None:
    handler = t.session.kernel.dispatch.handlers[62]
    t.jump(handler + 4 * (t.read(handler, 4) == b"\xf3\x0f\x1e\xfa"), EVIL)


def _gate(t: Tampered) -> None:
    attached = t.session.kernel.attached
    target = attached.gates[0x80].target + 0x100
    t.write(attached.processor.idt_base + 0x80 * 16, struct.pack("<H", target & 0xFFFF))


def _lstar(t: Tampered) -> None:
    state = t.processors[0]
    t.processors[0] = state._replace(msrs={**state.msrs, LSTAR: state.msrs[LSTAR] + 0x20})


def _task(t: Tampered) -> None:
    victim = next(p for p in t.session.processes().processes if p.comm == "crowd-5")
    t.unlink(victim.address + (t.session.kernel.facts.value("task_struct.tasks") or 0))


def _module(t: Tampered) -> None:
    t.unlink(t.session.modules().modules[3].address + (t.session.kernel.facts.value("module.list") or 0))


def _code(t: Tampered) -> None:
    at = t.session.kernel.exports.by_name["schedule_timeout_killable"] + 12
    t.write(at, bytes([t.read(at, 1)[0] ^ 0x40]))


def _static_call(t: Tampered) -> None:
    """Turn a static call to another function of the kernel, where the kernel itself may turn it to a third."""
    image, other = t.session.kernel.image, t.session.kernel.exports.by_name["schedule_timeout_killable"]
    sites = PatchSites(image, image).calls
    site = next(place for place in sites if image.is_text(place) and image.read(place, 1) == b"\xe8")
    t.write(site + 1, struct.pack("<i", other - site - 5))


def _traced(t: Tampered) -> None:
    """Have a function call one of the kernel's where tracing would call its own."""
    exports = t.session.kernel.exports.by_name
    at = next(at for at in exports.values() if t.session.kernel.image.read(at, 5) == NOP5)
    t.write(at, b"\xe8" + struct.pack("<i", exports["schedule_timeout_killable"] - at - 5))


def _constant(t: Tampered) -> None:
    region = next(r for r in t.session.kernel.image.regions if r.size >= 2 << 20 and not (r.writable or r.executable))
    t.write(region.start + 0x10, bytes([t.read(region.start + 0x10, 1)[0] ^ 1]))


SEEN_AFRESH = ("table to another function", "LSTAR", *(("switch leaf", "prologue", "hidden process") if SOAK else ()))
TAMPERING: dict[str, tuple[Callable[[Tampered], None], str, str, bool]] = {
    "table to a module": (_table_to_module, "system call table", "kill (62)", False),
    "table to another function": (_table_to_function, "system call table or switch", "kill (62)", False),
    "switch leaf": (_switch_leaf, "system call table or switch", "kill (62)", False),
    "prologue": (_prologue, "prologue", "handler of kill", False),
    "interrupt gate": (_gate, "interrupt gate", "vector 0x80, processor 0", True),
    "LSTAR": (_lstar, "LSTAR", "processor 0", False),
    "hidden process": (_task, "hidden process", "crowd-5", False),
    "hidden module": (_module, "hidden module", "", False),
    "code": (_code, "code", "schedule_timeout_killable", True),
    "static call": (_static_call, "code", "", True),
    "call in place of tracing": (_traced, "code", "", True),
    "read-only data": (_constant, "read-only data", "", True),
}
"""Kind: (how it is done, the finding's kind, what its subject begins with, whether a baseline is needed)."""


@pytest.mark.parametrize("kind", TAMPERING)
def test_tampering_is_found_and_named(tampered: Tampered, kind: str, baseline: Baseline) -> None:
    tamper, found, subject, needs_baseline = TAMPERING[kind]
    tamper(tampered)
    findings = tampered.session.check(baseline if needs_baseline else None).findings
    assert any(f.kind == found and f.subject.startswith(subject) for f in findings), findings
    if kind in SEEN_AFRESH:  # whoever looks for the first time sees it too
        fresh = Introspection.attach(tampered.guest).check().findings
        assert any(f.kind == found and f.subject.startswith(subject) for f in fresh), fresh


@pytest.mark.parametrize("value", [0xDEAD_BEEF_DEAD_BEE8, 0, "loop"])
def test_a_corrupted_task_list_ends_and_the_rest_is_known_from_elsewhere(tampered: Tampered, value: int | str) -> None:
    session = tampered.session
    whole = session.processes()
    offset = session.kernel.facts.value("task_struct.tasks") or 0
    middle = whole.processes[len(whole.processes) // 2]
    target = whole.processes[3].address + offset if value == "loop" else value
    tampered.write(middle.address + offset, struct.pack("<Q", target))
    partial = session.processes()
    assert not partial.complete
    assert [p.pid for p in partial.processes] == [p.pid for p in whole.processes[: len(partial.processes)]]
    report = session.check()
    assert [finding.kind for finding in report.findings] == ["task list"]
    assert any("behind the break are known from their parents" in note for note in report.notes)


def test_flipped_bits_of_the_image_confirm_nothing_wrong(saved: Path) -> None:
    import random

    keep = saved.parent / "keep"
    clean = {fact.name: fact.value for fact in Introspection.attach(open_saved(saved), keep=keep).kernel.facts}
    rounds, flips = (50, 200) if SOAK else (1, 300)
    for seed in range(rounds):
        chance, tampered = random.Random(seed), Tampered(saved, keep)
        regions = tampered.session.kernel.image.regions
        for region in chance.choices(regions, [region.size for region in regions], k=flips):
            at = region.gpa + chance.randrange(region.size)
            tampered.memory.write(at, bytes([tampered.memory.read(at, 1)[0] ^ 1 << chance.randrange(8)]))
        session = Introspection.attach(tampered.guest)
        session.processes(), session.modules(), session.check()
        facts = [fact for fact in session.kernel.facts if fact.status == "confirmed"]
        assert [fact for fact in facts if clean.get(fact.name) not in (fact.value, None)] == []


# ---- the command line ------------------------------------------------------------------------------------------------


def _enisle(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "enisle", "introspect", *words], capture_output=True, text=True)


def test_the_command_line_shows_what_the_session_knows(guest: TestGuest, saved: Path, tmp_path: Path) -> None:
    live = _enisle(guest.machine.name, "ps", "--json")
    assert live.returncode == 0, live.stderr
    assert len(json.loads(live.stdout)["rows"]) >= 200
    for view, least in (("facts", 100), ("lsmod", 10), ("syscalls", 300), ("locks", 50)):
        shown = _enisle(str(saved), view)
        assert (shown.returncode, len(shown.stdout.splitlines()) >= least) == (0, True), (view, shown.stderr)
    assert _enisle(str(saved), "check").stdout.startswith("note")
    refused = _enisle(str(saved), "watch", "do_faccessat")
    assert (refused.returncode, "a saved guest does not run" in refused.stderr) == (4, True)


def test_a_watch_that_is_interrupted_tells_its_count_and_the_guest_runs_on(guest: TestGuest) -> None:
    words = [sys.executable, "-m", "enisle", "introspect", guest.machine.name, "watch", "sys:getppid"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        deadline, hits = time.monotonic() + 60, ""
        while not hits and time.monotonic() < deadline:  # shells ask for it when they begin
            guest.run("sh -c :")
            hits = watching.stdout.readline() if select.select([watching.stdout], [], [], 0.1)[0] else ""
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=60)
    assert "the guest goes on" in said
    assert watching.returncode == 0
    assert guest.machine.status().state == "running"
    assert "alive" in guest.run("echo alive")
