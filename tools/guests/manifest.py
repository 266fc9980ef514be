"""What `kernels.toml` says: kernels by name, each with the builds that may serve, best first, pinned by hash."""

import re
import tomllib
from pathlib import Path
from typing import Any

from enisle.errors import InvalidRequest
from enisle.records import Record

MANIFEST = Path(__file__).resolve().parent.parent / "kernels.toml"


class Package(Record):
    """One package file of the mirror."""

    archive: str
    """"debian" or "debian-security"."""
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


def read_manifest(path: Path = MANIFEST) -> dict[str, Entry]:
    """Return the kernels by name. Raises InvalidRequest for a manifest that makes no sense."""
    try:
        kernels = tomllib.loads(path.read_text())["kernel"]
        entries = [_entry(kernel) for kernel in kernels]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest(f"cannot read {path}", f"{type(error).__name__}: {error}", "git restore tools") from error
    return {entry.name: entry for entry in entries}


def _entry(kernel: dict[str, Any]) -> Entry:
    return Entry(kernel["name"], kernel.get("small", False), tuple(_build(build) for build in kernel["build"]))


def _build(build: dict[str, Any]) -> Build:
    return Build(build["release"], build["version"], tuple(_package(package) for package in build["package"]))


def _package(package: dict[str, Any]) -> Package:
    read = Package(**package)
    good = read.size > 0 and re.fullmatch("[0-9a-f]{64}", read.sha256)
    if not good or ".." in read.path or not read.path.startswith("pool/"):
        raise InvalidRequest(f"{read.path} is not pinned", "it needs a path below pool/, a size and a SHA-256")
    return read
