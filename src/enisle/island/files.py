"""The files of an island, reached from outside: the island opens, the caller reads and writes."""

import os

from enisle.island.child import Child
from enisle.records import Record


class Listing(Record):
    """One name of a directory. `mode` reads as in `ls -l`; `size` in bytes."""

    name: str
    mode: str
    size: int


class Files:
    """The files of an island. Paths are absolute paths of the island; OSError as the host's calls raise it."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def read(self, path: str) -> bytes:
        """Return a regular file's content."""
        descriptor = self._child.call_for_descriptor({"call": "open", "path": path, "mode": "read"})
        with open(descriptor, "rb") as file:
            return file.read()

    def read_part(self, path: str, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of a regular file from `offset` on; nothing beyond its end."""
        descriptor = self._child.call_for_descriptor({"call": "open", "path": path, "mode": "read"})
        try:
            return os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)

    def write(self, path: str, content: bytes | str, mode: int = 0o644) -> None:
        """Make `content` the whole of a regular file, created with `mode` if it was not there."""
        request = {"call": "open", "path": path, "mode": "write", "permissions": mode}
        descriptor = self._child.call_for_descriptor(request)
        with open(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)

    def list(self, path: str) -> list[Listing]:
        """Return the names in a directory, sorted."""
        return [Listing(*entry) for entry in self._child.call({"call": "list", "path": path})]
