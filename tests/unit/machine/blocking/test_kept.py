"""Measurements are kept for the same circumstances, in private places, and nothing that anybody changed is believed."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enisle.machine.blocking import kept

FOUND = {"xcr0": 7, "entries": [[0, 0, 1, 2, 3, 4]], "words": ["a", "b"]}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "enisle-measured"


def test_what_is_kept_comes_back_from_a_private_file(place: Path) -> None:
    assert kept.recall("cpuid", "kvm") is None
    kept.keep("cpuid", "kvm", FOUND)
    (file,) = place.iterdir()
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert kept.recall("cpuid", "kvm") == FOUND
    assert kept.recall("cpuid", "emulated") is None
    assert kept.recall("controls", "kvm") is None


@pytest.mark.parametrize("name", ["BOOT_ID", "KVM", "FORMAT"])
def test_other_circumstances_count_for_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.keep("cpuid", "kvm", FOUND)
    other = tmp_path / "other"
    other.write_text("another boot\n")
    changes: dict[str, Any] = {"BOOT_ID": str(other), "KVM": (str(other), *kept.KVM[1:]), "FORMAT": 0}
    monkeypatch.setattr(kept, name, changes[name])
    assert kept.recall("cpuid", "kvm") is None
    kept.keep("cpuid", "kvm", [1])
    assert kept.recall("cpuid", "kvm") == [1]


def test_another_microcode_or_version_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kept.keep("cpuid", "kvm", FOUND)
    with monkeypatch.context() as patch:
        patch.setattr(kept, "microcode", lambda: "0xdeadbeef")
        assert kept.recall("cpuid", "kvm") is None
    monkeypatch.setattr("enisle.__version__", "0.0.0")
    assert kept.recall("cpuid", "kvm") is None


def test_without_a_boot_identifier_nothing_is_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "BOOT_ID", "/nowhere")
    kept.keep("cpuid", "kvm", FOUND)
    assert not place.exists()
    assert kept.recall("cpuid", "kvm") is None


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o604, 0o660])
def test_a_file_that_others_may_use_is_not_believed(place: Path, mode: int) -> None:
    kept.keep("cpuid", "kvm", FOUND)
    (place / "cpuid-kvm").chmod(mode)
    assert kept.recall("cpuid", "kvm") is None
    kept.keep("cpuid", "kvm", FOUND)
    assert kept.recall("cpuid", "kvm") == FOUND


def test_a_directory_that_others_may_enter_is_not_used(place: Path) -> None:
    place.mkdir(mode=0o700)
    place.chmod(0o711)
    kept.keep("cpuid", "kvm", FOUND)
    assert not list(place.iterdir())
    assert kept.recall("cpuid", "kvm") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make files of others")
def test_what_belongs_to_others_is_not_believed(place: Path) -> None:
    kept.keep("cpuid", "kvm", FOUND)
    os.chown(place / "cpuid-kvm", 12345, -1)
    assert kept.recall("cpuid", "kvm") is None
    kept.keep("cpuid", "kvm", FOUND)
    os.chown(place, 12345, -1)
    assert kept.recall("cpuid", "kvm") is None


def test_links_pipes_and_directories_in_its_place_are_harmless(place: Path, tmp_path: Path) -> None:
    kept.keep("cpuid", "kvm", FOUND)
    file = place / "cpuid-kvm"
    elsewhere = tmp_path / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    assert kept.recall("cpuid", "kvm") is None
    file.unlink()
    os.mkfifo(file, 0o600)
    assert kept.recall("cpuid", "kvm") is None
    file.unlink()
    file.mkdir()
    kept.keep("cpuid", "kvm", FOUND)  # cannot replace it
    assert kept.recall("cpuid", "kvm") is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(data=st.data())
def test_no_damage_is_believed(place: Path, data: st.DataObject) -> None:
    kept.keep("cpuid", "kvm", FOUND)
    file = place / "cpuid-kvm"
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[at:]
    file.write_bytes(content)
    assert kept.recall("cpuid", "kvm") in (None, FOUND)  # a blank may become another one


def test_a_changed_answer_is_noticed(place: Path) -> None:
    kept.keep("cpuid", "kvm", FOUND)
    file = place / "cpuid-kvm"
    record = json.loads(file.read_text())
    record["found"]["xcr0"] = 3
    file.write_text(json.dumps(record))
    assert kept.recall("cpuid", "kvm") is None
