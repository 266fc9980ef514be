"""A running island as something to look into: its page tables and memory, asked for through its hatch.

An island has no Linux kernel inside, so what is seen are address spaces: what is mapped with which rights, and hashes
of code. It runs on meanwhile. What it answers is checked: it may have been taken over.
"""

from collections.abc import Sequence
from typing import Any

from enisle.cli.output import plain
from enisle.errors import GuestError, StateError
from enisle.introspect import AddressSpace, CodeHash, Mapped, Unmapped, code_hashes, mappings
from enisle.island import Entry, ask

VIEWS = ("maps", "wx", "hashes")
"""What can be seen of an address space, whoever runs it."""
PAGE, BLOCK = 4096, 1 << 18
MOST_BLOCKS = 1024


class IslandMemory:
    """Guest-physical memory of an island, read in blocks."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._blocks: dict[int, tuple[bytes, frozenset[int]]] = {}

    def ranges(self) -> Sequence[tuple[int, int]]:
        return [(0, 1 << 52)]  # the island knows better, and says no

    def read(self, gpa: int, size: int) -> bytes:
        """Return bytes. Raises Unmapped where nothing stands behind them, GuestError for a wrong answer."""
        parts: list[bytes] = []
        while size > 0:
            content, missing = self._block(gpa & -BLOCK)
            inside = gpa & BLOCK - 1
            part = content[inside : inside + size]
            if not part or any(page in missing for page in range(gpa & -PAGE, gpa + len(part), PAGE)):
                raise Unmapped(gpa)
            parts.append(part)
            gpa, size = gpa + len(part), size - len(part)
        return b"".join(parts)

    def _block(self, at: int) -> tuple[bytes, frozenset[int]]:
        if at not in self._blocks:
            if len(self._blocks) >= MOST_BLOCKS:
                self._blocks.clear()
            self._blocks[at] = self._ask(at)
        return self._blocks[at]

    def _ask(self, at: int) -> tuple[bytes, frozenset[int]]:
        answer = ask(self._entry, {"call": "memory", "at": at, "size": BLOCK})
        try:
            content = bytes.fromhex(answer["content"])
            missing = frozenset(int(page) for page in answer["missing"])
        except (LookupError, TypeError, ValueError) as error:
            raise _nonsense(self._entry, error) from error
        if len(content) > BLOCK:
            raise _nonsense(self._entry, f"{len(content)} bytes")
        return content, missing


class IslandSession:
    """The address spaces of one island; the shape of `Introspection` as far as maps go."""

    notes: Sequence[str] = ()
    pauses: Sequence[Any] = ()

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def maps(self) -> "tuple[list[tuple[str, Mapped]], list[str]]":
        """Return (process, run of pages) of every process, and why that is not all."""
        found: list[tuple[str, Mapped]] = []
        troubles: list[str] = []
        for name, space in self._spaces():
            seen = mappings(space)
            found += [(name, run) for run in seen.runs]
            troubles += [f"{name}: more page tables than are read"] * seen.truncated
        return found, troubles

    def hashes(self) -> "list[tuple[str, CodeHash]]":
        """Return (process, hash) of every run of code that cannot be written."""
        return [(name, code) for name, space in self._spaces() for code in code_hashes(space)]

    def _spaces(self) -> list[tuple[str, AddressSpace]]:
        """Return the address spaces by the processes in them."""
        memory = IslandMemory(self._entry)
        found: list[tuple[str, AddressSpace]] = []
        try:
            for space in ask(self._entry, {"call": "page-tables", "limit": 1}):
                root = int(space["tree"]["tables"][0]["copies"][0]["frame"])
                pids = ",".join(str(int(pid)) for pid in space["pids"])
                found.append((f"{pids} {plain(space['name'])}", AddressSpace(memory, root, 4)))
        except (LookupError, TypeError, ValueError) as error:
            raise _nonsense(self._entry, error) from error
        return found


def refuse(entry: Entry, view: str) -> StateError:
    """Return what is told of a view that needs a kernel."""
    why = f"its kernel is Enisle's and runs outside of it; {view} is read from a Linux kernel in the guest"
    hint = f"enisle introspect {entry.name} {'|'.join(VIEWS)}; enisle top {entry.name} shows processes"
    return StateError(f"the island {entry.name!r} has no Linux kernel inside", why, hint)


def _nonsense(entry: Entry, why: object) -> GuestError:
    hint = f"end it: kill {entry.pid}"
    return GuestError(f"the island {entry.name!r} answers what no island does", plain(why), hint)
