"""The frame table: what is known of every page that holds a page table ("struct page"), by its frame number.

A table's copies form a ring: from any copy its successor leads to all others, without a look at any tree. Each link
keeps the successor's generation, which changes whenever a page becomes or ceases to be a table, so that a page that was
freed without being unlinked is found at the next step and never written through. Arrays in blocks of 512 frames, made
where tables are. Changed under the lock of the address space that owns the table; `hops` counts links followed.
"""

from array import array

from enisle.abi.types import FRAMES_PER_HUGE, HUGE_SHIFT, PAGE_SHIFT
from enisle.errors import EnisleError

NOT_A_TABLE = 0
INDEX = FRAMES_PER_HUGE - 1
LONGEST_RING = 64
"""As many nodes as there may be."""


class BrokenTables(EnisleError):
    """Page tables contradict themselves; `why` says which page, and how."""


class Block:
    """What is known of 512 frames."""

    __slots__ = ("expected", "generation", "level", "node", "owner", "successor")

    def __init__(self) -> None:
        self.successor = array("Q", bytes(8 * FRAMES_PER_HUGE))
        self.expected = array("I", bytes(4 * FRAMES_PER_HUGE))
        """Generation of the successor when it was linked."""
        self.generation = array("I", bytes(4 * FRAMES_PER_HUGE))
        self.owner = array("I", bytes(4 * FRAMES_PER_HUGE))
        self.level = bytearray(FRAMES_PER_HUGE)
        """Level + 1; 0: not a table."""
        self.node = bytearray(FRAMES_PER_HUGE)


class FrameTable:
    """Node, level, owner, generation and ring successor of every table page."""

    def __init__(self) -> None:
        self._blocks: dict[int, Block] = {}
        self.hops = 0

    def _find(self, table: int) -> tuple[Block, int]:
        block = self._blocks.get(table >> HUGE_SHIFT)
        index = table >> PAGE_SHIFT & INDEX
        if block is None or not block.level[index]:
            raise BrokenTables("a page that is not a table is used as one", f"frame {table:#x}")
        return block, index

    # ---- one page ------------------------------------------------------------------------------------------------

    def add(self, table: int, node: int, level: int, owner: int) -> None:
        """Make a page a table, alone in its ring."""
        block = self._blocks.get(table >> HUGE_SHIFT)
        if block is None:
            block = self._blocks[table >> HUGE_SHIFT] = Block()
        index = table >> PAGE_SHIFT & INDEX
        assert not block.level[index], f"{table=:#x} is a table already"
        block.level[index], block.node[index], block.owner[index] = level + 1, node, owner
        self._change_generation(block, index)
        block.successor[index], block.expected[index] = table, block.generation[index]

    def remove(self, table: int) -> None:
        """Make a page no table any more. One that is still linked is found by the next who comes along its ring."""
        block, index = self._find(table)
        block.level[index] = NOT_A_TABLE
        self._change_generation(block, index)

    @staticmethod
    def _change_generation(block: Block, index: int) -> None:
        block.generation[index] = (block.generation[index] + 1) & 0xFFFF_FFFF

    def is_table(self, page: int) -> bool:
        block = self._blocks.get(page >> HUGE_SHIFT)
        return block is not None and bool(block.level[page >> PAGE_SHIFT & INDEX])

    def node(self, table: int) -> int:
        """Return whose processors walk the table."""
        block, index = self._find(table)
        return block.node[index]

    def level(self, table: int) -> int:
        block, index = self._find(table)
        return block.level[index] - 1

    def owner(self, table: int) -> int:
        block, index = self._find(table)
        return block.owner[index]

    def successor(self, table: int) -> int:
        block, index = self._find(table)
        return block.successor[index]

    def owned(self, owner: int) -> list[int]:
        """Return every table page of an owner, whether a ring leads to it or not."""
        return [
            (number << HUGE_SHIFT) + (index << PAGE_SHIFT)
            for number, block in self._blocks.items()
            for index in range(FRAMES_PER_HUGE)
            if block.level[index] and block.owner[index] == owner
        ]

    # ---- rings ---------------------------------------------------------------------------------------------------

    def ring(self, table: int) -> list[int]:
        """Return the table and its copies in ring order: as many steps as copies. Raises BrokenTables."""
        members = [table]
        start, first = self._find(table)
        at, expected = start.successor[first], start.expected[first]
        while at != table:
            block, index = self._blocks.get(at >> HUGE_SHIFT), at >> PAGE_SHIFT & INDEX
            if block is None or not block.level[index] or block.generation[index] != expected:
                why = f"the copy {at:#x} after {members[-1]:#x} was freed, or used again, while it was linked"
                raise BrokenTables("a ring of page tables leads to a page that left it", why)
            members.append(at)
            if len(members) > LONGEST_RING:
                self._not_closed(table, members)
            at, expected = block.successor[index], block.expected[index]
        self.hops += len(members)
        if expected != start.generation[first]:
            why = f"{members[-1]:#x} leads to what {table:#x} was before"
            raise BrokenTables("a ring of page tables leads to a page that left it", why)
        return members

    def _not_closed(self, table: int, members: list[int]) -> None:
        path = " → ".join(f"{member:#x}" for member in members[:6])
        raise BrokenTables("a ring of page tables does not come back to its start", f"from {table:#x}: {path} → …")

    def splice(self, table: int, new: int) -> None:
        """Put `new`, alone until now, into the ring behind `table`."""
        block, index = self._find(table)
        added, place = self._find(new)
        assert added.successor[place] == new, f"{new=:#x} is in a ring already"
        added.successor[place], added.expected[place] = block.successor[index], block.expected[index]
        # Last, and in one go as far as any other thread can see: from here on the ring leads through `new`.
        block.expected[index], block.successor[index] = added.generation[place], new

    def unlink(self, table: int) -> None:
        """Take a table out of its ring; it is alone then."""
        before = self.ring(table)[-1]
        block, index = self._find(table)
        previous, place = self._find(before)
        previous.successor[place], previous.expected[place] = block.successor[index], block.expected[index]
        block.successor[index], block.expected[index] = table, block.generation[index]
