"""Names and records of machines on disk: one machine a name, whatever was killed."""

import json
import os
import threading
from pathlib import Path

import pytest

from enisle.errors import HostError, NotFound, StateError
from enisle.linuxvm import state
from enisle.linuxvm.configuration import VmConfig, to_record


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "enisle" / "vm"


def record(name: str, detached: bool = True, stage: str = "starting") -> state.MachineRecord:
    return state.MachineRecord(name, stage, detached, "tcg", to_record(VmConfig(kernel="/vmlinuz", name=name)), -1)


def test_a_name_is_claimed_once_by_many_at_the_same_time(base: Path) -> None:
    claimed: list[int] = []
    refused: list[StateError] = []

    def claim() -> None:
        try:
            claimed.append(state.claim(record("one"))[1])
        except StateError as error:
            refused.append(error)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(claimed), len(refused)) == (1, 7)
    assert all("running" in error.why and "vm stop one" in error.hint for error in refused)
    assert [path.name for path in base.iterdir() if path.is_dir()] == ["one"]
    os.close(claimed[0])


def test_what_a_killed_starter_left_is_swept(base: Path) -> None:
    lock = state.claim(record("half"))[1]
    os.close(lock)  # as the kernel does for a killed process
    assert state.records() == []
    assert not (base / "half").exists()


def test_what_a_killed_guardian_left_is_an_ended_machine_or_nothing(base: Path) -> None:
    for name, detached in (("kept", True), ("gone", False)):
        directory, lock = state.claim(record(name, detached))
        state.write(directory, record(name, detached, "running")._replace(guardian=4_000_000, qemu=4_000_001))
        for file in ("qmp", "console", "kernel", "console.log"):
            (directory / state.PEN / file).touch()
        os.close(lock)
    (left,) = state.records()
    assert (left.name, left.state, left.qemu) == ("kept", "ended", 0)
    assert "killed" in left.reason
    assert [path.name for path in (base / "kept" / state.PEN).iterdir()] == ["console.log"]


def test_an_ended_machine_keeps_its_name_until_it_is_removed(base: Path) -> None:
    directory, lock = state.claim(record("old"))
    state.write(directory, record("old", stage="running"))
    with pytest.raises(StateError, match="running"):
        state.remove(directory)
    os.close(lock)
    with pytest.raises(StateError) as taken:
        state.claim(record("old"))
    assert taken.value.hint == "enisle vm rm old"
    state.remove(state.find("old")[0])
    os.close(state.claim(record("old"))[1])


@pytest.mark.parametrize("name", ["none", "", ".", "..", "a/b", "../vm", "\x01"])
def test_a_machine_that_is_not_there_is_not_found(name: str) -> None:
    with pytest.raises(NotFound):
        state.find(name)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"name": "x"}', '{"no": 1}', "\x00"])
def test_a_damaged_record_is_no_machine(base: Path, content: str) -> None:
    directory, lock = state.claim(record("odd"))
    (directory / state.RECORD).write_text(content)
    assert state.try_read(directory) is None
    os.close(lock)
    assert state.records() == []
    assert not directory.exists()


def test_machines_of_root_have_users_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    locks = [state.claim(record(name)) for name in ("a", "b", "c")]
    users = [json.loads((directory / state.RECORD).read_text())["user"] for directory, _ in locks]
    assert len(set(users)) == 3
    assert all(state.FIRST_USER <= user < state.FIRST_USER + state.USERS for user in users)
    for _, lock in locks:
        os.close(lock)
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    assert state.free_user() == 1234


def test_a_state_directory_that_cannot_be_made_is_the_hosts_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(HostError, match="XDG_STATE_HOME"):
        state.base_directory()
