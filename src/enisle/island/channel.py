"""The control channel of an island process: framed JSON messages with descriptors, over a stream socket pair.

A frame is a 4-byte length, little-endian, and that many bytes of UTF-8 JSON; descriptors travel with the length
(SCM_RIGHTS, unix(7)). Any thread may send; one thread receives.
"""

import json
import socket
import threading
from array import array
from collections.abc import Sequence
from typing import Any

MAXIMUM_DESCRIPTORS = 16
MAXIMUM_BYTES = 64 << 20

Message = dict[str, Any]


class Channel:
    """One end of a control channel."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._sending = threading.Lock()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send one message; the descriptors are duplicated by the host. Raises OSError when the peer is gone."""
        body = json.dumps(message, separators=(",", ":")).encode()
        head = len(body).to_bytes(4, "little")
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        with self._sending:
            # A length alone is small enough never to be split.
            self._socket.sendmsg([head], rights, socket.MSG_NOSIGNAL)
            self._socket.sendall(body, socket.MSG_NOSIGNAL)

    def receive(self) -> tuple[Message, list[int]] | None:
        """Wait for one message and its descriptors (close-on-exec, now the caller's); None when the peer is gone."""
        try:
            head, descriptors = self._receive_head()
            if head is None:
                return None
            size = int.from_bytes(head, "little")
            assert size <= MAXIMUM_BYTES, f"{size=}"
            body = self._receive_exactly(size)
        except ConnectionError:
            return None
        return (json.loads(body), descriptors) if body is not None else None

    def _receive_head(self) -> tuple[bytes | None, list[int]]:
        space = socket.CMSG_SPACE(MAXIMUM_DESCRIPTORS * 4)
        head, rights, _, _ = self._socket.recvmsg(4, space, socket.MSG_CMSG_CLOEXEC | socket.MSG_WAITALL)
        descriptors = array("i")
        for _level, _kind, content in rights:
            descriptors.frombytes(content[: len(content) - len(content) % 4])
        return (head if len(head) == 4 else None), list(descriptors)

    def _receive_exactly(self, size: int) -> bytes | None:
        body = bytearray(size)
        view = memoryview(body)
        while view:
            count = self._socket.recv_into(view)
            if count == 0:
                return None
            view = view[count:]
        return bytes(body)

    def shutdown(self) -> None:
        """Wake both receivers with the end of the stream."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer went first

    def close(self) -> None:
        self._socket.close()


def pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a new channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
