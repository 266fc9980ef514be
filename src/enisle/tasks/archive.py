"""Moving what has ended out of the store, so that deciding costs what is going on and not what ever was.

An ended task is in the history within a second; it leaves the store after an hour, or when more than two thousand have
ended since. Before it leaves, the engine has a copy in a stream of its own (`HIST`, thirty days), from which a history
that was lost, or another dispatcher's, is filled. Owned by its dispatcher's event loop.
"""

import asyncio
import base64
import json
import time
from typing import Any

from enisle.errors import EnisleError, HostError
from enisle.tasks.dispatcher import Dispatcher
from enisle.tasks.history import KEEP_S, History
from enisle.tasks.jetstream import JetStream
from enisle.tasks.records import Task
from enisle.tasks.states import ENDED
from enisle.tasks.store import Conflict, Unavailable, Value

KEEP_ENDED_S = 3600.0
KEEP_ENDED = 2000
ROUND_S = 1.0
TOGETHER = 100
"""Tasks in one message of the copy, and keys in one commit that deletes."""
CAUGHT_UP = 1000
"""Records that are taken from the copy in one transaction."""
PRUNE_S = 600.0
STREAM = "HIST"
MAX_MESSAGE = 800 << 10


class Copy:
    """The engine's copy of the history: a stream of messages with up to a hundred records each."""

    def __init__(self, store: JetStream) -> None:
        self._requests, self._replicas = store._requests, store.replicas

    async def _ask(self, subject: str, question: Value) -> Value:
        return json.loads(await self._requests.ask(f"$JS.API.{subject}", json.dumps(question).encode()))

    async def open(self) -> None:
        """Raises HostError, Unavailable."""
        wanted = {
            "name": STREAM,
            "subjects": ["hist.>"],
            "retention": "limits",
            "storage": "file",
            "max_age": int(KEEP_S * 1e9),
            "discard": "old",
            "num_replicas": self._replicas,
        }
        answer = await self._ask(f"STREAM.CREATE.{STREAM}", wanted)
        if error := answer.get("error"):
            raise HostError("cannot keep the history in the engine", error.get("description", ""), "")

    async def add(self, tasks: list[Task], audits: list[tuple[str, Value]]) -> int:
        """Return the mark of what was added. Raises Unavailable; added twice, it is there twice, and read as once."""
        value = {"tasks": [task.to_value() for task in tasks], "audits": audits}
        payload = json.dumps(value, separators=(",", ":")).encode()
        if len(payload) > MAX_MESSAGE and len(tasks) > 1:
            half = len(tasks) // 2
            await self.add(tasks[:half], audits)
            return await self.add(tasks[half:], [])
        answer = json.loads(await self._requests.ask("hist.ended", payload))
        if error := answer.get("error"):
            raise Unavailable("the engine does not take history", error.get("description", ""), "is its disk full?")
        return answer["seq"]

    async def read(self, after: int) -> tuple[int, list[Task], list[tuple[str, Value]]] | None:
        """Return the next message behind a mark, with its own mark; None: there is none."""
        answer = await self._ask(f"STREAM.MSG.GET.{STREAM}", {"seq": after + 1, "next_by_subj": "hist.>"})
        if "error" in answer:
            return None
        value = json.loads(base64.b64decode(answer["message"]["data"]))
        audits = [(name, record) for name, record in value["audits"]]
        return answer["message"]["seq"], [Task.from_value(one) for one in value["tasks"]], audits


class Archive:
    """`Dispatcher(store, "me", archive=Archive(history, Copy(store)))`."""

    def __init__(
        self,
        history: History,
        copy: Copy | None = None,
        keep_s: float = KEEP_ENDED_S,
        keep: int = KEEP_ENDED,
    ) -> None:
        self.history, self._copy, self._keep_s, self._keep = history, copy, keep_s, keep
        self._kept: set[str] = set()
        """Ended tasks of the store that the history has."""
        self._opened, self._pruned = False, 0.0
        self.trouble = ""

    async def __call__(self, dispatcher: Dispatcher) -> None:
        led = False
        while True:
            try:
                if self._copy and not (led and dispatcher.decides):
                    await self._catch_up(self._copy)
                led = dispatcher.decides
                if led:
                    await self._round(dispatcher)
                self.trouble = ""
            except EnisleError as error:
                self.trouble = str(error)
            await asyncio.sleep(ROUND_S)

    async def _catch_up(self, copy: Copy) -> None:
        """Take what another dispatcher archived, or what a lost history had."""
        if not self._opened:
            await copy.open()
            self._opened = True
        mark = await asyncio.to_thread(lambda: self.history.copied)
        more = True
        while more:
            tasks: list[Task] = []
            audits: list[tuple[str, Value]] = []
            while len(tasks) + len(audits) < CAUGHT_UP and (more := (found := await copy.read(mark)) is not None):
                mark = found[0]
                tasks += found[1]
                audits += found[2]
            if tasks or audits:
                await asyncio.to_thread(self.history.add, tasks, audits, mark)

    async def _round(self, dispatcher: Dispatcher) -> None:
        await self._keep_fresh(dispatcher)
        await self._delete(dispatcher, self._due(dispatcher))
        if time.monotonic() - self._pruned > PRUNE_S:
            self._pruned = time.monotonic()
            await asyncio.to_thread(self.history.prune)

    async def _keep_fresh(self, dispatcher: Dispatcher) -> None:
        """Keep what has ended since the last round: first in the engine's copy, then here."""
        picture = dispatcher.picture
        self._kept &= picture.ended.keys()
        fresh = [one for one in picture.ended if one not in self._kept]
        there = await asyncio.to_thread(self.history.known, fresh) if fresh else set[str]()
        self._kept |= there
        tasks = [picture.tasks[one] for one in fresh if one not in there and one in picture.tasks]
        audits = list(dispatcher.audits.items())
        for start in range(0, max(len(tasks), len(audits)), TOGETHER):
            part, told = tasks[start : start + TOGETHER], audits[start : start + TOGETHER]
            mark = await self._copy.add(part, told) if self._copy else 0
            await asyncio.to_thread(self.history.add, part, told, mark)
            self._kept.update(task.id for task in part)
        await self._delete(dispatcher, [key for key, _ in audits])

    def _due(self, dispatcher: Dispatcher) -> list[str]:
        ended = dispatcher.picture.ended
        old = dispatcher.now() - self._keep_s
        too_many = len(ended) - self._keep
        by_end = sorted((one for one in ended.items() if one[0] in self._kept), key=lambda one: one[1])
        return [f"task.{task}" for number, (task, at) in enumerate(by_end) if at < old or number < too_many]

    async def _delete(self, dispatcher: Dispatcher, keys: list[str]) -> None:
        for start in range(0, len(keys), TOGETHER):
            part = [key for key in keys[start : start + TOGETHER] if _is_over(dispatcher, key)]
            try:
                if part:
                    await dispatcher.commit([(key, None) for key in part])
            except (Conflict, Unavailable):
                pass  # the next round sees what is left
            for key in part:
                dispatcher.audits.pop(key, None)


def _is_over(dispatcher: Dispatcher, key: str) -> bool:
    task: Any = dispatcher.picture.tasks.get(key.removeprefix("task."))
    return key.startswith("audit.") or (task is not None and task.state in ENDED)
