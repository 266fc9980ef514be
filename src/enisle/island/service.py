"""The island process of the SDK: serves its control channel until the caller closes it or dies.

Requests are `{"id", "call", …}`; every one gets exactly one answer `{"id", "ok": …}` or `{"id", "error": {…}}`, in any
order: "wait" is answered when the command ends. The main thread receives; each command has a thread that waits.
"""

import os
import signal
import socket
import stat
import sys
import threading
from typing import Any

from enisle.errors import EnisleError, InvalidRequest, NotFound, StateError
from enisle.island.channel import Channel, Message
from enisle.island.configuration import from_record, validate
from enisle.island.process import Command, IslandProcess, as_record
from enisle.island.tracebacks import report
from enisle.kernel import Process

OPENING = {"read": os.O_RDONLY, "write": os.O_WRONLY | os.O_CREAT | os.O_TRUNC}


def main() -> None:
    """Serve the control channel whose descriptor is the first argument."""
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    for signo in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(signo, signal.SIG_IGN)  # the caller's terminal is the caller's business
    first = channel.receive()
    if first is None:
        os._exit(0)
    try:
        island = IslandProcess(validate(from_record(first[0]["configuration"])), _print_line, _print_line)
    except Exception as error:
        channel.send({"id": 0, "error": describe(error)})
        os._exit(1)
    channel.send({"id": 0, "ok": {"pid": os.getpid(), "backend": island.machine.backend, "notes": island.notes()}})
    Service(island, channel).serve()
    island.leave()
    os._exit(0)  # the host takes processes, memory and mounts back faster than we could


def _print_line(line: str) -> None:
    os.write(2, f"{line}\n".encode(errors="backslashreplace"))


def describe(error: BaseException) -> dict[str, Any]:
    """Return what the caller needs to raise the same error."""
    if isinstance(error, EnisleError):
        parts = {"message": error.message, "why": error.why, "hint": error.hint, "exit_code": error.exit_code}
        return {"kind": type(error).__name__, **parts}
    if isinstance(error, OSError):
        return {"kind": "OSError", "errno": error.errno, "message": str(error), "filename": error.filename}
    return {"kind": "bug", "message": f"{type(error).__name__}: {error}", "report": report(error)}


class Service:
    """Answers requests about one island."""

    def __init__(self, island: IslandProcess, channel: Channel) -> None:
        self._island, self._channel = island, channel
        self._lock = threading.Lock()
        self._commands: dict[int, Process] = {}
        """By the number of the request that started it. Guarded by _lock."""
        self._calls = {
            "start": self._start,
            "wait": self._wait,
            "kill": self._kill,
            "terminal": self._signal_terminal,
            "open": self._open,
            "list": self._list,
            "processes": self._processes,
            "statistics": self._statistics,
            "page_tables": self._page_tables,
        }

    def serve(self) -> None:
        """Answer until the channel ends."""
        while (received := self._channel.receive()) is not None:
            message, descriptors = received
            try:
                self._calls[message["call"]](message, descriptors)
            except Exception as error:
                self._answer({"id": message["id"], "error": describe(error)})
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _answer(self, message: Message, descriptors: tuple[int, ...] = ()) -> None:
        try:
            self._channel.send(message, descriptors)
        except OSError:
            self._channel.shutdown()  # the caller is gone: `serve` ends, and the island with it

    def _start(self, message: Message, descriptors: list[int]) -> None:
        island, number = self._island, message["id"]
        environment = {**island.environment, **message["env"]}
        stdin, stdout, stderr = descriptors
        command = Command(message["argv"], environment, message["cwd"] or island.jail.cwd, (stdin, stdout, stderr))
        process = island.start(command)
        with self._lock:
            self._commands[number] = process
        self._answer({"id": number, "ok": {"command": number, "pid": process.pid}})

    def _wait(self, message: Message, _descriptors: list[int]) -> None:
        number: int = message["command"]
        with self._lock:
            process = self._commands[number]
        waiter = threading.Thread(target=self._wait_for, args=(message["id"], number, process), daemon=True)
        waiter.start()

    def _wait_for(self, request: int, number: int, process: Process) -> None:
        try:
            status = self._island.wait_for_end(process)
            answer: Message = {"id": request, "ok": {"status": status, "statistics": self._island.statistics()}}
        except Exception as error:
            answer = {"id": request, "error": describe(error)}
        with self._lock:
            self._commands.pop(number, None)
        self._answer(answer)

    def _kill(self, message: Message, _descriptors: list[int]) -> None:
        number = message["command"]
        with self._lock:
            process = self._commands.get(number)
        if number is None or process is not None:
            self._island.kernel.kill(message["signal"], process)
        self._answer({"id": message["id"], "ok": None})

    def _signal_terminal(self, message: Message, _descriptors: list[int]) -> None:
        """Tell a command's foreground what was typed at its terminal, or that its size changed."""
        with self._lock:
            process = self._commands.get(message["command"])
        if process is not None:
            self._island.kernel.signal_foreground(process, message["signal"])
        self._answer({"id": message["id"], "ok": None})

    def _open(self, message: Message, _descriptors: list[int]) -> None:
        # O_NONBLOCK: a FIFO the guest put there must not hold us up.
        flags = OPENING[message["mode"]] | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        path = _absolute(message["path"])
        descriptor = os.open(path, flags, message.get("permissions", 0o644))
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise StateError(f"{path} is not a regular file", "only those can be read and written from outside")
            self._answer({"id": message["id"], "ok": None}, (descriptor,))
        finally:
            os.close(descriptor)

    def _list(self, message: Message, _descriptors: list[int]) -> None:
        entries: list[tuple[str, str, int]] = []
        with os.scandir(_absolute(message["path"])) as listing:
            for entry in listing:
                status = entry.stat(follow_symlinks=False)
                entries.append((entry.name, stat.filemode(status.st_mode), status.st_size))
        self._answer({"id": message["id"], "ok": sorted(entries)})

    def _processes(self, message: Message, _descriptors: list[int]) -> None:
        records = [as_record(record) for record in self._island.kernel.processes()]
        self._answer({"id": message["id"], "ok": records})

    def _page_tables(self, message: Message, _descriptors: list[int]) -> None:
        self._island.set_page_tables(message["mode"])
        self._answer({"id": message["id"], "ok": None})

    def _statistics(self, message: Message, _descriptors: list[int]) -> None:
        self._answer({"id": message["id"], "ok": self._island.statistics()})


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidRequest(f"the path {path!r} is not absolute", hint="begin it with /")
    if path == "/proc" or path.startswith("/proc/"):
        raise NotFound(f"{path} cannot be reached from outside", "/proc exists for the programs of the island alone")
    return path
