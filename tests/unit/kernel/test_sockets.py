"""Socket names, ancillary data, and descriptors that keep their identity on their way through a real socket."""

import array
import os
import socket
from contextlib import suppress
from errno import EINVAL, ENAMETOOLONG
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.abi import linux_socket as n
from enisle.errors import LinuxError
from enisle.kernel import passing, unix_names
from enisle.kernel.credentials import Credentials as Identity
from enisle.kernel.files import FdTable, OpenFile
from enisle.kernel.limits import ResourceLimits
from enisle.kernel.pipes import PipeFile
from enisle.kernel.sockets import STRANGER, SocketFile

PATHS = st.binary(min_size=1, max_size=n.SUN_PATH_SIZE).filter(lambda path: b"\0" not in path)
ABSTRACT = st.binary(max_size=n.SUN_PATH_SIZE - 1).map(lambda name: b"\0" + name)


@given(PATHS | ABSTRACT)
def test_a_name_survives_the_way_into_a_sockaddr_and_back(path: bytes) -> None:
    assert unix_names.decode(unix_names.encode(path)) == path


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: unix_names.UNIX + rest))
def test_any_bytes_are_a_name_or_einval(name: bytes) -> None:
    if 2 < len(name) <= n.SOCKADDR_UN_SIZE and name[:2] == unix_names.UNIX:
        assert name[2:].startswith(unix_names.decode(name))
        return
    with pytest.raises(LinuxError) as raised:
        unix_names.decode(name)
    assert raised.value.errno == EINVAL


def test_a_path_that_is_too_long_is_told_so() -> None:
    with pytest.raises(LinuxError) as raised:
        unix_names.encode(b"x" * 109)
    assert raised.value.errno == ENAMETOOLONG


MESSAGES = st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 300), st.integers(0, 300)), max_size=5)


def pack(messages: list[tuple[bytes, int, int]]) -> bytes:
    packed = b""
    for content, level, kind in messages:
        packed += n.CMSGHDR.pack(n.CMSGHDR.size + len(content), level, kind) + content
        packed = packed.ljust((len(packed) + 7) & ~7, b"\0")
    return packed


@given(MESSAGES)
def test_ancillary_data_is_taken_apart_as_it_was_put_together(messages: list[tuple[bytes, int, int]]) -> None:
    control = pack(messages)
    found = [(control[at : at + size], level, kind) for at, size, level, kind in passing.parts(control)]
    assert found == messages


@given(st.binary(max_size=100))
def test_hostile_ancillary_data_stays_within_its_bounds(control: bytes) -> None:
    found: list[tuple[int, int, int, int]] = []
    with suppress(LinuxError):
        found.extend(passing.parts(control))
    assert all(n.CMSGHDR.size <= at <= at + size <= len(control) for at, size, _, _ in found)


def make_thread() -> Any:
    process = SimpleNamespace(pid=7, credentials=Identity(), limits=ResourceLimits())
    return SimpleNamespace(process=process, files=FdTable())


def carry(thread: Any, numbers: list[int]) -> list[OpenFile]:
    """Send guest descriptors through a real socket pair; return what the receiver's table holds afterwards."""
    one, two = socket.socketpair()
    control = pack([(array.array("i", numbers).tobytes(), n.SOL_SOCKET, n.SCM_RIGHTS)])
    with one, two:
        translated, files = passing.to_host(thread, control)
        passing.mark(files)
        hosts = array.array("i", next(translated[at : at + size] for at, size, _, _ in passing.parts(translated)))
        one.sendmsg([b"x"], [(n.SOL_SOCKET, n.SCM_RIGHTS, hosts)])
        for file in files:
            file.drop()
        _, ancillary, _, _ = two.recvmsg(1, socket.CMSG_LEN(4 * len(numbers)))
    received = pack([(content, level, kind) for level, kind, content in ancillary])
    guest, lost = passing.from_host(thread, received, 0, STRANGER)
    assert not lost
    at, size, _, _ = next(passing.parts(guest))
    return [thread.files.get(number) for number in array.array("i", guest[at : at + size])]


def test_descriptions_of_one_inode_are_told_apart(tmp_path: Any) -> None:
    thread = make_thread()
    (tmp_path / "file").write_bytes(b"content")
    files = [OpenFile(os.open(tmp_path / "file", os.O_RDONLY), 0) for _ in range(3)]
    numbers = [int(thread.files.add(file)) for file in files]
    assert carry(thread, numbers) == files
    assert carry(thread, numbers[::-1]) == files[::-1]
    thread.files.release()
    assert all(file.fd < 0 for file in files)


def test_a_description_closed_on_its_way_comes_back_as_what_it_was() -> None:
    thread = make_thread()
    reader, writer = os.pipe()
    file = PipeFile(reader, os.O_RDONLY | os.O_NONBLOCK)
    number = thread.files.add(file)
    one, two = socket.socketpair()
    with one, two:
        _, files = passing.to_host(thread, pack([(array.array("i", [number]).tobytes(), n.SOL_SOCKET, n.SCM_RIGHTS)]))
        passing.mark(files)
        socket.send_fds(one, [b"x"], [file.fd])
        files[0].drop()
        thread.files.close(number)
        assert file.fd < 0
        _, hosts, _, _ = socket.recv_fds(two, 1, 1)
    revived = passing.recognize(hosts[0], peek=False)
    assert isinstance(revived, PipeFile)
    assert revived.flags == file.flags
    os.write(writer, b"alive")
    assert os.read(revived.fd, 9) == b"alive"
    revived.close()
    os.close(writer)


def test_a_stranger_is_adopted_by_its_kind() -> None:
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    adopted = passing.recognize(os.dup(one.fileno()), peek=False)
    one.close()
    two.close()
    assert isinstance(adopted, SocketFile)
    assert (adopted.family, adopted.type, adopted.stream) == (n.AF_UNIX, n.SOCK_SEQPACKET, False)
    adopted.close()
