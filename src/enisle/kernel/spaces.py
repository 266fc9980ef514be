"""The address spaces of an island's processes, as its owner sees them from outside."""

from typing import TYPE_CHECKING

from enisle.machine import describe_tables
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.kernel.kernel import Kernel
    from enisle.machine import Outline


class SpaceRecord(Record):
    """One address space and who is in it: the processes, their name, and their threads."""

    pids: tuple[int, ...]
    name: str
    threads: int
    tree: "Outline"


def address_spaces(kernel: "Kernel", pid: int, limit: int) -> list[SpaceRecord]:
    """Return the spaces of all processes, or of `pid`; about `limit` pages of tables in all, at least the roots."""
    with kernel.lock:
        spaces = {id(thread.mm): thread.mm for thread in kernel.threads.values()}
        members = {key: [thread for thread in kernel.threads.values() if id(thread.mm) == key] for key in spaces}
    found: list[SpaceRecord] = []
    for key, threads in members.items():
        pids = tuple(sorted({int(thread.process.pid) for thread in threads}))
        if pid and pid not in pids:
            continue
        mm = spaces[key]
        name = threads[0].process.name.decode(errors="replace")
        tree = describe_tables(mm.space, mm.lock, limit)
        limit -= sum(len(table.copies) for table in tree.tables)
        found.append(SpaceRecord(pids, name, len(threads), tree))
    return sorted(found)
