"""Pages of the kernel that every guest process sees read-only: the vDSO and the clock parameters it reads.

The frames belong to the kernel and are shared by reference; only the island process writes them.
"""

from enisle.abi.linux_mman import MAP_PRIVATE, PROT_EXEC, PROT_READ
from enisle.abi.types import PAGE, PAGE_SHIFT, Gpa, Gva, page_up
from enisle.kernel import vdso, vvar
from enisle.kernel.clock import Clock
from enisle.kernel.mm import Mm, flags_of
from enisle.kernel.vma import Vma
from enisle.machine import GuestMemory


class SharedPages:
    """`count` pages of kernel content with the rights `prot`, named as /proc/PID/maps shows them."""

    def __init__(self, memory: GuestMemory, content: bytes, prot: int, name: bytes) -> None:
        self.memory, self.prot, self.name = memory, prot, name
        self.count = page_up(len(content)) >> PAGE_SHIFT
        self.runs = memory.allocate(self.count)
        for page, gpa in enumerate(self._frames()):
            memory.write(gpa, content[page * PAGE : (page + 1) * PAGE])

    def _frames(self) -> list[Gpa]:
        return [Gpa(gpa + (index << PAGE_SHIFT)) for gpa, count in self.runs for index in range(count)]

    def write(self, offset: int, content: bytes) -> None:
        """Change the content, within one page."""
        self.memory.write(Gpa(self._frames()[offset >> PAGE_SHIFT] + offset % PAGE), content)

    def map_at(self, mm: Mm, address: int) -> None:
        """Map the pages into a free range of `mm`."""
        vma = Vma(address, address + self.count * PAGE, self.prot, MAP_PRIVATE, self.name)
        with mm.lock:
            for gpa, count in self.runs:
                self.memory.share(gpa, count)
                mm.space.map(Gva(address), gpa, count, flags_of(self.prot))
                address += count << PAGE_SHIFT
            mm.vmas.add(vma)


class Vdso:
    """The vDSO of an island: the code is mapped right after its page of clock parameters."""

    def __init__(self, memory: GuestMemory, clock: Clock, processors: int) -> None:
        self.vvar = SharedPages(memory, bytes(PAGE), PROT_READ, b"[vvar]")
        self.code = SharedPages(memory, vdso.image(), PROT_READ | PROT_EXEC, b"[vdso]")
        clock.attach(vvar.Page(self.vvar.write, processors))

    def map_into(self, mm: Mm) -> int:
        """Map both; return the address of the ELF header for AT_SYSINFO_EHDR."""
        size = (self.vvar.count + self.code.count) * PAGE
        with mm.lock:
            start = mm.find_place(size)
            self.vvar.map_at(mm, start)
            self.code.map_at(mm, start + self.vvar.count * PAGE)
        return start + self.vvar.count * PAGE
