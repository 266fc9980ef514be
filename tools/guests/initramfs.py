"""The initial RAM file system of a test guest: static busybox, `init.sh`, a kernel's modules, our programs.

Built by us byte for byte, so the same input gives the same file; kept beside the kernel it is for.
"""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from enisle.errors import HostError
from guests.cpio import CpioWriter
from guests.kernels import Kernel

HERE = Path(__file__).resolve().parent
PT_INTERP = 3
PROGRAMS = ("crowd", "uart")


def initramfs(kernel: Kernel, files: Mapping[str, bytes] | None = None) -> Path:
    """Return the initial RAM file system for a kernel, with further executable `files` by path in the guest."""
    members = _members(kernel) | dict(files or {})
    order = "".join(f"{path.name}\n" for path in kernel.modules)
    digest = hashlib.sha256(order.encode())
    for name, content in sorted(members.items()):
        digest.update(b"%s\0%d\0" % (name.encode(), len(content)))
        digest.update(content)
    place = kernel.image.parent / f"initramfs-{digest.hexdigest()[:16]}.gz"
    if not place.exists():
        _write(place, members, order)
    return place


def module_order(kernel: Kernel) -> list[str]:
    """Return the names of the kernel's modules in loading order, as /proc/modules spells them."""
    return [path.stem for path in kernel.modules]


def _members(kernel: Kernel) -> dict[str, bytes]:
    members = {"init": (HERE / "init.sh").read_bytes(), "bin/busybox": _busybox()}
    members |= {f"bin/{name}": _compiled(name) for name in PROGRAMS}
    return members | {f"mod/{path.name}": path.read_bytes() for path in kernel.modules}


def _write(place: Path, members: Mapping[str, bytes], order: str) -> None:
    archive = io.BytesIO()
    writer = CpioWriter(archive)
    parents = {"/".join(name.split("/")[:depth]) for name in members for depth in range(1, name.count("/") + 1)}
    for directory in sorted({"dev", "proc", "sys", "tmp", *parents}):
        writer.add_directory(directory)
    writer.add_device("dev/console", 5, 1)
    for name, content in members.items():
        writer.add_file(name, content, 0o755)
    for applet in _applets():
        if f"bin/{applet}" not in members:
            writer.add_link(f"bin/{applet}", "busybox")
    writer.add_file("mod/order", order.encode())
    writer.close()
    with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as file:
        file.write(gzip.compress(archive.getvalue(), 1, mtime=0))
    os.chmod(file.name, 0o644)
    os.rename(file.name, place)


def _busybox_path() -> str:
    path = shutil.which("busybox")
    if path is None:
        raise HostError("there is no busybox", "test guests need a static one", "apt-get install busybox-static")
    return path


def _busybox() -> bytes:
    code = Path(_busybox_path()).read_bytes()
    if is_dynamic(code):
        raise HostError("busybox is not static", "a guest has no C library", "apt-get install busybox-static")
    return code


def is_dynamic(code: bytes) -> bool:
    """Whether an ELF file asks for an interpreter (elf(5): a program header of type PT_INTERP)."""
    start, size, count = (int.from_bytes(code[at : at + width], "little") for at, width in ((32, 8), (54, 2), (56, 2)))
    kinds = (int.from_bytes(code[start + n * size : start + n * size + 4], "little") for n in range(count))
    return PT_INTERP in kinds


def _applets() -> list[str]:
    return subprocess.run([_busybox_path(), "--list"], check=True, capture_output=True, text=True).stdout.split()


def _compiled(name: str) -> bytes:
    """Compile a program once per source."""
    source = HERE / f"{name}.c"
    key = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    from guests.kernels import kernel_directory

    place = kernel_directory() / f"{name}-{key}"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as directory:
            program = f"{directory}/{name}"
            command = ["gcc", "-static", "-O2", "-pthread", "-o", program, str(source)]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True)
            except (OSError, subprocess.CalledProcessError) as error:
                why = getattr(error, "stderr", "") or str(error)
                raise HostError(
                    f"cannot compile tools/guests/{name}.c", why[-300:], "apt-get install gcc libc6-dev"
                ) from error
            os.rename(program, place)
    return place.read_bytes()
