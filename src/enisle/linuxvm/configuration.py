"""What a machine is to be, and whether it can be: checked before anything is made.

Promises: `validate` returns a configuration whose files can be read and whose sizes make sense, or raises
InvalidRequest saying which word is wrong. Pure but for looking at the files named.
"""

import os
import re
import secrets
import stat
import struct
from typing import Any

from enisle.errors import InvalidRequest
from enisle.records import Record

MIB = 1 << 20
LEAST_MEMORY, MOST_PROCESSORS, MOST_DISKS = 64 * MIB, 64, 16
ACCELERATORS = ("auto", "kvm", "tcg")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
PORT = re.compile(r"[a-z0-9-]{1,32}")


class Disk(Record):
    """A raw disk image."""

    path: str
    writable: bool = True


class VmConfig(Record):
    """A full Linux machine: kernel, what it boots with, and what it has."""

    kernel: str
    initrd: str = ""
    append: str = ""
    memory: int = 512 * MIB
    """Bytes."""
    processors: int = 1
    disks: tuple[Disk, ...] = ()
    accelerator: str = "auto"
    name: str = ""
    """Empty: one is made up."""
    cpu: str = ""
    """A processor model of QEMU's; empty: the best the accelerator does well."""
    ports: tuple[str, ...] = ()
    """Names of virtio ports; what the guest writes to one lands in a file (`VirtualMachine.port`)."""
    gdb: bool = False
    """Whether a debugger may be attached (`VirtualMachine.gdb`)."""
    paused: bool = False
    """Whether the processors wait for `resume`."""


def to_record(config: VmConfig) -> dict[str, Any]:
    """Return what JSON can hold of a configuration."""
    return config._asdict() | {"disks": [list(disk) for disk in config.disks], "ports": list(config.ports)}


def from_record(record: dict[str, Any]) -> VmConfig:
    """Return the configuration that `to_record` wrote."""
    values: dict[str, Any] = dict(record)
    values["disks"] = tuple(Disk(*disk) for disk in record["disks"])
    values["ports"] = tuple(record["ports"])
    return VmConfig(**values)


def validate(config: VmConfig) -> VmConfig:
    """Return the configuration with absolute paths and a name. Raises InvalidRequest."""
    _check_words(config)
    _check_sizes(config)
    kernel, initrd = os.path.abspath(config.kernel), config.initrd and os.path.abspath(config.initrd)
    check_kernel(kernel)
    if initrd and not _read_head(initrd, "initrd", 1):
        raise InvalidRequest(f"{initrd} is empty", "an initial RAM file system has files", "--initrd FILE")
    disks = tuple(_check_disk(disk) for disk in config.disks)
    name = config.name or f"vm-{secrets.token_hex(3)}"
    return config._replace(kernel=kernel, initrd=initrd, disks=disks, name=name)


def _check_words(config: VmConfig) -> None:
    if config.name and not NAME.fullmatch(config.name):
        raise InvalidRequest(
            f"a machine cannot be called {config.name!r}", "letters, digits and ._- make a name", "--name web-1"
        )
    if config.accelerator not in ACCELERATORS:
        raise InvalidRequest(
            f"there is no accelerator {config.accelerator!r}", f"known: {', '.join(ACCELERATORS)}", "--accelerator auto"
        )
    if "\0" in config.append or "\n" in config.append or len(config.append.encode()) > 2000:
        raise InvalidRequest(
            "the kernel cannot be given that command line", "it must be one line below 2,000 bytes", "--append TEXT"
        )
    if config.cpu and not re.fullmatch(r"[A-Za-z0-9_.,=+-]+", config.cpu):
        raise InvalidRequest(
            f"{config.cpu!r} is no processor model", "a model's name, then ,+feature or ,-feature", "--cpu max,-avx2"
        )
    for port in config.ports:
        if not PORT.fullmatch(port) or config.ports.count(port) > 1:
            raise InvalidRequest(
                f"a port cannot be called {port!r}", "small letters, digits and -, each name once", "--port NAME"
            )


def _check_sizes(config: VmConfig) -> None:
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if not LEAST_MEMORY <= config.memory <= there or config.memory % MIB:
        why = f"between 64M and this host's {there // MIB}M, in whole MiB"
        raise InvalidRequest(f"a machine cannot have {config.memory:,} bytes of memory", why, "--memory 512M")
    if not 1 <= config.processors <= MOST_PROCESSORS:
        raise InvalidRequest(
            f"a machine cannot have {config.processors} processors", f"1 to {MOST_PROCESSORS}", "--processors 2"
        )
    if len(config.disks) > MOST_DISKS:
        raise InvalidRequest(f"a machine cannot have {len(config.disks)} disks", f"at most {MOST_DISKS}", "--disk FILE")


def check_kernel(path: str) -> None:
    """Raise InvalidRequest unless QEMU can start that file as a kernel."""
    head = _read_head(path, "kernel", 0x300)
    # Documentation/arch/x86/boot.rst: boot flag and "HdrS", protocol 2.00 or newer
    if len(head) > 0x20A and head[0x1FE:0x200] == b"\x55\xaa" and head[0x202:0x206] == b"HdrS":
        return
    if head[:4] == b"\x7fELF":
        if len(head) > 20 and struct.unpack_from("<H", head, 18)[0] in (3, 62):
            return  # a vmlinux with a PVH note, or a multiboot image; QEMU says no to others
        raise InvalidRequest(
            f"{path} is no kernel for x86-64", "it is an ELF file of another processor", "--kernel of x86-64"
        )
    if b"\x02\xb0\xad\x1b" in head:
        return  # multiboot
    raise InvalidRequest(f"{path} is not a kernel", _what_else(head), "--kernel /boot/vmlinuz-…")


def _what_else(head: bytes) -> str:
    if not head:
        return "it is empty"
    for magic, what in ((b"!<arch>\n", "a Debian package: unpack it"), (b"\x1f\x8b", "a gzip file: unpack it")):
        if head.startswith(magic):
            return f"it is {what}"
    return "it looks like no kernel: it has no boot header, as a bzImage has, and is no ELF file"


def _read_head(path: str, what: str, size: int) -> bytes:
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise InvalidRequest(f"{path} is not a file", f"the {what} must be one", f"--{what} FILE")
        with open(path, "rb") as file:
            return file.read(size)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(f"cannot read the {what} {path}", why, f"--{what} FILE") from error


def _check_disk(disk: Disk) -> Disk:
    path = os.path.abspath(disk.path)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(f"cannot use the disk {path}", why, "--disk FILE[:ro]") from error
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise InvalidRequest(f"cannot use the disk {path}", "it is neither a file nor a block device", "--disk FILE")
    if not os.access(path, os.R_OK | (os.W_OK if disk.writable else 0)):
        raise InvalidRequest(f"cannot use the disk {path}", "you may not write it", f"--disk {path}:ro")
    return disk._replace(path=path)


def parse_disk(text: str) -> Disk:
    """Return the disk that FILE[:ro|:rw] names."""
    path, colon, mode = text.rpartition(":")
    if colon and mode in ("ro", "rw"):
        return Disk(path, mode == "rw")
    return Disk(text)
