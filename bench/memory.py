"""Private memory of an idle sandbox: what it would give back if it were gone, over all its host processes."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

from bench.sides import ENVIRONMENT, Side, Unmeasurable

MIB = 1 << 20


def descendants(root: int) -> list[int]:
    """Return `root` and every process beneath it, of the host."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def private_bytes(pid: int) -> int:
    """Return the bytes only `pid` has in memory (Private_Clean + Private_Dirty of smaps_rollup)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) << 10 for kib in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+) kB", text, re.MULTILINE))


def private_memory(side: Side) -> float:
    """Start a sandbox that sleeps and return its private memory in MiB once it stands still. Raises Unmeasurable."""
    with subprocess.Popen(
        [*side.prefix, "/bin/sleep", "30"],
        stdin=subprocess.PIPE,  # not /dev/null: see `sides.Side.run`
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=ENVIRONMENT,
        cwd="/",
        start_new_session=True,
    ) as process:
        time.sleep(1.5)
        if process.poll() is not None:
            raise Unmeasurable(f"ended at once with status {process.returncode}")
        pids = descendants(process.pid)
        try:
            return sum(map(private_bytes, pids)) / MIB
        finally:
            for pid in reversed(pids):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # it went with its parent
