"""Is the kernel as it should be? Cross-views inside it, and comparison with a baseline taken before.

`judge` thinks about what `look` has read. What legitimate patching explains is
noted, everything else is a finding that names the entry. A finding is never guessed away.
"""

import struct
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from enisle.introspect.decode import Decoder, Imm
from enisle.introspect.facts import FUNCTION
from enisle.introspect.image import KERNEL_START
from enisle.introspect.look import Baseline, Look
from enisle.introspect.memory import LSTAR, Unmapped
from enisle.introspect.modules import MODULE_AREA
from enisle.introspect.patching import TRACING_SPAN, PatchSites
from enisle.introspect.processes import TaskReader
from enisle.introspect.recipes import syscall_names
from enisle.introspect.switch import RETURNS, Switch
from enisle.introspect.walk import Walker
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.introspect.discover import Kernel

MOST_FINDINGS = 200


class Finding(Record):
    """Something that is not as it must be."""

    kind: str
    subject: str
    message: str


class Report(Record):
    """What a check found. `notes` are changes with a known good reason, and what could not be checked."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    checked: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return not self.findings


def judge(kernel: "Kernel", seen: Look, baseline: Baseline | None) -> Report:
    """Return what is wrong with what was read."""
    return _Judge(kernel, seen, baseline).report()


class _Judge:
    """One check under way."""

    def __init__(self, kernel: "Kernel", seen: Look, baseline: Baseline | None) -> None:
        self._kernel, self._seen, self._image = kernel, seen, seen.image
        usable = baseline is not None and baseline.start == seen.image.start
        self._baseline = baseline if usable else None
        self._findings: list[Finding] = []
        self._notes: list[str] = []
        self._traced = 0
        if baseline is not None and not usable:
            self._notes.append("the baseline is of another boot: the kernel lies elsewhere now; not compared")

    def report(self) -> Report:
        checks = (
            ("system call table and switch", self._syscalls),
            ("entry points", self._entries),
            ("interrupt gates", self._gates),
            ("beginnings of functions", self._prologues),
            ("hidden processes", self._processes),
            ("hidden modules", self._modules),
            ("writable code", self._writable),
            ("code and read-only data against the baseline", self._contents),
        )
        done: list[str] = []
        for name, run in checks:
            if run():
                done.append(name)
            else:
                self._notes.append(f"not checked: {name}")
        return Report(tuple(self._findings[:MOST_FINDINGS]), tuple(self._notes), tuple(done))

    def _find(self, kind: str, subject: str, message: str) -> None:
        self._findings.append(Finding(kind, subject, message))

    # -- control flow

    def _syscalls(self) -> bool:
        way = self._kernel.dispatch
        if not way.handlers:
            return False
        names = syscall_names()
        entries = self._table(len(way.handlers))
        targets = self._targets(len(way.handlers))
        expected = self._baseline.table if self._baseline is not None else ()
        for number in range(len(way.handlers)):
            subject = f"{names.get(number, '?')} ({number})"
            if number < len(entries):
                self._entry(subject, entries[number], targets[number] if targets else None)
                if number < len(expected) and entries[number] != expected[number]:
                    message = f"the table holds {entries[number]:#x}, the baseline {expected[number]:#x}"
                    self._find("system call table", subject, message)
            if targets and not self._image.is_text(targets[number]):
                message = f"the switch leads to {targets[number]:#x}, {self._owner(targets[number])}"
                self._find("system call switch", subject, message)
        if not targets:
            self._shared(entries, way.not_implemented)
        return True

    def _entry(self, subject: str, entry: int, target: int | None) -> None:
        if not self._image.is_text(entry):
            self._find("system call table", subject, f"the table holds {entry:#x}, {self._owner(entry)}")
        elif target is not None and self._image.is_text(target) and entry != target:
            message = f"the table holds {entry:#x}, the switch leads to {target:#x}"
            self._find("system call table or switch", subject, message)

    def _shared(self, entries: Sequence[int], missing: int) -> None:
        """Without a switch: two numbers with one handler are suspicious."""
        names = syscall_names()
        for handler, count in Counter(entries).items():
            if count > 1 and handler != missing:
                numbers = [number for number, entry in enumerate(entries) if entry == handler]
                subject = ", ".join(f"{names.get(number, '?')} ({number})" for number in numbers)
                self._find("system call table", subject, f"share the handler {handler:#x}")

    def _table(self, count: int) -> tuple[int, ...]:
        table = self._kernel.dispatch.table
        count = min(count, len(self._kernel.dispatch.entries))
        content = self._image.read(table, 8 * count) if table else b""
        return struct.unpack(f"<{len(content) // 8}Q", content)

    def _targets(self, count: int) -> list[int]:
        """Return where the switch leads every number now; empty when there is none."""
        way = self._kernel.dispatch
        if not way.switch:
            return []
        if self._image.content == self._kernel.image.content:
            return list(way.handlers[:count])
        walker = Walker(Decoder(self._image), self._image.is_text)
        switch = Switch(self._image, walker, way.switch)
        found = [switch.target(number) for number in range(count)]
        return [way.not_implemented if target in (None, RETURNS) else target or 0 for target in found]

    def _entries(self) -> bool:
        """LSTAR of every processor holds the entry that the kernel's code writes there."""
        way = self._kernel.dispatch
        expected = self._baseline.lstar if self._baseline is not None else way.entry
        told = [state for state in self._seen.processors if LSTAR in state.msrs]
        for state in told:
            if state.msrs[LSTAR] != expected:
                message = f"holds {state.msrs[LSTAR]:#x}, {self._owner(state.msrs[LSTAR])}; not {expected:#x}"
                self._find("LSTAR", f"processor {state.number}", message)
        return bool(told and expected)

    def _gates(self) -> bool:
        first = self._seen.gates[0] if self._seen.gates else ()
        known = {gate[0]: gate for gate in self._baseline.gates} if self._baseline is not None else {}
        before = {gate.vector: gate for gate in self._kernel.attached.gates}
        for state, gates in zip(self._seen.processors, self._seen.gates, strict=True):
            for gate in gates:
                subject = f"vector {gate.vector:#x}, processor {state.number}"
                if gate.present and gate.target not in self._image:
                    self._find("interrupt gate", subject, f"leads to {gate.target:#x}, {self._owner(gate.target)}")
                elif known and tuple(gate) != known.get(gate.vector):
                    message = f"leads to {gate.target:#x}, in the baseline to {known.get(gate.vector, (0, 0))[1]:#x}"
                    self._find("interrupt gate", subject, message)
                elif not known and gate != before.get(gate.vector, gate):
                    message = f"leads to {gate.target:#x}, when first seen to {before[gate.vector].target:#x}"
                    self._find("interrupt gate", subject, message)
                elif gate.present and not self._image.is_text(gate.target) and gate.vector >= 32:
                    self._find("interrupt gate", subject, f"leads to {gate.target:#x}, which is no code")
        return bool(first)

    def _prologues(self) -> bool:
        """No known function begins with a branch out of the kernel, but for tracing."""
        decoder = Decoder(self._image)
        way, names = self._kernel.dispatch, syscall_names()
        functions: dict[int, str] = {}
        for number, handler in enumerate(way.handlers):
            functions.setdefault(handler, f"handler of {names.get(number, number)}")
        for address, name in self._kernel.exports.by_address.items():
            functions.setdefault(address, name)
        for fact in self._kernel.facts.of_kind(FUNCTION):
            functions.setdefault(fact.value or 0, fact.name)
        for address, name in functions.items():
            if not self._image.is_text(address):
                continue
            head = self._image.read(address, 16)
            start = 4 if head[:4] == b"\xf3\x0f\x1e\xfa" else 0
            if head[start : start + 1] in (b"\xe8", b"\xe9", b"\xcc", b"\xff", b"\x48", b"\x49"):
                self._prologue(decoder, name, address + start)
        if self._traced:
            self._notes.append(f"{self._traced} functions are traced")
        return bool(functions)

    def _prologue(self, decoder: Decoder, name: str, at: int) -> None:
        step = decoder.at(at)
        if step is None:
            return
        operand = step.operands[0] if step.operands else None
        if step.name in ("call", "jmp") and isinstance(operand, Imm) and not self._image.is_text(operand.value):
            if step.name == "call" and self._is_trampoline(operand.value):
                self._traced += 1
            else:
                message = f"begins with a {step.name} to {operand.value:#x}, {self._owner(operand.value)}"
                self._find("prologue", name, message)
        elif step.name == "int3":
            self._notes.append(f"{name} begins with a breakpoint (a kprobe, or a debugger)")
        elif step.name == "movabs" and isinstance(step.operands[1], Imm):
            target = step.operands[1].value
            following = decoder.at(step.end)
            leaves = following is not None and following.name in ("jmp", "push", "call")
            if leaves and target >= KERNEL_START and not self._image.is_text(target):
                self._find("prologue", name, f"begins with a branch to {target:#x}, {self._owner(target)}")

    def _is_trampoline(self, target: int) -> bool:
        """Return whether code outside the image is a copy of the kernel's own tracing code (create_trampoline)."""
        if target in self._image:
            return False
        try:
            head = self._kernel.space.read(target, 24)
        except Unmapped:
            return False
        tracing = self._kernel.exports.by_name.get("__fentry__")
        places = [(tracing, tracing + TRACING_SPAN)] if tracing else self._image.runs(executable=True)
        return any(
            self._image.content.find(head, start - self._image.start, end - self._image.start) >= 0
            for start, end in places
        )

    # -- objects

    def _processes(self) -> bool:
        seen = self._seen
        if TaskReader(self._kernel).missing:
            return False
        for trouble in seen.processes.incomplete:
            self._find("task list", "tasks", trouble)
        if not seen.family:
            return False
        listed = {process.address for process in seen.processes.processes} | {self._kernel.init_task}
        threads = {thread.address for process in seen.processes.processes for thread in process.threads}
        missing = sorted(seen.family.keys() - listed - threads)
        if seen.processes.incomplete and missing:  # behind the break the list hides nobody: it ends
            names = ", ".join(self._describe(task) for task in missing[:5])
            self._notes.append(f"{len(missing)} tasks behind the break are known from their parents: {names} …")
            missing = []
        for task in missing:
            self._find("hidden process", self._describe(task), f"task {task:#x} is a child but not in the task list")
        self._notes += [f"family tree: {trouble}" for trouble in seen.troubles]
        return True

    def _describe(self, task: int) -> str:
        value = self._kernel.facts.value
        pid, comm = value("task_struct.pid"), value("task_struct.comm")
        try:
            name = self._kernel.space.string(task + (comm or 0), 16).decode("utf-8", "replace")
            return f"{name} (pid {self._kernel.space.u32(task + (pid or 0))})"
        except Unmapped:
            return f"{task:#x}"

    def _modules(self) -> bool:
        seen = self._seen
        if seen.module_trouble and self._kernel.facts.value("modules") is not None:
            self._find("module list", "modules", seen.module_trouble)
        listed = {module.address for module in seen.modules}
        for address, name in seen.registered.items():
            if address not in listed:
                self._find("hidden module", name, f"module {address:#x} is in /sys/module but not in the module list")
        return bool(seen.registered)

    def _writable(self) -> bool:
        for start, size in self._seen.writable_code:
            self._find("writable code", f"{start:#x}", f"{size} bytes can be both written and executed")
        return True

    # -- content

    def _contents(self) -> bool:
        if self._baseline is None:
            return False
        sites: PatchSites | None = None
        explained: Counter[str] = Counter()
        for start, old in self._baseline.runs:
            new = self._image.read(start, len(old))
            for offset in _differences(old, new):
                at = start + offset
                if not self._image.is_text(at):
                    self._find("read-only data", f"{at:#x}", f"{old[offset]:#04x} became {new[offset]:#04x}")
                    continue
                sites = sites or self._patch_sites()
                around = slice(max(offset - 8, 0), offset + 16)
                why = sites.explain(at, old[around], new[around], self._is_trampoline) if offset >= 8 else None
                if why is not None:
                    explained[why] += 1
                else:
                    where = self._nearest(at)
                    self._find("code", where, f"at {at:#x} {old[offset]:#04x} became {new[offset]:#04x}")
        self._notes += [f"{count} changes of code explained: {why}" for why, count in explained.items()]
        return True

    def _patch_sites(self) -> PatchSites:
        tracing = self._kernel.exports.by_name.get("__fentry__", 0)
        return PatchSites(self._kernel.image, self._image, tracing)

    def _nearest(self, at: int) -> str:
        """Return the known function before an address."""
        known = [address for address in self._kernel.exports.by_address if address <= at and at - address < 0x4000]
        if not known:
            return f"{at:#x}"
        nearest = max(known)
        return f"{self._kernel.exports.by_address[nearest]}+{at - nearest:#x}"

    def _owner(self, address: int) -> str:
        """Return in words what an address belongs to."""
        if address in self._image:
            return "inside the kernel"
        near = [module for module in self._seen.modules if 0 <= address - (module.address & ~0xFFFFF) < 1 << 21]
        if MODULE_AREA[0] <= address < MODULE_AREA[1]:
            return f"in the module area{f' near {near[0].name}' if near else ''}"
        return "outside the kernel"


def _differences(old: bytes, new: bytes) -> list[int]:
    """Return where two byte strings begin to differ, once for each run of at most five bytes."""
    found: list[int] = []
    if old == new:
        return found
    for page in range(0, len(old), 4096):
        if old[page : page + 4096] == new[page : page + 4096]:
            continue
        skip = -1
        for offset in range(page, min(page + 4096, len(old), len(new))):
            if old[offset] != new[offset] and offset > skip:
                found.append(offset)
                skip = offset + 4
                if len(found) >= 10 * MOST_FINDINGS:
                    return found
    return found
