"""System calls under a blocking value: refused by number or function, whichever door they come through."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from enisle.abi.linux_signal import SIGILL, SIGSYS
from enisle.abi.x86 import RDI, RIP, RSI
from enisle.errors import LinuxError
from enisle.kernel import call_filter, handlers
from enisle.kernel.call_filter import CallFilter
from enisle.kernel.table import LONGEST, KeepRegisters
from enisle.kernel.wait import MustLeave
from enisle.machine import BlockingValue, Refusal
from enisle.machine.blocking.codes import table
from enisle.machine.blocking.value import SecondLevel

GETPID, PRCTL, IOCTL, CLONE, CLONE3, GETUID = 39, 157, 16, 56, 435, 102
WHERE = 0x40_1000


class FakeThread:
    def __init__(self, may_sleep: bool = True) -> None:
        self.gpr: Any = memoryview(bytearray(18 * 8)).cast("Q")
        self.gpr[RIP] = WHERE
        self.waiter = SimpleNamespace(may_sleep=may_sleep)
        self.original_rax = 0
        self.last_trap = SimpleNamespace(address=0)
        self.process = SimpleNamespace(pid=7)


def call(chosen: CallFilter, number: int, thread: Any = None, **registers: int) -> int | None:
    thread = thread or FakeThread()
    thread.original_rax = number
    for name, value in registers.items():
        thread.gpr[{"rdi": RDI, "rsi": RSI}[name]] = value
    entry = chosen.find(number)
    assert entry
    return entry.call(thread, thread.gpr)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(call_filter.signals, "force_signal", lambda thread, info: found.append(info))
    return found


def test_a_refused_number_answers_and_its_neighbours_are_served() -> None:
    chosen = CallFilter(BlockingValue(calls=table(0, {GETPID: Refusal.ENOSYS, GETUID: Refusal.EPERM})))
    assert (call(chosen, GETPID), call(chosen, GETUID)) == (-38, -1)
    for number in (GETPID - 1, GETPID + 1, GETUID - 1, GETUID + 2):
        assert chosen.find(number) is handlers.find(number)
    assert chosen.find(LONGEST + 5) is None


def test_sigsys_tells_the_call_as_seccomp_does(sent: list[Any]) -> None:
    chosen = CallFilter(BlockingValue(calls=table(0, {GETPID: Refusal.SIGSYS})))
    thread = FakeThread()
    with pytest.raises(KeepRegisters):
        call(chosen, GETPID, thread)
    raw = bytes(sent[0])
    assert (sent[0].signo, sent[0].code) == (SIGSYS, 1)
    assert int.from_bytes(raw[16:24], "little") == WHERE
    assert int.from_bytes(raw[24:28], "little") == GETPID
    assert int.from_bytes(raw[28:32], "little") == 0xC000_003E
    assert thread.gpr[RIP] == WHERE


def test_an_exception_is_raised_at_the_instruction(sent: list[Any]) -> None:
    chosen = CallFilter(BlockingValue(calls=table(0, {GETPID: Refusal.EXCEPTION})))
    thread = FakeThread()
    with pytest.raises(KeepRegisters):
        call(chosen, GETPID, thread)
    assert sent[0].signo == SIGILL
    assert thread.gpr[RIP] == WHERE - 2


@pytest.mark.parametrize("refusal", [Refusal.SIGSYS, Refusal.EXCEPTION])
def test_the_poller_leaves_what_changes_registers_to_the_thread(refusal: Refusal, sent: list[Any]) -> None:
    chosen = CallFilter(BlockingValue(seconds={PRCTL: SecondLevel(table(0, {15: refusal}))}))
    thread = FakeThread(may_sleep=False)
    with pytest.raises(MustLeave):
        call(chosen, PRCTL, thread, rdi=15)
    assert (sent, thread.gpr[RIP]) == ([], WHERE)


def test_the_second_level_is_32_bits_wide_and_behind_it_the_handler_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    behind = handlers.find(IOCTL)
    assert behind
    monkeypatch.setattr(behind, "call", lambda thread, registers: 5)
    chosen = CallFilter(BlockingValue(seconds={IOCTL: SecondLevel(table(0, {0x5412: Refusal.EPERM}))}))
    assert call(chosen, IOCTL, rsi=0x5412) == call(chosen, IOCTL, rsi=0x5412 | 9 << 32) == -1
    assert call(chosen, IOCTL, rsi=0x5413) == 5


def test_a_sibling_cannot_change_the_function_between_judging_and_serving(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of a call slot may change at any time: the handler gets those that were judged."""
    posted: Any = memoryview(bytearray(18 * 8)).cast("Q")
    posted[RDI] = 16
    behind, served = handlers.find(PRCTL), list[int]()
    assert behind

    def serve(thread: Any, registers: Any) -> int:
        posted[RDI] = 15  # the sibling is late
        served.append(registers[RDI])
        return 0

    monkeypatch.setattr(behind, "call", serve)
    chosen = CallFilter(BlockingValue(seconds={PRCTL: SecondLevel(table(0, {15: Refusal.EPERM}))}))
    entry, thread = chosen.find(PRCTL), FakeThread(may_sleep=False)
    assert entry
    assert entry.call(thread, posted) == 0  # type: ignore[arg-type]
    assert served == [16]
    assert entry.call(thread, posted) == -1  # type: ignore[arg-type]


def test_every_flag_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    behind = handlers.find(CLONE)
    assert behind
    monkeypatch.setattr(behind, "call", lambda thread, registers: 7)
    seconds = {number: SecondLevel(table(0, {1 << 28: Refusal.EPERM}), True) for number in (CLONE, CLONE3)}
    chosen = CallFilter(BlockingValue(seconds=seconds))
    assert (call(chosen, CLONE, rdi=0x11), call(chosen, CLONE, rdi=0x11 | 1 << 28)) == (7, -1)
    assert chosen.find(CLONE) is not behind
    entry = chosen.find(CLONE)
    assert entry
    assert entry.exit_door == behind.exit_door
    assert chosen.find(CLONE3) is handlers.find(CLONE3), "its flags are in memory: the handler asks"
    thread: Any = FakeThread()
    chosen.check(thread, CLONE3, 0x11)
    with pytest.raises(LinuxError) as caught:
        chosen.check(thread, CLONE3, 1 << 28)
    assert caught.value.errno == 1


def test_what_is_not_named_can_be_refused() -> None:
    chosen = CallFilter(BlockingValue(calls=table(Refusal.ENOSYS, {GETPID: 0, 231: 0})))
    assert chosen.find(GETPID) is handlers.find(GETPID)
    assert call(chosen, GETUID) == call(chosen, 471) == call(chosen, LONGEST + 7) == -38
    assert chosen.find(219) is handlers.find(219), "going on with a call that was permitted"


def test_the_tracer_sees_the_arguments_of_the_call() -> None:
    chosen = CallFilter(BlockingValue(calls=table(0, {PRCTL: Refusal.EPERM})))
    entry, behind = chosen.find(PRCTL), handlers.find(PRCTL)
    assert entry
    assert behind
    assert (entry.name, entry.parameters) == (behind.name, behind.parameters)


def test_a_table_of_500_adds_less_than_a_microsecond_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of several rounds: other work on the machine only adds."""
    calls = {number: int(Refusal.EPERM) for number in range(200, 460)}
    second = SecondLevel(table(0, {code: int(Refusal.EPERM) for code in range(240)}))
    chosen = CallFilter(BlockingValue(calls=table(0, calls), seconds={PRCTL: second}))
    added = [measure(chosen.find, GETPID) - measure(handlers.find, GETPID) for _ in range(7)]
    behind = handlers.find(PRCTL)
    assert behind
    monkeypatch.setattr(behind, "call", lambda thread, registers: 0)
    guarded = chosen.find(PRCTL)
    assert guarded
    for thread in (FakeThread(), FakeThread(may_sleep=False)):
        own, plain = (min(time_of(entry, thread) for _ in range(7)) for entry in (guarded, behind))
        assert min(added) + own - plain < 1.0


def time_of(entry: Any, thread: FakeThread) -> float:
    return measure(lambda _: entry.call(thread, thread.gpr), 0)


def measure(ask: Any, argument: int, rounds: int = 5000) -> float:
    begin = time.perf_counter()
    for _ in range(rounds):
        ask(argument)
    return (time.perf_counter() - begin) / rounds * 1e6


def test_a_filter_is_made_for_values_that_refuse_calls_alone() -> None:
    assert not BlockingValue(features={}).refuses_calls
    assert BlockingValue(calls=table(0, {1: 1})).refuses_calls
