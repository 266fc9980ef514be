"""Signals without a machine: who gets one, in which order they are taken, what an interrupted call becomes, frames."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.abi import linux_signal as s
from enisle.abi.linux import ERESTART_RESTARTBLOCK, ERESTARTNOHAND, ERESTARTNOINTR, ERESTARTSYS
from enisle.abi.x86 import GPR_COUNT, RAX, RDI, RDX, RFLAGS, RIP, RSI, RSP
from enisle.errors import LinuxError
from enisle.kernel import faults, signal_frame, signalfd, signals
from enisle.kernel.calls import signal as calls
from enisle.kernel.limits import RLIMIT_SIGPENDING, ResourceLimits
from enisle.kernel.signal_actions import AltStack
from enisle.kernel.signal_queue import PendingSignals
from enisle.kernel.table import KeepRegisters
from enisle.kernel.thread import ThreadExit

XSAVE_SIZE = 832
XFEATURES = 7
STACK = 0x7000_0000
HANDLER, RESTORER = 0x40_0000, 0x41_0000


class FakeMemory:
    """Guest memory as a dictionary of written bytes, one window wide."""

    def __init__(self) -> None:
        self.base, self.window = STACK - 0x10000, bytearray(0x20000)

    def _at(self, address: int, size: int) -> int:
        offset = address - self.base
        if not 0 <= offset <= len(self.window) - size:
            raise LinuxError(14)
        return offset

    def read(self, address: int, size: int) -> bytes:
        offset = self._at(address, size)
        return bytes(self.window[offset : offset + size])

    def write(self, address: int, content: bytes) -> None:
        offset = self._at(address, len(content))
        self.window[offset : offset + len(content)] = content

    def read_u32(self, address: int) -> int:
        return int.from_bytes(self.read(address, 4), "little")


class FakeProcessor:
    def __init__(self) -> None:
        self.image = bytes(range(256)) * 2
        self.image += (7).to_bytes(8, "little") + bytes(56) + b"\x5a" * 256
        self.image = self.image[:24] + (0x1F80).to_bytes(4, "little") + self.image[28:]

    def xsave(self) -> bytes:
        return self.image.ljust(4096, b"\0")

    def xrstor(self, image: bytes) -> None:
        self.image = image


class FakeThread:
    """What signals know of a thread; `notified` counts how often it was told to look."""

    def __init__(self, process: "FakeProcess", tid: int) -> None:
        self.process, self.kernel, self.tid = process, process.kernel, tid
        self.blocked = self.real_blocked = 0
        self.restore_mask: int | None = None
        self.pending = PendingSignals()
        self.altstack = AltStack()
        self.last_trap = signals.Trap(14, 6, 0xDEAD)
        self.work = self.dying = False
        self.state = "R"
        self.original_rax = -1
        self.restart: Any = None
        self.gpr = [0x1000 + index for index in range(GPR_COUNT)]
        self.gpr[RSP], self.gpr[RFLAGS] = STACK, 0x246
        self.processor, self.mm = FakeProcessor(), FakeMemory()
        self.notified = 0

    def notify(self) -> None:
        self.work = True
        self.notified += 1


class FakeProcess:
    def __init__(self, kernel: Any, pid: int = 100, threads: int = 1) -> None:
        self.kernel, self.pid = kernel, pid
        self.pgid, self.session, self.zombie = pid, object(), False
        self.parent: FakeProcess | None = None
        self.handlers = signals.SignalHandlers()
        self.pending = PendingSignals()
        self.limits = ResourceLimits()
        self.credentials = SimpleNamespace(uid=1000, euid=1000, suid=1000, effective=0)
        self.exiting, self.stopped, self.stopping = False, 0, False
        self.status: int | None = None
        self.announced: list[tuple[int, int]] = []
        self.threads: dict[int, FakeThread] = {}
        for tid in range(pid, pid + threads):
            self.threads[tid] = FakeThread(self, tid)
        kernel.processes_by_pid[pid] = self

    @property
    def leader(self) -> FakeThread | None:
        return self.threads.get(self.pid) or next(iter(self.threads.values()), None)

    def exit_group(self, status: int) -> None:
        self.exiting, self.status = True, status
        for thread in self.threads.values():
            thread.dying = True
            thread.notify()

    def announce_state(self, code: int, signo: int) -> None:
        self.announced.append((code, signo))


def make_kernel() -> Any:
    machine = SimpleNamespace(xsave_size=XSAVE_SIZE, xfeatures=XFEATURES, queries=None, blocking=None)
    return SimpleNamespace(lock=threading.RLock(), processes_by_pid={}, threads={}, machine=machine)


@pytest.fixture
def process() -> Any:
    return FakeProcess(make_kernel())


@pytest.fixture
def thread(process: Any) -> Any:
    return process.threads[process.pid]


def send(process: Any, signo: int, value: int = 0, code: int = s.SI_QUEUE) -> None:
    signals.send_to_process(process, signo, signals.SigInfo(signo, code, s.SIGINFO_VALUE.pack(1, 1, value)))


def handle(process: Any, signo: int, flags: int = 0, mask: int = 0) -> None:
    signals.set_action(process, signo, (HANDLER + signo, flags | s.SA_RESTORER, RESTORER, mask))


def value_of(info: signals.SigInfo) -> int:
    return s.SIGINFO_VALUE.unpack_from(info.words)[2]


# ---- queues --------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(0, 1 << 60)), max_size=40), st.integers(0, s.ALL_SIGNALS))
def test_signals_are_taken_lowest_first_and_real_time_ones_in_order(sent: Any, blocked: int) -> None:
    process: Any = FakeProcess(make_kernel())
    thread = process.threads[100]
    thread.blocked = s.ALL_SIGNALS & ~s.UNBLOCKABLE
    expected: dict[int, list[int]] = {}
    for signo, value in sent:
        if signo in (s.SIGKILL, s.SIGSTOP, s.SIGCONT, s.SIGTSTP, s.SIGTTIN, s.SIGTTOU):
            continue
        send(process, signo, value)
        queue = expected.setdefault(signo, [])
        if signo >= s.SIGRTMIN or not queue:
            queue.append(value)
    order = sorted(expected, key=lambda signo: (not s.SYNCHRONOUS & s.bit(signo), signo))
    wanted = [(signo, value) for signo in order if not blocked & s.bit(signo) for value in expected[signo]]
    taken: list[tuple[int, int]] = []
    while info := signals.dequeue(thread, blocked):
        taken.append((info.signo, value_of(info)))
    assert taken == wanted
    assert process.pending.mask & ~blocked == 0


def test_a_signal_of_the_thread_comes_before_one_of_the_process(process: Any, thread: Any) -> None:
    thread.blocked = s.mask_of(10, 12)
    send(process, 10)
    signals.send_to_thread(thread, 12, signals.kernel_info(12))
    assert [signals.dequeue(thread, 0).signo, signals.dequeue(thread, 0).signo] == [12, 10]  # type: ignore[union-attr]


def test_real_time_signals_beyond_the_limit_are_refused(process: Any, thread: Any) -> None:
    thread.blocked = s.bit(40)
    process.limits.pairs[RLIMIT_SIGPENDING] = (2, 2)
    send(process, 40)
    send(process, 40)
    with pytest.raises(LinuxError) as caught:
        send(process, 40)
    assert caught.value.errno == 11
    assert len(process.pending.queue) == 2


def test_standard_signals_beyond_the_limit_lose_only_their_details(process: Any, thread: Any) -> None:
    thread.blocked = s.bit(10)
    process.limits.pairs[RLIMIT_SIGPENDING] = (0, 0)
    send(process, 10, 7)
    info = signals.dequeue(thread, 0)
    assert info
    assert (info.signo, info.code, value_of(info)) == (10, s.SI_USER, 0)


def test_a_timer_counts_its_overruns_when_the_signal_is_taken(process: Any, thread: Any) -> None:
    thread.blocked = s.bit(14)
    info = signals.timer_info(14, 3, 99, SimpleNamespace(signal_taken=lambda: 5))
    signals.send_to_process(process, 14, info)
    assert info.queued
    taken = signals.dequeue(thread, 0)
    assert taken
    assert s.SIGINFO_TIMER.unpack_from(taken.fields) == (3, 5, 99)
    assert not info.queued


# ---- who gets it ---------------------------------------------------------------------------------------------------


def test_an_ignored_signal_is_dropped_unless_it_is_blocked(process: Any, thread: Any) -> None:
    signals.set_action(process, 10, (s.SIG_IGN, 0, 0, 0))
    send(process, 10)
    send(process, s.SIGCHLD)
    assert process.pending.mask == 0
    thread.blocked = s.mask_of(10, s.SIGCHLD)
    send(process, 10)
    send(process, s.SIGCHLD)
    assert process.pending.mask == s.mask_of(10, s.SIGCHLD)


def test_ignoring_a_signal_forgets_the_pending_one(process: Any, thread: Any) -> None:
    thread.blocked = s.bit(10)
    send(process, 10)
    signals.set_action(process, 10, (s.SIG_IGN, 0, 0, 0))
    assert process.pending.mask == 0
    assert not process.pending.queue


def test_a_process_signal_wakes_a_thread_that_does_not_block_it() -> None:
    process: Any = FakeProcess(make_kernel(), threads=3)
    handle(process, 10)
    process.threads[100].blocked = process.threads[101].blocked = s.bit(10)
    send(process, 10)
    assert [thread.notified for thread in process.threads.values()] == [0, 0, 1]


def test_a_thread_that_blocks_a_shared_signal_hands_it_on() -> None:
    process: Any = FakeProcess(make_kernel(), threads=2)
    handle(process, 10)
    first, second = process.threads.values()
    send(process, 10)
    assert (first.notified, second.notified) == (1, 0)
    signals.set_blocked(first, s.bit(10))
    assert second.notified == 1


def test_an_ending_thread_hands_its_shared_signals_on() -> None:
    process: Any = FakeProcess(make_kernel(), threads=2)
    handle(process, 10)
    first, second = process.threads.values()
    send(process, 10)
    del process.threads[first.tid]
    signals.thread_gone(first)
    assert second.notified == 1


def test_a_fatal_signal_ends_the_process_at_once(process: Any) -> None:
    send(process, s.SIGTERM)
    assert process.status == s.SIGTERM


def test_kill_and_stop_cannot_be_blocked(process: Any, thread: Any) -> None:
    signals.set_blocked(thread, s.ALL_SIGNALS)
    assert thread.blocked == s.ALL_SIGNALS & ~s.UNBLOCKABLE


def test_a_process_without_threads_takes_no_signals() -> None:
    process: Any = FakeProcess(make_kernel(), threads=0)
    send(process, s.SIGKILL)
    assert not process.exiting


@pytest.mark.parametrize("blocked", [0, s.bit(s.SIGSEGV)])
def test_an_exception_that_is_blocked_or_ignored_kills(process: Any, thread: Any, blocked: int) -> None:
    if blocked:
        handle(process, s.SIGSEGV)
    else:
        signals.set_action(process, s.SIGSEGV, (s.SIG_IGN, 0, 0, 0))
    thread.blocked = blocked
    signals.force_signal(thread, signals.fault_info(s.SIGSEGV, s.SEGV_MAPERR, 0))
    with pytest.raises(ThreadExit):
        signals.deliver(thread)
    assert process.status == s.SIGSEGV


# ---- stops ---------------------------------------------------------------------------------------------------------


def test_continue_discards_stops_and_a_stop_discards_continue(process: Any, thread: Any) -> None:
    thread.blocked = s.mask_of(s.SIGTSTP, s.SIGCONT)
    send(process, s.SIGTSTP)
    assert process.pending.mask == s.bit(s.SIGTSTP)
    send(process, s.SIGCONT)
    assert process.pending.mask == s.bit(s.SIGCONT)
    send(process, s.SIGTSTP)
    assert process.pending.mask == s.bit(s.SIGTSTP)


def test_a_stop_holds_every_thread_and_is_announced_by_the_last(process: Any) -> None:
    process = FakeProcess(make_kernel(), threads=2)
    first, second = process.threads.values()
    stops: list[str] = []

    def sleep_first() -> None:
        stops.append("first")
        assert process.announced == []
        with process.kernel.lock:
            second.waiter = SimpleNamespace(sleep=sleep_second)
        signals.deliver(second)

    def sleep_second() -> None:
        stops.append("second")
        assert process.announced == [(s.CLD_STOPPED, s.SIGSTOP)]
        send(process, s.SIGCONT)

    first.waiter = SimpleNamespace(sleep=sleep_first)
    send(process, s.SIGSTOP)
    signals.deliver(first)
    assert stops == ["first", "second"]
    assert process.announced == [(s.CLD_STOPPED, s.SIGSTOP), (s.CLD_CONTINUED, s.SIGCONT)]
    assert (first.state, second.state, process.stopped) == ("R", "R", 0)


def test_an_orphaned_group_does_not_stop_for_its_terminal(process: Any, thread: Any) -> None:
    send(process, s.SIGTSTP)
    signals.deliver(thread)
    assert not process.stopped


# ---- handlers and interrupted calls --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "handler", "flags", "result"),
    [
        (ERESTARTSYS, True, 0, "EINTR"),
        (ERESTARTSYS, True, s.SA_RESTART, "restart"),
        (ERESTARTNOINTR, True, 0, "restart"),
        (ERESTARTNOHAND, True, s.SA_RESTART, "EINTR"),
        (ERESTART_RESTARTBLOCK, True, s.SA_RESTART, "EINTR"),
        (ERESTARTSYS, False, 0, "restart"),
        (ERESTARTNOINTR, False, 0, "restart"),
        (ERESTARTNOHAND, False, 0, "restart"),
        (ERESTART_RESTARTBLOCK, False, 0, "restart_syscall"),
        (4, False, 0, "as it was"),
    ],
)
def test_an_interrupted_call_goes_on_as_linux_says(
    process: Any, thread: Any, code: int, handler: bool, flags: int, result: str
) -> None:
    thread.original_rax, thread.gpr[RAX], thread.gpr[RIP] = 7, (1 << 64) - code, 0x5000
    if handler:
        handle(process, 10, flags)
        send(process, 10)
    signals.deliver(thread)
    rax, rip = thread.gpr[RAX], thread.gpr[RIP]
    if handler:
        assert (rip, thread.gpr[RDI]) == (HANDLER + 10, 10)
        thread.gpr[RSP] += 8
        signal_frame.pop(thread)
        rax, rip = thread.gpr[RAX], thread.gpr[RIP]
    eintr = (1 << 64) - 4
    expected = {"EINTR": (eintr, 0x5000), "restart": (7, 0x4FFE), "restart_syscall": (219, 0x4FFE)}
    assert (rax, rip) == expected.get(result, ((1 << 64) - code, 0x5000))


def test_a_handler_runs_with_its_mask_and_returns_to_the_old_one(process: Any, thread: Any) -> None:
    handle(process, 10, s.SA_SIGINFO, mask=s.bit(12))
    thread.blocked = s.bit(15)
    before = list(thread.gpr)
    image = thread.processor.image
    send(process, 10, 77)
    signals.deliver(thread)
    assert thread.blocked == s.mask_of(10, 12, 15)
    assert value_of(signals.SigInfo.decode(10, thread.mm.read(thread.gpr[RSI], 128))) == 77
    assert thread.gpr[RDX] % 16 == 0
    assert thread.mm.read(thread.gpr[RSP], 8) == RESTORER.to_bytes(8, "little")
    thread.gpr[RSP] += 8
    with pytest.raises(KeepRegisters):
        calls.sys_rt_sigreturn(thread)
    assert thread.gpr == before
    assert thread.blocked == s.bit(15)
    assert thread.processor.image[: signal_frame.s.FX_SW_OFFSET] == image[: signal_frame.s.FX_SW_OFFSET]
    assert thread.processor.image[512:] == image[512:]


def test_pending_signals_nest_lowest_number_first(process: Any, thread: Any) -> None:
    handle(process, 10)
    handle(process, 12)
    send(process, 12)
    send(process, 10)
    signals.deliver(thread)
    assert thread.gpr[RIP] == HANDLER + 12  # on top of the frame of 10, whose handler runs when it returns
    thread.gpr[RSP] += 8
    signal_frame.pop(thread)
    assert thread.gpr[RIP] == HANDLER + 10


def test_a_temporary_mask_holds_in_the_handler_and_the_old_one_returns(process: Any, thread: Any) -> None:
    handle(process, 10)
    thread.blocked = s.bit(10)
    signals.block_for_wait(thread, s.bit(12))
    send(process, 10)
    signals.deliver(thread)
    assert thread.blocked == s.mask_of(10, 12)
    assert thread.restore_mask is None
    thread.gpr[RSP] += 8
    assert signal_frame.pop(thread).mask == s.bit(10)


def test_without_a_handler_the_old_mask_returns_at_once(process: Any, thread: Any) -> None:
    thread.blocked = s.bit(10)
    signals.block_for_wait(thread, 0)
    signals.deliver(thread)
    assert thread.blocked == s.bit(10)


def test_reset_and_nodefer(process: Any, thread: Any) -> None:
    handle(process, 10, s.SA_RESETHAND | s.SA_NODEFER)
    send(process, 10)
    signals.deliver(thread)
    assert thread.blocked == 0
    assert process.handlers[10].handler == s.SIG_DFL


def test_a_stack_that_takes_no_frame_is_a_segmentation_fault(process: Any, thread: Any) -> None:
    handle(process, 10)
    thread.gpr[RSP] = 0x10
    send(process, 10)
    with pytest.raises(ThreadExit):
        signals.deliver(thread)
    assert process.status == s.SIGSEGV


# ---- frames --------------------------------------------------------------------------------------------------------


@given(
    st.integers(0x10000, 1 << 46),
    st.integers(0x10000, 1 << 46),
    st.integers(0, 1 << 20),
    st.booleans(),
    st.sampled_from([580, 836, 2436, 2700]),
)
def test_frames_are_aligned_and_stay_on_their_stack(sp: int, base: int, size: int, onstack: bool, fpsize: int) -> None:
    stack = AltStack(base, size)
    try:
        fpstate, frame = signal_frame.place(sp, stack, onstack, fpsize)
    except LinuxError:
        assert stack.holds(sp) or onstack
        return
    assert fpstate % 64 == 0
    assert (frame + 8) % 16 == 0
    assert frame + s.RT_SIGFRAME_SIZE <= fpstate
    if onstack and size and not stack.holds(sp) and not stack.holds(sp - 128):
        assert base < frame
        assert fpstate + fpsize <= base + size
    elif not onstack:
        assert fpstate + fpsize <= sp - 128


@given(st.binary(max_size=600), st.integers(0, 600), st.integers(0, (1 << 64) - 1))
def test_a_hostile_frame_is_refused_or_harmless(noise: bytes, at: int, fpstate: int) -> None:
    process: Any = FakeProcess(make_kernel())
    thread: Any = process.threads[100]
    handle(process, 10)
    send(process, 10)
    signals.deliver(thread)
    thread.mm.write(thread.gpr[RSP] + at, noise)
    thread.gpr[RSP] += 8
    try:
        signal_frame.pop(thread)
    except LinuxError:
        return
    _, compacted, reserved = signal_frame.XSTATE_BV.unpack(thread.processor.image[512:576])
    assert not compacted
    assert not any(reserved)
    assert thread.gpr[RFLAGS] & ~signal_frame.RESTORED == 0x246 & ~signal_frame.RESTORED


def test_a_frame_without_marks_restores_the_legacy_state_alone(process: Any, thread: Any) -> None:
    area = bytearray(XSAVE_SIZE + 4)
    area[24:28] = (0x1F80).to_bytes(4, "little")
    area[512:520] = (0xFF).to_bytes(8, "little")
    thread.mm.write(STACK, bytes(area))
    image = signal_frame.read_fpstate(thread, STACK)
    assert image[512:520] == (3).to_bytes(8, "little")
    assert len(image) == 576


@pytest.mark.parametrize("offset", [24 + 3, 520, 530, 512 + 7])
def test_an_area_that_xrstor_would_refuse_is_refused(process: Any, thread: Any, offset: int) -> None:
    area = bytearray(signal_frame._fpstate(thread))
    thread.mm.write(STACK, bytes(area))
    signal_frame.read_fpstate(thread, STACK)
    area[offset] |= 0x80
    thread.mm.write(STACK, bytes(area))
    with pytest.raises(LinuxError):
        signal_frame.read_fpstate(thread, STACK)


@pytest.mark.parametrize(
    ("stack", "errno"),
    [
        (AltStack(0x1000, 4096, 3), 22),
        (AltStack(0x1000, 2047), 12),
        (AltStack(0x1000, 2048), 0),
        (AltStack(0x1000, 0, s.SS_DISABLE), 0),
        (AltStack(0x1000, 8192, s.SS_AUTODISARM), 0),
    ],
)
def test_alternate_stacks_are_checked(thread: Any, stack: AltStack, errno: int) -> None:
    try:
        calls.change_altstack(thread, stack, STACK)
        found = 0
    except LinuxError as error:
        found = error.errno
    assert found == errno


def test_the_present_stack_cannot_be_changed(thread: Any) -> None:
    thread.altstack = AltStack(STACK - 4096, 8192)
    with pytest.raises(LinuxError) as caught:
        calls.change_altstack(thread, AltStack(0x1000, 8192), STACK)
    assert caught.value.errno == 1


# ---- exceptions and records ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control", "status", "code"),
    [
        (0x37F, 0x04, 0),
        (0x37B, 0x04, s.FPE_FLTDIV),
        (0x37E, 0x01, s.FPE_FLTINV),
        (0x377, 0x08, s.FPE_FLTOVF),
        (0x36D, 0x10, s.FPE_FLTUND),
        (0x35F, 0x20, s.FPE_FLTRES),
        (0x340, 0x24, s.FPE_FLTDIV),
    ],
)
def test_floating_point_exceptions_have_linux_codes(control: int, status: int, code: int) -> None:
    image = control.to_bytes(2, "little") + status.to_bytes(2, "little") + bytes(600)
    assert faults.floating_point_code(image, simd=False) == code
    mxcsr = status | (control & 0x3F) << 7
    assert faults.floating_point_code(bytes(24) + mxcsr.to_bytes(4, "little") + bytes(600), simd=True) == code


def test_a_signalfd_record_tells_what_siginfo_tells() -> None:
    info = signals.SigInfo(40, s.SI_QUEUE, s.SIGINFO_VALUE.pack(12, 34, 0xFFFF_FFFF))
    fields = s.SIGNALFD_SIGINFO.unpack(signalfd.record_of(info))
    assert (fields[0], fields[2], fields[3], fields[4], fields[11], fields[12]) == (40, -1, 12, 34, -1, 0xFFFF_FFFF)
    child = signals.child_info(s.SIGCHLD, s.CLD_EXITED, 7, 8, 9)
    fields = s.SIGNALFD_SIGINFO.unpack(signalfd.record_of(child))
    assert (fields[3], fields[4], fields[10]) == (7, 8, 9)


def test_exec_keeps_ignored_signals_and_forgets_handlers(process: Any) -> None:
    handle(process, 10)
    signals.set_action(process, 12, (s.SIG_IGN, s.SA_RESTART, 5, 6))
    fresh = process.handlers.for_exec()
    assert fresh[10] == (0, 0, 0, 0)
    assert fresh[12] == (s.SIG_IGN, 0, 0, 0)
    assert process.handlers[10].handler == HANDLER + 10
    assert process.handlers.masks() == (s.bit(12), s.bit(10))
