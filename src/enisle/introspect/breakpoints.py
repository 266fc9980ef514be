"""Stop the guest whenever a discovered function runs, tell its arguments, and let it go on.

Works on names from facts, exports and system calls (`sys:NAME`). Promises: no guest memory is written, and the guest
runs, unwatched, whatever ends the watching. One thread owns a watch.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from enisle.errors import NotFound
from enisle.introspect.facts import CONFIRMED, FUNCTION
from enisle.introspect.gdb import Debugger, arguments_of
from enisle.introspect.memory import Unmapped
from enisle.introspect.processes import TaskReader
from enisle.introspect.recipes import syscall_numbers
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.introspect.discover import Kernel

POLL = 0.2
"""Seconds between two looks at whether watching should end."""


class Hit(Record):
    """One time the function ran."""

    number: int
    processor: int
    task: str
    """Name and thread number of what ran it; empty when that is not known."""
    arguments: tuple[int, ...]
    caller: int


def address_of(kernel: "Kernel", name: str) -> int:
    """Return the address of a function by name. Raises NotFound."""
    fact = kernel.facts.find(name)
    if fact is not None and fact.value is not None and (fact.kind == FUNCTION or name == "entry_SYSCALL_64"):
        if fact.status == CONFIRMED:
            return fact.value
        hint = "enisle introspect TARGET facts shows what is confirmed"
        raise NotFound(f"{name} is not sure enough to stop at", f"it is {fact.status}: {fact.trace}", hint)
    exported = kernel.exports.by_name.get(name)
    if exported is not None and kernel.image.is_text(exported):
        return exported
    number = syscall_numbers().get(name.removeprefix("sys:"), -1)
    if name.startswith("sys:") and 0 <= number < len(kernel.dispatch.handlers):
        return kernel.dispatch.handlers[number]
    hint = "enisle introspect TARGET facts; sys:NAME means a system call"
    raise NotFound(f"no function {name} is known in this guest", "it is neither a fact, nor exported", hint)


def watch(
    kernel: "Kernel",
    debugger: Debugger,
    address: int,
    tell: Callable[[Hit], None],
    count: int | None = None,
    until: Callable[[], bool] = lambda: False,
) -> int:
    """Watch until `count` hits or `until`; return how often the function ran."""
    hits = 0
    debugger.set_breakpoint(address)
    stopped = True
    try:
        while not (count is not None and hits >= count) and not until():
            if stopped:
                debugger.resume()
                stopped = False
            stop = debugger.wait(POLL)
            if stop is None:
                continue
            stopped = True
            registers = debugger.registers(stop.thread)
            if registers["rip"] != address:
                continue
            hits += 1
            tell(_hit(kernel, hits, stop.processor, registers))
            _step_over(debugger, address, stop.thread)
    finally:
        if not stopped:
            debugger.interrupt()
        debugger.clear_breakpoint(address)
        debugger.detach()
    return hits


def _step_over(debugger: Debugger, address: int, thread: str) -> None:
    """Leave the breakpoint by one instruction; the other processors stand still, so none slips by."""
    debugger.clear_breakpoint(address)
    debugger.step(thread)
    debugger.set_breakpoint(address)


def _hit(kernel: "Kernel", number: int, processor: int, registers: dict[str, int]) -> Hit:
    kernel.space.forget()
    try:
        caller = kernel.space.u64(registers["rsp"])
    except Unmapped:
        caller = 0
    return Hit(number, processor, _task_on(kernel, processor), arguments_of(registers), caller)


def _task_on(kernel: "Kernel", processor: int) -> str:
    current, table = kernel.facts.value("current_task"), kernel.exports.by_name.get("__per_cpu_offset")
    reader = TaskReader(kernel)
    if current is None or table is None or reader.missing:
        return ""
    try:
        base = kernel.space.u64(table + 8 * processor)
        thread = reader.thread(kernel.space.u64(base + current & (1 << 64) - 1))
    except Unmapped:
        return ""
    return f"{thread.comm}/{thread.tid}"


def wait_until(seconds: float | None) -> Callable[[], bool]:
    """Return what says whether that time is over."""
    if seconds is None:
        return lambda: False
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end
