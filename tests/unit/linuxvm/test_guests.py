"""The tools that make test guests: the manifest, the archive a kernel unpacks, and what a guest says of itself."""

import concurrent.futures
import gzip
import hashlib
import io
import lzma
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest
from guests import kernels, parts
from guests.cpio import CpioWriter
from guests.initramfs import is_dynamic
from guests.kernels import MODULES, dependencies
from guests.library import kernel_of
from guests.manifest import Build, Entry, Package, Part, read_manifest, read_parts
from guests.oracle import read_console, read_oracle
from hypothesis import given
from hypothesis import strategies as st

from enisle.errors import EnisleError, GuestError, HostError, InvalidRequest, NotFound


def test_every_kernel_is_pinned_and_the_lines_asked_for_are_there() -> None:
    entries = read_manifest()
    assert len(entries) >= 12
    assert [entry.name for entry in entries.values() if entry.small]
    for line in ("5.10", "6.1-cloud", "6.1-generic", "6.1-rt", "6.12", "6.16", "6.17", "6.18", "7."):
        assert any(name.startswith(line) for name in entries), line
    assert all(build.packages for entry in entries.values() for build in entry.builds)
    assert read_parts()["wine-ntoskrnl"].member.endswith("/ntoskrnl.exe")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kernel = 3",
        "[[kernel]]\nname = 'x'",
        "[[kernel]]\nname='x'\n[[kernel.build]]\nrelease='r'\nversion='v'\n[[kernel.build.package]]\npath='pool/x'",
        "[[kernel]]\nname='x'\n[[kernel.build]]\nrelease='r'\nversion='v'\n[[kernel.build.package]]\n"
        "archive='debian'\npath='pool/../../etc/passwd'\nsize=1\nsha256='" + "0" * 64 + "'",
        "[[kernel]]\nname='x'\n[[kernel.build]]\nrelease='r'\nversion='v'\n[[kernel.build.package]]\n"
        "archive='pypi'\npath='../x-1.0-py3.whl'\nsize=1\nsha256='" + "0" * 64 + "'",
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


def package(place: Path, release: str, *, image: bool) -> Package:
    """Build a Debian package as kernels come in: an image, a module on which another depends, both compressed."""
    tree = place / release
    modules = tree / "usr/lib/modules" / release / "kernel"
    for directory in (tree / "DEBIAN", tree / "boot", modules):
        directory.mkdir(parents=True)
    (tree / "DEBIAN/control").write_text("Package: x\nVersion: 1\nArchitecture: amd64\nMaintainer: x\nDescription: x\n")
    if image:
        (tree / "boot" / f"vmlinuz-{release}").write_bytes(b"image of " + release.encode())
    (modules / "llc.ko.xz").write_bytes(lzma.compress(b"\0depends=\0"))
    (modules / "bridge.ko.xz").write_bytes(lzma.compress(b"\0depends=llc\0"))
    (modules / "unwanted.ko.xz").write_bytes(lzma.compress(b"\0depends=\0"))
    archive = place / f"{release}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, archive], check=True, capture_output=True)
    content = archive.read_bytes()
    return Package("debian", f"pool/{archive.name}", len(content), hashlib.sha256(content).hexdigest())


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Serve packages from a directory, and keep kernels in another; return the first."""
    place = tmp_path / "mirror"
    place.mkdir()

    def download(package: Package, target: Path) -> None:
        source = place / package.path.removeprefix("pool/")
        if not source.exists():
            raise NotFound(f"{package.path} is gone from the mirror")
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(kernels, "download", download)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return place


def offer(monkeypatch: pytest.MonkeyPatch, *packages: tuple[str, Package]) -> None:
    builds = tuple(Build(release, "1", (package,)) for release, package in packages)
    monkeypatch.setattr(kernels, "read_manifest", lambda: {"k": Entry("k", True, builds)})


def test_a_kernel_is_unpacked_with_the_modules_wanted_and_kept(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("6.1.0", package(mirror, "6.1.0", image=True)))
    kernel = kernels.get("k")
    assert kernel.image.read_bytes() == b"image of 6.1.0"
    assert [path.name for path in kernel.modules] == ["llc.ko", "bridge.ko"]
    assert kernel.modules[1].read_bytes() == b"\0depends=llc\0"
    (mirror / "6.1.0.deb").unlink()
    assert kernels.get("k") == kernel  # from the cache
    assert [path.name for path in kernels.kernel_directory().iterdir() if path.is_dir()] == ["6.1.0"]


def test_a_build_that_is_gone_makes_room_for_its_substitute(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Package("debian", "pool/gone.deb", 1, "0" * 64)
    offer(monkeypatch, ("6.1.1", gone), ("6.1.2", package(mirror, "6.1.2", image=True)))
    assert kernels.get("k").release == "6.1.2"
    offer(monkeypatch, ("6.1.1", gone))
    with pytest.raises(NotFound) as told:
        kernels.get("k")
    assert "tools/kernels pin" in told.value.hint
    assert "6.1.1" in told.value.why


def test_a_package_without_an_image_or_with_other_bytes_leaves_nothing(
    mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, ("6.1.3", package(mirror, "6.1.3", image=False)))
    with pytest.raises(InvalidRequest, match="no kernel image"):
        kernels.get("k")
    offer(monkeypatch, ("6.1.4", package(mirror, "6.1.4", image=True)._replace(sha256="1" * 64)))
    with pytest.raises(HostError, match="not what was pinned"):
        kernels.get("k")
    offer(monkeypatch, ("6.1.5", package(mirror, "6.1.5", image=True)))
    whole = (mirror / "6.1.5.deb").read_bytes()
    (mirror / "6.1.5.deb").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HostError):
        kernels.get("k")
    assert [path for path in kernels.kernel_directory().iterdir() if path.is_dir()] == []


def test_several_starting_at_once_fetch_once(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("6.1.6", package(mirror, "6.1.6", image=True)))
    fetched: list[Path] = []
    plain = kernels.download
    monkeypatch.setattr(kernels, "download", lambda package, place: (fetched.append(place), plain(package, place)))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = [each.result() for each in [pool.submit(kernels.get, "k") for _ in range(4)]]
    assert len(set(found)) == 1
    assert len(fetched) == 1


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


# ---- a kernel inside a library ---------------------------------------------------------------------------------------

ENTRY = 0x100_0000
NOTE = struct.pack("<III", 4, 8, 18) + b"Xen\0" + struct.pack("<Q", ENTRY)


def _library(place: Path, image: bytes) -> bytes:
    """Compile a library with an image in it, as libkrunfw has its kernel."""
    words = ", ".join(str(byte) for byte in image)
    source = f"__attribute__((aligned(65536))) unsigned char KERNEL_BUNDLE[{len(image)}] = {{ {words} }};\n"
    (place / "bundle.c").write_text(source)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", place / "bundle.so", place / "bundle.c"], check=True)
    return (place / "bundle.so").read_bytes()


def test_a_kernel_is_cut_out_of_a_library_and_boots_by_its_own_entry(tmp_path: Path) -> None:
    image = (b"\x90" * 64 + NOTE).ljust(8192, b"\xf4")
    file = kernel_of(_library(tmp_path, image + b"\0"))
    kind, _, offset, start, place, size, memory, _ = struct.unpack_from("<IIQQQQQQ", file, 64)
    assert (kind, start, place, size) == (1, ENTRY, ENTRY, len(image))
    assert memory > size
    assert file[offset : offset + size] == image
    note = struct.unpack_from("<IIQQQQQQ", file, 64 + 56)
    assert (note[0], file[note[2] : note[2] + note[5]]) == (4, NOTE)
    assert struct.unpack_from("<HHIQ", file, 16) == (2, 62, 1, ENTRY)


def test_a_library_without_a_kernel_is_refused(tmp_path: Path) -> None:
    for library in (_library(tmp_path, b"x" * 8192), Path("/bin/busybox").read_bytes(), b"", b"\x7fELF" + bytes(60)):
        with pytest.raises(InvalidRequest, match="holds no kernel"):
            kernel_of(library)


# ---- files out of packages, and what a guest tells over its console --------------------------------------------------


def test_a_file_is_fetched_once_out_of_its_package(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = package(mirror, "9.9", image=True)
    known = {"image": Part("image", "boot/vmlinuz-9.9", built, False), "other": Part("other", "boot/x", built, True)}
    monkeypatch.setattr(parts, "read_parts", lambda: known)
    assert parts.find_part("image") is None
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        places = {*pool.map(parts.get_part, ["image"] * 3)}
    (place,) = places
    assert place.read_bytes() == b"image of 9.9"
    assert parts.find_part("image") == place
    with pytest.raises(InvalidRequest, match="has no boot/x"):
        parts.get_part("other")
    with pytest.raises(InvalidRequest, match="there is no file 'nothing'"):
        parts.get_part("nothing")


def _tar(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def test_the_last_whole_telling_of_a_console_counts() -> None:
    first, second = (gzip.compress(_tar({"release": name})) for name in (b"one", b"two"))
    said = b"noise\n=told %d\n" % len(first) + first + b"=done 0\n=told %d\n" % len(second) + second
    assert read_console(said).release == "two"
    assert read_console(said[:-1]).release == "one"
    with pytest.raises(GuestError):
        read_console(said[: len(first)])
    assert read_console(said).btf == b""
