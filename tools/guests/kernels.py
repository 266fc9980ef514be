"""Kernel images by name: fetched once, unpacked without being installed, kept in the user's cache.

Promises: a directory that is there is complete (it appears by a rename); several processes may ask at the same time.
"""

import fcntl
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from enisle.errors import EnisleError, HostError, InvalidRequest, NotFound
from enisle.records import Record
from guests.library import kernel_of
from guests.manifest import Build, Entry, Package, read_manifest
from guests.mirrors import download

MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_console", "dummy", "ifb", "veth", "nlmon", "tun", "macvlan", "bridge"),
    *("loop", "brd", "zram", "xxhash_generic", "serpent_generic", "twofish_generic", "camellia_generic", "crc7"),
)
"""What is kept of a package's thousand modules, with all they depend on: things that load in any guest."""


class Kernel(Record):
    """One unpacked kernel."""

    name: str
    release: str
    version: str
    image: Path
    modules: tuple[Path, ...]
    """Uncompressed, each after those it depends on."""


def kernel_directory() -> Path:
    """Return where unpacked kernels are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "enisle" / "kernels"


def get(name: str) -> Kernel:
    """Return a kernel of the manifest, fetched if need be. Raises NotFound, InvalidRequest or HostError."""
    entries = read_manifest()
    if name not in entries:
        raise InvalidRequest(f"there is no kernel {name!r}", f"known: {', '.join(entries)}", "tools/kernels list")
    for build in entries[name].builds:
        if (found := find(name, build)) is not None:
            return found
    directory = kernel_directory()
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory / f".{name}.lock"):
        return _get_first(entries[name])


def find(name: str, build: Build) -> Kernel | None:
    """Return a kernel that is in the cache already, or None."""
    place = kernel_directory() / build.release
    try:
        record = json.loads((place / "kernel.json").read_text())
    except (OSError, ValueError):
        return None
    if record["packages"] != [package.sha256 for package in build.packages]:
        return None
    modules = tuple(place / "modules" / module for module in record["modules"])
    return Kernel(name, build.release, build.version, place / "vmlinuz", modules)


def _get_first(entry: Entry) -> Kernel:
    """Return the first build that can be had; a build the mirror has let go makes room for its substitute."""
    gone: list[str] = []
    for build in entry.builds:
        try:
            if (found := find(entry.name, build)) is None:
                _make(build)
                found = find(entry.name, build)
        except NotFound as error:
            gone.append(f"{build.release}: {error.message}")
            print(f"note: {error.message}; trying a substitute", file=sys.stderr)
            continue
        if found is None:
            raise HostError(f"{kernel_directory()} does not keep what is written", build.release, "check the disk")
        return found
    why = "; ".join(gone)
    raise NotFound(f"no build of kernel {entry.name} can be had", why, f"tools/kernels pin {entry.name} RELEASE")


def _make(build: Build) -> None:
    directory = kernel_directory()
    with tempfile.TemporaryDirectory(dir=directory, prefix=".unpack-") as temporary:
        place = Path(temporary) / "kernel"
        (place / "modules").mkdir(parents=True)
        found: dict[str, Path] = {}
        for number, package in enumerate(build.packages):
            archive = Path(temporary) / f"{number}"
            fetch(package, archive)
            if package.archive == "pypi":
                (place / "vmlinuz").write_bytes(kernel_of(_library(archive)))
            else:
                found |= _unpack(archive, Path(temporary), place)
            archive.unlink()
        if not (place / "vmlinuz").exists():
            raise InvalidRequest(f"{build.release} has no kernel image", "none of its packages holds a vmlinuz")
        order = _choose(found, place / "modules")
        record = {"packages": [package.sha256 for package in build.packages], "modules": order}
        (place / "kernel.json").write_text(json.dumps(record))
        shutil.rmtree(directory / build.release, ignore_errors=True)
        os.rename(place, directory / build.release)


def fetch(package: Package, archive: Path) -> None:
    """Fetch a package file and check it."""
    print(f"fetching {os.path.basename(package.path)} ({package.size >> 20} MiB)", file=sys.stderr)
    download(package, archive)
    check(archive, package)


def _library(wheel: Path) -> bytes:
    """Return the libkrunfw of a wheel."""
    with zipfile.ZipFile(wheel) as members:
        names = [name for name in members.namelist() if os.path.basename(name).startswith("libkrunfw.so")]
        if not names:
            raise InvalidRequest(f"{wheel.name} holds no libkrunfw", "none of its members is called so")
        return members.read(names[0])


def check(archive: Path, package: Package) -> None:
    """Raise HostError unless the file is the one that was pinned: apt has checked it, a disk may still lie."""
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        why = f"SHA-256 {digest}, pinned {package.sha256}"
        raise HostError(f"{package.path} is not what was pinned", why, "do not use that mirror")


def _unpack(archive: Path, temporary: Path, place: Path) -> dict[str, Path]:
    """Write the image and every module of a package; return the modules by name."""
    found: dict[str, Path] = {}
    for path, content in members_of(archive):
        base = os.path.basename(path)
        if base == "vmlinuz" or base.startswith("vmlinuz-"):
            (place / "vmlinuz").write_bytes(content.read())
        elif ".ko" in base:
            name = base.partition(".ko")[0].replace("-", "_")
            found[name] = temporary / f"{name}{base[len(name) :]}"
            found[name].write_bytes(content.read())
    return found


def members_of(archive: Path) -> Generator[tuple[str, IO[bytes]]]:
    """Yield the files of a Debian package, each to be read before the next is asked for."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        with tarfile.open(fileobj=reader.stdout, mode="r|") as members:
            for member in members:
                content = members.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield member.name, content
    if reader.returncode:
        raise HostError(f"cannot unpack {archive.name}", f"dpkg-deb ended with {reader.returncode}", "check the disk")


def _choose(found: dict[str, Path], place: Path) -> list[str]:
    """Write the modules that are wanted and those they depend on; return their file names in loading order."""
    order: list[str] = []

    def take(name: str) -> None:
        if name not in found or f"{name}.ko" in order:
            return  # built in, as far as this kernel has it at all
        code = decompress(found[name])
        for needed in dependencies(code):
            take(needed)
        (place / f"{name}.ko").write_bytes(code)
        order.append(f"{name}.ko")

    for name in MODULES:
        take(name)
    return order


def decompress(module: Path) -> bytes:
    """Return a module's ELF file."""
    raw = module.read_bytes()
    match module.suffix:
        case ".ko":
            return raw
        case ".xz":
            return lzma.decompress(raw)
        case suffix:
            raise HostError(f"cannot read {module.name}", f"{suffix} is no compression known here", "use another build")


def dependencies(code: bytes) -> list[str]:
    """Return the modules a module names in its .modinfo section (`depends=a,b`)."""
    at = code.find(b"\0depends=")
    if at < 0:
        at = code.find(b"depends=") - 1
    if at < -1:
        return []
    names = code[at + 9 : code.index(b"\0", at + 9)].decode()
    return [name.replace("-", "_") for name in names.split(",") if name]


@contextmanager
def _locked(path: Path) -> Generator[None, None, None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def install(names: list[str]) -> list[Kernel]:
    """Get several kernels, going on when one cannot be had. Raises the first failure at the end."""
    failures: list[EnisleError] = []
    kernels: list[Kernel] = []
    for name in names:
        try:
            kernels.append(get(name))
        except EnisleError as error:
            failures.append(error)
    for error in failures[1:]:
        print(f"tools/kernels: {error}", file=sys.stderr)
    if failures:
        raise failures[0]
    return kernels
