"""System calls that a blocking value refuses: by number, and by the argument that says which function is meant.

A kernel with such a value finds its entries here instead of in `handlers`: one more look into a dictionary for calls
without rules, nothing at all for kernels without a value. Serves both doors; immutable once made.
"""

from collections.abc import Callable
from errno import ENOSYS, EPERM
from struct import Struct
from typing import TYPE_CHECKING, Any

from enisle.abi import linux_signal as s
from enisle.abi import linux_syscalls
from enisle.abi.seccomp import AUDIT_ARCH_X86_64
from enisle.abi.x86 import GPR_COUNT, RIP
from enisle.errors import LinuxError
from enisle.kernel import faults, handlers, signals
from enisle.kernel.table import ARGUMENT_REGISTERS, LONGEST, Entry, KeepRegisters, Support
from enisle.kernel.wait import MustLeave
from enisle.machine import ProcessorException

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread
    from enisle.machine import BlockingValue, Registers, SecondLevel

Refuse = Callable[["Thread"], int]
WORDS = Struct(f"<{GPR_COUNT}Q")
SYSCALL_LENGTH, RESTART, U32 = 2, 219, 0xFFFF_FFFF
CLONE3 = linux_syscalls.NUMBERS["clone3"]
"""Its flags are in memory: it asks `check` when it has fetched them, so that nobody changes them in between."""


class RefusedEntry(Entry):
    """A call that is refused, or refused for some arguments; the rest is the handler's."""

    __slots__ = ()

    def __init__(self, number: int, call: "Callable[[Thread, Registers], int | None]") -> None:
        def handler(thread: "Thread") -> None:
            raise LinuxError(ENOSYS)

        handler.__name__ = f"sys_{linux_syscalls.NAMES.get(number, number)}"
        super().__init__(number, handler, Support.PARTIAL, "by the blocking value", exit_door=False)
        self.call = call

    @property
    def parameters(self) -> list[tuple[str, Any]]:
        """Those of the handler behind it, for the tracer."""
        behind = handlers.find(self.number)
        return behind.parameters if behind else []


class CallFilter:
    """The entries of one kernel under one value."""

    def __init__(self, value: "BlockingValue") -> None:
        from enisle.machine import Instruction, Refusal  # there are kernels without: their machine does not know them

        self.value, self._errno = value, {Refusal.ENOSYS: ENOSYS, Refusal.EPERM: EPERM}
        trap = value.outcome(Instruction.SYSCALL)
        self._refuse: dict[int, Refuse] = {
            Refusal.ENOSYS: lambda thread: -ENOSYS,
            Refusal.EPERM: lambda thread: -EPERM,
            Refusal.SIGSYS: send_sigsys,
            Refusal.EXCEPTION: lambda thread: raise_exception(thread, trap.vector, trap.error_code),
        }
        self._beyond = self._entry(LONGEST)
        self._own = {number: entry for number in range(LONGEST) if (entry := self._entry(number))}
        self._own.pop(RESTART, None)  # our own way of going on with a call that was permitted

    def find(self, number: int) -> Entry | None:
        """Return the entry of a system call as `handlers.find` does."""
        found = self._own.get(number)
        if found is not None:
            return found
        return handlers.find(number) if number < LONGEST else self._beyond

    def _entry(self, number: int) -> RefusedEntry | None:
        plain = self.value.calls.at(number)
        if plain:
            return self._refused(number, plain)
        if number not in self.value.seconds or number == CLONE3:
            return None
        return self._guarded(number)

    def _refused(self, number: int, refusal: int) -> RefusedEntry:
        refuse = self._refuse[refusal]
        return RefusedEntry(number, lambda thread, registers: refuse(thread))

    def _guarded(self, number: int) -> RefusedEntry | None:
        behind = handlers.find(number)
        if behind is None:
            return None
        register = ARGUMENT_REGISTERS[linux_syscalls.SECONDS[linux_syscalls.NAMES[number]].argument]
        verdict, refuse = _verdict(self.value.seconds[number]), self._refuse

        def call(thread: "Thread", registers: Any) -> int | None:
            if not thread.waiter.may_sleep:  # a call slot: siblings may write to it between judging and serving
                registers = WORDS.unpack_from(registers)
            refusal = verdict(registers[register])
            return refuse[refusal](thread) if refusal else behind.call(thread, registers)

        entry = RefusedEntry(number, call)
        entry.exit_door = behind.exit_door
        return entry

    def check(self, thread: "Thread", number: int, argument: int) -> None:
        """Refuse a function that the call finds in guest memory: fetched once, by the handler itself.

        Raises LinuxError or KeepRegisters.
        """
        refusal = self.value.refusal(number, argument)
        if refusal in self._errno:
            raise LinuxError(self._errno[refusal])
        if refusal:
            self._refuse[refusal](thread)


def _verdict(second: "SecondLevel") -> Callable[[int], int]:
    """Return a function that judges an argument."""
    if second.flags:
        return second.table.at_flags
    codes, default = dict(second.table.codes), second.table.default
    return lambda argument: codes.get(argument & U32, default)


def _need_own_thread(thread: "Thread") -> None:
    """Raise MustLeave on the poller: what follows changes the thread's registers."""
    if not thread.waiter.may_sleep:
        raise MustLeave


def send_sigsys(thread: "Thread") -> int:
    """Answer as SECCOMP_RET_TRAP does (seccomp(2)): RAX keeps the number, RIP is behind the instruction."""
    _need_own_thread(thread)
    fields = s.SIGINFO_SYS.pack(thread.gpr[RIP], thread.original_rax, AUDIT_ARCH_X86_64)
    signals.force_signal(thread, signals.SigInfo(s.SIGSYS, s.SYS_SECCOMP, fields))
    raise KeepRegisters


def raise_exception(thread: "Thread", vector: int, error_code: int) -> int:
    """Raise the program exception at the instruction. RCX and R11 are what SYSCALL made of them."""
    _need_own_thread(thread)
    thread.gpr[RIP] = thread.gpr[RIP] - SYSCALL_LENGTH
    faults.deliver(thread, ProcessorException(vector, error_code))
    raise KeepRegisters
