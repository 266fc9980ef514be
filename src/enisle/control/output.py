"""What a command wrote, kept in numbered pieces in files: bounded, readable while it grows and when all else is gone.

A file is called by the number of its first piece; a piece is its stream, its time, its length and its bytes. The oldest
file goes when there is too much. A disk that takes no more costs pieces, never the command. One thread writes; `read`
needs no writer.
"""

import base64
import os
import struct
import time
from typing import Any

PIECE = struct.Struct("<BdI")
STREAMS = ("stdout", "stderr")
FILE_BYTES, FILE_PIECES = 1 << 20, 4096
KEPT_BYTES = 16 << 20
ANSWER_BYTES, ANSWER_PIECES = 256 << 10, 2048


class Output:
    """The writer of one command's output, in a directory of its own."""

    def __init__(self, directory: str, kept_bytes: int = KEPT_BYTES) -> None:
        self._directory, self._kept_bytes = directory, kept_bytes
        self.truncated = False
        """Whether anything is missing."""
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        except OSError:
            self.truncated = True
        self.number = next_number(directory)
        self._file = -1
        self._size = self._pieces = 0

    def write(self, stream: str, content: bytes) -> None:
        """Add a piece; never raises."""
        piece = PIECE.pack(STREAMS.index(stream), time.time(), len(content)) + content
        try:
            if self._file < 0 or self._size + len(piece) > FILE_BYTES or self._pieces >= FILE_PIECES:
                self._next_file()
            written = os.write(self._file, piece)
            if written < len(piece):
                os.ftruncate(self._file, self._size)
                raise OSError
        except OSError:
            self.truncated = True
            return
        self._size += len(piece)
        self._pieces += 1
        self.number += 1

    def _next_file(self) -> None:
        self.close()
        names = _names(self._directory)
        sizes = [os.stat(f"{self._directory}/{name}").st_size for name in names]
        while names and sum(sizes) > self._kept_bytes - FILE_BYTES:
            os.unlink(f"{self._directory}/{names.pop(0)}")
            sizes.pop(0)
            self.truncated = True
        path = f"{self._directory}/{self.number:012d}"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = self._pieces = 0

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _names(directory: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if name.isdigit())
    except FileNotFoundError:
        return []


def _pieces(path: str) -> list[tuple[str, float, bytes]]:
    """Return the whole pieces of a file; one that is being written is not there yet."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return []  # it was the oldest
    found: list[tuple[str, float, bytes]] = []
    at = 0
    while at + PIECE.size <= len(content):
        stream: int
        when: float
        size: int
        stream, when, size = PIECE.unpack_from(content, at)
        at += PIECE.size + size
        if at > len(content) or stream >= len(STREAMS):
            break
        found.append((STREAMS[stream], when, content[at - size : at]))
    return found


def next_number(directory: str) -> int:
    """Return the number the next piece will have."""
    names = _names(directory)
    return int(names[-1]) + len(_pieces(f"{directory}/{names[-1]}")) if names else 0


def read(directory: str, after: int, tail: int = 0) -> dict[str, Any]:
    """Return the pieces from number `after` on, or the last `tail`: {"chunks", "next", "truncated"}.

    No more than fits an answer; `next` says where to go on.
    """
    names = _names(directory)
    if tail:
        after = max(after, next_number(directory) - tail)
    oldest = int(names[0]) if names else 0
    truncated, number = oldest > after, max(after, oldest)
    chunks: list[dict[str, Any]] = []
    room = ANSWER_BYTES
    starts = [int(name) for name in names]
    for index, name in enumerate(names):
        if index + 1 < len(names) and starts[index + 1] <= number:
            continue
        for place, (stream, when, content) in enumerate(_pieces(f"{directory}/{name}"), starts[index]):
            if place < number:
                continue
            if chunks and (len(content) > room or len(chunks) >= ANSWER_PIECES):
                return {"chunks": chunks, "next": number, "truncated": truncated}
            room -= len(content)
            number = place + 1
            data = base64.b64encode(content).decode()
            chunks.append({"n": place, "stream": stream, "data": data, "time": when})
    return {"chunks": chunks, "next": number, "truncated": truncated}
