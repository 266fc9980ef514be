"""The state of the processors as QEMU would migrate it: asked for, read from a pipe, nothing of the guest moved.

With x-ignore-shared the stream leaves out RAM that is shared memory, which ours is (qapi/migration.json). QEMU stops
the processors at the end; whoever calls continues them (`VirtualMachine.paused`).
"""

import os
import select
import time

from enisle.errors import GuestError, HostError
from enisle.linuxvm.monitor import TIMEOUT, Monitor

MOST = 64 << 20
"""Bytes of a stream: it has 300 KB, and megabytes with many processors."""


def read_stream(monitor: Monitor) -> bytes:
    """Return the stream. Requires: the machine is paused. Raises GuestError or HostError."""
    capability = {"capability": "x-ignore-shared", "state": True}
    monitor.execute("migrate-set-capabilities", capabilities=[capability])
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        try:
            os.set_blocking(writer, True)
            monitor.lend(writer, "processors")
        finally:
            os.close(writer)
        monitor.execute("migrate", uri="fd:processors")
        try:
            return _read(monitor, reader)
        except BaseException:
            monitor.execute("migrate_cancel")
            raise
    finally:
        os.close(reader)


def _read(monitor: Monitor, reader: int) -> bytes:
    deadline = time.monotonic() + TIMEOUT
    parts: list[bytes] = []
    size = 0
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            raise HostError("QEMU does not tell its processors' state", f"nothing came for {TIMEOUT:g} seconds")
        part = os.read(reader, 1 << 20)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > MOST:
            raise GuestError("QEMU's record of the processors is too long", f"more than {MOST:,} bytes")
    while (status := monitor.execute("query-migrate").get("status")) in ("active", "setup", "device", "pre-switchover"):
        if time.monotonic() > deadline:
            break
        time.sleep(0.001)
    if status != "completed":
        raise HostError("QEMU does not tell its processors' state", f"its migration is {status}", "try again")
    return b"".join(parts)
