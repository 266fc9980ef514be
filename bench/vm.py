"""Full machines measured: `python -m bench.vm [NAME…]` boots kernels of tools/kernels.toml, one after the other.

Without names the small set; --all the whole matrix. Prints a line each: seconds until QEMU answers and until the guest
is ready, milliseconds of each look into it (median of RUNS), and checks LSTAR against the guest's own symbols.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import guests

from bench.kernel_guest import told
from enisle.errors import EnisleError
from enisle.linuxvm import VirtualMachine, VmConfig

RUNS = 10
APPEND = "console=ttyS0 panic=-1 quiet PROCESSES=200 MODULES=12 DUMP=1"
HEAD = ("kernel", "start s", "ready s", "msrs ms", "registers ms", "map ms", "dump s", "dump MiB", "guardian MiB")


def main(words: Sequence[str]) -> int:
    """Measure; return 1 when a kernel failed."""
    entries = guests.read_manifest()
    names = list(entries) if "--all" in words else list(words) or [name for name in entries if entries[name].small]
    print("\t".join(HEAD))
    failed = False
    for name in names:
        try:
            print("\t".join(measure(name)), flush=True)
        except EnisleError as error:
            failed = True
            print(f"{name}\tfailed: {error}".replace("\n", " "), flush=True)
    return int(failed)


def measure(name: str) -> list[str]:
    """Return the line of one kernel."""
    kernel = guests.get(name)
    config = VmConfig(str(kernel.image), str(guests.initramfs(kernel)), APPEND, accelerator="tcg", ports=("oracle",))
    begin = time.monotonic()
    with VirtualMachine.start(config) as machine:
        started = time.monotonic() - begin
        machine.wait_for_console("=ready", 300)
        ready = time.monotonic() - begin
        oracle = told(machine)
        entry = oracle.symbols()["entry_SYSCALL_64"]
        assert oracle.release == kernel.release, (oracle.release, kernel.release)
        assert [machine.msrs()[0][0xC0000082]] == entry, (machine.msrs()[0], entry)
        looks = [median_ms(look) for look in (machine.msrs, machine.registers, machine.memory_map)]
        place = Path(tempfile.mkdtemp(dir=os.path.expanduser("~"))) / "saved"
        try:
            saved = machine.dump(place)
        finally:
            shutil.rmtree(place.parent)
        guardian = int(Path(f"/proc/{machine.status().pid}/stat").read_text().rpartition(")")[2].split()[1])
        pages = int(Path(f"/proc/{guardian}/statm").read_text().split()[1])
    figures = [started, ready, *looks, saved.seconds, saved.written / 2**20, pages * 4096 / 2**20]
    return [f"{name} {kernel.release}", *(f"{figure:.2f}" for figure in figures)]


def median_ms(look: Callable[[], object]) -> float:
    """Return the median of several runs in milliseconds."""

    def once() -> float:
        begin = time.perf_counter()
        look()
        return (time.perf_counter() - begin) * 1000

    return statistics.median(once() for _ in range(RUNS))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
