"""W^X: a page of an address space is either writable or may be executed, and what may be executed has been looked at.

Three states of a page whose mapping allows execution: *plain* (as mapped, but not executable), *code* (executable,
not writable, looked at, its traps in place) and *stepped* (looked at, neither writable nor executable). A fetch from a
plain page makes it one of the others, a write makes it plain again with its own bytes back. Code always lies in a frame
that was filled from the bytes looked at, so that neither a file nor an earlier view of the old frame can change it.
Two neighbours are code only when no trap begins in one and ends in the other. Callers hold the address space's lock.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from enisle.abi.types import PAGE, PAGE_SHIFT, Gpa, Gva
from enisle.abi.x86 import PTE_ADDRESS, Pte
from enisle.machine.enforcement.scan import CONTEXT, Scanner, Site
from enisle.machine.memory import GuestMemory, OutOfMemory
from enisle.machine.pagetables import OWNED, AddressSpace, frame_runs, leaf_flags
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.machine.emulated_traps import CodeTraps
    from enisle.machine.software.decode import Instruction

PRESENT, WRITABLE, COW = Pte.PRESENT, Pte.WRITABLE, Pte.COW
CODE_FLAGS = leaf_flags(True, False, True) | COW
READ_ONLY = leaf_flags(True, False, False)
READ_WRITE = leaf_flags(True, True, False)
SHARE_OF_MEMORY = 16
"""The text cache keeps at most one in so many frames of the island's memory."""


class CodePage:
    """One executable page: where it was changed, and what stood there. That stays so, and forks share it.

    `trapped` keeps what was decoded at changed places, by address, when a processor came there.
    """

    __slots__ = ("original", "sites", "trapped")

    def __init__(self, original: bytes | None, sites: tuple[Site, ...]) -> None:
        self.original, self.sites = original, sites
        self.trapped: dict[int, Instruction] = {}


UNCHANGED = CodePage(None, ())


class Looked(Record):
    """A page that may execute as `patched`, and the frame it had. `shared`: with other mappings of a file."""

    number: int
    frame: Gpa
    patched: bytes
    shared: bool


class TextCache:
    """Frames with code of files, shared by all processes that execute the same bytes."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._frames: dict[bytes, Gpa] = {}
        self._limit = memory.limit_frames // SHARE_OF_MEMORY

    def frame(self, content: bytes) -> Gpa:
        """Return a frame holding `content`, with one reference for the caller. Raises OutOfMemory."""
        frame = self._frames.get(content)
        if frame is None:
            frame = filled(self._memory, content)
            if len(self._frames) >= self._limit:
                self.clear()
            self._frames[content] = frame
        self._memory.share(frame, 1)
        return frame

    def clear(self) -> None:
        """Give up the frames that nobody else uses."""
        frames, self._frames = self._frames, {}
        for frame in frames.values():
            self._memory.release(frame, 1)

    def __len__(self) -> int:
        return len(self._frames)


def filled(memory: GuestMemory, content: bytes) -> Gpa:
    frame = memory.allocate_frame()
    memory.write(frame, content)
    return frame


class CodePages:
    """The code and stepped pages of one address space, by page number. `release` drops references of a run."""

    def __init__(
        self, space: AddressSpace, scanner: Scanner, text: TextCache, release: Callable[[Gpa, int], None]
    ) -> None:
        self.space, self.memory, self.scanner, self._text = space, space.memory, scanner, text
        self._release = release
        self.traps: CodeTraps | None = None
        """Who must hear of what becomes executable, on machines whose processors have to be stopped."""
        self.code: dict[int, CodePage] = {}
        self.stepped: set[int] = set()

    # ---- becoming code ---------------------------------------------------------------------------------------------

    def fetch(self, gva: int, around: Iterable[int] = ()) -> bool:
        """Make the page at `gva` executable; False when it must be stepped. `around`: others that may come along.

        Requires: the page is present, private, and no host call holds a view of it. Raises OutOfMemory, OSError where
        the host cannot back the page.
        """
        number = gva >> PAGE_SHIFT
        if number in self.stepped:
            return False
        if number not in self.code:
            looked = self._look(number, gva, patient=True)
            if looked is None:
                return False
            self._install([looked])
        try:
            self._install_around(other for other in around if other not in self.code and other not in self.stepped)
        except (OSError, OutOfMemory):
            pass  # they were not asked for
        return True

    def _install_around(self, numbers: Iterable[int]) -> None:
        found: list[Looked] = []
        try:
            for number in numbers:
                looked = self._look(number, None, patient=False)
                if looked:
                    found.append(looked)
        finally:
            self._install(found)

    def _look(self, number: int, entry: int | None, patient: bool) -> "Looked | None":
        """Look at a page and take it among the code; None when it cannot be, or is stepped. `_install` must follow."""
        gva = Gva(number << PAGE_SHIFT)
        leaf = self.space.entry(gva)
        if not leaf & PRESENT:
            return None
        if leaf & WRITABLE:  # from here on nobody writes to it
            self.space.protect(gva, 1, READ_ONLY)
        frame = Gpa(leaf & PTE_ADDRESS)
        content = self.memory.read(frame, PAGE)
        if self.traps and not patient and self.traps.look(content):
            return None  # every place to stop at costs something with each run: only for pages that are entered
        shared = self.memory.is_window(frame)
        offset = None if entry is None or shared else entry % PAGE
        look = self.scanner.look(content, self._end_of(number - 1), offset, patient)
        if look is None:
            return None
        if look.patched is None or self._touches_neighbour(number, content):
            self.stepped.add(number)
            return None
        patched, sites = look.patched, look.sites
        if self.traps:
            patched, places = self.traps.replace(patched)
            sites += tuple(Site(place, 2) for place in places)
        self.code[number] = CodePage(content, sites) if sites else UNCHANGED
        return Looked(number, frame, patched, shared)

    def _install(self, found: "list[Looked]") -> None:
        """Let the pages execute, all at once: what the host does for each change of a frame is done by run."""
        done = 0
        old: list[int] = []
        try:
            for page in found:
                frame = self._frame_of(page)
                if self.traps:
                    self.traps.note(self.space.root, page.number, page.patched)
                self.space.replace(Gva(page.number << PAGE_SHIFT), frame, CODE_FLAGS)
                old.append(page.frame | OWNED)
                done += 1
        finally:
            for page in found[done:]:
                del self.code[page.number]
            for gpa, count in frame_runs(old):
                for run in self.memory.shared(gpa, count):  # a freed frame is flushed anyway
                    self.memory.flush(*run)
                self._release(gpa, count)

    def _frame_of(self, page: "Looked") -> Gpa:
        try:
            return self._text.frame(page.patched) if page.shared else filled(self.memory, page.patched)
        except OutOfMemory:
            self._text.clear()
            return filled(self.memory, page.patched)

    def _exchange(self, gva: Gva, old: Gpa, new: Gpa, flags: int) -> None:
        """Let the page be another frame."""
        self.space.replace(gva, new, flags)
        if self.memory.references(old) > 1:
            self.memory.flush(old, 1)
        self._release(old, 1)

    def _end_of(self, number: int) -> bytes:
        """Return the last bytes of a page as the program knows them, nothing when it is not there."""
        known = self.code.get(number)
        if known and known.original:
            return known.original[-CONTEXT:]
        leaf = self.space.entry(number << PAGE_SHIFT)
        if not leaf & PRESENT:
            return b""
        try:
            return self.memory.read(Gpa((leaf & PTE_ADDRESS) + PAGE - CONTEXT), CONTEXT)
        except OSError:
            return b""

    def _touches_neighbour(self, number: int, content: bytes) -> bool:
        """Return whether a trap lies across the border to a neighbour that is code."""
        crosses = self.scanner.crosses
        if number - 1 in self.code and crosses(self._end_of(number - 1), content):
            return True
        if number + 1 not in self.code:
            return False
        following = self.code[number + 1].original
        if following is None:
            leaf = self.space.entry((number + 1) << PAGE_SHIFT)
            following = self.memory.read(Gpa(leaf & PTE_ADDRESS), CONTEXT)
        return crosses(content[-CONTEXT:], following)

    # ---- becoming plain --------------------------------------------------------------------------------------------

    def write(self, gva: int, flags: int = READ_WRITE) -> bool:
        """Let the page be written; False when it is plain already. Raises OutOfMemory."""
        number = gva >> PAGE_SHIFT
        page = self.code.get(number)
        leaf = self.space.entry(gva)
        frame = Gpa(leaf & PTE_ADDRESS)
        if page is None:
            if number not in self.stepped:
                return False
            self.stepped.discard(number)
            if leaf & COW:
                return False  # the copy is made as for any page
            self.space.protect(Gva(gva), 1, flags)
            return True
        new = filled(self.memory, page.original or self.memory.read(frame, PAGE))
        del self.code[number]
        self._exchange(Gva(gva), frame, new, flags)
        return True

    def settle(self, first: int, count: int) -> None:
        """Make the pages of a range plain, not writable: their rights or their place are about to change.

        Raises OutOfMemory; what was done is done.
        """
        for number in self._within(first, count):
            page = self.code.get(number)
            if page and page.original:
                self.write(number << PAGE_SHIFT, READ_ONLY)
        self.forget(first, count)

    def forget(self, first: int, count: int) -> None:
        """The translations of a range go away."""
        for number in self._within(first, count):
            self.code.pop(number, None)
            self.stepped.discard(number)

    def _within(self, first: int, count: int) -> list[int]:
        if count < len(self.code) + len(self.stepped):
            return [n for n in range(first, first + count) if n in self.code or n in self.stepped]
        return [n for n in (*self.code, *self.stepped) if first <= n < first + count]

    # ---- questions -------------------------------------------------------------------------------------------------

    def copy_to(self, child: "CodePages") -> None:
        """Let a fork's address space, which has the same frames, know the same pages."""
        entry = child.space.entry
        if self.traps:
            self.traps.copy(self.space.root, child.space.root)
        child.code = {number: page for number, page in self.code.items() if entry(number << PAGE_SHIFT) & PRESENT}
        child.stepped = {number for number in self.stepped if entry(number << PAGE_SHIFT) & PRESENT}

    def restore(self, start: int, content: bytes) -> bytes:
        """Return memory that was read from `start` with the program's own bytes where they were changed."""
        end = start + len(content)
        for number in range(start >> PAGE_SHIFT, (end + PAGE - 1) >> PAGE_SHIFT):
            page = self.code.get(number)
            if page and page.original:
                base = number << PAGE_SHIFT
                low, high = max(start, base), min(end, base + PAGE)
                content = content[: low - start] + page.original[low - base : high - base] + content[high - start :]
        return content

    def is_changed(self, address: int, size: int = 1) -> bool:
        """Return whether a byte of the range was changed for a trap."""
        for number in {address >> PAGE_SHIFT, (address + size - 1) >> PAGE_SHIFT}:
            page = self.code.get(number)
            if page:
                offset = address - (number << PAGE_SHIFT)
                if any(s.offset < offset + size and offset < s.offset + s.length for s in page.sites):
                    return True
        return False
