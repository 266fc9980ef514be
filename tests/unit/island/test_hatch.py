"""The hatch of an island in another process: what it answers, and that no client can harm or block it."""

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enisle.errors import GuestError, InvalidRequest, NotFound, StateError
from enisle.island import answers, looking
from enisle.island.hatch import Hatch
from enisle.island.registry import Entry, connect, is_dead, open_place, place
from enisle.records import Record


class Statistics(Record):
    backend: str = "fake"
    memory_used: int = 1 << 20
    memory_limit: int = 1 << 30


class FakeIsland:
    """As much of an island as answers need."""

    def __init__(self) -> None:
        self.program = ("sleep", "1")
        self.configuration = SimpleNamespace(processors=2)
        self.machine = SimpleNamespace(statistics=Statistics, replication=None, walks=None)
        self.kernel = SimpleNamespace(processes=list, threads={}, lock=contextlib.nullcontext())

    def statistics(self) -> dict[str, Any]:
        return {"syscalls": 7}


def run_island(name: str, ready: int, asked: Path) -> None:
    """Be an island until killed; `asked` appears with the first question."""
    answer = answers.answer

    def noting(*arguments: Any) -> None:
        asked.touch()
        answer(*arguments)

    answers.answer = noting
    Hatch(name).open(FakeIsland(), -1)  # type: ignore[arg-type]
    os.write(ready, b"!")
    while True:
        time.sleep(60)


@pytest.fixture
def island(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Entry]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(answers, "PATIENCE", 0.3)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            run_island("web", writer, tmp_path / "asked")
        os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b"!"
    os.close(reader)
    yield looking.find("web")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def dial(entry: Entry) -> socket.socket:
    directory = open_place(place(), make=False)
    peer = connect(directory, entry, 5)
    os.close(directory)
    assert peer is not None
    return socket.socket(fileno=peer.detach())


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "little") + body


def send(peer: socket.socket, content: bytes, *descriptors: int) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
    with contextlib.suppress(ConnectionError):
        peer.sendmsg([content], rights)


def answer_of(peer: socket.socket) -> dict[str, Any] | None:
    """Return the answer, None when the island closed without one."""
    peer.settimeout(10)
    content = b""
    with contextlib.suppress(ConnectionError):
        while part := peer.recv(1 << 16):
            content += part
    peer.close()
    return json.loads(content[4:]) if content else None


def exchange(entry: Entry, content: bytes, path: str = "/proc/self/ns/mnt") -> dict[str, Any] | None:
    peer = dial(entry)
    descriptor = os.open(path, os.O_RDONLY)
    send(peer, content, descriptor)
    os.close(descriptor)
    return answer_of(peer)


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_it_says_what_it_is_and_what_it_did(island: Entry) -> None:
    about = looking.ask(island, {"call": "about"})
    assert (about["name"], about["pid"], about["program"]) == ("web", island.pid, ["sleep", "1"])
    assert about["memory_limit"] == 1 << 30
    assert about["age"] >= 0
    assert looking.ask(island, {"call": "statistics"}) == {"syscalls": 7}
    assert looking.ask(island, {"call": "processes"}) == []
    assert looking.ask(island, {"call": "page-tables"}) == []
    (sighting,) = looking.islands()
    assert (sighting.entry, sighting.trouble) == (island, "")


def test_an_island_is_found_by_name_id_beginning_and_process(island: Entry) -> None:
    for word in ("web", island.id, island.id[:5], str(island.pid)):
        assert looking.find(word) == island
    assert looking.the_only_one() == island
    with pytest.raises(NotFound, match="'nope'") as raised:
        looking.find("nope")
    assert "web" in raised.value.why
    with pytest.raises(NotFound):
        looking.find("")


def test_errors_come_out_as_they_went_in(island: Entry) -> None:
    with pytest.raises(InvalidRequest, match="no call 'fly'"):
        looking.ask(island, {"call": "fly"})
    with pytest.raises(InvalidRequest, match="limit"):
        looking.ask(island, {"call": "page-tables", "limit": "many"})
    with pytest.raises(InvalidRequest, match="pid"):
        looking.ask(island, {"call": "page-tables", "pid": True})
    with pytest.raises(StateError, match="no copies"):
        looking.ask(island, {"call": "replication", "mode": "eager"})


def test_a_dead_island_is_said_to_have_ended(island: Entry) -> None:
    os.kill(island.pid, signal.SIGKILL)
    os.waitid(os.P_PID, island.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(NotFound, match="has ended"):
        looking.ask(island, {"call": "about"})
    assert looking.islands() == []
    assert os.listdir(place()) == []


def test_a_stopped_island_is_listed_with_its_trouble(island: Entry) -> None:
    os.kill(island.pid, signal.SIGSTOP)
    os.waitpid(island.pid, os.WUNTRACED)
    (sighting,) = looking.islands(timeout=0.3)
    assert sighting.entry == island
    assert "does not answer" in sighting.trouble
    os.kill(island.pid, signal.SIGCONT)
    assert looking.ask(island, {"call": "statistics"}) == {"syscalls": 7}


# ---- who may ask -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/dev/null", "/proc/self/ns/net", "/proc/self/status", "/etc/passwd", "/"])
def test_only_a_mount_name_space_admits(island: Entry, path: str) -> None:
    answer = exchange(island, framed(b'{"call":"about"}'), path)
    assert answer is not None
    assert "no mount name space" in answer["error"]["why"]


def test_without_a_descriptor_nothing_is_answered(island: Entry) -> None:
    peer = dial(island)
    send(peer, framed(b'{"call":"about"}'))
    answer = answer_of(peer)
    assert answer is not None
    assert answer["error"]["message"] == "you may not ask this island"


@pytest.mark.root
def test_another_user_is_refused_even_with_a_way_to_the_socket(island: Entry, tmp_path: Path) -> None:
    code = """
import os, socket, sys, array
os.setgroups([]); os.setgid(12345); os.setuid(12345)
peer = socket.socket(fileno=int(sys.argv[1]))
fd = os.open("/proc/self/ns/mnt", os.O_RDONLY)
body = b'{"call":"about"}'
peer.sendmsg([len(body).to_bytes(4, "little") + body], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
print(peer.recv(4096)[4:].decode())
"""
    # A connection is its maker's: to connect as another user the way must be open.
    opened = code.replace("peer = socket.socket(fileno=int(sys.argv[1]))", "peer = socket.socket(socket.AF_UNIX)")
    opened = opened.replace("fd = os.open", "peer.connect(sys.argv[2]); fd = os.open")
    for directory in (*(tmp_path / "enisle").rglob(""), tmp_path, *list(tmp_path.parents)[:3]):
        if directory.is_dir():
            directory.chmod(0o777)
    link = tmp_path / "s"
    os.link(f"{place()}/{island.socket}", link)
    link.chmod(0o777)
    done = subprocess.run([sys.executable, "-c", opened, "0", str(link)], capture_output=True, text=True)
    assert "it belongs to user 0" in done.stdout, done.stderr


def test_the_islands_own_process_which_speaks_for_its_guests_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    send(ours, framed(b'{"call":"about"}'), namespace)
    hatch: Any = SimpleNamespace(published=SimpleNamespace(namespaces=os.fstat(namespace).st_dev))
    answers.answer(FakeIsland(), hatch, theirs)  # type: ignore[arg-type]
    theirs.close()
    os.close(namespace)
    answer = answer_of(ours)
    assert answer is not None
    assert answer["error"]["message"] == "you may not ask this island"


# ---- harm ------------------------------------------------------------------------------------------------------------

REQUESTS = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=200).map(framed),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=10,
    ).map(lambda value: framed(json.dumps(value).encode())),
    st.dictionaries(st.sampled_from(["limit", "pid", "mode", "nodes", "x"]), st.integers() | st.text(max_size=9)).map(
        lambda fields: framed(json.dumps({"call": "page-tables", **fields}).encode())
    ),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(REQUESTS)
def test_whatever_is_sent_is_answered_or_dropped_and_the_next_one_served(island: Entry, content: bytes) -> None:
    peer = dial(island)
    descriptor = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    send(peer, content or b"\0", descriptor)
    os.close(descriptor)
    peer.shutdown(socket.SHUT_WR)
    answer = answer_of(peer)
    assert answer is None or answer.keys() in ({"ok"}, {"error"})
    assert answer is None or "error" not in answer or answer["error"]["kind"] != "bug", answer
    assert looking.ask(island, {"call": "statistics"}) == {"syscalls": 7}


@pytest.mark.parametrize(
    "body", [b"[" * 4000, b'{"call":' * 500, b'"' + b"x" * 4000, b"1" * 4000, b"\xff" * 64, b"NaN"]
)
def test_json_that_is_none_or_nested_without_end_is_refused(island: Entry, body: bytes) -> None:
    answer = exchange(island, framed(body))
    assert answer is not None
    assert answer["error"]["kind"] == "InvalidRequest"


@pytest.mark.parametrize("length", [0, 4097, 1 << 20, (1 << 32) - 1])
def test_a_length_out_of_bounds_is_refused_before_anything_is_read(island: Entry, length: int) -> None:
    answer = exchange(island, struct.pack("<I", length))
    assert answer is not None
    assert answer["error"]["message"] == "this is no request"


def test_a_client_that_says_nothing_holds_others_up_for_a_moment_only(island: Entry) -> None:
    silent, slow = dial(island), dial(island)
    send(slow, struct.pack("<I", 100) + b"{")
    began = time.monotonic()
    assert looking.ask(island, {"call": "statistics"}) == {"syscalls": 7}
    assert time.monotonic() - began < 5
    silent.close()
    slow.close()


def test_a_client_that_does_not_read_does_not_stop_it(island: Entry) -> None:
    descriptor = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    idle = [dial(island) for _ in range(3)]
    for peer in idle:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        send(peer, framed(b'{"call":"about"}'), descriptor)
    os.close(descriptor)
    assert looking.ask(island, {"call": "statistics"}) == {"syscalls": 7}
    for peer in idle:
        peer.close()


def test_descriptors_sent_to_it_do_not_stay(island: Entry) -> None:
    def count() -> int:
        return len(os.listdir(f"/proc/{island.pid}/fd"))

    looking.ask(island, {"call": "about"})
    before = count()
    descriptor = os.open("/dev/null", os.O_RDONLY)
    for _ in range(20):
        peer = dial(island)
        send(peer, framed(b'{"call":"about"}'), *[descriptor] * 20)
        answer_of(peer)
    os.close(descriptor)
    looking.ask(island, {"call": "about"})
    deadline = time.monotonic() + 5
    while count() > before and time.monotonic() < deadline:
        time.sleep(0.01)  # it closes the last connection after we have the answer
    assert count() <= before


def test_a_process_without_free_descriptors_answers_again_once_it_has_one(island: Entry) -> None:
    looking.ask(island, {"call": "about"})
    before = resource.prlimit(island.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(island.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    with pytest.raises((InvalidRequest, StateError)):  # accept(2) may have had its descriptor, ours finds none
        looking.ask(island, {"call": "about"}, timeout=0.3)
    with pytest.raises(StateError, match="does not answer"):
        looking.ask(island, {"call": "about"}, timeout=0.3)
    resource.prlimit(island.pid, resource.RLIMIT_NOFILE, before)
    assert looking.ask(island, {"call": "statistics"}) == {"syscalls": 7}


# ---- an island that answers nonsense ---------------------------------------------------------------------------------


def impostor(content: bytes) -> Any:
    """Return a fixture-like context: an island that answers every request with `content`."""

    @contextlib.contextmanager
    def running(tmp_path: Path) -> Iterator[Entry]:
        child = os.fork()
        if child == 0:
            from enisle.island.registry import publish

            listener: Any = publish("bad").listener
            while True:
                with contextlib.suppress(OSError), socket.socket(fileno=listener._accept()[0]) as peer:
                    peer.recv(1 << 16)
                    peer.sendall(content)
        try:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with contextlib.suppress(NotFound):
                    yield looking.find("bad")
                    return
                time.sleep(0.01)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    return running


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        framed(b"nonsense"),
        framed(b"[]"),
        framed(b"{}"),
        framed(b'{"error": 3}'),
        framed(b'{"error": {"kind": "os", "message": "", "why": "", "hint": "", "exit_code": 0}}'),
        framed(b'{"error": {"kind": "InvalidRequest"}}'),
        b"\xff\xff\xff\xff" + b"x" * 100,
    ],
)
def test_nonsense_from_an_island_is_an_error_of_ours(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with impostor(content)(tmp_path) as entry:
        with pytest.raises((StateError, GuestError)):
            looking.ask(entry, {"call": "about"}, timeout=2)
        (sighting,) = looking.islands()
        assert sighting.trouble


# ---- what nobody asks for --------------------------------------------------------------------------------------------


def test_an_island_that_is_only_looked_for_does_not_come_to_what_answers(island: Entry, tmp_path: Path) -> None:
    """Sweepers connect to see whether it lives; for that nothing is to be imported."""
    directory = open_place(place(), make=False)
    for _ in range(50):
        assert not is_dead(directory, island)
    os.close(directory)
    silent = dial(island)
    silent.shutdown(socket.SHUT_WR)
    assert silent.recv(1) == b""  # it has come to this one, and to all before
    silent.close()
    assert not (tmp_path / "asked").exists()
    assert looking.ask(island, {"call": "statistics"}) == {"syscalls": 7}
    assert (tmp_path / "asked").exists()
