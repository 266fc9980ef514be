"""Requests to the engine and their answers, over one subscription.

The client's own request() waits with asyncio.wait_for, which in Python 3.11 may swallow a cancellation that meets the
answer: a task that was told to end would go on. asyncio.timeout does not.
"""

import asyncio
import itertools

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from enisle.tasks.store import Unavailable

NO_RESPONDERS = "503"


class Requests:
    """The requests of one connection. Owned by its event loop."""

    def __init__(self, client: Client, timeout_s: float) -> None:
        self._client, self._timeout_s = client, timeout_s
        self._inbox = ""
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[Msg]] = {}

    async def open(self) -> None:
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(f"{self._inbox}.*", cb=self._answer)  # pyright: ignore[reportUnknownMemberType]

    async def _answer(self, message: Msg) -> None:
        future = self._waiting.get(message.subject.rsplit(".", 1)[1])
        if future and not future.done():
            future.set_result(message)

    async def ask(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> bytes:
        """Return the answer's payload. Raises Unavailable when there is none in time, or nobody to give one."""
        return (await self.ask_message(subject, payload, headers)).data

    async def ask_message(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> Msg:
        """Return the answer with its headers. Raises Unavailable as `ask` does."""
        number = str(next(self._numbers))
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._client.publish(subject, payload, reply=f"{self._inbox}.{number}", headers=headers)
                answer = await future
        except (OSError, NatsError) as error:  # TimeoutError is an OSError
            raise Unavailable("the engine does not answer", type(error).__name__) from error
        finally:
            del self._waiting[number]
        headers = answer.headers  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if headers and headers.get("Status") == NO_RESPONDERS:  # pyright: ignore[reportUnknownMemberType]
            raise Unavailable("the engine does not answer", "its storage is not up")
        return answer
