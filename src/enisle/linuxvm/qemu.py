"""QEMU's command line for a machine. Pure but for finding the program.

Every path in it is relative to the pen, QEMU's working directory; disks and memory come as descriptors.
"""

import re
import shutil
import subprocess

from enisle.errors import HostError
from enisle.linuxvm.configuration import VmConfig

PROGRAM = "qemu-system-x86_64"
RAM = "ram"
"""The id of the memory backend; `info mtree` shows its ranges by this name."""
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
OLDEST = (7, 0)
MODELS = {
    "kvm": "host",
    # Up to 8.0 TCG leaves RFLAGS undefined after CMPXCHG16B for an interrupt to see; without the feature Linux does
    # without the instruction (docs/decisions/022).
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
    """Return the words that start a machine. `ram` and `disks` are descriptors QEMU inherits."""
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
    for number, (disk, descriptor) in enumerate(zip(config.disks, disks, strict=True)):
        words += ["-add-fd", f"fd={descriptor},set={number}"]
        readonly = "off" if disk.writable else "on"
        words += ["-drive", f"file=/dev/fdset/{number},format=raw,if=virtio,readonly={readonly}"]
    words += ["-device", "virtio-serial-pci"] if config.ports else []
    for name in config.ports:
        words += ["-chardev", f"file,id=port-{name},path=port-{name}"]
        words += ["-device", f"virtserialport,chardev=port-{name},name={name}"]
    if config.gdb:
        words += ["-chardev", "socket,id=gdb,path=gdb,server=on,wait=off", "-gdb", "chardev:gdb"]
    return words + (["-S"] if config.paused else [])
