"""The process that stands behind one machine: it starts QEMU in its pen, waits for its end, and tidies up.

Started as `python -m enisle.linuxvm.guardian DIRECTORY LOCK ALIVE REPORT DISK…` with those descriptors inherited.
Promises: QEMU ends when its guardian does, and when the caller of an attached machine does (ALIVE reads as ended);
memory goes with the processes, files with the guardian. One thread.
"""

import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from enisle.errors import EnisleError
from enisle.linuxvm import pen, state
from enisle.linuxvm.configuration import from_record
from enisle.linuxvm.qemu import command, find_qemu

CONSOLE_BYTES, PORT_BYTES, LOG_BYTES = 8 << 20, 256 << 20, 1 << 20
"""What is kept of the console's output, a port's, and QEMU's own: of a file that grows beyond, the older half goes."""
HOLD, MARK = "hold.lock", "stopped-for-a-moment"
"""A lock held while processors stand still for a look, and the mark that they are to run again."""
TICK_MS = 2000
PATIENCE = 5.0
"""Seconds QEMU has to write its disks back when it is told to end."""


def main(words: list[str]) -> int:
    """Guard one machine to its end."""
    directory = Path(words[0])
    lock, alive, report, *disks = (int(word) for word in words[1:])
    if alive < 0 and os.fork():
        os._exit(0)  # a detached machine is nobody's child
    record = state.try_read(directory)
    if record is None:
        return 1
    for descriptor in (lock, report, *((alive,) if alive >= 0 else ())):
        os.set_inheritable(descriptor, False)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        record = _start(directory, record, disks)
    except OSError as error:
        _tell(report, f"failed {error.filename or 'QEMU'}: {error.strerror}")
        return 1
    _tell(report, "started")
    status, asked = _guard(directory, record, alive)
    reason = _reason(directory, status, asked)
    _tidy(directory, record, reason)
    os.close(lock)
    _tell(report, f"ended {reason}")
    return 0


def _tell(report: int, text: str) -> None:
    try:
        os.write(report, text.encode() + b"\n")
    except OSError:
        pass  # the starter is gone


def _start(directory: Path, record: state.MachineRecord, disks: list[int]) -> state.MachineRecord:
    config = from_record(record.config)
    ram = os.memfd_create(f"vm-{record.name}", 0)
    os.ftruncate(ram, config.memory)
    place = directory / state.PEN
    words = command(find_qemu(), config, record.accelerator, ram, tuple(disks))
    jail = f"name spaces, {'a user of its own, ' if os.geteuid() == 0 else ''}seccomp"
    try:
        pen.enter_process_space()
    except OSError:
        jail = "seccomp alone: this host forbids name spaces to ordinary users"
    child = os.fork()
    if child == 0:
        _become_qemu(words, str(place), record, jail.startswith("name"))
    os.set_inheritable(ram, False)
    started = record._replace(
        state="running", guardian=os.getpid(), qemu=child, ram=ram, started=time.time(), jail=jail
    )
    state.write(directory, started)
    return started


def _become_qemu(words: list[str], place: str, record: state.MachineRecord, walls: bool) -> NoReturn:
    try:
        os.dup2(2, 1)  # qemu.log
        for signo in (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signo, signal.SIG_DFL)
        if walls:
            pen.enter(place, words[0], record.user, record.accelerator == "kvm")
        else:
            os.chdir(place)
            pen.give_up_rights(record.user)
        os.execve(words[0], words, {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": "/"})
    except BaseException as error:
        os.write(2, f"enisle: cannot enter the pen: {error}\n".encode())
    os._exit(126)


def _guard(directory: Path, record: state.MachineRecord, alive: int) -> tuple[int, bool]:
    """Wait for QEMU's end; return its wait status and whether we were asked for it."""
    watched = select.poll()
    handle = os.pidfd_open(record.qemu)
    watched.register(handle, select.POLLIN)
    if alive >= 0:
        watched.register(alive, select.POLLIN)
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda signo, frame: asked.append(signo))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    deadline = None
    while True:
        events = dict(watched.poll(TICK_MS if deadline is None else 100))
        if handle in events:
            return os.waitpid(record.qemu, 0)[1], bool(asked)
        if alive in events and not asked:
            asked.append(0)
            watched.unregister(alive)
        if asked:
            deadline = deadline or time.monotonic() + PATIENCE
            # Again each time: until QEMU has its handler it does not hear it, as the first process of its name space.
            os.kill(record.qemu, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
        if deadline is None:
            _trim_all(directory)
            resume_abandoned(directory)


def _trim_all(directory: Path) -> None:
    """Keep a guest that writes without end from filling the host's disk."""
    trim(directory / state.PEN / "console.log", CONSOLE_BYTES)
    trim(directory / state.LOG, LOG_BYTES)
    for port in (directory / state.PEN).glob("port-*"):
        trim(port, PORT_BYTES)


def trim(path: Path, most: int) -> None:
    """Cut the older half off a file that has grown too long; QEMU appends, so it goes on after what is left."""
    try:
        if path.stat().st_size <= most:
            return
        with path.open("r+b") as file:
            file.seek(-most // 2, os.SEEK_END)
            kept = file.read()
            file.seek(0)
            file.write(kept)
            file.truncate()
    except OSError:
        pass  # gone, or the disk is full: the next tick tries again


def resume_abandoned(directory: Path) -> None:
    """Let processors run again that somebody stopped for a moment and was killed before letting them go."""
    if not (directory / MARK).exists():
        return
    from enisle.linuxvm.monitor import execute_alone, lock_within

    try:
        lock = lock_within(directory / HOLD, 0)
    except EnisleError:
        return  # its holder lives
    try:
        if (directory / MARK).exists():
            # unshare(2): after CLONE_NEWPID this process can have no further threads, so not by `Monitor`.
            execute_alone(directory / state.PEN / "qmp", "cont", TICK_MS / 1000)
            (directory / MARK).unlink(missing_ok=True)
    except EnisleError:
        pass  # QEMU is ending, or hangs: then nothing runs anyway
    finally:
        os.close(lock)


def _reason(directory: Path, status: int, asked: bool) -> str:
    if asked or (directory / "stopping").exists():
        return "stopped"
    if os.WIFSIGNALED(status):
        return f"QEMU was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    if os.WEXITSTATUS(status) == 0:
        return "the guest powered off or restarted"
    return f"QEMU ended with {os.WEXITSTATUS(status)}: {state.last_words(directory)}"


def _tidy(directory: Path, record: state.MachineRecord, reason: str) -> None:
    with state.registry():
        if record.detached:
            try:
                state.close(directory, record, reason)
            except OSError:
                pass  # no room even for that: whoever looks next finds it dead and sweeps
        else:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
