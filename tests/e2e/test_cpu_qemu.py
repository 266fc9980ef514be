"""The same value for a full guest: Linux under QEMU's own processor prints the flags that the value derives."""

import gzip
import io
import re
import subprocess
from pathlib import Path

import pytest
from guests.cpio import CpioWriter

from enisle.machine import Queries, find_value
from enisle.machine.blocking import dumps, qemu
from guest_kernels import guest_kernel

pytestmark = pytest.mark.qemu
INIT = """
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <unistd.h>

int main(void)
{
    static char text[65536];
    mount("proc", "/proc", "proc", 0, 0);
    int fd = open("/proc/cpuinfo", O_RDONLY);
    for (ssize_t size; (size = read(fd, text, sizeof text)) > 0;)
        if (write(1, text, size) < 0)
            break;
    sync();
    reboot(RB_POWER_OFF);
}
"""
OF_THE_SYSTEM = {
    "tsc_known_freq",
    "xtopology",
    "rep_good",
    "nopl",
    "cpuid",
    "cpuid_fault",
    "pti",
    "constant_tsc",
    "nonstop_tsc",
}
"""What the guest's Linux adds or leaves out by itself, whatever the processor says."""


def initramfs(place: Path) -> Path:
    (place / "init.c").write_text(INIT)
    subprocess.run(["gcc", "-O1", "-static", "-o", place / "init", place / "init.c"], check=True)
    archive = io.BytesIO()
    writer = CpioWriter(archive)
    writer.add_directory("dev")
    writer.add_directory("proc")
    writer.add_device("dev/console", 5, 1)
    writer.add_file("init", (place / "init").read_bytes(), 0o755)
    writer.close()
    (place / "initramfs.gz").write_bytes(gzip.compress(archive.getvalue(), 1))
    return place / "initramfs.gz"


def cpuinfo(words: str, place: Path) -> str:
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", words, "-m", "256M", "-nodefaults", "-display", "none"]
    command += [
        "-serial",
        "stdio",
        "-no-reboot",
        "-kernel",
        str(guest_kernel().image),
        "-initrd",
        str(initramfs(place)),
    ]
    done = subprocess.run([*command, "-append", "console=ttyS0 quiet panic=-1"], capture_output=True, timeout=100)
    assert b"doesn't support" not in done.stderr, done.stderr
    return done.stdout.decode(errors="replace").replace("\r", "")


@pytest.mark.parametrize("name", ["x86-64-v1", "x86-64-v2"])
def test_linux_under_qemu_sees_the_value(name: str, tmp_path: Path) -> None:
    queries = Queries(find_value(name), dumps.take("emulated"))
    text = cpuinfo(qemu.cpu_words(queries), tmp_path)
    flags = set(re.findall(r"^flags\s*: (.*)$", text, re.MULTILINE)[0].split())
    assert flags - OF_THE_SYSTEM == set(queries.flags) - OF_THE_SYSTEM
    assert f"vendor_id\t: {queries.host.vendor}\n" in text
    assert [
        int(re.findall(rf"^{key}\s*: (\d+)$", text, re.MULTILINE)[0]) for key in ("cpu family", "model", "stepping")
    ] == list(queries.host.model)
