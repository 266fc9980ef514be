"""The tools that make test guests: the manifest, the archive a kernel unpacks, and what a guest says of itself."""

import io
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest
from guests.cpio import CpioWriter
from guests.initramfs import is_dynamic
from guests.kernels import MODULES, dependencies
from guests.manifest import Package, read_manifest
from guests.oracle import read_oracle
from hypothesis import given
from hypothesis import strategies as st

from enisle.errors import EnisleError, GuestError, InvalidRequest


def test_every_kernel_is_pinned_and_the_lines_asked_for_are_there() -> None:
    entries = read_manifest()
    assert len(entries) >= 12
    assert [entry.name for entry in entries.values() if entry.small]
    for line in ("5.10", "6.1-cloud", "6.1-generic", "6.1-rt", "6.12", "6.16", "6.17", "6.18", "7."):
        assert any(name.startswith(line) for name in entries), line
    assert all(build.packages for entry in entries.values() for build in entry.builds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kernel = 3",
        "[[kernel]]\nname = 'x'",
        "[[kernel]]\nname='x'\n[[kernel.build]]\nrelease='r'\nversion='v'\n[[kernel.build.package]]\npath='pool/x'",
        "[[kernel]]\nname='x'\n[[kernel.build]]\nrelease='r'\nversion='v'\n[[kernel.build.package]]\n"
        "archive='debian'\npath='pool/../../etc/passwd'\nsize=1\nsha256='" + "0" * 64 + "'",
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "kernels.toml").write_text(text)
    with pytest.raises(InvalidRequest):
        read_manifest(tmp_path / "kernels.toml")


def test_a_package_that_is_not_what_was_pinned_is_refused(tmp_path: Path) -> None:
    from guests.kernels import check

    (tmp_path / "package.deb").write_bytes(b"something else")
    with pytest.raises(EnisleError, match="not what was pinned"):
        check(tmp_path / "package.deb", Package("debian", "pool/x.deb", 14, "0" * 64))


def test_busybox_unpacks_what_the_cpio_writer_wrote(tmp_path: Path) -> None:
    archive = io.BytesIO()
    writer = CpioWriter(archive)
    writer.add_directory("bin")
    writer.add_file("bin/odd", b"123", 0o755)
    writer.add_link("bin/link", "odd")
    writer.add_file("empty", b"")
    writer.close()
    subprocess.run(["busybox", "cpio", "-idm"], input=archive.getvalue(), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "bin/link").read_bytes() == b"123"
    assert (tmp_path / "bin/odd").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "empty").read_bytes() == b""


def test_modules_name_what_they_depend_on() -> None:
    assert dependencies(b"\0license=GPL\0depends=llc,stp-core\0name=bridge\0") == ["llc", "stp_core"]
    assert dependencies(b"\0license=GPL\0depends=\0name=dummy\0") == []
    assert dependencies(b"\x7fELF no modinfo") == []
    assert len(set(MODULES)) == len(MODULES)


def test_a_program_with_an_interpreter_is_dynamic() -> None:
    def with_segments(*kinds: int) -> bytes:
        headers = b"".join(struct.pack("<I52x", kind) for kind in kinds)
        return b"\x7fELF".ljust(32, b"\0") + struct.pack("<Q14xHH6x", 64, 56, len(kinds)) + headers

    assert is_dynamic(with_segments(1, 3, 1))
    assert not is_dynamic(with_segments(1, 1))


def archive_of(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        end = archive.offset
    return out.getvalue()[: end + 1024]


STATUS = b"Name:\tsh\nState:\tS (sleeping)\nTgid:\t7\nPid:\t7\nPPid:\t1\nUid:\t1\t2\t3\t4\nThreads:\t1\n"


def test_the_last_whole_archive_counts() -> None:
    first, second = archive_of(status=STATUS, modules=b"a 1 0 - Live 0\n"), archive_of(status=STATUS * 2)
    oracle = read_oracle(first + second)
    assert [task.pid for task in oracle.tasks()] == [7, 7]
    assert (oracle.tasks()[0].name, oracle.tasks()[0].uid, oracle.tasks()[0].euid) == ("sh", 1, 2)
    assert read_oracle(first + second[:700]).modules() == ["a"]


@given(st.integers(0, 3000))
def test_an_archive_cut_short_is_never_half_believed(length: int) -> None:
    whole = archive_of(status=STATUS, release=b"6.1\n")
    if length >= len(whole):
        assert read_oracle(whole).release == "6.1"
    else:
        with pytest.raises(GuestError):
            read_oracle(whole[:length])
