"""A keeper seen from its agent: started, asked, found out about when it is gone.

Everything is told by the island's directory, so an agent that has just begun knows as much as the one before it. One
event loop owns it; `stop_all` needs none.
"""

import asyncio
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from enisle.control.commands import read_json, write_json
from enisle.control.wire import HEAD, Json, encode, lengths, raised
from enisle.errors import EnisleError, GuestError, HostError, StateError

START_S = 60.0
STOP_S = 10.0
ANSWER_S = 20.0


class KeeperGone(GuestError):
    """Nobody keeps the island any more: it has ended."""


class KeeperClient:
    """The keeper of the island in `directory`, living or not."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.name = directory, directory.name

    # ---- what the directory tells ----------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether a keeper holds the directory: by its lock, never by the number of a process."""
        try:
            descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)

    def spec(self) -> Json | None:
        return read_json(str(self.directory / "spec.json"))

    def about(self) -> Json | None:
        return read_json(str(self.directory / "keeper.json"))

    def end(self) -> Json | None:
        return read_json(str(self.directory / "end.json"))

    def kept_command(self, task: str) -> Json | None:
        return read_json(str(self.directory / "output" / task / "command.json"))

    def fate(self) -> Json:
        """Return how an island is that nobody keeps: what its keeper said last, else that it was lost."""
        told: Json = {**(self.spec() or {}), **(self.about() or {})}
        end = self.end()
        if end is None:
            end = {"state": "lost", "exit_code": None, "reason": "its keeper died, and the island with it"}
        elif end.get("state") == "failed":
            error: Json = end.get("error") or {}
            end = {"state": "lost", "exit_code": None, "reason": str(error.get("message", ""))}
        return told | end

    # ---- life ------------------------------------------------------------------------------------------------------

    def spawn(self, spec: Json) -> "subprocess.Popen[bytes]":
        """Start a keeper that makes the island; it is nobody's child once we are gone. Raises HostError."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise HostError(f"cannot make {self.directory}", error.strerror or "", "make room on that disk") from error
        for name in ("end.json", "keeper.json"):
            (self.directory / name).unlink(missing_ok=True)
        if not write_json(str(self.directory / "spec.json"), spec):
            raise HostError(f"cannot write to {self.directory}", "its disk takes no more", "make room on that disk")
        with open(self.directory / "keeper.log", "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "enisle.control", "keeper", str(self.directory)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )

    async def wait_until_ready(self, process: "subprocess.Popen[bytes] | None") -> Json:
        """Return what the keeper says of its island once it is made. Raises why it cannot be made."""
        async with asyncio.timeout(START_S):
            while True:
                try:
                    return await self.ask("about")
                except KeeperGone:
                    ended = process.poll() is not None if process else not self.alive
                if ended and not self.alive:
                    raise self._failure()
                await asyncio.sleep(0.005)

    def _failure(self) -> Exception:
        end = self.end()
        if end and end.get("error"):
            return raised(end["error"])
        try:
            words = (self.directory / "keeper.log").read_text(errors="replace").strip()[-500:]
        except OSError:
            words = ""
        return HostError(f"the island {self.name} cannot be kept", words or "its keeper died at once", "")

    async def stop(self, why: str, token: int | None = None) -> None:
        """End the island and its keeper; wait until nothing is left. Nothing happens when it has ended."""
        try:
            fenced: Json = {} if token is None else {"token": token}
            await self.ask("stop", why=why, **fenced)
        except KeeperGone:
            pass
        for _ in range(round(STOP_S / 0.02)):
            if not self.alive:
                return
            await asyncio.sleep(0.02)
        self._kill()
        for _ in range(100):
            if not self.alive:
                return
            await asyncio.sleep(0.02)
        raise HostError(f"the island {self.name} does not end", "even after SIGKILL", "look at dmesg")

    def _kill(self) -> None:
        """Kill a keeper that hangs; its number is its own as long as it holds the lock."""
        about = self.about()
        if about is None:
            return
        try:
            handle = os.pidfd_open(int(about["pid"]))
        except ProcessLookupError:
            return
        try:
            if self.alive:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)

    def remove(self) -> None:
        """Forget an island that has ended, with all it wrote. Raises StateError while it runs."""
        if self.alive:
            raise StateError(f"the island {self.name} is running", "", "stop it first")
        shutil.rmtree(self.directory, ignore_errors=True)

    # ---- asking ----------------------------------------------------------------------------------------------------

    async def ask(self, verb: str, payload: bytes = b"", *, within_s: float = ANSWER_S, **arguments: Any) -> Any:
        """Return what the keeper answers. Raises what it raised, KeeperGone, StateError when it is silent."""
        async with self.connection() as keeper:
            return await keeper.ask(verb, payload, within_s=within_s, **arguments)

    @asynccontextmanager
    async def connection(self) -> "AsyncGenerator[Connection]":
        """Keep one connection for several questions, one after the other. Raises KeeperGone."""
        try:
            descriptor = os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            raise self.gone() from None
        try:
            # unix(7) has 108 bytes for a path; a directory may have a longer one.
            reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{descriptor}/keeper.sock")
        except OSError:
            raise self.gone() from None
        finally:
            os.close(descriptor)
        try:
            yield Connection(self, reader, writer)
        finally:
            writer.close()

    def gone(self) -> KeeperGone:
        fate = self.fate() if self.directory.exists() else {"reason": "there is nothing of it here"}
        why = str(fate.get("reason") or f"it has {fate.get('state', 'ended')}")
        return KeeperGone(f"the island {self.name} is not running", why, "start it again")


class Connection:
    """One conversation with a keeper."""

    def __init__(self, client: KeeperClient, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._client, self._reader, self._writer = client, reader, writer

    async def ask(self, verb: str, payload: bytes = b"", *, within_s: float = ANSWER_S, **arguments: Any) -> Any:
        try:
            async with asyncio.timeout(within_s):
                self._writer.write(encode({"verb": verb, **arguments}, payload))
                await self._writer.drain()
                body, size = lengths(await self._reader.readexactly(HEAD))
                answer: Json = _parsed(await self._reader.readexactly(body))
                content = await self._reader.readexactly(size)
        except TimeoutError:
            why = f"its keeper said nothing for {within_s:g} s"
            raise StateError(f"the island {self._client.name} does not answer", why, "try again") from None
        except (OSError, EOFError):  # IncompleteReadError is an EOFError
            raise self._client.gone() from None
        if "error" in answer:
            raise raised(answer["error"])
        return content if answer["ok"] is None and (content or verb == "read") else answer["ok"]


def _parsed(body: bytes) -> Json:
    import json

    return json.loads(body)


def stop_all(directory: Path) -> None:
    """End every island below `directory` that is kept: `enisle down --islands`."""

    async def stop(client: KeeperClient) -> None:
        try:
            await client.stop("the platform went down with its islands")
        except EnisleError:
            pass  # what does not end is told by the next look

    async def all_of_them() -> None:
        clients = [KeeperClient(path) for path in sorted(directory.iterdir()) if path.is_dir()]
        await asyncio.gather(*(stop(client) for client in clients if client.alive))

    asyncio.run(all_of_them())
