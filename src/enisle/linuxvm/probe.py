"""A guest of 262 bytes that does what every kernel does: it enters long mode, runs in ring 0 and ring 3, and returns.

It ends QEMU by a status of its own. On a KVM that emulates ring 0 some step fails, hangs, or SYSCALL stays in ring 3.
"""

import os
import subprocess
import tempfile

from enisle.linuxvm.qemu import MODELS, SANDBOX

LIMIT = 5.0
"""Seconds; it takes a fifth of one, most of it QEMU's start and the firmware."""
PASSED, RING = 0x10, 0x11
STATUS = {value: value << 1 | 1 for value in (PASSED, RING)}
"""The exit status isa-debug-exit makes of a byte (hw/misc/debugexit.c)."""

IMAGE = bytes.fromhex(
    # Multiboot header: the file lies at 1 MiB, memory up to 0x10C000 is cleared, the entry is at 0x100020.
    "02b0ad1b 00000100 fe4f51e4 00001000 00001000 00000000 00c01000 20001000"
    # One 2 MiB page at 0 for ring 3 too: tables at 0x109000, 0x10A000, 0x10B000.
    "bc00801000 c7050090100007a01000 c70500a0100007b01000 c70500b0100087000000"
    # CR4.PAE, CR3, EFER.LME and SCE, CR0.PG, WP and PE
    "0f20e0 83c820 0f22e0 b800901000 0f22d8 b9800000c0 0f32 0d01010000 0f30 0f20c0 0d01000180 0f22c0"
    # lgdt, far jump into 64-bit code, data segments
    "0f011500011000 ea7b0010000800 b810000000 8ed8 8ec0 8ed0"
    # STAR: kernel 8, user 0x10 + …; LSTAR: below
    "b9810000c0 31c0 ba08001000 0f30 ffc1 b8c6001000 31d2 0f30"
    # cpuid; lock cmpxchg16b [rsp - 16]; sysretq to ring 3
    "31c0 0fa2 f0480fc74c24f0 b9b8001000 41bb02000000 480f07"
    # In ring 3: is this ring 3? Then syscall. Otherwise, and when it returns, say 0x11.
    "8cc8 2403 3c03 7502 0f05 b011 eb08"
    # At LSTAR: is this ring 0? Then say 0x10 to port 0x501, and stay.
    "8cc8 a803 75f6 b010 ba01050000 ee f4 ebfd 90"
    # The GDT: null, code and data of ring 0, data and code of ring 3; its descriptor
    "0000000000000000 ffff0000009baf00 ffff00000093cf00 ffff000000f3cf00 ffff000000fbaf00 2700 d8001000"
)


def run_probe(program: str, accelerator: str, limit: float = LIMIT) -> str | None:
    """Run the guest; return None when it did everything, else what went wrong, in the user's terms."""
    model = MODELS[accelerator] if accelerator == "kvm" else "max"  # it needs cmpxchg16b
    words = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35", "-m", "16"]
    words += ["-accel", accelerator, "-cpu", model, "-sandbox", SANDBOX]
    words += ["-device", "isa-debug-exit,iobase=0x501,iosize=1"]
    with tempfile.NamedTemporaryFile(prefix="enisle-probe-") as image:
        image.write(IMAGE)
        image.flush()
        try:
            done = subprocess.run(
                [program, *words, "-kernel", image.name],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=limit,
                env={"PATH": os.defpath, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired as expired:
            said = (expired.stderr or b"").decode(errors="replace")
            return "it cannot run a kernel's instructions" if "internal error" in said else "a tiny kernel hung on it"
        except OSError as error:
            return error.strerror or str(error)
    if done.returncode == STATUS[PASSED]:
        return None
    if done.returncode == STATUS[RING]:
        return "a system call does not enter the kernel's ring"
    lines = [line.partition(": ")[2] for line in done.stderr.decode(errors="replace").splitlines() if ": " in line]
    return lines[0].removeprefix("error: ") if lines else f"QEMU ended with {done.returncode}"
