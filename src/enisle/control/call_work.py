"""The calls that a host does: each on an island of its own, in a process of its own, beside the host's tasks.

The agent's process only waits for them. A call ends with the agent: one that was told to end gives its calls to another
host, and of one that was killed the engine learns by its silence. A thread stands by each call; the event loop owns the
rest.
"""

import asyncio
import base64
import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from enisle.control.calls import BASE64, ROUTINE, Asked, check_call
from enisle.control.commands import CANNOT_RUN
from enisle.control.edge import say
from enisle.control.wire import Json, described
from enisle.errors import EnisleError, GuestError, InvalidRequest, StateError
from enisle.island import Island, RunningCommand
from enisle.tasks import CONTROL, JetStream, LaneCall, LaneWorker, Unavailable

HEAD_BYTES = 64 << 10
"""How much of each stream an outcome has."""
MAKING_S = 30.0
"""How long an island may take, beyond its program's time, before it is given up."""
ENDING_S = 8.0
LOOK_S = 3.0
PLACE = "/tmp"
"""Where programs start; as on islands that are kept."""


class Doing:
    """One call, in a thread: `run` does it, `end` makes it end, from any other thread."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._lock = threading.Lock()
        self._island: Island | None = None
        self._unwanted = False
        """Guarded by _lock, as is _island."""
        self._timed_out = False

    def run(self) -> Json:
        """Return what came of it. Raises EnisleError for what never ran, GuestError when its island died."""
        configuration: Json = {"cwd": PLACE, **self._asked.spec.configuration()}
        with Island(**configuration) as island:
            with self._lock:
                self._island = island
                if self._unwanted:
                    raise StateError("the call was ended", "its host ends", "")
            asked, began = self._asked, time.monotonic()
            try:
                command = island.start(asked.argv, env=asked.env, cwd=asked.cwd or None, stdin=asked.stdin or None)
            except EnisleError as error:
                if error.exit_code not in CANNOT_RUN:
                    raise
                return self._result(error.exit_code, 0.0, {}, {}) | {"reason": described(error)}
            with command as running:
                heads, sizes = self._read(running)
                code = running.wait()
            return self._result(code, time.monotonic() - began, heads, sizes)

    def _read(self, running: RunningCommand) -> tuple[dict[str, bytearray], dict[str, int]]:
        """Return the beginning of what it writes until it ends or its time is over, and how much that is in all."""
        heads, sizes = {"stdout": bytearray(), "stderr": bytearray()}, {"stdout": 0, "stderr": 0}
        timer = threading.Timer(self._asked.timeout_s, self._expire, (running,))
        timer.daemon = True
        timer.start()
        try:
            for stream, content in running:
                heads[stream] += content[: HEAD_BYTES - len(heads[stream])]
                sizes[stream] += len(content)
        finally:
            timer.cancel()
        return heads, sizes

    def _expire(self, running: RunningCommand) -> None:
        self._timed_out = True
        with contextlib.suppress(EnisleError):  # it ended, or its island did
            running.kill()

    def _result(self, code: int, seconds: float, heads: dict[str, bytearray], sizes: dict[str, int]) -> Json:
        def encoded(head: bytearray) -> str:
            return base64.b64encode(head).decode() if self._asked.encoding == BASE64 else head.decode(errors="replace")

        return {
            "exit_code": code,
            "timed_out": self._timed_out,
            "seconds": seconds,
            **{stream: encoded(heads.get(stream, bytearray())) for stream in ("stdout", "stderr")},
            "truncated": any(sizes[stream] > len(head) for stream, head in heads.items()),
            "reason": None,
            "encoding": self._asked.encoding,
        }

    def end(self) -> None:
        """Take its island away; `run` raises then."""
        with self._lock:
            self._unwanted, island = True, self._island
        if island:
            island.close()


class CallWork:
    """Does calls as a lane's handler, `at_once` of them side by side."""

    def __init__(self, at_once: int) -> None:
        # One more for each: whoever was ended may take a moment longer than the next takes to begin.
        self._threads = ThreadPoolExecutor(2 * at_once, thread_name_prefix="call")

    async def __call__(self, call: LaneCall) -> Json:
        """Raises EnisleError for what cannot be done."""
        if call.routine != ROUTINE:
            raise InvalidRequest(f"this host does not do {call.routine}", f"it does {ROUTINE}", "")
        asked = check_call(call.arguments, call.tenant)
        doing = Doing(asked)
        working = asyncio.get_running_loop().run_in_executor(self._threads, doing.run)
        try:
            async with asyncio.timeout(asked.timeout_s + MAKING_S):
                return await asyncio.shield(working)
        except TimeoutError:
            raise GuestError("the island of the call hung", f"for {MAKING_S:g} s", "") from None
        finally:
            if not working.done():
                await self._end(doing, working)

    async def _end(self, doing: Doing, working: "asyncio.Future[Json]") -> None:
        ending = asyncio.get_running_loop().run_in_executor(self._threads, doing.end)
        await asyncio.wait([working, ending], timeout=ENDING_S)
        if working.done() and not working.cancelled():
            working.exception()  # it was taken away, and knows

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class Drained:
    """Whether an operator wants no new work here, as this host sees it within seconds."""

    def __init__(self, store: JetStream, host: str) -> None:
        self._store, self._key = store, f"member.{host}"
        self.now = False

    async def run(self) -> None:
        while True:
            with contextlib.suppress(Unavailable):
                member = (await self._store.get_leader(self._key)).value
                self.now = bool(member and member.get("drained"))
            await asyncio.sleep(LOOK_S)


async def do_calls(
    url: str, host: str, connection: dict[str, Any], may: Callable[[], bool], at_once: int | None = None
) -> None:
    """Do calls of the pool until cancelled, as many at once as there are processors, while `may` says so."""
    at_once = at_once or len(os.sched_getaffinity(0))
    while True:
        work = CallWork(at_once)
        try:
            async with JetStream(url, bucket=CONTROL, **connection) as store:
                await _do_calls(store, host, may, work, at_once)
        except Exception as error:  # calls are not all that a host does: it goes on without for a moment
            say("agent", f"does no calls for a moment: {error!r}")
            await asyncio.sleep(LOOK_S)
        finally:
            work.close()


async def _do_calls(store: JetStream, host: str, may: Callable[[], bool], work: CallWork, at_once: int) -> None:
    drained = Drained(store, host)
    async with LaneWorker(store, may=lambda: may() and not drained.now) as worker, asyncio.TaskGroup() as group:
        group.create_task(drained.run())
        await worker.work(work, at_once)
