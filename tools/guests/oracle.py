"""What a test guest says of itself, to be compared with what was found from outside.

The guest writes tar files through its virtio port "oracle", or packed over its console (`init.sh`, dump and send); the
last whole one counts.
"""

import gzip
import io
import re
import tarfile

from enisle.errors import GuestError
from enisle.records import Record

BLOCK = 512
TOLD = re.compile(rb"=told (\d+)\r?\n")


class Task(Record):
    """One thread as /proc/PID/task/TID/status tells it."""

    name: str
    state: str
    tgid: int
    pid: int
    ppid: int
    uid: int
    euid: int
    threads: int


class Oracle(Record):
    """The guest's own view."""

    files: dict[str, bytes]

    @property
    def release(self) -> str:
        """What `uname -r` says."""
        return self.files["release"].decode().strip()

    @property
    def btf(self) -> bytes:
        """The kernel's types, raw (Documentation/bpf/btf); empty when it has none."""
        return self.files.get("btf", b"")

    def symbols(self) -> dict[str, list[int]]:
        """Return the kernel's symbols: name → addresses, those of modules left out."""
        found: dict[str, list[int]] = {}
        for line in self.files["kallsyms"].decode().splitlines():
            address, _, rest = line.split(" ", 2)
            name, _, module = rest.partition("\t")
            if not module:
                found.setdefault(name, []).append(int(address, 16))
        return found

    def tasks(self) -> list[Task]:
        """Return every thread of every process, kernel threads too."""
        return [_task(block) for block in self.files["status"].decode(errors="replace").split("Name:\t")[1:]]

    def modules(self) -> list[str]:
        """Return the names of the loaded modules."""
        return [line.split(" ", 1)[0] for line in self.files["modules"].decode().splitlines()]


def _task(block: str) -> Task:
    lines = block.splitlines()
    fields = dict(line.split(":", 1) for line in lines[1:] if ":" in line)
    uids = fields["Uid"].split()
    return Task(
        name=lines[0],
        state=fields["State"].strip()[0],
        tgid=int(fields["Tgid"]),
        pid=int(fields["Pid"]),
        ppid=int(fields["PPid"]),
        uid=int(uids[0]),
        euid=int(uids[1]),
        threads=int(fields["Threads"]),
    )


def read_oracle(stream: bytes) -> Oracle:
    """Return the last whole tar file of what came through the port. Raises GuestError when there is none."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(stream):
        archive, size = _read_archive(stream[at:])
        found, at = archive or found, at + size
    if not found:
        raise GuestError("the guest has told nothing of itself", f"{len(stream)} bytes came through its port")
    return Oracle(found)


def read_console(said: bytes) -> Oracle:
    """Return the last whole tar file among what a console said. Raises GuestError when there is none."""
    for mark in reversed([*TOLD.finditer(said)]):
        packed = said[mark.end() : mark.end() + int(mark[1])]
        if len(packed) == int(mark[1]):
            return read_oracle(gzip.decompress(packed))
    raise GuestError("the guest has told nothing of itself", f"{len(said)} bytes came over its console")


def _read_archive(stream: bytes) -> tuple[dict[str, bytes], int]:
    """Return the members of the first archive and its size in bytes; no members when it is cut short."""
    file = io.BytesIO(stream)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            members = {
                member.name.removeprefix("./"): content.read()
                for member in archive
                if (content := archive.extractfile(member)) is not None
            }
            end = archive.offset
    except (tarfile.TarError, EOFError):
        return {}, len(stream)
    # Two empty blocks end an archive; busybox writes nothing after them.
    if stream[end : end + 2 * BLOCK].strip(b"\0") or len(stream) < end + 2 * BLOCK:
        return {}, len(stream)
    return members, end + 2 * BLOCK
