"""What a machine may be, and what QEMU is told of it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.errors import InvalidRequest
from enisle.linuxvm.configuration import (
    MIB,
    NAME,
    Disk,
    VmConfig,
    check_kernel,
    from_record,
    parse_disk,
    to_record,
    validate,
)
from enisle.linuxvm.probe import IMAGE
from enisle.linuxvm.qemu import MODELS, SANDBOX, command


def bzimage() -> bytes:
    return bytes(0x1FE) + b"\x55\xaa\xeb\x66HdrS\x0f\x02" + bytes(0x300)


@pytest.fixture
def kernel(tmp_path: Path) -> str:
    (tmp_path / "vmlinuz").write_bytes(bzimage())
    return str(tmp_path / "vmlinuz")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"!<arch>\n" + bytes(600), "Debian package"),
        (b"\x1f\x8b" + bytes(600), "gzip"),
        (b"#!/bin/sh\n", "no kernel"),
        (b"\x7fELF" + bytes(14) + b"\xb7\0" + bytes(100), "another processor"),
        (bzimage()[:0x203], "no kernel"),
    ],
)
def test_a_file_that_is_no_kernel_is_refused_with_the_reason(content: bytes, word: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InvalidRequest) as refused:
        check_kernel(str(tmp_path / "file"))
    assert word in str(refused.value)
    assert refused.value.hint


@pytest.mark.parametrize("content", [bzimage(), b"\x7fELF" + bytes(14) + b"\x3e\0" + bytes(100), IMAGE])
def test_kernels_are_taken(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    check_kernel(str(tmp_path / "file"))


@given(st.binary(max_size=0x400))
def test_any_file_is_a_kernel_or_refused(content: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            check_kernel(file.name)
        except InvalidRequest:
            pass


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel": "/no/such/file"},
        {"kernel": "/"},
        {"kernel": "\0"},
        {"initrd": "/no/such/file"},
        {"initrd": "/dev/null"},
        {"memory": 3 * MIB},
        {"memory": 1 << 60},
        {"memory": 64 * MIB + 1},
        {"processors": 0},
        {"processors": 1000},
        {"name": "../x"},
        {"name": "-x"},
        {"name": "x" * 64},
        {"name": "a b"},
        {"accelerator": "hvf"},
        {"append": "a\nb"},
        {"append": "x" * 2001},
        {"cpu": "max -S"},
        {"ports": ("a", "a")},
        {"ports": ("a,b",)},
        {"disks": (Disk("/no/such/disk"),)},
        {"disks": (Disk("/dev/null"),)},
        {"disks": (Disk("/proc/version"),) * 17},
    ],
)
def test_what_can_never_work_is_refused(changes: dict[str, object], kernel: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        validate(VmConfig(**{"kernel": kernel} | changes))  # type: ignore[arg-type]
    assert refused.value.why or refused.value.hint


def test_a_good_configuration_gets_a_name_and_whole_paths(kernel: str, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(512))
    valid = validate(VmConfig(kernel=kernel, disks=(parse_disk(f"{tmp_path}/disk:ro"),)))
    assert NAME.fullmatch(valid.name)
    assert valid.disks == (Disk(f"{tmp_path}/disk", False),)
    assert from_record(to_record(valid)) == valid


def test_a_disk_is_writable_unless_said_otherwise() -> None:
    assert parse_disk("a:b.img") == Disk("a:b.img", True)
    assert parse_disk("a:b.img:rw") == Disk("a:b.img", True)
    assert parse_disk("a.img:ro") == Disk("a.img", False)


def test_qemu_is_confined_and_told_no_path_of_the_host(kernel: str, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(512))
    config = validate(
        VmConfig(
            kernel=kernel, initrd=kernel, append="quiet", disks=(Disk(f"{tmp_path}/disk"),), ports=("p",), gdb=True
        )
    )
    words = command("/usr/bin/qemu-system-x86_64", config, "tcg", 5, (6, 7))
    assert words[words.index("-sandbox") + 1] == SANDBOX
    assert all(f"{what}=deny" in SANDBOX for what in ("obsolete", "elevateprivileges", "spawn", "resourcecontrol"))
    assert {"-nodefaults", "-no-user-config"} <= set(words)
    assert not any("netdev" in word or "-nic" in word or "user,id" in word for word in words)
    assert not any(str(tmp_path) in word for word in words)
    assert words[words.index("-cpu") + 1] == MODELS["tcg"]
    assert {"fd=6,set=0", "fd=7,set=0"} <= set(words)
    assert any("share=on" in word and "/proc/self/fd/5" in word for word in words)
    assert "-S" not in words
    assert command("q", config._replace(paused=True), "kvm", 5, (6, 7))[-1] == "-S"


def test_the_probe_is_an_image_a_boot_loader_takes() -> None:
    words = [int.from_bytes(IMAGE[at : at + 4], "little") for at in range(0, 32, 4)]
    assert words[0] == 0x1BADB002  # Multiboot specification, 3.1.1
    assert sum(words[:3]) % (1 << 32) == 0
    assert (words[3], words[4], words[7]) == (0x100000, 0x100000, 0x100020)
