"""What `kernels.toml` says: kernels by name, each with the builds that may serve, best first, and single files of
packages; all pinned by hash."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from enisle.errors import InvalidRequest
from enisle.records import Record

T = TypeVar("T")
MANIFEST = Path(__file__).resolve().parent.parent / "kernels.toml"


class Package(Record):
    """One package file of the mirror."""

    archive: str
    """"debian", "debian-security", or "pypi": then `path` is the name of a wheel."""
    path: str
    size: int
    sha256: str


class Build(Record):
    """One build of a kernel: the packages that hold its image and its modules."""

    release: str
    """What `uname -r` says in the guest."""
    version: str
    packages: tuple[Package, ...]


class Entry(Record):
    """A kernel by the name tests know it by; a later build is a substitute for those before it."""

    name: str
    small: bool
    """Fetched for every test run, not for the matrix alone."""
    builds: tuple[Build, ...]


class Part(Record):
    """One file of a package."""

    name: str
    member: str
    package: Package
    large: bool
    """Fetched only when asked for by its name."""


def read_manifest(path: Path = MANIFEST) -> dict[str, Entry]:
    """Return the kernels by name. Raises InvalidRequest for a manifest that makes no sense."""
    return {entry.name: entry for entry in _read(path, "kernel", _entry)}


def read_parts(path: Path = MANIFEST) -> dict[str, Part]:
    """Return the files by name. Raises InvalidRequest for a manifest that makes no sense."""
    return {part.name: part for part in _read(path, "part", _part)}


def _read(path: Path, kind: str, make: Callable[[dict[str, Any]], T]) -> list[T]:
    try:
        return [make(told) for told in tomllib.loads(path.read_text())[kind]]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest(f"cannot read {path}", f"{type(error).__name__}: {error}", "git restore tools") from error


def _part(told: dict[str, Any]) -> Part:
    return Part(told["name"], told["member"], _package(told["package"]), told.get("large", False))


def _entry(kernel: dict[str, Any]) -> Entry:
    return Entry(kernel["name"], kernel.get("small", False), tuple(_build(build) for build in kernel["build"]))


def _build(build: dict[str, Any]) -> Build:
    return Build(build["release"], build["version"], tuple(_package(package) for package in build["package"]))


def _package(package: dict[str, Any]) -> Package:
    read = Package(**package)
    good = read.size > 0 and re.fullmatch("[0-9a-f]{64}", read.sha256)
    place = re.fullmatch(r"[\w.]+-[\w.]+-[\w.-]+\.whl", read.path) if read.archive == "pypi" else ".." not in read.path
    if not good or not place or not (read.archive == "pypi" or read.path.startswith("pool/")):
        why = "it needs a path below pool/ (or the name of a wheel), a size and a SHA-256"
        raise InvalidRequest(f"{read.path} is not pinned", why)
    return read
