"""poll, select and epoll over real descriptors of the host, with a guest's numbers."""

import os
from collections.abc import Iterator
from errno import EEXIST, ENOENT
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.abi import linux_socket as n
from enisle.errors import LinuxError
from enisle.kernel.calls.poll import EXCEPT_SET, READ_SET, WRITE_SET, interests_of
from enisle.kernel.epoll import EpollFile
from enisle.kernel.files import FdTable, OpenFile
from enisle.kernel.readiness import Watch


@pytest.fixture
def thread() -> Iterator[Any]:
    table = FdTable()
    yield SimpleNamespace(files=table)
    table.release()


def pipe(thread: Any) -> tuple[OpenFile, OpenFile]:
    reader, writer = os.pipe()
    ends = OpenFile(reader, os.O_RDONLY, blocking=True), OpenFile(writer, os.O_WRONLY, blocking=True)
    for end in ends:
        thread.files.add(end)
    return ends


def test_each_interest_gets_its_own_answer_from_one_host_descriptor(thread: Any) -> None:
    _, writer = pipe(thread)
    twice = thread.files.add(writer)
    os.write(writer.fd, b"x")
    asked = [(0, n.POLLIN), (0, n.POLLOUT), (1, n.POLLOUT), (twice, 0), (-1, n.POLLIN), (50, n.POLLIN)]
    with Watch(thread, asked) as watch:
        assert watch.look() == [n.POLLIN, 0, n.POLLOUT, 0, 0, n.POLLNVAL]
    assert writer.references == 2


def test_what_ends_is_told_unasked(thread: Any) -> None:
    pipe(thread)
    thread.files.close(1)
    with Watch(thread, [(0, 0)]) as watch:
        assert watch.look() == [n.POLLHUP]


@given(st.sets(st.integers(0, 200)), st.sets(st.integers(0, 200)), st.sets(st.integers(0, 200)), st.integers(0, 220))
def test_the_bits_of_select_become_interests(one: set[int], two: set[int], three: set[int], count: int) -> None:
    sets = tuple(sum(1 << fd for fd in fds) for fds in (one, two, three))
    found = dict(interests_of(sets, count))
    assert sorted(found) == sorted(fd for fd in one | two | three if fd < count)
    for fd, events in found.items():
        for fds, asked in ((one, READ_SET), (two, WRITE_SET), (three, EXCEPT_SET)):
            assert fd not in fds or events & asked == asked


def events_of(epoll: EpollFile) -> list[tuple[int, int]]:
    return sorted(n.EPOLL_EVENT.iter_unpack(epoll.poll(10)))


def test_an_epoll_entry_is_a_descriptor_and_a_description(thread: Any) -> None:
    reader, writer = pipe(thread)
    epoll = EpollFile()
    thread.files.add(epoll)
    epoll.add(0, reader, n.POLLIN, 1 << 63)
    with pytest.raises(LinuxError) as raised:
        epoll.add(0, reader, n.POLLIN, 2)
    assert raised.value.errno == EEXIST
    epoll.add(9, reader, n.POLLIN, 9)
    os.write(writer.fd, b"x")
    assert events_of(epoll) == [(n.POLLIN, 9), (n.POLLIN, 1 << 63)]
    epoll.remove(0, reader)
    assert events_of(epoll) == [(n.POLLIN, 9)]
    with pytest.raises(LinuxError) as raised:
        epoll.modify(0, reader, n.POLLIN, 0)
    assert raised.value.errno == ENOENT


def test_an_entry_ends_with_its_description_and_lets_the_other_side_know(thread: Any) -> None:
    reader, writer = pipe(thread)
    epoll = EpollFile()
    thread.files.add(epoll)
    for fd in (0, 8, 9):
        epoll.add(fd, reader, n.POLLIN, fd)
    thread.files.close(0)
    assert events_of(epoll) == []
    with pytest.raises(BrokenPipeError):
        os.write(writer.fd, b"x")


def test_closing_the_epoll_closes_its_duplicates(thread: Any) -> None:
    before = len(os.listdir("/proc/self/fd"))
    reader, _ = pipe(thread)
    epoll = EpollFile()
    epoll.add(0, reader, n.POLLIN, 0)
    epoll.add(5, reader, n.POLLIN, 5)
    epoll.close()
    assert reader.companions == ()
    assert len(os.listdir("/proc/self/fd")) == before + 2
