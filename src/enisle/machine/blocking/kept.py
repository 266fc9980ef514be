"""Measurements of this host's processors, kept until something that they depend on changes.

    PLACE/NAME-BACKEND     PLACE is $XDG_RUNTIME_DIR/enisle-measured, /run/enisle-measured for root,
                           else /tmp/enisle-measured-UID

What is kept counts for this boot, this KVM (its device and modules as they were loaded), microcode, Unicorn and Enisle
only; it is believed only in a file and a directory that nobody else may enter or write, with the sum of its content.
Anything else is as if there was nothing: the caller measures. Replaced by rename(2): no reader sees half of one.
Before the jail; any thread.
"""

import json
import os
import stat
from binascii import crc32
from importlib.util import find_spec
from typing import Any, cast

FORMAT = 1
LARGEST = 1 << 18
BOOT_ID = "/proc/sys/kernel/random/boot_id"
KVM = ("/dev/kvm", *(f"/sys/module/{name}" for name in ("kvm", "kvm_intel", "kvm_amd", "kvm_pvm")))
"""Made anew when a module is loaded again, perhaps with other parameters."""
OTHERS = 0o077


def place() -> str:
    """Return the path of the directory of this user's measurements."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        return f"{runtime}/enisle-measured"
    return "/run/enisle-measured" if os.geteuid() == 0 else f"/tmp/enisle-measured-{os.geteuid()}"


def recall(name: str, backend: str) -> Any:
    """Return what `keep` was given under the same circumstances, None when that is not certain."""
    now = circumstances(backend)
    if not now:
        return None
    try:
        directory = _open_place(make=False)
        try:
            text = _read(directory, f"{name}-{backend}")
        finally:
            os.close(directory)
        record = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return None
    if type(record) is not dict:
        return None
    record = cast("dict[str, Any]", record)
    if record.get("circumstances") != now or record.get("sum") != _sum(record.get("found")):
        return None
    return record["found"]


def keep(name: str, backend: str, found: Any) -> None:
    """Keep a measurement (lists, dictionaries, numbers, strings); on a host where that is impossible it is lost."""
    now = circumstances(backend)
    if not now:
        return
    record = {"circumstances": now, "sum": _sum(found), "found": found}
    file, temporary = f"{name}-{backend}", f".{name}-{backend}.{os.getpid()}"
    try:
        directory = _open_place(make=True)
    except OSError:
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(temporary, flags, 0o600, dir_fd=directory), "w", encoding="ascii") as written:
            json.dump(record, written)
        os.rename(temporary, file, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        pass
    finally:
        os.close(directory)


def circumstances(backend: str) -> list[str]:
    """Return what a measurement depends on; nothing where one boot cannot be told from the next."""
    from enisle import __version__

    try:
        with open(BOOT_ID, encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        return []
    about = [str(FORMAT), __version__, os.uname().release, boot, microcode()]
    if backend == "emulated":
        unicorn = find_spec("unicorn")
        return [*about, _identity((unicorn and unicorn.origin) or "")]
    return about + [_identity(path) for path in KVM]


def microcode() -> str:
    """Return the revision of the host's microcode, "" where Linux does not tell."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("microcode")), "")
    except OSError:
        return ""


def _identity(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_dev:x}:{status.st_ino:x}:{status.st_rdev:x}:{status.st_ctime_ns:x}"


def _sum(found: Any) -> int:
    return crc32(json.dumps(found).encode())


def _open_place(make: bool) -> int:
    """Return a descriptor of the directory. Raises OSError, also when it is not ours alone."""
    path = place()
    if make:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not _is_private(os.fstat(directory)):
        os.close(directory)
        raise PermissionError(path)
    return directory


def _read(directory: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not _is_private(status) or status.st_size > LARGEST:
            raise PermissionError(name)
        return file.read(LARGEST)


def _is_private(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & OTHERS
