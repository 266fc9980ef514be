"""What runs a machine's processors: the host's KVM, or QEMU's translator (TCG) where that KVM cannot run a kernel.

A software KVM may open, make machines and run ring 3, and yet fail in ring 0. So a tiny guest is run on it (`probe`)
with a time limit; what was found holds until the host starts anew, and is kept in the user's cache.
"""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from enisle.errors import HostError
from enisle.linuxvm.probe import run_probe
from enisle.records import Record

DEVICE = "/dev/kvm"


class Finding(Record):
    """Whether KVM runs kernels here, and why not."""

    able: bool
    why: str


def choose(program: str, wanted: str, progress: Callable[[str], None]) -> tuple[str, tuple[str, ...]]:
    """Return the accelerator to use and notes for the user. Raises HostError when KVM is wanted and cannot."""
    if wanted == "tcg":
        return "tcg", ()
    found = examine(program, progress)
    if found.able:
        return "kvm", ()
    if wanted == "kvm":
        raise HostError("KVM cannot run this machine", found.why, "--accelerator tcg")
    return "tcg", (f"KVM cannot be used here ({found.why}); QEMU translates instead, ten to fifty times slower",)


def examine(program: str, progress: Callable[[str], None]) -> Finding:
    """Return whether KVM runs kernels on this host, by what is known or by trying."""
    if not os.path.exists(DEVICE):
        return Finding(False, f"there is no {DEVICE}")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return Finding(False, f"you may not open {DEVICE}")
    key = _key(program)
    place = _cache()
    try:
        kept = json.loads(place.read_text())
        if kept["key"] == key:
            return Finding(bool(kept["able"]), str(kept["why"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    progress("finding out whether KVM runs kernels here")
    why = run_probe(program, "kvm")
    found = Finding(why is None, why or "")
    _keep(place, {"key": key, **found._asdict()})
    return found


def _key(program: str) -> list[str]:
    """What a finding rests on: this boot of the host, this QEMU."""
    details = os.stat(program)
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return [boot, program, str(details.st_mtime_ns), str(details.st_size)]


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "enisle" / "kvm-runs-kernels.json"


def _keep(place: Path, content: dict[str, object]) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False) as file:
            json.dump(content, file)
        os.replace(file.name, place)
    except OSError:
        pass  # then it is tried again next time
