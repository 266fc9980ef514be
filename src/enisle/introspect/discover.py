"""From a guest's memory to facts: the stages in order, each standing on the one before.

    page tables → image → exports | LSTAR → switch and table → code patterns → data invariants → consensus
A stage that finds nothing leaves its facts unknown; the rest goes on. Reads only.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from enisle.introspect import patterns
from enisle.introspect.decode import Decoder
from enisle.introspect.events import Walked
from enisle.introspect.exports import Exports, find_exports
from enisle.introspect.facts import DATA, FUNCTION, GLOBAL, OFFSET, PER_CPU, Facts, Witness, agree
from enisle.introspect.groups import threads_of
from enisle.introspect.image import Attached, Image, attach
from enisle.introspect.memory import Guest, ProcessorState, Unsupported
from enisle.introspect.modules import find_modules, module_heads
from enisle.introspect.paging import AddressSpace
from enisle.introspect.recipes import OffsetRecipe, Recipes, load, syscall_numbers
from enisle.introspect.structures import TaskSample
from enisle.introspect.syscalls import Dispatch, find_dispatch
from enisle.introspect.tasks import find_init_task, tasks_by_text
from enisle.introspect.values import Value
from enisle.introspect.walk import Walker

Progress = Callable[[str], None]
ROOT_SPAN, ROOT_MOST = 3000, 400
"""How far a root is read: bytes and instructions."""


class Kernel:
    """What is known of one guest kernel."""

    def __init__(
        self,
        attached: Attached,
        image: Image,
        exports: Exports,
        dispatch: Dispatch,
        walker: Walker,
        facts: Facts,
        processors: Sequence[ProcessorState] = (),
    ) -> None:
        self.attached, self.exports, self.dispatch, self.walker, self.facts = attached, exports, dispatch, walker, facts
        self._image = image
        self.processors = processors
        self.cached = False
        self.init_task = 0
        self.times: dict[str, float] = {}

    @property
    def space(self) -> AddressSpace:
        return self.attached.space

    @property
    def image(self) -> Image:
        return self._image


Hold = Callable[[str], AbstractContextManager[None]]
"""Makes the guest stand still while the block runs; the word is for the report."""


def discover(
    guest: Guest,
    progress: Progress = lambda stage: None,
    use_exports: bool = True,
    hold: Hold = lambda label: nullcontext(),
    known: "Known | None" = None,
) -> Kernel:
    """Find what can be found; `known` gives the facts of a kernel that was looked into before. Raises Unsupported."""
    return _Discovery(guest, progress, hold, load()).run(use_exports, known)


Known = Callable[[Image, Exports], "tuple[Facts, Dispatch, int] | None"]


class _Discovery:
    """One discovery under way."""

    def __init__(self, guest: Guest, progress: Progress, hold: Hold, recipes: Recipes) -> None:
        self._guest, self._progress, self._hold, self._recipes = guest, progress, hold, recipes
        self._witnesses: dict[tuple[str, str], list[Witness]] = {}
        self._times: dict[str, float] = {}
        self._began = time.perf_counter()

    def run(self, use_exports: bool, known: Known | None) -> Kernel:
        self._stage("page tables and image")
        with self._hold("attach"):
            self._processors = self._guest.processors()
            attached = attach(self._guest.memory, self._processors)
        self._image = Image(attached.regions, self._guest.memory)
        self._stage("exports")
        self._exports = find_exports(self._image) if use_exports else Exports()
        exported = self._exports.by_address
        self._walker = Walker(Decoder(self._image), self._image.is_text, exported.__contains__)
        found = known(self._image, self._exports) if known is not None else None
        if found is not None:
            kernel = Kernel(attached, self._image, self._exports, found[1], self._walker, found[0], self._processors)
            kernel.init_task, kernel.cached = found[2], True
            return self._finish(kernel)
        self._stage("system calls")
        self._dispatch = find_dispatch(self._image, self._walker, self._processors)
        if not self._exports.by_name and not self._dispatch.handlers:
            why = "neither export tables nor a dispatch of system calls was found: it is no Linux that we know"
            raise Unsupported("this guest cannot be looked into", f"unsupported, because {why}")
        kernel = Kernel(attached, self._image, self._exports, self._dispatch, self._walker, Facts(), self._processors)
        self._stage("code patterns")
        self._entry_facts()
        self._addresses()
        current = self._current()
        self._offsets(current)
        self._stage("data")
        kernel.init_task = find_init_task(kernel, self._processors, current, self._settled("task_struct.real_parent"))
        self._data(kernel)
        self._stage("consensus")
        self._layout_of_cred()
        for (name, kind), witnesses in self._witnesses.items():
            kernel.facts.add(agree(name, kind, witnesses))
        self._unknown(kernel.facts)
        return self._finish(kernel)

    def _finish(self, kernel: Kernel) -> Kernel:
        self._stage("")
        kernel.times = self._times
        return kernel

    def _stage(self, name: str) -> None:
        """Note how long the stage before took, and tell the one that begins."""
        now = time.perf_counter()
        if getattr(self, "_current_stage", ""):
            self._times[self._current_stage] = now - self._began
        self._began, self._current_stage = now, name
        if name:
            self._progress(name)

    def _add(self, name: str, kind: str, witness: Witness | None) -> None:
        if witness is not None:
            self._witnesses.setdefault((name, kind), []).append(witness)

    def _settled(self, name: str, kind: str = OFFSET) -> int | None:
        return agree(name, kind, self._witnesses.get((name, kind), ())).value

    def _root(self, root: str) -> int | None:
        """Return the address of a root: an exported function, or the handler of a system call."""
        if root.startswith("sys:"):
            number = syscall_numbers().get(root[4:], -1)
            handlers = self._dispatch.handlers
            known = 0 <= number < len(handlers) and handlers[number] != self._dispatch.not_implemented
            return handlers[number] if known else None
        address = self._exports.by_name.get(root)
        return address if address is not None and self._image.is_text(address) else None

    def _walk(self, root: str) -> Walked | None:
        address = self._root(root)
        return None if address is None else self._walker.walk(address, ROOT_SPAN, ROOT_MOST)

    # -- addresses

    def _entry_facts(self) -> None:
        """The way of a system call: LSTAR, the code that writes it, the dispatcher, the switch, the table."""
        way = self._dispatch
        if way.lstar:
            self._add("entry_SYSCALL_64", GLOBAL, Witness(way.lstar, "processor", DATA, 0, "MSR LSTAR holds it"))
        for site in way.entry_sites:
            trace = f"the code at {site:#x} writes it to LSTAR"
            self._add("entry_SYSCALL_64", GLOBAL, Witness(way.entry, "text", "P4", site, trace))
        if way.dispatcher:
            trace = f"called by the entry at {way.dispatcher_site:#x}"
            self._add("do_syscall_64", FUNCTION, Witness(way.dispatcher, "entry", "P2", way.dispatcher_site, trace))
            site = way.switch_site or way.table_site
            trace = f"dispatches by number at {site:#x}"
            self._add("do_syscall_64", FUNCTION, Witness(way.dispatcher, "dispatch", "P4", site, trace))
        agreed = bool(way.entries) and way.handlers[: len(way.entries)] == way.entries
        if way.switch:
            trace = f"called by the dispatcher at {way.switch_site:#x}"
            self._add("x64_sys_call", FUNCTION, Witness(way.switch, "dispatcher", "P2", way.switch_site, trace))
            if agreed:
                trace = f"leads {len(way.entries)} numbers where the table does"
                self._add("x64_sys_call", FUNCTION, Witness(way.switch, "table", DATA, 0, trace))
        if way.table:
            trace = f"indexed at {way.table_site:#x}" if way.table_site else "holds the first targets of the switch"
            self._add("sys_call_table", GLOBAL, Witness(way.table, "dispatch", "P4", way.table_site, trace))
            trace = (
                f"{len(way.entries)} words in a row point to code, as the switch does"
                if way.switch
                else (f"{len(way.entries)} words in a row point to code")
            )
            self._add("sys_call_table", GLOBAL, Witness(way.table, f"{DATA}: content", DATA, 0, trace))

    def _addresses(self) -> None:
        name_of = self._exports.by_address.get
        for name, group, roots in self._recipes.argument:
            callees = self._recipes.classes[group]
            for root in roots:
                if (walked := self._walk(root)) is not None:
                    witness = patterns.internal_argument(walked, root, callees, name_of, self._image.is_data)
                    self._add(name, GLOBAL, witness)
        for name, roots in self._recipes.only_callee:
            for root in roots:
                if (walked := self._walk(root)) is not None:
                    self._add(name, FUNCTION, patterns.only_callee(walked, root, name_of, self._image.is_text))
        for name, entries in self._recipes.given:
            for root, passed, position in entries:
                value = self._passed(passed)
                if value is not None and (walked := self._walk(root)) is not None:
                    witness = patterns.given_global(walked, root, value, passed, position, name_of)
                    self._add(name, FUNCTION, witness)

    def _passed(self, passed: str) -> Value:
        """Return the value an argument has that is an exported global, or (`*`) what it holds."""
        address = self._exports.by_name.get(passed.removeprefix("*"))
        if address is None:
            return None
        return ("load", ("const", address), 8) if passed.startswith("*") else ("const", address)

    # -- offsets

    def _current(self) -> int | None:
        for root in self._recipes.current:
            if (walked := self._walk(root)) is not None:
                self._add("current_task", PER_CPU, patterns.current_task(walked, root))
        return self._settled("current_task", PER_CPU)

    def _offsets(self, current: int | None) -> None:
        for recipe in self._recipes.offsets:
            cred = self._settled("task_struct.cred") if "." in recipe.of else None
            base = patterns.base_of(recipe, current, cred)
            if base is not None:
                self._field(recipe, base)

    def _field(self, recipe: OffsetRecipe, base: Value) -> None:
        callees = self._recipes.classes.get(recipe.passed, frozenset())
        for root in recipe.roots:
            if (walked := self._walk(root)) is not None:
                witness = patterns.field(walked, root, recipe, base, callees, self._exports.by_address.get)
                self._add(recipe.name, OFFSET, witness)

    def _data(self, kernel: Kernel) -> None:
        if not kernel.init_task:
            return
        self._add("task_struct.tasks", OFFSET, tasks_by_text(self._image, kernel.init_task))
        heads = module_heads(kernel, self._root)
        sample = TaskSample(kernel.space, kernel.init_task)
        with self._hold("data"):
            kernel.space.forget()
            if sample.study() and (signal := self._settled("task_struct.signal")) is not None:
                threads_of(sample, signal)
            for name, kind, witness in find_modules(kernel, heads, self._settled("module.refcnt")):
                self._add(name, kind, witness)
        for name, witnesses in sample.witnesses.items():
            for witness in witnesses:
                self._add(name, OFFSET, witness)

    def _layout_of_cred(self) -> None:
        """The ids of a credential lie in one order; four system calls that agree with it bear each other out."""
        places = [self._settled(f"cred.{name}") for name in ("uid", "gid", "euid", "egid")]
        first = places[0]
        if first is None or places != [first, first + 4, first + 16, first + 20]:
            return
        for name, place in zip(("uid", "gid", "euid", "egid"), places, strict=True):
            trace = "uid, gid, suid, sgid, euid, egid in this order"
            self._add(f"cred.{name}", OFFSET, Witness(place or 0, f"{DATA}: layout", DATA, 0, trace))

    def _unknown(self, facts: Facts) -> None:
        """Name what was looked for and not found."""
        wanted = [(name, GLOBAL) for name, _, _ in self._recipes.argument]
        wanted += [(entry[0], FUNCTION) for entry in (*self._recipes.only_callee, *self._recipes.given)]
        wanted += [(recipe.name, OFFSET) for recipe in self._recipes.offsets]
        for name, kind in wanted:
            if facts.find(name) is None:
                facts.add(agree(name, kind, ()))
