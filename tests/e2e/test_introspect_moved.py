"""A guest that QEMU has moved into another QEMU: what was found before serves there, and nothing of it has changed."""

import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench.kernel_guest import TestGuest, differing_tasks, running

from enisle.introspect import Introspection, LiveGuest
from enisle.linuxvm import VirtualMachine, state
from enisle.linuxvm.qemu import command, find_qemu

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(300)]
KERNEL = os.environ.get("ENISLE_KERNEL", "6.1-cloud")


@contextmanager
def _another_qemu(machine: VirtualMachine, place: Path, incoming: socket.socket) -> Iterator[VirtualMachine]:
    """Start a QEMU of the same words that waits for a guest; it stands beside no guardian, but for its lock."""
    pen = place / state.PEN
    pen.mkdir(parents=True)
    for name in ("kernel", "initrd"):
        (pen / name).symlink_to(getattr(machine.config, name))
    ram = os.memfd_create("moved")
    os.ftruncate(ram, machine.config.memory)
    words = command(find_qemu(), machine.config, "tcg", ram, ())
    descriptors = (ram, incoming.fileno())
    qemu = subprocess.Popen([*words, "-incoming", f"fd:{descriptors[1]}"], cwd=pen, pass_fds=descriptors)
    record = state.try_read(machine.directory)
    assert record is not None
    moved = record._replace(name=place.name, guardian=qemu.pid, qemu=qemu.pid, ram=ram)
    state.write(place, moved)
    lock = os.open(place / state.LOCK, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        while not (pen / "qmp").exists():
            assert qemu.poll() is None
            time.sleep(0.02)
        yield VirtualMachine(place, moved)
    finally:
        qemu.kill()
        qemu.wait()
        os.close(lock)
        os.close(ram)


def _move(guest: TestGuest, outgoing: socket.socket) -> None:
    """Have QEMU send the guest, memory and all; it stands still here from then on."""
    with guest.machine.monitor(timeout=60) as monitor:
        monitor.execute("stop")
        everything = {"capability": "x-ignore-shared", "state": False}
        monitor.execute("migrate-set-capabilities", capabilities=[everything])
        monitor.execute("migrate-set-parameters", **{"max-bandwidth": 10 << 30})
        monitor.lend(outgoing.fileno(), "moving")
        monitor.execute("migrate", uri="fd:moving")
        while (status := monitor.execute("query-migrate")["status"]) in ("setup", "active", "device"):
            time.sleep(0.05)
        assert status == "completed"


def test_a_guest_moved_to_another_qemu_is_looked_into_with_what_was_found_before(tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    with running(KERNEL, "PROCESSES=60 MODULES=12") as guest:
        guest.dump()
        before = Introspection.attach(guest.guest, keep=keep)
        baseline, seen = before.baseline(), guest.ask()
        outgoing, incoming = socket.socketpair()
        with outgoing, incoming, _another_qemu(guest.machine, tmp_path / "moved", incoming) as machine:
            _move(guest, outgoing)
            with machine.monitor(timeout=60) as monitor:
                while not monitor.execute("query-status")["running"]:
                    monitor.execute("cont")
            after = Introspection.attach(LiveGuest(machine), keep=keep)
            assert after.kernel.cached
            assert [*after.kernel.facts] == [*before.kernel.facts]
            assert after.kernel.image.start == before.kernel.image.start
            assert differing_tasks(after, seen, seen) == []
            assert [module.name for module in after.modules().modules] == seen.modules()
            assert after.check(baseline).findings == ()
            with machine.connect("console") as connection:  # it lives on there
                connection.sendall(b'echo "moved and "alive\n')
                machine.wait_for_console("moved and alive", 60)
