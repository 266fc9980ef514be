"""The keeper of one island: a detached process that makes the island, keeps its commands and outlives the agent.

It stands in the island's directory (`spec.json` says what to make) and listens on `keeper.sock`, for its own user only.
`lock` is held while it lives, `keeper.json` says how the island is, `end.json` how it ended. It ends with its island,
and its island with it. Light: no event loop; a thread for each connection and each command, none of them polls.
"""

import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from typing import Any

from enisle.control.commands import PROGRAM, Commands, read_json, result_of, write_json
from enisle.control.fence import Fence
from enisle.control.wire import HEAD, Json, described, encode, lengths
from enisle.errors import EnisleError, GuestError, InvalidRequest, StateError
from enisle.island import Island

MAX_CONNECTIONS = 64
LONGEST_WAIT_S = 30.0
SLOW_S = 60.0
"""How long a connection may take to say or to hear something."""
MAX_READ = 4 << 20
UCRED = struct.Struct("iII")
SO_PEERCRED = socket.SO_PEERCRED


class Keeper:
    """One island and those who ask for it."""

    def __init__(self, island: Island, spec: Json, listener: socket.socket) -> None:
        self._island, self._spec, self._listener = island, spec, listener
        self._fence = Fence("token")
        self._commands = Commands(island, "output")
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._started = time.time()
        self._end: Json | None = None
        self._verbs = {
            "about": self._about,
            "watch": self._watch,
            "start": self._start,
            "wait": self._wait,
            "input": self._commands.input,
            "output": self._output,
            "kill": self._kill,
            "write": self._write,
            "read": self._read,
            "list": self._list,
            "processes": self._processes,
            "statistics": self._statistics,
            "stop": self._stop,
        }

    def run(self) -> Json:
        """Serve until the island ends; return how it did."""
        write_json("keeper.json", self.about())
        if self._spec.get("program"):
            threading.Thread(target=self._run_program, daemon=True).start()
        island = os.pidfd_open(self._island.pid)
        waiting = select.poll()
        for descriptor in (self._listener.fileno(), self._wake, island):
            waiting.register(descriptor, select.POLLIN)
        while self._end is None:
            ready = {descriptor for descriptor, _ in waiting.poll()}
            if island in ready and self._end is None:
                self.end("lost", reason=self._why_it_died())
            elif self._listener.fileno() in ready:
                self._accept()
        self._island.close()
        self._commands.join(2.0)
        return self._end

    def end(self, state: str, exit_code: int | None = None, reason: str = "") -> None:
        """Say how the island ends; the first word counts."""
        if self._end is None:
            self._end = {"state": state, "exit_code": exit_code, "reason": reason, "ended": time.time()}
            os.eventfd_write(self._wake, 1)

    def _why_it_died(self) -> str:
        try:
            self._island.processes()
        except EnisleError as error:
            return f"{error.message}: {error.why}"[:1000]
        return "its process died"

    def _run_program(self) -> None:
        """Run the island's own program; the island ends with it."""
        try:
            self._commands.start(PROGRAM, 0, {"argv": self._spec["program"]}, b"")
            while not (status := self._commands.wait_for_end(PROGRAM, 3600.0)).get("ended"):
                pass
            told: Json = status.get("reason") or {}
            self.end("exited", status["exit_code"], f"{told.get('message', '')} {told.get('why', '')}".strip())
        except GuestError as error:
            self.end("lost", reason=f"{error.message}: {error.why}"[:1000])
        except Exception as error:
            told = described(error)
            self.end(
                "exited", 127, f"{told.get('message', 'its program cannot be started')} {told.get('why', '')}".strip()
            )

    # ---- connections -----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return  # it went away again
        user: int = UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, SO_PEERCRED, UCRED.size))[1]
        if user not in (0, os.geteuid()) or not self._slots.acquire(blocking=False):
            peer.close()
            return
        peer.settimeout(SLOW_S)
        threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        try:
            with peer:
                while (head := _receive(peer, HEAD)) is not None:
                    body, payload = lengths(head)
                    asked = _receive(peer, body)
                    content = _receive(peer, payload)
                    if asked is None or content is None:
                        return
                    peer.sendall(self._answer(asked, content))
        except OSError:
            pass  # it hung up, was too slow, or said too much
        finally:
            self._slots.release()

    def _answer(self, asked: bytes, content: bytes) -> bytes:
        try:
            request: Any = json.loads(asked)
            verb = self._verbs.get(request["verb"])
            if verb is None:
                raise InvalidRequest(f"a keeper knows nothing of {request['verb']!r:.60}")
            if "token" in request:
                self._fence.admit(int(request["token"]), bool(request.get("shared")))
            answer = verb(request, content)
            payload = b""
            if isinstance(answer, bytes):
                payload, answer = answer, None
            return encode({"ok": answer}, payload)
        except Exception as error:
            return encode({"error": described(error)})

    # ---- what may be asked -----------------------------------------------------------------------------------------

    def about(self) -> Json:
        spec, island = self._spec, self._island
        return {
            "name": spec["name"],
            "tenant": spec.get("tenant", "default"),
            "configuration": spec.get("configuration") or {},
            "program": spec.get("program") or [],
            "created": spec.get("created", 0.0),
            "task": spec.get("task", ""),
            "token": spec.get("token", 0),
            "pid": os.getpid(),
            "island": island.pid,
            "backend": island.backend,
            "notes": list(island.notes),
            "started": self._started,
        }

    def _about(self, asked: Json, content: bytes) -> Json:
        return self.about() | self._figures()

    def _figures(self) -> Json:
        statistics = self._island.statistics()
        return {
            "state": "running" if self._end is None else self._end["state"],
            "memory_used": statistics.get("memory_used"),
            "memory_limit": statistics.get("memory_limit"),
            "processes": len(self._island.processes()),
            "commands": self._commands.running(),
            "changes": self._commands.changes,
        }

    def _watch(self, asked: Json, content: bytes) -> Json:
        """Answer once something began or ended since `seen`, or after some seconds."""
        self._commands.wait_for_change(int(asked["seen"]), min(LONGEST_WAIT_S, float(asked["wait_s"])))
        return self._about(asked, content)

    def _start(self, asked: Json, content: bytes) -> Json:
        if self._end is not None:
            raise StateError("the island is ending")
        return self._commands.start(str(asked["task"]), int(asked["token"]), asked, content)

    def _wait(self, asked: Json, content: bytes) -> Json:
        status = self._commands.wait_for_end(str(asked["task"]), min(LONGEST_WAIT_S, float(asked["wait_s"])))
        return {"ended": status["ended"]} | (result_of(status) if status["ended"] else {})

    def _output(self, asked: Json, content: bytes) -> Json:
        seconds = min(LONGEST_WAIT_S, float(asked["wait_s"]))
        return self._commands.wait_for_output(str(asked["task"]), int(asked["after"]), seconds)

    def _kill(self, asked: Json, content: bytes) -> None:
        self._commands.find(str(asked["task"])).kill(int(asked["signal"]))

    def _write(self, asked: Json, content: bytes) -> int:
        self._island.files.write(str(asked["path"]), content, int(asked.get("mode") or 0o644))
        return len(content)

    def _read(self, asked: Json, content: bytes) -> bytes:
        limit = max(0, min(MAX_READ, int(asked["limit"])))
        return self._island.files.read_part(str(asked["path"]), max(0, int(asked["offset"])), limit)

    def _list(self, asked: Json, content: bytes) -> list[Json]:
        return [entry._asdict() for entry in self._island.files.list(str(asked["path"]))[:10_000]]

    def _processes(self, asked: Json, content: bytes) -> list[Json]:
        return [process._asdict() for process in self._island.processes()[:5_000]]

    def _statistics(self, asked: Json, content: bytes) -> Json:
        return self._island.statistics()

    def _stop(self, asked: Json, content: bytes) -> None:
        self.end("stopped", reason=str(asked.get("why", ""))[:300])


def _receive(peer: socket.socket, size: int) -> bytes | None:
    content = bytearray()
    while len(content) < size:
        part = peer.recv(min(1 << 16, size - len(content)))
        if not part:
            return None
        content += part
    return bytes(content)


def take_place() -> tuple[int, socket.socket] | None:
    """Become the keeper of the directory we stand in; return its lock and a listener. None when another is."""
    os.umask(0o077)
    lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    for name in ("keeper.sock", "keeper.json", "end.json"):
        try:
            os.unlink(name)
        except FileNotFoundError:
            pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.bind("keeper.sock")
    os.chmod("keeper.sock", 0o600)
    listener.listen(MAX_CONNECTIONS)
    return lock, listener


def make_island(spec: Json, configuration: Json) -> Island:
    """Make the island under its name; when another on this computer has that, it goes by its id there."""
    try:
        return Island(name=spec["name"], **configuration)
    except StateError:
        island = Island(**configuration)
        island.notes = (*island.notes, f"another island here is called {spec['name']}: `enisle ps` shows this one's id")
        return island


def main(directory: str) -> int:
    """Keep the island of a directory to its end."""
    os.chdir(directory)
    place = take_place()
    if place is None:
        return 0
    spec = read_json("spec.json") or {}
    configuration: Json = {"cwd": "/tmp", **(spec.get("configuration") or {})}
    os.chdir("/")  # an island shows its maker's working directory; ours is nobody's business
    try:
        island = make_island(spec, configuration)
    except Exception as error:
        os.chdir(directory)
        write_json("end.json", {"state": "failed", "ended": time.time(), "error": described(error)})
        return 1
    os.chdir(directory)
    keeper = Keeper(island, spec, place[1])
    for signo in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signo, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda signo, frame: keeper.end("stopped", reason="its keeper was told to end"))
    end = keeper.run()
    write_json("end.json", end | keeper.about())
    os.unlink("keeper.sock")
    sys.stdout.flush()
    os._exit(0)  # threads that still talk are not waited for
