"""Conversations with a QEMU that hangs, babbles, refuses or goes away: each ends in time, with a typed error."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enisle.errors import EnisleError, HostError, StateError
from enisle.linuxvm.monitor import Monitor, execute_alone, lock_within

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}
Script = Callable[[socket.socket], None]


def say(connection: socket.socket, *messages: object) -> None:
    for message in messages:
        connection.sendall(json.dumps(message).encode() + b"\r\n")


def hear(connection: socket.socket) -> dict[str, object]:
    """Return the next message, {} at the end; the library ends it with nothing but its brace."""
    text = b""
    while part := connection.recv(4096):
        text += part
        try:
            return json.loads(text)
        except ValueError:
            continue
    return {}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Script], Path]]:
    """Return a function that has a script talk to whoever connects to the address it returns."""
    (tmp_path / "m" / "pen").mkdir(parents=True)
    address = tmp_path / "m" / "pen" / "qmp"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(address))
    listener.listen()
    threads: list[threading.Thread] = []

    def start(script: Script) -> Path:
        def run() -> None:
            with listener.accept()[0] as connection:
                connection.settimeout(5)
                try:
                    script(connection)
                except OSError:
                    pass

        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()
        return address

    yield start
    listener.close()
    for thread in threads:
        thread.join(6)


def greet(connection: socket.socket) -> None:
    say(connection, GREETING)
    hear(connection)  # qmp_capabilities, which the library sends without an id
    say(connection, {"return": {}})


def answering(connection: socket.socket) -> None:
    greet(connection)
    while said := hear(connection):
        say(connection, {"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 1}})
        say(connection, {"return": {"heard": said["execute"]}, "id": said["id"]})


def test_a_command_is_answered(serve: Callable[[Script], Path]) -> None:
    with Monitor(serve(answering), timeout=5) as monitor:
        assert monitor.execute("query-status") == {"heard": "query-status"}
        assert monitor.execute("stop") == {"heard": "stop"}


def test_a_command_is_executed_without_a_thread(serve: Callable[[Script], Path]) -> None:
    before = threading.active_count()
    execute_alone(serve(answering), "cont", 5)
    assert threading.active_count() <= before + 1  # that of the script


def mute(connection: socket.socket) -> None:
    time.sleep(1.5)


def mute_later(connection: socket.socket) -> None:
    greet(connection)
    time.sleep(1.5)


def babbling(connection: socket.socket) -> None:
    connection.sendall(b"\xff\xfe hello\r\n" * 3)


def going(connection: socket.socket) -> None:
    greet(connection)


def wrong(connection: socket.socket) -> None:
    say(connection, {"no": "greeting"})


def refusing(connection: socket.socket) -> None:
    greet(connection)
    said = hear(connection)
    say(connection, {"error": {"class": "GenericError", "desc": "not now"}, "id": said["id"]})


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (mute, HostError),
        (mute_later, HostError),
        (babbling, StateError),
        (going, StateError),
        (wrong, StateError),
        (refusing, StateError),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the library's, of a broken connection
def test_a_conversation_that_fails_ends_in_time(
    script: Script, kind: type[EnisleError], serve: Callable[[Script], Path]
) -> None:
    address = serve(script)
    begin = time.monotonic()
    with pytest.raises(kind), Monitor(address, timeout=0.3) as monitor:
        monitor.execute("query-status")
    assert time.monotonic() - begin < 3
    # The lock is free again.
    (address.parent.parent / "again").touch()
    import os

    os.close(lock_within(address.parent.parent / "monitor.lock", 0))


def test_nobody_there_is_not_running(tmp_path: Path) -> None:
    (tmp_path / "m" / "pen").mkdir(parents=True)
    with pytest.raises(StateError, match="not running"), Monitor(tmp_path / "m" / "pen" / "qmp", timeout=1):
        pass
    with pytest.raises(StateError, match="not running"), Monitor(tmp_path / "gone" / "pen" / "qmp", timeout=1):
        pass


def test_two_conversations_take_turns(tmp_path: Path) -> None:
    import os

    held = lock_within(tmp_path / "monitor.lock", 1)
    with pytest.raises(HostError, match="busy"):
        lock_within(tmp_path / "monitor.lock", 0.05)
    os.close(held)
    os.close(lock_within(tmp_path / "monitor.lock", 0.05))
