"""The start of a machine: files into its pen, a guardian beside it, and the wait until QEMU answers.

Promises: a start that fails leaves nothing behind and tells what QEMU said; whatever kills the starter on the way, the
guardian ends (its pipe closes) or the next look sweeps.
"""

import errno
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from enisle.errors import EnisleError, HostError, StateError
from enisle.linuxvm import state
from enisle.linuxvm.accelerator import choose
from enisle.linuxvm.configuration import VmConfig, to_record, validate
from enisle.linuxvm.monitor import Monitor
from enisle.linuxvm.qemu import find_qemu, open_disks, version

PATIENCE = 60.0
"""Seconds QEMU has to answer its monitor: a second when the host is idle."""


class Started:
    """A machine that runs, and for an attached one the hold on its guardian."""

    def __init__(
        self, directory: Path, record: state.MachineRecord, notes: tuple[str, ...], alive: int, report: int
    ) -> None:
        self.directory = directory
        self.record = record
        self.notes = notes
        self.attached = not record.detached
        self._alive = alive
        """The end of the pipe that keeps an attached machine alive, or -1."""
        self._report = report
        self._heard = b""
        self._reason: str | None = None
        self._listening = threading.Lock()
        """Held by the one thread that reads what the guardian says."""
        self._guardian: subprocess.Popen[bytes] | None = None

    def adopt(self, guardian: "subprocess.Popen[bytes]") -> None:
        """Take the guardian as a child to be waited for."""
        self._guardian = guardian

    def line(self, timeout: float | None) -> str | None:
        """Return the guardian's next line, "" when it is gone, None when `timeout` seconds were not enough."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._heard:
            if self._report < 0:
                return ""
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._report], [], [], left)[0]:
                return None
            part = os.read(self._report, 4096)
            if not part:
                return ""
            self._heard += part
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode(errors="replace")

    def wait(self, timeout: float | None) -> str | None:
        """Wait for the end of an attached machine; return the reason, or None."""
        if not self._listening.acquire(timeout=-1 if timeout is None else timeout):
            return self._reason  # another thread waits for it already
        try:
            if self._reason is None:
                line = self.line(timeout)
                if line is None:
                    return None
                self._reason = line.removeprefix("ended ") or "its guardian was killed"
                if self._guardian is not None:
                    self._guardian.wait()
            return self._reason
        finally:
            self._listening.release()

    def let_go(self) -> None:
        """Leave a detached machine to itself."""
        os.close(self._report)
        self._report = -1

    def close(self) -> None:
        """End an attached machine; wait until nothing is left of it."""
        if self._alive >= 0:
            os.close(self._alive)
            self._alive = -1
        if self.attached and self._report >= 0:
            self.wait(None)
            os.close(self._report)
            self._report = -1
            if state.try_read(self.directory) is not None:
                with state.registry() as base:
                    state.sweep(base)  # its guardian was killed

    def abandon(self) -> None:
        """Undo a start that failed."""
        if self.attached:
            self.close()
            return
        self.let_go()
        deadline = time.monotonic() + PATIENCE
        while state.is_alive(self.directory) and time.monotonic() < deadline:
            record = state.try_read(self.directory)
            if record is not None and record.guardian:
                _ask_to_end(record.guardian)
            time.sleep(0.02)
        with state.registry():
            if not state.is_alive(self.directory):
                shutil.rmtree(self.directory, ignore_errors=True)


def _ask_to_end(guardian: int) -> None:
    try:
        os.kill(guardian, signal.SIGTERM)
    except ProcessLookupError:
        pass  # just now


def start(config: VmConfig, detached: bool, progress: Callable[[str], None]) -> Started:
    """Start a machine. Raises InvalidRequest, StateError or HostError."""
    config = validate(config)
    program = find_qemu()
    version(program)
    accelerator, notes = choose(program, config.accelerator, progress)
    record = state.MachineRecord(config.name, "starting", detached, accelerator, to_record(config), -1)
    directory, lock = state.claim(record)
    progress("starting QEMU")
    try:
        record = state.try_read(directory) or record
        _fill(directory / state.PEN, config, record.user)
        started = _spawn(directory, record, config, notes, lock)
    except BaseException as error:
        shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, OSError):
            raise _explain(error, directory) from error
        raise
    finally:
        os.close(lock)
    try:
        _wait_until_ready(started)
    except BaseException:
        started.abandon()
        raise
    if detached:
        started.let_go()
    return started


def _fill(pen: Path, config: VmConfig, user: int) -> None:
    """Copy what QEMU reads, so that it need not see where it comes from."""
    shutil.copyfile(config.kernel, pen / "kernel")
    if config.initrd:
        shutil.copyfile(config.initrd, pen / "initrd")
    if os.geteuid() == 0:
        for path in (pen, *pen.iterdir()):
            os.chown(path, user, user)


def _spawn(
    directory: Path, record: state.MachineRecord, config: VmConfig, notes: tuple[str, ...], lock: int
) -> Started:
    with ExitStack() as inherited:
        disks = open_disks(config)
        for disk in disks:
            inherited.callback(os.close, disk)
        report, report_there = os.pipe2(os.O_CLOEXEC)
        inherited.callback(os.close, report_there)
        alive_there, alive = (-1, -1) if record.detached else os.pipe2(os.O_CLOEXEC)
        if alive_there >= 0:
            inherited.callback(os.close, alive_there)
        descriptors = [lock, report_there, *((alive_there,) if alive_there >= 0 else ()), *disks]
        words = [sys.executable, "-m", "enisle.linuxvm.guardian", str(directory), str(lock), str(alive_there)]
        words += [str(report_there), *(str(disk) for disk in disks)]
        log = os.open(directory / state.LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        inherited.callback(os.close, log)
        guardian = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            pass_fds=descriptors,
            start_new_session=True,
            cwd="/",
        )
    started = Started(directory, record, notes, alive, report)
    if record.detached:
        guardian.wait()  # its child goes on
    else:
        started.adopt(guardian)
    return started


def _wait_until_ready(started: Started) -> None:
    deadline = time.monotonic() + PATIENCE
    line = started.line(PATIENCE)
    if line != "started":
        late = f"{PATIENCE:g} seconds were not enough"
        why = late if line is None else line or state.last_words(started.directory)
        raise HostError("QEMU cannot be started", why, "run `enisle doctor`")
    started.record = state.try_read(started.directory) or started.record
    while time.monotonic() < deadline:
        if (line := started.line(0.01)) is not None:
            raise _explain_end(line)
        if not (started.directory / state.PEN / "qmp").exists():
            continue
        try:
            with Monitor(started.directory / state.PEN / "qmp", timeout=deadline - time.monotonic()) as monitor:
                monitor.execute("query-status")
            return
        except StateError:
            continue  # it is about to listen, or about to end
    raise HostError("QEMU does not answer", f"not within {PATIENCE:g} seconds", "is the host very busy?")


def _explain_end(line: str) -> EnisleError:
    reason = line.removeprefix("ended ") or "its guardian was killed"
    hint = "another --cpu, or --accelerator tcg"
    if "PVH" in reason:
        hint = "--kernel with a bzImage"
    elif "CPU model" in reason:
        hint = "qemu-system-x86_64 -cpu help lists the models"
    return HostError("QEMU ended at once", reason, hint)


def _explain(error: OSError, directory: Path) -> HostError:
    hint = f"make room on the disk of {directory}" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "enisle doctor"
    return HostError("cannot prepare the machine", f"{error.filename or directory}: {error.strerror}", hint)
