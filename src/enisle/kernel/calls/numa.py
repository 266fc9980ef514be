"""Memory policies and page placement: mbind, set_mempolicy, get_mempolicy, migrate_pages, move_pages (numa(7)).

An island of one node answers ENOSYS, as a Linux built without NUMA.
"""

from errno import EACCES, EBUSY, EFAULT, EINVAL, EIO, ENODEV, ENOENT, ENOMEM, ENOSYS, EPERM

from enisle.abi import linux_mempolicy as m
from enisle.abi.types import PAGE, PAGE_MASK, PAGE_SHIFT, Gpa, Gva, Pid, page_up
from enisle.abi.x86 import PTE_ADDRESS, Pte
from enisle.errors import LinuxError
from enisle.kernel.calls.sched import check_owner, find_thread
from enisle.kernel.nodes import MemoryPolicy, Nodes
from enisle.kernel.table import Int, Size, Support, syscall
from enisle.kernel.thread import Thread
from enisle.kernel.vma import Vma
from enisle.machine import USER_END, OutOfMemory

NOTE = "on an island with nodes; a policy prefers, it never fails an allocation"
LONGEST_MASK = 4096 * 8
MODES = range(m.MPOL_DEFAULT, m.MPOL_PREFERRED_MANY + 1)
WITHOUT_NODES = (m.MPOL_DEFAULT, m.MPOL_LOCAL)


def nodes_of(thread: Thread) -> Nodes:
    nodes = thread.kernel.nodes
    if nodes is None:
        raise LinuxError(ENOSYS)
    return nodes


def read_mask(thread: Thread, address: int, bits: int) -> int:
    """Return a node mask of `maxnode` bits, one less than it says (get_nodes). Raises EINVAL, EFAULT."""
    bits -= 1
    if not address or bits <= 0:
        return 0
    if bits > LONGEST_MASK:
        raise LinuxError(EINVAL)
    words = thread.mm.read(address, (bits + 63) // 64 * 8)
    return int.from_bytes(words, "little") & (1 << bits) - 1


def write_mask(thread: Thread, address: int, bits: int, mask: int) -> None:
    """Raises EINVAL when it has no room for the nodes there are."""
    if bits - 1 < nodes_of(thread).count:
        raise LinuxError(EINVAL)
    thread.mm.write(address, mask.to_bytes((bits - 1 + 63) // 64 * 8, "little"))


def read_policy(thread: Thread, mode: int, address: int, bits: int) -> MemoryPolicy | None:
    """Return the policy that the arguments describe, None for the default one (mpol_new). Raises EINVAL."""
    flags, mode = mode & m.MPOL_MODE_FLAGS, mode & ~m.MPOL_MODE_FLAGS
    both = m.MPOL_F_STATIC_NODES | m.MPOL_F_RELATIVE_NODES
    if mode not in MODES or flags & both == both or (flags & m.MPOL_F_NUMA_BALANCING and mode != m.MPOL_BIND):
        raise LinuxError(EINVAL)
    mask = read_mask(thread, address, bits)
    count = nodes_of(thread).count
    if flags & m.MPOL_F_RELATIVE_NODES:
        mask = sum({1 << (node % count) for node in range(mask.bit_length()) if mask >> node & 1})
    if mask >> count and not mask & (1 << count) - 1:
        raise LinuxError(EINVAL)
    mask &= (1 << count) - 1
    if mode in WITHOUT_NODES or (mode == m.MPOL_PREFERRED and not mask):
        if mask:
            raise LinuxError(EINVAL)
        return None if mode == m.MPOL_DEFAULT else MemoryPolicy(m.MPOL_LOCAL, flags, ())
    nodes = tuple(node for node in range(count) if mask >> node & 1)
    if not nodes:
        raise LinuxError(EINVAL)
    return MemoryPolicy(mode, flags, nodes[:1] if mode == m.MPOL_PREFERRED else nodes)


@syscall(238, Support.PARTIAL, note=NOTE)
def sys_set_mempolicy(thread: Thread, mode: Int, mask: Gva, bits: Size) -> None:
    nodes_of(thread).set_policy(thread, read_policy(thread, mode, mask, bits))


@syscall(239, Support.PARTIAL, note=NOTE)
def sys_get_mempolicy(thread: Thread, mode: Gva, mask: Gva, bits: Size, address: Gva, flags: Size) -> None:
    nodes = nodes_of(thread)
    if flags & ~(m.MPOL_F_NODE | m.MPOL_F_ADDR | m.MPOL_F_MEMS_ALLOWED) or (mask and bits - 1 < nodes.count):
        raise LinuxError(EINVAL)
    if flags & m.MPOL_F_MEMS_ALLOWED:
        if flags & (m.MPOL_F_NODE | m.MPOL_F_ADDR):
            raise LinuxError(EINVAL)
        if mode:
            thread.mm.write_u32(mode, 0)
        if mask:
            write_mask(thread, mask, bits, (1 << nodes.count) - 1)
        return
    if flags & m.MPOL_F_ADDR:
        policy = _policy_at(thread, nodes, address)
        told = _node_at(thread, nodes, address) if flags & m.MPOL_F_NODE else _mode_of(policy)
    else:
        policy = thread.memory_policy
        if address or (flags & m.MPOL_F_NODE and (policy is None or policy.mode != m.MPOL_INTERLEAVE)):
            raise LinuxError(EINVAL)
        told = policy.nodes[0] if flags & m.MPOL_F_NODE and policy else _mode_of(policy)
    if mode:
        thread.mm.write_u32(mode, told)
    if mask:
        write_mask(thread, mask, bits, policy.mask if policy else 0)


def _mode_of(policy: MemoryPolicy | None) -> int:
    return policy.mode | policy.flags if policy else m.MPOL_DEFAULT


def _policy_at(thread: Thread, nodes: Nodes, address: int) -> MemoryPolicy | None:
    with thread.mm.lock:
        if thread.mm.vmas.find(address) is None:
            raise LinuxError(EFAULT)
        return nodes.policy_at(thread, address)


def _node_at(thread: Thread, nodes: Nodes, address: int) -> int:
    """Return the node of the page at an address, made when it is not there yet (lookup_node)."""
    thread.mm.read(address, 1)
    with thread.mm.lock:
        return max(0, nodes.memory.node_of(thread.mm.space.entry(address) & PTE_ADDRESS))


@syscall(237, Support.PARTIAL, note=NOTE)
def sys_mbind(thread: Thread, start: Gva, size: Size, mode: Int, mask: Gva, bits: Size, flags: Int) -> None:
    nodes = nodes_of(thread)
    end = start + page_up(size)
    if flags & ~(m.MPOL_MF_STRICT | m.MPOL_MF_MOVE | m.MPOL_MF_MOVE_ALL) or start & PAGE_MASK or end > USER_END:
        raise LinuxError(EINVAL)
    if flags & m.MPOL_MF_MOVE_ALL and thread.process.credentials.euid:
        raise LinuxError(EPERM)
    policy = read_policy(thread, mode, mask, bits)
    if start == end:
        return
    mm = thread.mm
    with mm.lock:
        if not mm.vmas.covers(start, end):
            raise LinuxError(EFAULT)

        def keep(vma: Vma) -> None:
            vma.policy = policy

        mm.change(start, end, keep)
        misplaced = _apply(thread, nodes, policy, (start, end), bool(flags & (m.MPOL_MF_MOVE | m.MPOL_MF_MOVE_ALL)))
    if misplaced and flags & m.MPOL_MF_STRICT:
        raise LinuxError(EIO)


def _apply(thread: Thread, nodes: Nodes, policy: MemoryPolicy | None, span: tuple[int, int], touched: bool) -> int:
    """Move pages of a range to where its policy wants them; return how many lie elsewhere. Requires: the mm's lock.

    Memory is filled before it is touched: pages no processor has touched yet are placed now, as a first touch would.
    """
    if policy is None or not policy.nodes:
        return 0
    misplaced = 0
    entries = list(thread.mm.space.entries(Gva(span[0]), (span[1] - span[0]) >> PAGE_SHIFT))
    for number, (page, entry) in enumerate(entries):
        wanted = policy.nodes[(page >> PAGE_SHIFT if policy.turns else 0) % len(policy.nodes)]
        there = nodes.memory.node_of(entry & PTE_ADDRESS)
        if there == wanted or (there in policy.nodes and not policy.turns) or there < 0:
            continue
        moved = False
        if touched or not entry & Pte.ACCESSED:
            try:
                moved = nodes.move_page(thread, Gva(page), wanted)
            except OutOfMemory:
                misplaced += len(entries) - number
                break
        misplaced += not moved and there not in policy.nodes
    return misplaced


@syscall(279, Support.PARTIAL, note=NOTE)
def sys_move_pages(
    thread: Thread, pid: Pid, count: Size, pages: Gva, targets: Gva, status: Gva, flags: Int
) -> int | None:
    nodes = nodes_of(thread)
    if flags & ~(m.MPOL_MF_MOVE | m.MPOL_MF_MOVE_ALL):
        raise LinuxError(EINVAL)
    if flags & m.MPOL_MF_MOVE_ALL and thread.process.credentials.euid:
        raise LinuxError(EPERM)
    subject = find_thread(thread, pid)
    check_owner(thread, subject)
    if count > USER_END >> PAGE_SHIFT:
        raise LinuxError(EFAULT)
    for index in range(count):
        address = int.from_bytes(thread.mm.read(pages + 8 * index, 8), "little")
        wanted = None
        if targets:
            wanted = int.from_bytes(thread.mm.read(targets + 4 * index, 4), "little", signed=True)
            if not 0 <= wanted < nodes.count:
                raise LinuxError(ENODEV)
        found = _place(subject, nodes, address & ~PAGE_MASK, wanted)
        thread.mm.write(status + 4 * index, found.to_bytes(4, "little", signed=True))
    return 0


def _place(subject: Thread, nodes: Nodes, address: int, wanted: int | None) -> int:
    """Move a page if asked to; return its node or a negated errno."""
    mm = subject.mm
    with mm.lock:
        if mm.vmas.find(address) is None:
            return -EFAULT
        entry = mm.space.entry(address)
        if not entry & Pte.PRESENT:
            return -ENOENT
        frame = Gpa(entry & PTE_ADDRESS)
        there = nodes.memory.node_of(frame)
        if wanted is None or there == wanted:
            return max(0, there)
        try:
            if nodes.move_page(subject, Gva(address), wanted):
                return wanted
        except OutOfMemory:
            return -ENOMEM
        return -EACCES if nodes.memory.is_window(frame) or nodes.memory.references(frame) > 1 else -EBUSY


@syscall(256, Support.PARTIAL, note=NOTE)
def sys_migrate_pages(thread: Thread, pid: Pid, bits: Size, old: Gva, new: Gva) -> int:
    nodes = nodes_of(thread)
    subject = find_thread(thread, pid)
    check_owner(thread, subject)
    source, target = read_mask(thread, old, bits), read_mask(thread, new, bits)
    if target >> nodes.count or not target:
        raise LinuxError(EINVAL)
    targets = [node for node in range(nodes.count) if target >> node & 1]
    left, mm = 0, subject.mm
    with mm.lock:
        for vma in list(mm.vmas):
            for page, entry in list(mm.space.entries(Gva(vma.start), (vma.end - vma.start) // PAGE)):
                there = nodes.memory.node_of(entry & PTE_ADDRESS)
                if there < 0 or not source >> there & 1 or there in targets:
                    continue
                try:
                    left += not nodes.move_page(subject, Gva(page), targets[there % len(targets)])
                except OutOfMemory:
                    left += 1
    return left
