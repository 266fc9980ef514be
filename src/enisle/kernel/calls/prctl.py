"""What a thread or process asks about itself: prctl(2), arch_prctl(2), personality(2)."""

from collections.abc import Callable
from errno import EINVAL, ENODEV, ENXIO, EOPNOTSUPP, EPERM

from enisle.abi import linux_capability as c
from enisle.abi import linux_prctl as p
from enisle.abi.types import Gva
from enisle.errors import LinuxError
from enisle.kernel.scheduling import DEFAULT_SLACK_NS
from enisle.kernel.table import Int, Size, Support, Uint, syscall
from enisle.kernel.thread import Thread
from enisle.machine import USER_END

Arguments = tuple[int, int, int, int]
"""arg2 … arg5."""
Option = Callable[[Thread, Arguments], int | None]
OPTIONS: dict[int, Option] = {}
INT = 0xFFFF_FFFF
LAST_COMPONENT = 18


def option(number: int, used: int = 4) -> Callable[[Option], Option]:
    """Enter a prctl option; arguments beyond the first `used` must be 0, as Linux demands of newer options."""

    def enter(handler: Option) -> Option:
        def checked(thread: Thread, arguments: Arguments) -> int | None:
            if any(arguments[used:]):
                raise LinuxError(EINVAL)
            return handler(thread, arguments)

        OPTIONS[number] = checked
        return handler

    return enter


@syscall(157, Support.PARTIAL, note="no seccomp, no PR_SET_MM, no speculation control")
def sys_prctl(thread: Thread, number: Int, arg2: Size, arg3: Size, arg4: Size, arg5: Size) -> int:
    handler = OPTIONS.get(number)
    if handler is None:
        raise LinuxError(EINVAL)
    return handler(thread, (arg2, arg3, arg4, arg5)) or 0


def store_int(thread: Thread, address: int, value: int) -> None:
    thread.mm.write_u32(address, value)


# ---- names and death ----------------------------------------------------------------------------------------------


@option(p.PR_SET_NAME)
def set_name(thread: Thread, arguments: Arguments) -> None:
    name = read_prefix(thread, arguments[0], p.TASK_COMM_LEN - 1)
    thread.name = name
    if thread.is_leader:
        thread.process.name = name


def read_prefix(thread: Thread, address: int, limit: int) -> bytes:
    """Return a C string, cut at `limit` bytes (strncpy_from_user). Raises EFAULT."""
    found = b""
    while len(found) < limit:
        character = thread.mm.read(address + len(found), 1)
        if character == b"\0":
            break
        found += character
    return found


@option(p.PR_GET_NAME)
def get_name(thread: Thread, arguments: Arguments) -> None:
    thread.mm.write(arguments[0], thread.name[: p.TASK_COMM_LEN - 1].ljust(p.TASK_COMM_LEN, b"\0"))


@option(p.PR_SET_PDEATHSIG)
def set_death_signal(thread: Thread, arguments: Arguments) -> None:
    if arguments[0] > 64:
        raise LinuxError(EINVAL)
    thread.process.parent_death_signal = arguments[0]


@option(p.PR_GET_PDEATHSIG)
def get_death_signal(thread: Thread, arguments: Arguments) -> None:
    store_int(thread, arguments[0], thread.process.parent_death_signal)


@option(p.PR_SET_CHILD_SUBREAPER)
def set_subreaper(thread: Thread, arguments: Arguments) -> None:
    thread.process.child_subreaper = bool(arguments[0])


@option(p.PR_GET_CHILD_SUBREAPER)
def get_subreaper(thread: Thread, arguments: Arguments) -> None:
    store_int(thread, arguments[0], thread.process.child_subreaper)


@option(p.PR_GET_TID_ADDRESS)
def get_tid_address(thread: Thread, arguments: Arguments) -> None:
    thread.mm.write_u64(arguments[0], thread.clear_child_tid)


# ---- privileges ----------------------------------------------------------------------------------------------------


@option(p.PR_GET_DUMPABLE)
def get_dumpable(thread: Thread, arguments: Arguments) -> int:
    return int(thread.process.dumpable)


@option(p.PR_SET_DUMPABLE)
def set_dumpable(thread: Thread, arguments: Arguments) -> None:
    if arguments[0] > 1:
        raise LinuxError(EINVAL)
    thread.process.dumpable = bool(arguments[0])


@option(p.PR_SET_NO_NEW_PRIVS)
def set_no_new_privileges(thread: Thread, arguments: Arguments) -> None:
    if arguments != (1, 0, 0, 0):
        raise LinuxError(EINVAL)
    thread.process.no_new_privileges = True


@option(p.PR_GET_NO_NEW_PRIVS, 0)
def get_no_new_privileges(thread: Thread, arguments: Arguments) -> int:
    return int(thread.process.no_new_privileges)


@option(p.PR_GET_KEEPCAPS)
def get_keep_capabilities(thread: Thread, arguments: Arguments) -> int:
    return int(thread.process.credentials.keep_caps)


@option(p.PR_SET_KEEPCAPS)
def set_keep_capabilities(thread: Thread, arguments: Arguments) -> None:
    who = thread.process.credentials
    if arguments[0] > 1:
        raise LinuxError(EINVAL)
    if who.securebits & c.SECBIT_KEEP_CAPS << 1:
        raise LinuxError(EPERM)
    who.securebits = who.securebits & ~c.SECBIT_KEEP_CAPS | (c.SECBIT_KEEP_CAPS if arguments[0] else 0)


@option(p.PR_GET_SECUREBITS)
def get_securebits(thread: Thread, arguments: Arguments) -> int:
    return thread.process.credentials.securebits


@option(p.PR_SET_SECUREBITS)
def set_securebits(thread: Thread, arguments: Arguments) -> None:
    who, wanted = thread.process.credentials, arguments[0]
    locked = (who.securebits & c.SECURE_ALL_LOCKS) >> 1
    changes = (who.securebits ^ wanted) & locked or who.securebits & c.SECURE_ALL_LOCKS & ~wanted
    if changes or wanted & ~(c.SECURE_ALL_LOCKS | c.SECURE_ALL_BITS) or not who.may(c.CAP_SETPCAP):
        raise LinuxError(EPERM)
    who.securebits = wanted


@option(p.PR_CAPBSET_READ)
def read_bounding(thread: Thread, arguments: Arguments) -> int:
    if arguments[0] > c.CAP_LAST_CAP:
        raise LinuxError(EINVAL)
    return thread.process.credentials.bounding >> arguments[0] & 1


@option(p.PR_CAPBSET_DROP)
def drop_bounding(thread: Thread, arguments: Arguments) -> None:
    who = thread.process.credentials
    if not who.may(c.CAP_SETPCAP):
        raise LinuxError(EPERM)
    if arguments[0] > c.CAP_LAST_CAP:
        raise LinuxError(EINVAL)
    who.bounding &= ~(1 << arguments[0])


@option(p.PR_CAP_AMBIENT)
def change_ambient(thread: Thread, arguments: Arguments) -> int:
    who, (what, capability, *rest) = thread.process.credentials, arguments
    if what == p.PR_CAP_AMBIENT_CLEAR_ALL:
        if any(arguments[1:]):
            raise LinuxError(EINVAL)
        who.ambient = 0
        return 0
    if any(rest) or capability > c.CAP_LAST_CAP:
        raise LinuxError(EINVAL)
    bit = 1 << capability
    if what == p.PR_CAP_AMBIENT_IS_SET:
        return int(bool(who.ambient & bit))
    if what == p.PR_CAP_AMBIENT_RAISE:
        if not who.permitted & who.inheritable & bit or who.securebits & c.SECBIT_NO_CAP_AMBIENT_RAISE:
            raise LinuxError(EPERM)
        who.ambient |= bit
    elif what == p.PR_CAP_AMBIENT_LOWER:
        who.ambient &= ~bit
    else:
        raise LinuxError(EINVAL)
    return 0


@option(p.PR_GET_SECCOMP)
def get_seccomp(thread: Thread, arguments: Arguments) -> int:
    return 0  # no filter is ever in force


# ---- time, memory, errors of the machine ---------------------------------------------------------------------------


@option(p.PR_SET_TIMERSLACK)
def set_timer_slack(thread: Thread, arguments: Arguments) -> None:
    scheduling, wanted = thread.scheduling, arguments[0]
    scheduling.timer_slack = wanted if 0 < wanted < 1 << 63 else scheduling.default_slack or DEFAULT_SLACK_NS


@option(p.PR_GET_TIMERSLACK)
def get_timer_slack(thread: Thread, arguments: Arguments) -> int:
    return thread.scheduling.timer_slack


@option(p.PR_GET_TIMING)
def get_timing(thread: Thread, arguments: Arguments) -> int:
    return 0  # PR_TIMING_STATISTICAL, the only one there is


@option(p.PR_SET_TIMING)
def set_timing(thread: Thread, arguments: Arguments) -> None:
    if arguments[0]:
        raise LinuxError(EINVAL)


@option(p.PR_GET_TSC)
def get_tsc(thread: Thread, arguments: Arguments) -> None:
    store_int(thread, arguments[0], p.PR_TSC_SIGSEGV if is_counter_blocked(thread) else p.PR_TSC_ENABLE)


def is_counter_blocked(thread: Thread) -> bool:
    value = thread.kernel.machine.blocking
    return value is not None and "tsc" not in value.features


@option(p.PR_SET_TSC)
def set_tsc(thread: Thread, arguments: Arguments) -> None:
    # Neither for a while only nor for one thread: the processor backend cannot trap RDTSC, a blocking value is for all.
    if arguments[0] != (p.PR_TSC_SIGSEGV if is_counter_blocked(thread) else p.PR_TSC_ENABLE):
        raise LinuxError(EINVAL)


@option(p.PR_GET_THP_DISABLE, 0)
def get_thp_disable(thread: Thread, arguments: Arguments) -> int:
    return int(thread.mm.no_huge_pages)


@option(p.PR_SET_THP_DISABLE, 1)
def set_thp_disable(thread: Thread, arguments: Arguments) -> None:
    thread.mm.no_huge_pages = bool(arguments[0])


@option(p.PR_MCE_KILL, 2)
def set_mce_policy(thread: Thread, arguments: Arguments) -> None:
    what, policy = arguments[:2]
    if what == p.PR_MCE_KILL_CLEAR:
        if policy:
            raise LinuxError(EINVAL)
    elif what != p.PR_MCE_KILL_SET or policy not in (p.PR_MCE_KILL_LATE, p.PR_MCE_KILL_EARLY, p.PR_MCE_KILL_DEFAULT):
        raise LinuxError(EINVAL)
    elif policy != p.PR_MCE_KILL_DEFAULT:
        raise LinuxError(EPERM)  # memory errors are the host's to tell


@option(p.PR_MCE_KILL_GET, 0)
def get_mce_policy(thread: Thread, arguments: Arguments) -> int:
    return p.PR_MCE_KILL_DEFAULT


@option(p.PR_SET_MM)
def set_mm(thread: Thread, arguments: Arguments) -> None:
    raise LinuxError(EPERM)  # needs CAP_SYS_RESOURCE


@option(p.PR_GET_SPECULATION_CTRL, 1)
def get_speculation(thread: Thread, arguments: Arguments) -> int:
    if arguments[0] > 2:
        raise LinuxError(ENODEV)
    return 0  # PR_SPEC_NOT_AFFECTED: nothing to control here


@option(p.PR_SET_SPECULATION_CTRL, 2)
def set_speculation(thread: Thread, arguments: Arguments) -> None:
    raise LinuxError(ENODEV if arguments[0] > 2 else ENXIO)


@option(p.PR_SET_VMA)
def set_vma(thread: Thread, arguments: Arguments) -> None:
    raise LinuxError(EINVAL)  # as a kernel without CONFIG_ANON_VMA_NAME


@option(p.PR_TASK_PERF_EVENTS_DISABLE)
@option(p.PR_TASK_PERF_EVENTS_ENABLE)
def switch_perf_events(thread: Thread, arguments: Arguments) -> None:
    """There are no counters to switch."""


# ---- arch_prctl, personality ---------------------------------------------------------------------------------------


@syscall(158, Support.PARTIAL, note="segment bases, CPUID state, components of the XSAVE area", exit_door=True)
def sys_arch_prctl(thread: Thread, code: Int, address: Gva) -> int:
    processor = thread.processor
    match code:
        case p.ARCH_GET_FS:
            thread.mm.write_u64(address, processor.fs_base)
        case p.ARCH_GET_GS:
            thread.mm.write_u64(address, processor.gs_base)
        case p.ARCH_SET_FS | p.ARCH_SET_GS:
            if address >= USER_END:
                raise LinuxError(EPERM)
            if code == p.ARCH_SET_FS:
                processor.fs_base = address
            else:
                processor.gs_base = address
        case p.ARCH_GET_CPUID:
            return 1
        case p.ARCH_SET_CPUID:
            raise LinuxError(ENODEV)
        case p.ARCH_GET_XCOMP_SUPP | p.ARCH_GET_XCOMP_PERM:
            thread.mm.write_u64(address, thread.kernel.machine.xfeatures)
        case p.ARCH_REQ_XCOMP_PERM:
            request_component(thread, address)
        case _:
            raise LinuxError(EINVAL)
    return 0


def request_component(thread: Thread, number: int) -> None:
    """Permit a component of the XSAVE area that is not permitted from the start: of those Linux knows tile data only.

    What the processor has is permitted here from the start (xstate_request_perm).
    """
    if number > LAST_COMPONENT:
        raise LinuxError(EINVAL)
    if number != p.XFEATURE_XTILE_DATA or not thread.kernel.machine.xfeatures >> number & 1:
        raise LinuxError(EOPNOTSUPP)


@syscall(135, Support.PARTIAL, note="kept; ADDR_NO_RANDOMIZE and the like have no effect")
def sys_personality(thread: Thread, wanted: Uint) -> int:
    process = thread.process
    old = process.personality
    if wanted != INT:
        process.personality = wanted
    return old
