"""Scheduling as the guest sees it: policies, priorities, affinity (sched(7)). Kept and answered; the host schedules."""

import os
from errno import E2BIG, EACCES, EINVAL, EPERM, ESRCH

from enisle.abi import linux_priority as p
from enisle.abi.linux_capability import CAP_SYS_NICE
from enisle.abi.linux_time import TIMESPEC
from enisle.abi.types import Gva, Pid
from enisle.errors import LinuxError
from enisle.kernel.limits import RLIMIT_NICE, RLIMIT_RTPRIO
from enisle.kernel.scheduling import FAIR, REAL_TIME, Scheduling
from enisle.kernel.table import Int, Support, Uint, syscall
from enisle.kernel.thread import Thread

NOTE = "kept and answered; the host schedules"
ROUND_ROBIN_NS = 100_000_000
FAIR_SLICE_NS = 4_000_000
SLICES: dict[int, int] = {p.SCHED_FIFO: 0, p.SCHED_RR: ROUND_ROBIN_NS}
DEFAULT_IO_PRIORITY = 4  # IOPRIO_DEFAULT: no class, level 4
PRIORITIES: dict[int, tuple[int, int]] = dict.fromkeys(REAL_TIME, (1, p.MAX_RT_PRIO - 1))
PRIORITIES.update(dict.fromkeys((*FAIR, p.SCHED_DEADLINE), (0, 0)))


def find_thread(thread: Thread, pid: int) -> Thread:
    """Return the thread `pid` names, the caller for 0. Raises EINVAL, ESRCH."""
    if pid < 0:
        raise LinuxError(EINVAL)
    target = thread.kernel.threads.get(Pid(pid)) if pid else thread
    if target is None:
        raise LinuxError(EPERM if pid == thread.kernel.init.pid else ESRCH)
    return target


def check_owner(thread: Thread, target: Thread) -> None:
    """Raise EPERM unless the caller may change the target's scheduling (check_same_owner)."""
    me, other = thread.process.credentials, target.process.credentials
    if me.euid not in (other.euid, other.uid) and not me.may(CAP_SYS_NICE):
        raise LinuxError(EPERM)


@syscall(24, Support.FULL, exit_door=True)  # it is this thread that must give its turn away, not the poller
def sys_sched_yield(thread: Thread) -> None:
    os.sched_yield()


# ---- affinity ------------------------------------------------------------------------------------------------------


@syscall(203, Support.PARTIAL, note=NOTE)
def sys_sched_setaffinity(thread: Thread, pid: Pid, size: Uint, mask: Gva) -> None:
    wanted = int.from_bytes(thread.mm.read(mask, min(size, 1024)), "little")
    target = find_thread(thread, pid)
    check_owner(thread, target)
    wanted &= (1 << thread.kernel.config.processors) - 1
    if not wanted:
        raise LinuxError(EINVAL)
    target.scheduling.affinity = wanted
    if thread.kernel.nodes:
        thread.kernel.nodes.affinity_changed(target)


@syscall(204, Support.FULL)
def sys_sched_getaffinity(thread: Thread, pid: Pid, size: Uint, mask: Gva) -> int:
    count = thread.kernel.config.processors
    if size * 8 < count or size & 7:
        raise LinuxError(EINVAL)
    target = find_thread(thread, pid)
    length = min(size, (count + 63) // 64 * 8)
    thread.mm.write(mask, target.scheduling.processors(count).to_bytes(length, "little"))
    return length


@syscall(309, Support.PARTIAL, note="a thread's processor number is a fixed one of those it may use")
def sys_getcpu(thread: Thread, cpu: Gva, node: Gva) -> None:
    if cpu:
        thread.mm.write_u32(cpu, processor_of(thread))
    if node:
        thread.mm.write_u32(node, thread.node)


def processor_of(thread: Thread) -> int:
    """Return the number of the processor the thread is told it runs on."""
    if thread.kernel.nodes:
        return thread.kernel.nodes.processor_of(thread)
    count = thread.kernel.config.processors
    allowed = thread.scheduling.processors(count)
    numbers = [number for number in range(count) if allowed >> number & 1]
    return numbers[thread.tid % len(numbers)]


# ---- policies ------------------------------------------------------------------------------------------------------


def check_priority(policy: int, priority: int) -> None:
    """Raises EINVAL."""
    bounds = PRIORITIES.get(policy)
    if bounds is None or not bounds[0] <= priority <= bounds[1]:
        raise LinuxError(EINVAL)


def set_policy(thread: Thread, target: Thread, wanted: Scheduling) -> None:
    """Change a thread's policy as an unprivileged user may (user_check_sched_setscheduler). Raises EPERM."""
    check_owner(thread, target)
    old = target.scheduling
    if not thread.process.credentials.may(CAP_SYS_NICE):
        limits = target.process.limits
        most = limits.soft(RLIMIT_RTPRIO)
        real_time = wanted.policy in REAL_TIME
        if real_time and ((wanted.policy != old.policy and not most) or wanted.priority > max(old.priority, most)):
            raise LinuxError(EPERM)
        if old.policy == p.SCHED_IDLE != wanted.policy and 20 - old.nice > limits.soft(RLIMIT_NICE):
            raise LinuxError(EPERM)  # idle counts as the lowest priority of all
        if wanted.policy in FAIR and wanted.nice < old.nice and 20 - wanted.nice > limits.soft(RLIMIT_NICE):
            raise LinuxError(EPERM)
        if wanted.policy == p.SCHED_DEADLINE or (old.reset_on_fork and not wanted.reset_on_fork):
            raise LinuxError(EPERM)
    wanted.affinity, wanted.io_priority = old.affinity, old.io_priority
    wanted.timer_slack, wanted.default_slack = old.timer_slack, old.default_slack
    target.scheduling = wanted


@syscall(144, Support.PARTIAL, note=NOTE)
def sys_sched_setscheduler(thread: Thread, pid: Pid, policy: Int, parameter: Gva) -> None:
    if policy < 0 or not parameter or pid < 0:
        raise LinuxError(EINVAL)
    priority = int.from_bytes(thread.mm.read(parameter, 4), "little", signed=True)
    target = find_thread(thread, pid)
    reset, policy = bool(policy & p.SCHED_RESET_ON_FORK), Int(policy & ~p.SCHED_RESET_ON_FORK)
    if policy == p.SCHED_DEADLINE:
        raise LinuxError(EINVAL)
    check_priority(policy, priority)
    set_policy(thread, target, Scheduling(policy, priority, target.scheduling.nice, reset))


@syscall(145, Support.FULL)
def sys_sched_getscheduler(thread: Thread, pid: Pid) -> int:
    scheduling = find_thread(thread, pid).scheduling
    return scheduling.policy | (p.SCHED_RESET_ON_FORK if scheduling.reset_on_fork else 0)


@syscall(142, Support.PARTIAL, note=NOTE)
def sys_sched_setparam(thread: Thread, pid: Pid, parameter: Gva) -> None:
    if not parameter or pid < 0:
        raise LinuxError(EINVAL)
    priority = int.from_bytes(thread.mm.read(parameter, 4), "little", signed=True)
    target = find_thread(thread, pid)
    old = target.scheduling
    check_priority(old.policy, priority)
    set_policy(thread, target, Scheduling(old.policy, priority, old.nice, old.reset_on_fork))


@syscall(143, Support.FULL)
def sys_sched_getparam(thread: Thread, pid: Pid, parameter: Gva) -> None:
    if not parameter:
        raise LinuxError(EINVAL)
    thread.mm.write_u32(parameter, find_thread(thread, pid).scheduling.priority)


@syscall(146, Support.FULL)
def sys_sched_get_priority_max(thread: Thread, policy: Int) -> int:
    if policy not in PRIORITIES:
        raise LinuxError(EINVAL)
    return PRIORITIES[policy][1]


@syscall(147, Support.FULL)
def sys_sched_get_priority_min(thread: Thread, policy: Int) -> int:
    if policy not in PRIORITIES:
        raise LinuxError(EINVAL)
    return PRIORITIES[policy][0]


@syscall(148, Support.PARTIAL, note="the slice of a fair thread is the host's affair: a usual one is told")
def sys_sched_rr_get_interval(thread: Thread, pid: Pid, interval: Gva) -> None:
    policy = find_thread(thread, pid).scheduling.policy
    length = SLICES.get(policy, FAIR_SLICE_NS)
    thread.mm.write(interval, TIMESPEC.pack(0, length))


@syscall(314, Support.PARTIAL, note=NOTE + "; no SCHED_DEADLINE, no clamps")
def sys_sched_setattr(thread: Thread, pid: Pid, attributes: Gva, flags: Uint) -> None:
    if not attributes or pid < 0 or flags:
        raise LinuxError(EINVAL)
    size = thread.mm.read_u32(attributes) or p.SCHED_ATTR_SIZE_VER0
    raw = thread.mm.read(attributes, size) if p.SCHED_ATTR_SIZE_VER0 <= size <= 4096 else b""
    if not raw or any(raw[p.SCHED_ATTR.size :]):
        thread.mm.write_u32(attributes, p.SCHED_ATTR.size)
        raise LinuxError(E2BIG)
    _, policy, how, nice, priority, *_ = p.SCHED_ATTR.unpack(raw[: p.SCHED_ATTR.size].ljust(p.SCHED_ATTR.size, b"\0"))
    target = find_thread(thread, pid)
    old = target.scheduling
    if how & ~p.SCHED_FLAG_ALL or how & p.SCHED_FLAG_UTIL_CLAMP or policy >> 31:
        raise LinuxError(EINVAL)
    if how & p.SCHED_FLAG_KEEP_POLICY:
        policy = old.policy
    if how & p.SCHED_FLAG_KEEP_PARAMS:
        nice, priority = old.nice, old.priority
    if policy == p.SCHED_DEADLINE:
        raise LinuxError(EPERM)
    check_priority(policy, priority)
    nice = max(p.MIN_NICE, min(nice, p.MAX_NICE)) if policy in FAIR else old.nice
    set_policy(thread, target, Scheduling(policy, priority, nice, bool(how & p.SCHED_FLAG_RESET_ON_FORK)))


@syscall(315, Support.FULL)
def sys_sched_getattr(thread: Thread, pid: Pid, attributes: Gva, size: Uint, flags: Uint) -> None:
    if not attributes or not p.SCHED_ATTR_SIZE_VER0 <= size <= 4096 or flags:
        raise LinuxError(EINVAL)
    scheduling = find_thread(thread, pid).scheduling
    how = p.SCHED_FLAG_RESET_ON_FORK if scheduling.reset_on_fork else 0
    length = min(size, p.SCHED_ATTR.size)
    nice = scheduling.nice if scheduling.policy in FAIR else 0
    packed = p.SCHED_ATTR.pack(length, scheduling.policy, how, nice, scheduling.priority, 0, 0, 0, 0, 1024)
    thread.mm.write(attributes, packed[:length])


# ---- nice ----------------------------------------------------------------------------------------------------------


def find_targets(thread: Thread, which: int, who: int) -> list[Thread]:
    """Return the threads getpriority(2)'s arguments name. Raises EINVAL, ESRCH. Requires: kernel.lock."""
    everyone = list(thread.kernel.threads.values())
    if which == p.PRIO_PROCESS:
        if who == thread.kernel.init.pid:
            raise LinuxError(EPERM)
        found = [thread.kernel.threads.get(Pid(who)) if who else thread]
    elif which == p.PRIO_PGRP:
        group = who or thread.process.pgid
        found = [other for other in everyone if other.process.pgid == group]
    elif which == p.PRIO_USER:
        uid = who or thread.process.credentials.uid
        found = [other for other in everyone if other.process.credentials.uid == uid]
    else:
        raise LinuxError(EINVAL)
    targets = [target for target in found if target is not None]
    if not targets:
        raise LinuxError(ESRCH)
    return targets


@syscall(140, Support.FULL)
def sys_getpriority(thread: Thread, which: Int, who: Int) -> int:
    with thread.kernel.lock:
        return max(20 - target.scheduling.nice for target in find_targets(thread, which, who))


@syscall(141, Support.PARTIAL, note=NOTE)
def sys_setpriority(thread: Thread, which: Int, who: Int, nice: Int) -> None:
    wanted = max(p.MIN_NICE, min(nice, p.MAX_NICE))
    with thread.kernel.lock:
        failure = 0
        for target in find_targets(thread, which, who):
            try:
                check_owner(thread, target)
                limit = target.process.limits.soft(RLIMIT_NICE)
                privileged = thread.process.credentials.may(CAP_SYS_NICE)
                if wanted < target.scheduling.nice and 20 - wanted > limit and not privileged:
                    raise LinuxError(EACCES)
                target.scheduling.nice = wanted
            except LinuxError as error:
                failure = error.errno
        if failure:
            raise LinuxError(failure)


def io_targets(thread: Thread, which: int, who: int) -> list[Thread]:
    """Return the threads ioprio_get(2)'s arguments name. Requires: kernel.lock."""
    if not p.IOPRIO_WHO_PROCESS <= which <= p.IOPRIO_WHO_USER:
        raise LinuxError(EINVAL)
    return find_targets(thread, which - 1, who)


@syscall(251, Support.PARTIAL, note="kept and answered only")
def sys_ioprio_set(thread: Thread, which: Int, who: Int, priority: Int) -> None:
    kind, level = priority >> p.IOPRIO_CLASS_SHIFT & 7, priority & (1 << p.IOPRIO_CLASS_SHIFT) - 1
    if kind > p.IOPRIO_CLASS_IDLE or (kind in (p.IOPRIO_CLASS_RT, p.IOPRIO_CLASS_BE) and level >= p.IOPRIO_LEVELS):
        raise LinuxError(EINVAL)
    if kind == p.IOPRIO_CLASS_NONE and level:
        raise LinuxError(EINVAL)
    if kind == p.IOPRIO_CLASS_RT and not thread.process.credentials.may(CAP_SYS_NICE):
        raise LinuxError(EPERM)
    with thread.kernel.lock:
        for target in io_targets(thread, which, who):
            check_owner(thread, target)
            target.scheduling.io_priority = priority


@syscall(252, Support.PARTIAL, note="kept and answered only")
def sys_ioprio_get(thread: Thread, which: Int, who: Int) -> int:
    with thread.kernel.lock:
        best = [target.scheduling.io_priority or DEFAULT_IO_PRIORITY for target in io_targets(thread, which, who)]
    return min(best)
