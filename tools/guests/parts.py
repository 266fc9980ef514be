"""Single files out of Debian's packages, for tests: fetched once, pinned by hash, kept beside the kernels.

Promises: what `find_part` returns is whole and of the package that is pinned.
"""

import fcntl
import os
import tempfile
from pathlib import Path

from enisle.errors import InvalidRequest
from guests.kernels import fetch, kernel_directory, members_of
from guests.manifest import Part, read_parts


def find_part(name: str) -> Path | None:
    """Return a file of the manifest that is in the cache already, or None. Raises InvalidRequest."""
    place = _place(_known(name))
    return place if place.exists() else None


def get_part(name: str) -> Path:
    """Return a file of the manifest, fetched if need be. Raises InvalidRequest, NotFound or HostError."""
    part = _known(name)
    place = _place(part)
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            _make(part, place)
    return place


def _known(name: str) -> Part:
    parts = read_parts()
    if name not in parts:
        raise InvalidRequest(f"there is no file {name!r}", f"known: {', '.join(parts)}", "tools/kernels list")
    return parts[name]


def _place(part: Part) -> Path:
    return kernel_directory() / "parts" / part.package.sha256[:16] / os.path.basename(part.member)


def _make(part: Part, place: Path) -> None:
    with tempfile.TemporaryDirectory(dir=kernel_directory(), prefix=".unpack-") as temporary:
        archive, found = Path(temporary) / "package.deb", Path(temporary) / "found"
        fetch(part.package, archive)
        for path, content in members_of(archive):
            if path.removeprefix("./") == part.member:
                found.write_bytes(content.read())
        if not found.exists():
            raise InvalidRequest(f"{part.package.path} has no {part.member}", "its members are others", "pin it anew")
        place.parent.mkdir(parents=True, exist_ok=True)
        os.rename(found, place)
