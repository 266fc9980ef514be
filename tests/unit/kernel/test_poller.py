"""The poller looks at all threads while others begin and end beside it."""

import sys
import threading
from types import SimpleNamespace
from typing import Any

from enisle.kernel.poller import Poller


def test_threads_may_begin_and_end_while_the_poller_counts_them() -> None:
    threads: dict[int, Any] = {number: SimpleNamespace(in_guest=False) for number in range(50)}
    machine = SimpleNamespace(exitless=True)
    poller = Poller(SimpleNamespace(machine=machine, trace=False, threads=threads), cores=2)  # type: ignore[arg-type]
    over, idle = threading.Event(), SimpleNamespace(in_guest=False)

    def churn() -> None:
        while not over.is_set():
            for number in range(1000, 1100):
                threads[number] = idle
            for number in range(1000, 1100):
                del threads[number]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    beside = threading.Thread(target=churn)
    beside.start()
    try:
        for _ in range(3000):
            assert poller._has_room()
            assert not poller._crowded()
    finally:
        over.set()
        beside.join()
        sys.setswitchinterval(interval)
