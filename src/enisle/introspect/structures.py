"""Field offsets from data: what must hold of every task of a running kernel tells where its fields lie.

Each finder states an invariant and gives the one offset that satisfies it for all tasks looked at; several or none
give nothing. These are the witnesses that stand beside those of the code. Bounded by the sample.
"""

import re
import struct
from collections import Counter
from collections.abc import Sequence

from enisle.introspect.facts import DATA, Witness
from enisle.introspect.lists import is_kernel_pointer, walk_list
from enisle.introspect.memory import Unmapped
from enisle.introspect.paging import AddressSpace

SPAN = 0x2000
"""Bytes of a task that are searched; the fields wanted lie in the first 4 KiB of every kernel seen."""
SAMPLE = 96
KERNEL_THREAD = 0x0020_0000
"""PF_KTHREAD (include/linux/sched.h)."""
_PRINTABLE = re.compile(rb"[\x20-\x7e]{1,15}\0")
_WORDS = struct.Struct(f"<{SPAN // 8}Q")
_HALVES = struct.Struct(f"<{SPAN // 4}I")


def _bears(value: int, root: str, trace: str) -> Witness:
    return Witness(value, f"{DATA}: {root}", DATA, 0, trace)


class TaskSample:
    """The first tasks of the list as words, and the invariants that hold of them."""

    def __init__(self, space: AddressSpace, init_task: int) -> None:
        self.space = space
        self.init_task = init_task
        self.witnesses: dict[str, list[Witness]] = {}
        self.tasks: list[int] = []
        self._words: list[tuple[int, ...]] = []
        self._halves: list[tuple[int, ...]] = []

    def offset(self, name: str) -> int | None:
        """Return the offset the data tells, if it tells one."""
        values = {witness.value for witness in self.witnesses.get(name, ())}
        return next(iter(values)) if len(values) == 1 else None

    def add(self, name: str, value: int | None, root: str, trace: str) -> None:
        """Note a witness unless nothing was found."""
        if value is not None:
            self.witnesses.setdefault(name, []).append(_bears(value, root, trace))

    def study(self) -> bool:
        """Find what can be found; return False when there is no list of tasks at `init_task`."""
        try:
            first = self.space.read(self.init_task, SPAN)
        except Unmapped:
            return False
        comm = first.find(b"swapper")
        if comm < 0 or not self._find_tasks(first, comm):
            return False
        self.add("task_struct.comm", comm, "init_task", "init_task is called swapper")
        self._check_comm(comm)
        self._find_pid()
        self._find_parents()
        self._find_children()
        self._find_leader()
        self._find_thread_pid()
        self._find_mm()
        self._find_creds()
        return True

    def _find_tasks(self, first: bytes, comm: int) -> bool:
        """Find the list through which all tasks hang together: the longest whose members all have names."""
        best: tuple[int, int, tuple[int, ...]] | None = None
        for offset in range(0, SPAN - 16, 8):
            following = struct.unpack_from("<Q", first, offset)[0]
            head = self.init_task + offset
            if not is_kernel_pointer(following) or following == head:
                continue
            try:
                if self.space.u64(following + 8) != head:
                    continue
            except Unmapped:
                continue
            walk = walk_list(self.space, head, most=SAMPLE)
            members = [node - offset for node in walk.nodes]
            if members and all(self._named(member + comm) for member in members):
                best = max(best or (0, 0, ()), (len(members), offset, tuple(members)))
        if best is None or best[0] < 2:
            return False
        self.tasks = [self.init_task, *best[2]]
        contents = [self._content(task) for task in self.tasks]
        self._words = [_WORDS.unpack(content) for content in contents]
        self._halves = [_HALVES.unpack(content) for content in contents]
        self.add("task_struct.tasks", best[1], "list of tasks", f"{best[0]} linked tasks, all with names")
        return True

    def _named(self, address: int) -> bool:
        try:
            return bool(_PRINTABLE.match(self.space.read(address, 16)))
        except Unmapped:
            return False

    def _content(self, task: int) -> bytes:
        content = b""
        try:
            for page in range(task, task + SPAN, 0x800):
                content += self.space.read(page, 0x800)
        except Unmapped:
            pass
        return content.ljust(SPAN, b"\0")

    def _check_comm(self, comm: int) -> None:
        if len(self.tasks) > 2 and self.space.read(self.tasks[2] + comm, 9) == b"kthreadd\0":
            self.add("task_struct.comm", comm, "kthreadd", "the third task is called kthreadd")

    def _find_pid(self) -> None:
        """pid and tgid: equal neighbours, different for every group, 0, 1 and 2 for the first three tasks."""
        halves, count = self._halves, len(self.tasks)
        if count < 3:
            return
        found = [
            index
            for index in range(SPAN // 4 - 1)
            if all(halves[n][index] == halves[n][index + 1] == n for n in range(3))
            and len({half[index] for half in halves}) == count
        ]
        if len(found) == 1:
            self.add("task_struct.pid", 4 * found[0], "numbers", "0, 1, 2, … and all different")
            self.add("task_struct.tgid", 4 * found[0] + 4, "numbers", "equal to pid in every leader")

    def _find_parents(self) -> None:
        """real_parent and parent: two neighbours that hold tasks; init and kthreadd are children of init_task."""
        tasks = set(self.tasks)
        words = self._words
        found = [
            index
            for index in range(SPAN // 8)
            if words[1][index] == self.init_task
            and all(is_kernel_pointer(word[index]) for word in words)
            and len(words) > 2
            and words[2][index] == self.init_task
            and words[0][index] == self.init_task
            and sum(word[index] in tasks for word in words) > 0.9 * len(words)
        ]
        if len(found) == 2 and found[1] == found[0] + 1:
            self.add("task_struct.real_parent", 8 * found[0], "parents", "tasks, init_task for the first three")
            self.add("task_struct.parent", 8 * found[1], "parents", "tasks, init_task for the first three")
            if sum(word[found[0]] == word[found[1]] for word in words) > 0.9 * len(words):
                self.add("task_struct.parent", 8 * found[1], "tracing", "as real_parent where nobody traces")

    def _find_children(self) -> None:
        """children and sibling: the list at the parent whose members name it as parent."""
        parent = self.offset("task_struct.real_parent")
        comm = self.offset("task_struct.comm")
        if parent is None or comm is None:
            return
        for children in range(parent, parent + 0x40, 8):
            walk = walk_list(self.space, self.init_task + children, most=SAMPLE)
            if len(walk.nodes) < 2:
                continue
            found = [
                sibling
                for sibling in range(parent, parent + 0x60, 8)
                if self._are_children(walk.nodes, sibling, parent)
            ]
            if len(found) == 1:
                trace = f"{len(walk.nodes)} children, all with init_task as parent"
                self.add("task_struct.children", children, "children", trace)
                self.add("task_struct.sibling", found[0], "children", trace)
                if self._siblings_linked(found[0]):
                    trace = "every task is linked among its siblings"
                    self.add("task_struct.sibling", found[0], "links", trace)
                    self.add("task_struct.children", children, "links", trace)
                return

    def _siblings_linked(self, sibling: int) -> bool:
        try:
            return all(
                self.space.u64(self.space.u64(task + sibling) + 8) == task + sibling
                and self.space.u64(self.space.u64(task + sibling + 8)) == task + sibling
                for task in self.tasks[1:]
            )
        except Unmapped:
            return False

    def _are_children(self, nodes: Sequence[int], sibling: int, parent: int) -> bool:
        try:
            return all(
                self.space.u64(node - sibling + field) == self.init_task
                for node in nodes[:16]
                for field in (parent, parent + 8)  # real_parent and parent; else the neighbour would fit too
            )
        except Unmapped:
            return False

    def _find_leader(self) -> None:
        """group_leader: the one word that points to the task it is in, in every leader."""
        found = [
            index
            for index in range(SPAN // 8)
            if all(word[index] == task for task, word in zip(self.tasks, self._words, strict=True))
        ]
        if len(found) == 1:
            self.add("task_struct.group_leader", 8 * found[0], "leaders", "every leader leads itself")
            parent = self.offset("task_struct.real_parent")
            if parent is not None and 0 < 8 * found[0] - parent <= 0x60:
                self.add("task_struct.group_leader", 8 * found[0], "family", "next to parent and children")

    def _find_thread_pid(self) -> None:
        """thread_pid: a pointer of each task's own to what holds its pid at one place."""
        pid = self.offset("task_struct.pid")
        if pid is None:
            return
        found: list[int] = []
        rest = list(zip(self.tasks, self._words, self._halves, strict=True))[1:33]
        for index in range(SPAN // 8):
            pointers = [word[index] for _, word, _ in rest]
            if len(set(pointers)) != len(pointers) or not all(is_kernel_pointer(pointer) for pointer in pointers):
                continue
            if any(task <= pointer < task + SPAN for pointer in pointers for task in self.tasks):
                continue
            if self._holds(pointers, [half[pid // 4] for _, _, half in rest]):
                found.append(8 * index)
        if len(found) == 1:
            self.add("task_struct.thread_pid", found[0], "numbers", "points to what holds the pid")

    def _holds(self, pointers: Sequence[int], numbers: Sequence[int]) -> bool:
        """Return whether the words each pointer leads to hold its number at one common place."""
        common: set[int] | None = None
        for pointer, number in zip(pointers, numbers, strict=True):
            try:
                words = struct.unpack("<64I", self.space.read(pointer, 256))
            except Unmapped:
                return False
            places = {place for place, word in enumerate(words) if word == number}
            common = places if common is None else common & places
            if not common:
                return False
        return bool(common)

    def _find_mm(self) -> None:
        """mm and active_mm are neighbours: equal in programs, and kernel threads have no mm; flags tell them apart."""
        found: list[int] = []
        for index in range(SPAN // 8 - 1):
            own = [word[index] for word in self._words]
            programs = [word for word in self._words if word[index]]
            if not programs or len(programs) == len(own) or self._words[0][index] or not self._words[1][index]:
                continue
            if all(is_kernel_pointer(word[index]) and word[index] == word[index + 1] for word in programs) and (
                len(self._words) > 2 and not self._words[2][index]
            ):
                found.append(index)
        if len(found) != 1:
            return
        self.add("task_struct.mm", 8 * found[0], "programs", "none in kernel threads, as active_mm in programs")
        threads = [not word[found[0]] for word in self._words]
        flags = [
            index
            for index in range(SPAN // 4)
            if all(
                bool(half[index] & KERNEL_THREAD) == thread
                for half, thread in zip(self._halves[1:], threads[1:], strict=True)
            )
            and all(half[index] < 1 << 31 for half in self._halves)
        ]
        if len(flags) == 1:
            self.add("task_struct.flags", 4 * flags[0], "programs", "PF_KTHREAD where there is no mm")

    def _find_creds(self) -> None:
        """real_cred and cred: neighbours that are equal in every task, shared by the kernel's threads."""
        found: list[int] = []
        own = [range(task, task + SPAN) for task in self.tasks]
        for index in range(SPAN // 8 - 1):
            if not all(word[index] == word[index + 1] and is_kernel_pointer(word[index]) for word in self._words):
                continue
            pointers = [word[index] for word in self._words]
            shared = Counter(pointers).most_common(1)[0][1]
            if shared < 2 or any(pointer in inside for pointer, inside in zip(pointers, own, strict=True)):
                continue
            common = Counter(pointers).most_common(1)[0][0]
            if all(self._is_cred(pointer) for pointer in set(pointers)) and self._is_root(common):
                found.append(index)
        if len(found) == 1:
            trace = "equal neighbours in every task, shared among kernel threads"
            self.add("task_struct.real_cred", 8 * found[0], "credentials", trace)
            self.add("task_struct.cred", 8 * found[0] + 8, "credentials", trace)

    def _is_root(self, pointer: int) -> bool:
        """Return whether the ids that follow the count are zero: the kernel's own credentials."""
        try:
            return not any(self.space.read(pointer + 8, 32))
        except Unmapped:
            return False

    def _is_cred(self, pointer: int) -> bool:
        """Return whether the first word is a count of users."""
        try:
            return 0 < self.space.u32(pointer) < 1 << 24
        except Unmapped:
            return False
