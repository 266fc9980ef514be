"""The counting of who has a FIFO open and who waits for a partner."""

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from enisle.kernel.pipes import FIFOS, FifoFile


class Sleeper:
    """What a waiting guest thread is to the table: `sleep` lasts until `wake`."""

    def __init__(self) -> None:
        self.event, self.asleep = threading.Event(), threading.Event()
        self.waiter = SimpleNamespace(wake=self.event.set)

    def sleep(self, seconds: float) -> bool:
        self.asleep.set()
        return self.event.wait(30)


def opened(path: Path, flags: int) -> FifoFile:
    return FifoFile(os.open(path, flags | os.O_NONBLOCK), flags, bytes(path))


def test_whoever_waits_may_leave_while_another_wakes_all(tmp_path: Path) -> None:
    """Two readers wait; the first is gone from the table at once when woken, while the opener still walks it."""
    os.mkfifo(tmp_path / "fifo")
    readers = [opened(tmp_path / "fifo", os.O_RDONLY) for _ in range(2)]
    sleepers = [Sleeper() for _ in readers]
    threads = [
        threading.Thread(target=FIFOS.wait_for_partner, args=(sleeper, reader), daemon=True)
        for sleeper, reader in zip(sleepers, readers, strict=True)
    ]
    for thread, sleeper in zip(threads, sleepers, strict=True):

        def wake(sleeper: Sleeper = sleeper, thread: threading.Thread = thread) -> None:
            sleeper.event.set()
            thread.join(0.1)

        sleeper.waiter.wake = wake
        thread.start()
        sleeper.asleep.wait(30)
    writer = opened(tmp_path / "fifo", os.O_WRONLY)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    for file in (*readers, writer):
        file.close()


def test_a_partner_that_came_and_went_before_the_wait_has_been_there(tmp_path: Path) -> None:
    """As in fifo_open of fs/pipe.c, which counts from the moment the file itself is counted."""
    os.mkfifo(tmp_path / "fifo")
    keeper = os.open(tmp_path / "fifo", os.O_RDWR)
    writer = opened(tmp_path / "fifo", os.O_WRONLY)
    opened(tmp_path / "fifo", os.O_RDONLY).close()
    os.close(keeper)
    sleeper = Sleeper()
    sleeper.sleep = lambda seconds: pytest.fail("it waits")
    FIFOS.wait_for_partner(sleeper, writer)  # type: ignore[arg-type]
    writer.close()
    assert FIFOS.fifos == {}
