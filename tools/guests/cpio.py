"""Writes cpio archives in the "newc" format (the kernel's driver-api/early-userspace/buffer-format).

Every field is eight hexadecimal digits; names and contents are padded to four bytes.
"""

import stat
from typing import BinaryIO

MAGIC = b"070701"
TRAILER = "TRAILER!!!"


class CpioWriter:
    """Adds members to an archive, one after the other; `close` ends it."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._inode = 0

    def add_file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._add(name, stat.S_IFREG | mode, content)

    def add_directory(self, name: str, mode: int = 0o755) -> None:
        """Add a directory; it must come before what lies in it."""
        self._add(name, stat.S_IFDIR | mode)

    def add_link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def add_device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character device."""
        self._add(name, stat.S_IFCHR | mode, device=(major, minor))

    def close(self) -> None:
        """Write the member that ends the archive."""
        self._inode = -1
        self._add(TRAILER, 0)

    def _add(self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        numbers = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
        head = MAGIC + b"".join(b"%08X" % number for number in numbers) + encoded
        self._out.write(head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4))
