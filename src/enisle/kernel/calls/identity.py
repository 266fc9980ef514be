"""Who a process is: user and group ids and capabilities (setresuid(2), capset(2)).

Ids belong to the whole process here: the C library sets those of every thread alike.
"""

import struct
from errno import EINVAL, EPERM, ESRCH

from enisle.abi import linux_capability as c
from enisle.abi.types import Gva, Pid
from enisle.errors import LinuxError
from enisle.kernel.credentials import Credentials
from enisle.kernel.table import Int, Support, Uint, syscall
from enisle.kernel.thread import Thread

NOTE = "ids belong to the process and are not enforced on files"
UNCHANGED = 0xFFFF_FFFF
MOST_GROUPS = 65536
LOW = 0xFFFF_FFFF


def own(thread: Thread) -> Credentials:
    return thread.process.credentials


# ---- answers -------------------------------------------------------------------------------------------------------


@syscall(102, Support.FULL)
def sys_getuid(thread: Thread) -> int:
    return own(thread).uid


@syscall(104, Support.FULL)
def sys_getgid(thread: Thread) -> int:
    return own(thread).gid


@syscall(107, Support.FULL)
def sys_geteuid(thread: Thread) -> int:
    return own(thread).euid


@syscall(108, Support.FULL)
def sys_getegid(thread: Thread) -> int:
    return own(thread).egid


@syscall(118, Support.FULL)
def sys_getresuid(thread: Thread, real: Gva, effective: Gva, saved: Gva) -> None:
    for place, uid in zip((real, effective, saved), own(thread).uids, strict=True):
        thread.mm.write_u32(place, uid)


@syscall(120, Support.FULL)
def sys_getresgid(thread: Thread, real: Gva, effective: Gva, saved: Gva) -> None:
    for place, gid in zip((real, effective, saved), own(thread).gids, strict=True):
        thread.mm.write_u32(place, gid)


# ---- users ---------------------------------------------------------------------------------------------------------


def check(wanted: int, allowed: tuple[int, ...], privileged: bool) -> None:
    """Raise EPERM unless the id is unchanged, among the allowed ones, or the caller privileged."""
    if wanted != UNCHANGED and wanted not in allowed and not privileged:
        raise LinuxError(EPERM)


@syscall(105, Support.PARTIAL, note=NOTE)
def sys_setuid(thread: Thread, uid: Uint) -> None:
    if uid == UNCHANGED:
        raise LinuxError(EINVAL)
    who = own(thread)
    privileged = who.may(c.CAP_SETUID)
    check(uid, (who.uid, who.suid), privileged)
    with who.changing_uids():
        if privileged:
            who.uid = who.suid = uid
        who.euid = who.fsuid = uid


@syscall(113, Support.PARTIAL, note=NOTE)
def sys_setreuid(thread: Thread, ruid: Uint, euid: Uint) -> None:
    who = own(thread)
    privileged = who.may(c.CAP_SETUID)
    check(ruid, (who.uid, who.euid), privileged)
    check(euid, who.uids, privileged)
    with who.changing_uids():
        old = who.uid
        if ruid != UNCHANGED:
            who.uid = ruid
        if euid != UNCHANGED:
            who.euid = euid
        if ruid != UNCHANGED or (euid != UNCHANGED and euid != old):
            who.suid = who.euid
        who.fsuid = who.euid


@syscall(117, Support.PARTIAL, note=NOTE)
def sys_setresuid(thread: Thread, ruid: Uint, euid: Uint, suid: Uint) -> None:
    who = own(thread)
    for wanted in (ruid, euid, suid):
        check(wanted, who.uids, who.may(c.CAP_SETUID))
    with who.changing_uids():
        if ruid != UNCHANGED:
            who.uid = ruid
        if euid != UNCHANGED:
            who.euid = euid
        if suid != UNCHANGED:
            who.suid = suid
        who.fsuid = who.euid


@syscall(122, Support.PARTIAL, note=NOTE)
def sys_setfsuid(thread: Thread, uid: Uint) -> int:
    who = own(thread)
    old = who.fsuid
    if uid != UNCHANGED and (uid in (*who.uids, old) or who.may(c.CAP_SETUID)):
        who.set_fsuid(uid)
    return old


# ---- groups --------------------------------------------------------------------------------------------------------


@syscall(106, Support.PARTIAL, note=NOTE)
def sys_setgid(thread: Thread, gid: Uint) -> None:
    if gid == UNCHANGED:
        raise LinuxError(EINVAL)
    who = own(thread)
    privileged = who.may(c.CAP_SETGID)
    check(gid, (who.gid, who.sgid), privileged)
    if privileged:
        who.gid = who.sgid = gid
    who.egid = who.fsgid = gid


@syscall(114, Support.PARTIAL, note=NOTE)
def sys_setregid(thread: Thread, rgid: Uint, egid: Uint) -> None:
    who = own(thread)
    privileged = who.may(c.CAP_SETGID)
    check(rgid, (who.gid, who.egid), privileged)
    check(egid, who.gids, privileged)
    old = who.gid
    if rgid != UNCHANGED:
        who.gid = rgid
    if egid != UNCHANGED:
        who.egid = egid
    if rgid != UNCHANGED or (egid != UNCHANGED and egid != old):
        who.sgid = who.egid
    who.fsgid = who.egid


@syscall(119, Support.PARTIAL, note=NOTE)
def sys_setresgid(thread: Thread, rgid: Uint, egid: Uint, sgid: Uint) -> None:
    who = own(thread)
    for wanted in (rgid, egid, sgid):
        check(wanted, who.gids, who.may(c.CAP_SETGID))
    if rgid != UNCHANGED:
        who.gid = rgid
    if egid != UNCHANGED:
        who.egid = egid
    if sgid != UNCHANGED:
        who.sgid = sgid
    who.fsgid = who.egid


@syscall(123, Support.PARTIAL, note=NOTE)
def sys_setfsgid(thread: Thread, gid: Uint) -> int:
    who = own(thread)
    old = who.fsgid
    if gid != UNCHANGED and (gid in (*who.gids, old) or who.may(c.CAP_SETGID)):
        who.fsgid = gid
    return old


@syscall(115, Support.FULL)
def sys_getgroups(thread: Thread, size: Int, groups: Gva) -> int:
    held = own(thread).groups
    if size < 0 or (size and size < len(held)):
        raise LinuxError(EINVAL)
    if size:
        thread.mm.write(groups, struct.pack(f"<{len(held)}I", *held))
    return len(held)


@syscall(116, Support.PARTIAL, note=NOTE)
def sys_setgroups(thread: Thread, size: Uint, groups: Gva) -> None:
    who = own(thread)
    if not who.may(c.CAP_SETGID):
        raise LinuxError(EPERM)
    if size > MOST_GROUPS:
        raise LinuxError(EINVAL)
    wanted = struct.unpack(f"<{size}I", thread.mm.read(groups, 4 * size))
    if UNCHANGED in wanted:
        raise LinuxError(EINVAL)
    who.groups = tuple(sorted(wanted))


# ---- capabilities --------------------------------------------------------------------------------------------------


def read_header(thread: Thread, header: int) -> tuple[int, int]:
    """Return how many words each set has, and the pid. Raises EINVAL, with the version Linux prefers stored."""
    version, pid = c.CAP_HEADER.unpack(thread.mm.read(header, c.CAP_HEADER.size))
    words = c.WORDS_OF_VERSION.get(version)
    if words is None:
        thread.mm.write_u32(header, c.LINUX_CAPABILITY_VERSION_3)
        raise LinuxError(EINVAL)
    return words, pid


@syscall(125, Support.FULL)
def sys_capget(thread: Thread, header: Gva, sets: Gva) -> None:
    try:
        words, pid = read_header(thread, header)
    except LinuxError as error:
        if error.errno == EINVAL and not sets:
            return  # the program asked for the version only
        raise
    if pid < 0:
        raise LinuxError(EINVAL)
    target = thread.kernel.threads.get(Pid(pid)) if pid else thread
    if target is None:
        raise LinuxError(ESRCH)
    who = own(target)
    if not sets:
        return
    held = (who.effective, who.permitted, who.inheritable)
    packed = b"".join(c.CAP_DATA.pack(*(mask >> 32 * word & LOW for mask in held)) for word in range(words))
    thread.mm.write(sets, packed)


@syscall(126, Support.PARTIAL, note="capabilities belong to the process; few have an effect")
def sys_capset(thread: Thread, header: Gva, sets: Gva) -> None:
    words, pid = read_header(thread, header)
    if pid and pid != thread.tid:
        raise LinuxError(EPERM)
    raw = thread.mm.read(sets, words * c.CAP_DATA.size)
    effective = permitted = inheritable = 0
    for word, (more_effective, more_permitted, more_inheritable) in enumerate(c.CAP_DATA.iter_unpack(raw)):
        effective |= more_effective << 32 * word
        permitted |= more_permitted << 32 * word
        inheritable |= more_inheritable << 32 * word
    set_capabilities(own(thread), effective, permitted, inheritable)


def set_capabilities(who: Credentials, effective: int, permitted: int, inheritable: int) -> None:
    """Change the three sets as capset(2) allows. Raises EPERM."""
    known = (1 << c.CAP_LAST_CAP + 1) - 1
    effective, permitted, inheritable = effective & known, permitted & known, inheritable & known
    if not who.may(c.CAP_SETPCAP) and inheritable & ~(who.inheritable | who.permitted):
        raise LinuxError(EPERM)
    if inheritable & ~(who.inheritable | who.bounding) or permitted & ~who.permitted or effective & ~permitted:
        raise LinuxError(EPERM)
    who.effective, who.permitted, who.inheritable = effective, permitted, inheritable
    who.ambient &= permitted & inheritable
