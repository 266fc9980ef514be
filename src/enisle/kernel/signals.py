"""Signals: the door of the topic (signal(7)).

A signal is sent (`signal_send`), waits (`signal_queue`), is taken by a thread before its guest runs on
(`signal_deliver`) and may run a handler on a frame (`signal_frame`). State is guarded by kernel.lock.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from enisle.kernel.signal_actions import DISARMED, AltStack, SigAction, SignalHandlers, ignores_stops, wants_children
from enisle.kernel.signal_deliver import RestartBlock, deliver, dequeue, is_orphaned
from enisle.kernel.signal_frame import INITIAL_XSAVE
from enisle.kernel.signal_info import (
    SigInfo,
    SignalTimer,
    child_info,
    fault_info,
    kernel_info,
    poll_info,
    timer_info,
    user_info,
)
from enisle.kernel.signal_queue import PendingSignals
from enisle.kernel.signal_send import (
    count_queued,
    force_signal,
    is_pending,
    send_to_process,
    send_to_thread,
    set_action,
    set_blocked,
    thread_gone,
)
from enisle.kernel.timers import ProcessTimers
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.kernel.thread import Thread
    from enisle.machine import Registers

Handler = Callable[["Thread", "Registers"], int | None]
"""Type of `Entry.call`."""


class Trap(Record):
    """The last exception of a thread, as its signal frames show it."""

    vector: int = 0
    error_code: int = 0
    address: int = 0


def block_for_wait(thread: "Thread", mask: int) -> None:
    """Use `mask` until the call is over (sigsuspend, ppoll, pselect, epoll_pwait).

    A handler that ends the wait runs under it; its frame holds the old one.
    """
    if thread.restore_mask is None:
        thread.restore_mask = thread.blocked
    set_blocked(thread, mask)


__all__ = [
    "DISARMED",
    "INITIAL_XSAVE",
    "AltStack",
    "Handler",
    "PendingSignals",
    "ProcessTimers",
    "RestartBlock",
    "SigAction",
    "SigInfo",
    "SignalHandlers",
    "SignalTimer",
    "Trap",
    "block_for_wait",
    "child_info",
    "count_queued",
    "deliver",
    "dequeue",
    "fault_info",
    "force_signal",
    "ignores_stops",
    "is_orphaned",
    "is_pending",
    "kernel_info",
    "poll_info",
    "send_to_process",
    "send_to_thread",
    "set_action",
    "set_blocked",
    "thread_gone",
    "timer_info",
    "user_info",
    "wants_children",
]
