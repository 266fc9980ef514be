"""Places of running islands: private, one island a name, and swept of the dead alone."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.errors import HostError, InvalidRequest, StateError
from enisle.island import registry
from enisle.island.registry import Published, publish, validate_name


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def directory(runtime: Path) -> Iterator[int]:
    descriptor = registry.open_place(registry.place(), make=True)
    yield descriptor
    os.close(descriptor)


def die(published: Published) -> None:
    """End as a killed island does: the socket is closed, its file stays."""
    published.listener.close()


# ---- names -----------------------------------------------------------------------------------------------------------


@given(st.text(max_size=80))
def test_a_name_is_a_plain_file_name_or_refused(name: str) -> None:
    try:
        assert validate_name(name) == name
    except InvalidRequest:
        return
    assert name == os.path.basename(name)
    assert 0 < len(name.encode()) <= 64
    assert name[0].isalnum()


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a b", "a\n", "-x", "ä", "x" * 65, "\0"])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        validate_name(name)


# ---- the place -------------------------------------------------------------------------------------------------------


def test_the_place_is_its_owners_alone(runtime: Path) -> None:
    published = publish("web")
    for path in (runtime / "enisle", runtime / "enisle/web"):
        assert path.stat().st_mode & 0o777 == 0o700
    published.listener.close()


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_place_others_may_enter_is_not_used(runtime: Path, mode: int) -> None:
    (runtime / "enisle").mkdir()
    (runtime / "enisle").chmod(mode)
    with pytest.raises(HostError, match="not private"):
        publish("web")


def test_a_link_or_a_file_in_place_of_the_place_is_not_followed(runtime: Path) -> None:
    (runtime / "elsewhere").mkdir(mode=0o700)
    (runtime / "enisle").symlink_to(runtime / "elsewhere")
    with pytest.raises(HostError):
        publish("web")
    (runtime / "enisle").unlink()
    (runtime / "enisle").write_text("")
    with pytest.raises(HostError):
        publish("web")
    assert not list((runtime / "elsewhere").iterdir())


@pytest.mark.root
def test_a_place_of_another_user_is_not_used(runtime: Path) -> None:
    (runtime / "enisle").mkdir(mode=0o700)
    os.chown(runtime / "enisle", 12345, 12345)
    with pytest.raises(HostError, match="not private"):
        publish("web")


def test_a_missing_runtime_directory_is_told_with_a_hint(monkeypatch: pytest.MonkeyPatch, runtime: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime / "not/there"))
    with pytest.raises(HostError) as raised:
        publish("web")
    assert "XDG_RUNTIME_DIR" in raised.value.hint


def test_without_a_runtime_directory_root_uses_run_and_others_tmp(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, "relative"):
        monkeypatch.delenv("XDG_RUNTIME_DIR") if value is None else monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert registry.place() == "/run/enisle"
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert registry.place() == "/tmp/enisle-1000"


def test_a_very_long_path_is_no_hindrance(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = runtime / ("x" * 100) / ("y" * 100)
    long.mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    published = publish("z" * 64)
    directory = registry.open_place(registry.place(), make=False)
    peer = registry.connect(directory, published.entry, 1)
    assert peer is not None
    peer.close()
    os.close(directory)
    published.listener.close()


# ---- life and death --------------------------------------------------------------------------------------------------


def test_an_island_without_a_name_goes_by_its_id(directory: int) -> None:
    first, second = publish(""), publish("")
    assert first.entry.name == first.entry.id != second.entry.name
    assert set(registry.entries(directory)) == {first.entry, second.entry}
    assert first.entry.pid == os.getpid()
    for published in (first, second):
        published.listener.close()


def test_a_running_islands_name_is_taken(directory: int) -> None:
    first = publish("web")
    with pytest.raises(StateError, match="'web' runs already") as raised:
        publish("web")
    assert str(os.getpid()) in raised.value.why
    assert registry.entries(directory) == [first.entry]
    assert os.listdir(directory) == ["web"]  # nothing of the refused one is left
    peer = registry.connect(directory, first.entry, 1)
    assert peer is not None
    peer.close()
    first.listener.close()


def test_a_dead_islands_name_is_free_and_what_it_left_is_swept(directory: int) -> None:
    die(dead := publish("web"))
    other = publish("other")
    assert registry.is_dead(directory, dead.entry)
    assert not registry.is_dead(directory, other.entry)
    alive = publish("web")
    assert registry.entries(directory) == [other.entry, alive.entry]
    for published in (other, alive):
        published.listener.close()


def test_a_sweeper_that_comes_late_takes_nothing_of_the_next_owner(directory: int) -> None:
    die(dead := publish("web"))
    alive = publish("web")
    registry._unlink(directory, dead.entry.socket)  # what a slow sweeper does last
    registry.sweep(directory, "web")
    assert registry.entries(directory) == [alive.entry]
    alive.listener.close()


def test_a_new_island_sweeps_some_of_what_others_left(runtime: Path, directory: int) -> None:
    for index in range(8):
        die(publish(f"dead{index}"))
    (runtime / "enisle/empty").mkdir()
    published = publish("web")
    assert os.listdir(directory) == ["web"]
    published.listener.close()


def test_an_unfinished_place_is_swept_when_it_is_old(runtime: Path, directory: int) -> None:
    (runtime / "enisle/.1.abc").mkdir()
    (runtime / "enisle/.1.abc/1.abc").write_text("")
    registry.sweep(directory, ".1.abc")
    assert os.listdir(directory) == [".1.abc"]  # somebody may be about to finish it
    old = time.time() - 2 * registry.STALE_STAGE
    os.utime(runtime / "enisle/.1.abc", (old, old))
    registry.sweep(directory, ".1.abc")
    assert os.listdir(directory) == []


def test_foreign_files_are_no_islands_and_stay(runtime: Path, directory: int) -> None:
    (runtime / "enisle/notes").mkdir()
    (runtime / "enisle/notes/a.txt").write_text("mine")
    (runtime / "enisle/file").write_text("mine")
    published = publish("web")
    assert registry.entries(directory) == [published.entry]
    assert (runtime / "enisle/notes/a.txt").read_text() == "mine"
    with pytest.raises(StateError, match="notes") as raised:
        publish("notes")
    assert "in the way" in raised.value.why
    published.listener.close()


def test_of_many_that_want_a_name_at_once_one_gets_it(directory: int) -> None:
    won: list[Published] = []
    lost: list[StateError] = []
    begin = threading.Barrier(8)

    def want() -> None:
        begin.wait()
        try:
            won.append(publish("web"))
        except StateError as error:
            lost.append(error)

    die(publish("web"))
    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    assert registry.entries(directory) == [won[0].entry]
    assert not registry.is_dead(directory, won[0].entry)
    won[0].listener.close()


def test_a_full_backlog_is_no_death(directory: int) -> None:
    published = publish("web")
    waiting = []
    for _ in range(registry.BACKLOG + 4):
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        peer.connect_ex(f"/proc/self/fd/{directory}/{published.entry.socket}")
        waiting.append(peer)
    assert not registry.is_dead(directory, published.entry)
    for peer in waiting:
        peer.close()
    published.listener.close()


def test_what_a_killed_process_left_is_found_dead(directory: int) -> None:
    code = "import os, signal; from enisle.island.registry import publish; p = publish('web'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    entries = registry.entries(directory)
    assert [entry.name for entry in entries] == ["web"]
    assert registry.is_dead(directory, entries[0])
    published = publish("web")
    assert registry.entries(directory) == [published.entry]
    published.listener.close()


def test_a_client_waits_for_room_in_the_backlog_but_not_for_ever(directory: int) -> None:
    published = publish("web")
    waiting = [registry.connect(directory, published.entry, 1) for _ in range(registry.BACKLOG + 1)]
    began = time.monotonic()
    with pytest.raises(OSError):  # noqa: PT011 - EAGAIN, as connect(2) has it
        registry.connect(directory, published.entry, 0.3)
    assert 0.25 < time.monotonic() - began < 5
    listener: object = published.listener
    served = threading.Timer(0.2, lambda: os.close(listener._accept()[0]))  # type: ignore[attr-defined]
    served.start()
    waiting.append(registry.connect(directory, published.entry, 10))
    served.join()
    for peer in waiting:
        assert peer is not None
        peer.close()
    published.listener.close()
