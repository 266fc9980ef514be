"""QEMU's command line for a machine. Pure but for finding the program.

Every path in it is relative to the pen, QEMU's working directory; disks and memory come as descriptors.
"""

import fcntl
import os
import re
import shutil
import subprocess

from enisle.errors import HostError, StateError
from enisle.linuxvm.configuration import VmConfig

PROGRAM = "qemu-system-x86_64"
RAM = "ram"
"""The id of the memory backend; `info mtree` shows its ranges by this name."""
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
OLDEST = (7, 0)
MODELS = {
    "kvm": "host",
    # Linux 6.12 was seen to panic behind CMPXCHG16B under TCG of QEMU 7.2 (docs/decisions/015); it does well without.
    "tcg": "max,-cx16",
}


def find_qemu() -> str:
    """Return the path of the program. Raises HostError when it is missing."""
    path = shutil.which(PROGRAM)
    if path is None:
        raise HostError(f"{PROGRAM} is not installed", "full machines are run by it", "apt-get install qemu-system-x86")
    return path


def version(program: str) -> tuple[int, ...]:
    """Return QEMU's version. Raises HostError when the program does not tell, or is too old."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{program} does not run", str(error), "apt-get install --reinstall qemu-system-x86") from error
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)", said)
    if match is None:
        raise HostError(f"{program} tells no version", said[:80], "apt-get install --reinstall qemu-system-x86")
    found = tuple(int(part) for part in match.groups())
    if found < OLDEST:
        raise HostError(f"QEMU {said.split()[3]} is too old", "7.0 and newer are known to work", "install a newer one")
    return found


def command(program: str, config: VmConfig, accelerator: str, ram: int, disks: tuple[int, ...]) -> list[str]:
    """Return the words that start a machine. `ram` and `disks` (as `open_disks` made them) are inherited by QEMU."""
    words = [program, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-sandbox", SANDBOX]
    words += ["-name", config.name, "-accel", accelerator, "-cpu", config.cpu or MODELS[accelerator]]
    words += ["-smp", str(config.processors), "-m", f"{config.memory >> 20}M"]
    backend = f"memory-backend-file,id={RAM},size={config.memory},mem-path=/proc/self/fd/{ram},share=on"
    words += ["-object", backend, "-machine", f"q35,memory-backend={RAM},vmport=off"]
    words += ["-kernel", "kernel", "-append", config.append]
    words += ["-initrd", "initrd"] if config.initrd else []
    words += ["-chardev", "socket,id=qmp,path=qmp,server=on,wait=off", "-mon", "chardev=qmp,mode=control"]
    words += ["-chardev", "socket,id=console,path=console,server=on,wait=off,logfile=console.log,logappend=on"]
    words += ["-serial", "chardev:console"]
    left = iter(disks)
    for number, disk in enumerate(config.disks):
        for _ in range(2 if disk.writable else 1):
            words += ["-add-fd", f"fd={next(left)},set={number}"]
        readonly = "off" if disk.writable else "on"
        # Its own locks would be in its way: after a stream of its state it opens disks anew. `open_disks` locks.
        place = f"file.driver=file,file.filename=/dev/fdset/{number},file.locking=off"
        words += ["-drive", f"{place},format=raw,if=virtio,readonly={readonly}"]
    words += ["-device", "virtio-serial-pci"] if config.ports else []
    for name in config.ports:
        words += ["-chardev", f"file,id=port-{name},path=port-{name},append=on"]
        words += ["-device", f"virtserialport,chardev=port-{name},name={name}"]
    if config.gdb:
        words += ["-chardev", "socket,id=gdb,path=gdb,server=on,wait=off", "-gdb", "chardev:gdb"]
    return words + (["-S"] if config.paused else [])


def open_disks(config: VmConfig) -> list[int]:
    """Return the descriptors of the disks, locked. QEMU asks for one to read, and then for one to write.

    Raises StateError for a disk that another machine writes, or that this one would write and another reads.
    """
    opened: list[int] = []
    try:
        for disk in config.disks:
            for access in (os.O_RDONLY, os.O_RDWR) if disk.writable else (os.O_RDONLY,):
                opened.append(os.open(disk.path, access | os.O_CLOEXEC))
            # flock(2) belongs to the open file: it lasts as long as QEMU or the guardian has it.
            fcntl.flock(opened[-1], (fcntl.LOCK_EX if disk.writable else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BaseException as error:
        for descriptor in opened:
            os.close(descriptor)
        if isinstance(error, BlockingIOError):
            path = config.disks[-1].path if len(config.disks) == 1 else "one of the disks"
            hint = "--disk FILE:ro where nobody writes, or a copy of it"
            raise StateError(f"{path} is in use", "another machine has it, and one of the two writes", hint) from error
        raise
    return opened
