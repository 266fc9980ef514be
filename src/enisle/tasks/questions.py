"""Questions to a host and its answers: what is asked now and forgotten at once, beside the tasks that are kept.

One subject per host, `ask.<host>`; a question is {"verb", "arguments"}, an answer {"ok"} or {"error"}. Changes nothing
by itself: what changes something is a task. One event loop owns it.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from enisle import errors
from enisle.errors import EnisleError, HostError, InvalidRequest, NotFound, StateError
from enisle.tasks.connection import connect, questions_url
from enisle.tasks.names import require_token
from enisle.tasks.store import Unavailable

Handler = Callable[[dict[str, Any]], Awaitable[Any]]
AT_ONCE = 512
"""Questions a host answers at the same time, those that wait for output among them; more are told to come again."""
MAX_ANSWER = 900 << 10
"""Below the engine's largest message."""
NOBODY = "503"
SETTLING_S = 1.0
"""How long nobody may be there to answer before that is believed: a subscription of a new agent takes its time."""


class Silent(StateError):
    """A host did not answer: what it was asked for may have been done, or not."""


class Questions:
    """`async with Questions(url) as questions`: one side of both."""

    def __init__(self, *urls: str, client: Client | None = None, **connection: Any) -> None:
        self._urls, self._connection = list(urls), connection
        self._client = client or Client()
        self._owned = client is None
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[Msg]] = {}
        self._inbox = ""
        self._answering: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Questions":
        try:
            if self._owned:
                await connect(self._client, [questions_url(url) for url in self._urls], **self._connection)
            self._inbox = self._client.new_inbox()
            await self._client.subscribe(  # pyright: ignore[reportUnknownMemberType]
                f"{self._inbox}.*", cb=self._settle
            )
        except (OSError, NatsError) as error:
            await self._client.close()
            why = str(error) or type(error).__name__
            raise HostError("cannot reach the engine", why, "is the platform up? `enisle up`") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in list(self._answering):
            task.cancel()
        if self._owned:
            await self._client.close()

    # ---- asking ----------------------------------------------------------------------------------------------------

    async def _settle(self, message: Msg) -> None:
        future = self._waiting.get(message.subject.rsplit(".", 1)[1])
        if future and not future.done():
            future.set_result(message)

    async def ask(self, host: str, verb: str, arguments: dict[str, Any], timeout_s: float = 5.0) -> Any:
        """Return what a host answers. Raises what it raised, StateError when it is silent or not there."""
        require_token("a host", host)
        payload = json.dumps({"verb": verb, "arguments": arguments}, separators=(",", ":")).encode()
        begin = time.monotonic()
        while True:
            left = timeout_s - (time.monotonic() - begin)
            message = await self._ask_once(f"ask.{host}", payload, max(0.05, left), host)
            headers: Mapping[str, str] = message.headers or {}
            if headers.get("Status") != NOBODY:
                return _result(json.loads(message.data))
            if time.monotonic() - begin > min(SETTLING_S, timeout_s):
                raise Silent(f"host {host} does not answer", "its agent is not connected", "`enisle host ls`")
            await asyncio.sleep(0.05)

    async def _ask_once(self, subject: str, payload: bytes, timeout_s: float, host: str) -> Msg:
        number = str(next(self._numbers))
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self._client.publish(subject, payload, reply=f"{self._inbox}.{number}")
                return await future
        except TimeoutError:
            why = "no answer came in time"
            raise Silent(f"host {host} does not answer", why, "`enisle host ls`") from None
        except (OSError, NatsError) as error:
            raise Unavailable("the engine is not there", type(error).__name__) from error
        finally:
            del self._waiting[number]

    # ---- answering -------------------------------------------------------------------------------------------------

    async def serve(self, host: str, handlers: Mapping[str, Handler]) -> None:
        """Answer the questions to a host from now on; returns at once."""
        require_token("a host", host)

        async def take(message: Msg) -> None:
            if len(self._answering) >= AT_ONCE:
                busy = StateError(f"host {host} is busy", f"{AT_ONCE} questions are being answered", "ask again")
                await self._answer(message, {"error": _described(busy) | {"silent": "busy"}})
                return
            task = asyncio.create_task(self._work(message, handlers))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

        await self._client.subscribe(f"ask.{host}", cb=take)  # pyright: ignore[reportUnknownMemberType]

    async def _work(self, message: Msg, handlers: Mapping[str, Handler]) -> None:
        try:
            question: Any = json.loads(message.data)
            handler = handlers.get(question["verb"])
            if handler is None:
                raise InvalidRequest(f"a host cannot be asked for {question['verb']!r:.60}")
            answer = {"ok": await handler(question["arguments"])}
        except EnisleError as error:
            answer = {"error": _described(error)}
        except FileNotFoundError as error:
            answer = {"error": _described(NotFound(f"there is no {error.filename}", error.strerror or ""))}
        except OSError as error:
            answer = {"error": _described(StateError(str(error.filename or "it"), error.strerror or str(error)))}
        except Exception as error:  # a defect of a handler is told, and leaves the host alone
            answer = {"error": _described(HostError("the host could not answer", repr(error)[:300]))}
        await self._answer(message, answer)

    async def _answer(self, message: Msg, answer: dict[str, Any]) -> None:
        payload = json.dumps(answer, separators=(",", ":")).encode()
        if len(payload) > MAX_ANSWER:
            too_much = StateError("the answer is too large", f"{len(payload)} bytes", "ask for less")
            payload = json.dumps({"error": _described(too_much)}).encode()
        try:
            await self._client.publish(message.reply, payload)
        except (OSError, NatsError):
            pass  # whoever asked finds out by the clock


def _described(error: EnisleError) -> dict[str, str]:
    kinds = [one.__name__ for one in type(error).__mro__ if hasattr(errors, one.__name__)]
    return {"kind": kinds[0], "message": error.message, "why": error.why, "hint": error.hint}


def _result(answer: dict[str, Any]) -> Any:
    if "error" not in answer:
        return answer["ok"]
    told = answer["error"]
    if told.get("silent"):
        raise Silent(str(told.get("message")), str(told.get("why", "")), str(told.get("hint", "")))
    kind = getattr(errors, str(told.get("kind")), EnisleError)
    if not (isinstance(kind, type) and issubclass(kind, EnisleError)):
        kind = EnisleError
    raise kind(str(told.get("message")), str(told.get("why", "")), str(told.get("hint", "")))
