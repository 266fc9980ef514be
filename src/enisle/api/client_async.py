"""The Python client for coroutines: what `client` does, awaited.

    async with AsyncPlatform() as platform, await platform.islands.create(memory="256M") as island:
        print((await island.exec(["uname", "-a"])).stdout)

Errors come back as the kinds of `enisle.errors`. What changes something carries a key, so it is asked again when an
answer is lost, and done once. One event loop owns a platform.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self, TypeVar

import httpx
import msgspec

from enisle.api import schemas
from enisle.api.client_async_islands import AsyncIslandList
from enisle.api.paths import within
from enisle.api.reaching import (
    PATIENCE_S,
    EventReader,
    Json,
    error_of,
    find_address,
    is_worth_asking_again,
    lost,
    new_key,
    pauses,
)
from enisle.api.results import CALL_WAIT_S, ENDED, Event, Result, call_body, call_result

Kind = TypeVar("Kind")


class AsyncPlatform:
    """A platform. Without an address: ENISLE_URL, else the current context, else the one of this computer.

    With a `tenant` (else ENISLE_TENANT) an administrator acts in it; `*` looks at every one's.
    """

    def __init__(self, url: str | None = None, token: str | None = None, *, ca: str = "", tenant: str = "") -> None:
        address = find_address(url, token)
        self.url, self.tenant = address.url, tenant or os.environ.get("ENISLE_TENANT", "")
        self._http = httpx.AsyncClient(**(address._replace(ca=ca) if ca else address).options())
        self.tasks, self.islands, self.vms = AsyncTaskList(self), AsyncIslandList(self), AsyncVmList(self)
        self.hosts, self.tokens = AsyncHostList(self), AsyncTokenList(self)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def ask(self, method: str, path: str, kind: type[Kind], key: str = "", **more: Any) -> Kind:
        """Return an answer. Raises EnisleError. Asked again when lost, if it is a GET or has a key."""
        if key:
            more.setdefault("headers", {})["Idempotency-Key"] = key
        response = await self._send(method, path, bool(key) or method in ("GET", "DELETE"), more)
        if kind is bytes:
            return response.content  # pyright: ignore[reportReturnType]
        return msgspec.json.decode(response.content or b"null", type=kind)

    async def _send(self, method: str, path: str, again: bool, more: Json) -> httpx.Response:
        deadline = time.monotonic() + PATIENCE_S
        more["params"] = within(self.tenant, path, more.get("params") or {})
        for pause in pauses():
            try:
                response = await self._http.request(method, path, **more)
                if response.is_success:
                    return response
                problem = error_of(response)
                again = again and is_worth_asking_again(response)
            except httpx.TransportError as error:
                problem = lost(self.url, error)
            if not again or time.monotonic() + pause > deadline:
                raise problem
            await asyncio.sleep(pause)
        raise AssertionError

    async def run(
        self,
        argv: Sequence[str] | str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        stdin: bytes | str = b"",
        timeout: float | None = None,
        key: str = "",
        **more: Any,
    ) -> Result:
        """Run a short program on an island of its own, on whichever host is free; a text is given to `sh -c`.

        It may be begun again when its host dies. `timeout`: 10 s unless told, at most 60; `more`: memory, processors,
        network. Raises CallFailed, InvalidRequest, StateError when too many wait.
        """
        body, query = call_body(argv, env, cwd, stdin, timeout, more), {"wait": CALL_WAIT_S}
        called = await self.ask("POST", "/v1/calls", schemas.Called, key or new_key(), json=body, params=query)
        while called.state == "waiting":
            called = await self.ask("GET", f"/v1/calls/{called.id}", schemas.Called, params=query)
        return call_result(called)

    async def events(self) -> AsyncIterator[Event]:
        """Yield everything that is, `current`, then what changes, for ever; resumed where it broke off."""
        async for name, told in self.stream("/v1/events"):
            yield Event(name, str(told.get("id", "")), told.get("value"))

    async def stream(self, path: str, **query: Any) -> AsyncIterator[tuple[str, Any]]:
        """Yield a stream's events; a connection that breaks is made again. Raises EnisleError."""
        reader, since, query = EventReader(), time.monotonic(), within(self.tenant, path, query)
        for pause in pauses():
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": reader.last} if reader.last else {})
            try:
                async with self._http.stream("GET", path, params=query, headers=headers) as response:
                    if not response.is_success:
                        await response.aread()
                        raise error_of(response)
                    async for line in response.aiter_lines():
                        since = time.monotonic()
                        if event := reader.feed(line):
                            yield event
                            if event[0] in ("end", "problem"):
                                return
            except httpx.TransportError as error:
                if time.monotonic() - since > PATIENCE_S:
                    raise lost(self.url, error) from error
            reader = reader.again()
            await asyncio.sleep(pause)

    async def audit(
        self, actor: str = "", tenant: str = "", action: str = "", since: float = 0
    ) -> AsyncIterator[schemas.Act]:
        """Yield who did what, the latest first; needs the scope admin. `since`: seconds since 1970."""
        query: Json = {"actor": actor, "tenant": tenant or self.tenant, "action": action, "since": since, "cursor": ""}
        while True:
            page = await self.ask("GET", "/v1/audit", schemas.Acts, params=query)
            for act in page.items:
                yield act
            if not page.next:
                return
            query["cursor"] = page.next

    async def version(self) -> schemas.Version:
        """Return what the platform is."""
        return await self.ask("GET", "/v1/version", schemas.Version)

    async def health(self) -> schemas.Health:
        """Return whether the platform works, and why not. Raises HostError when nobody answers."""
        try:
            response = await self._http.get("/healthz")
        except httpx.TransportError as error:
            raise lost(self.url, error) from error
        return msgspec.json.decode(response.content, type=schemas.Health)


class AsyncTaskList:
    """The tasks of a platform."""

    def __init__(self, platform: AsyncPlatform) -> None:
        self._platform = platform

    async def submit(
        self,
        routine: str,
        arguments: Mapping[str, Any] | None = None,
        resources: Sequence[tuple[str, str] | tuple[str, str, str]] = (),
        *,
        key: str = "",
        **more: Any,
    ) -> schemas.Task:
        """Submit a task and return it at once; `resources` are (kind, id) or (kind, id, mode).

        `more`: host, placement, attempts, deadline_s, if_blocked. Raises InvalidRequest, StateError when blocked.
        """
        held = [dict(zip(("kind", "id", "mode"), one, strict=False)) for one in resources]
        body = {"routine": routine, "arguments": dict(arguments or {}), "resources": held, **more}
        return await self._platform.ask("POST", "/v1/tasks", schemas.Task, key or new_key(), json=body)

    async def get(self, task: str, wait: float = 0) -> schemas.Task:
        """Return a task, after at most `wait` seconds when it ends later. Raises NotFound."""
        return await self._platform.ask("GET", f"/v1/tasks/{task}", schemas.Task, params={"wait": min(30.0, wait)})

    async def list(self, state: str = "", resource: str = "", routine: str = "") -> AsyncIterator[schemas.Task]:
        """Yield tasks, newest first; pages are asked for as they are needed."""
        query = {"state": state, "resource": resource, "routine": routine, "limit": 100, "cursor": ""}
        while True:
            page = await self._platform.ask("GET", "/v1/tasks", schemas.TaskPage, params=query)
            for task in page.items:
                yield task
            if not page.next:
                return
            query["cursor"] = page.next

    async def wait(self, task: str, timeout: float | None = None) -> schemas.Task:
        """Return a task at its end. Raises TimeoutError, NotFound."""
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        while True:
            left = deadline - time.monotonic()
            found = await self.get(task, max(0.0, min(25.0, left)))
            if found.state in ENDED:
                return found
            if time.monotonic() >= deadline:
                raise TimeoutError(f"task {task} is {found.state} after {timeout} s")

    async def cancel(self, task: str, why: str = "") -> schemas.Task:
        """Ask for the end of a task. Raises StateError when it has ended."""
        return await self._platform.ask("POST", f"/v1/tasks/{task}/cancel", schemas.Task, json={"why": why})

    async def retry(self, task: str) -> schemas.Task:
        """Submit an ended task again."""
        return await self._platform.ask("POST", f"/v1/tasks/{task}/retry", schemas.Task, json={})

    async def output(self, task: str) -> AsyncIterator[schemas.Chunk]:
        """Yield what a task's command writes, as it comes, to its end."""
        async for name, told in self._platform.stream(f"/v1/tasks/{task}/output"):
            if name == "chunk":
                yield msgspec.convert(told, schemas.Chunk)

    async def routines(self) -> Sequence[schemas.RoutineEntry]:
        return (await self._platform.ask("GET", "/v1/routines", schemas.RoutineList)).items

    async def resources(self) -> Sequence[schemas.HeldResource]:
        return (await self._platform.ask("GET", "/v1/resources", schemas.ResourceList)).items

    async def result(self, task: str) -> Any:
        """Return what a task returned, whole; its `result` only names one that is large."""
        return (await self._platform.ask("GET", f"/v1/tasks/{task}/result", schemas.Whole)).result

    async def unlock(self, kind: str, id: str, reason: str) -> schemas.Freed:
        """Unlock a resource, as an operator. Raises StateError when it is not locked."""
        path = f"/v1/resources/{kind}/{id}/unlock"
        return await self._platform.ask("POST", path, schemas.Freed, json={"reason": reason})


class AsyncVmList:
    """The full Linux machines of a platform."""

    def __init__(self, platform: AsyncPlatform) -> None:
        self._platform = platform

    async def list(self, state: str = "", host: str = "") -> Sequence[schemas.Vm]:
        query = {"state": state, "host": host}
        return (await self._platform.ask("GET", "/v1/vms", schemas.Vms, params=query)).items

    async def get(self, name: str) -> schemas.Vm:
        return await self._platform.ask("GET", f"/v1/vms/{name}", schemas.Vm)

    async def run(self, kernel: str, **more: Any) -> schemas.Task:
        """Boot a kernel; `more`: name, initrd, append, memory, processors, disks, accelerator, host."""
        body = {"kernel": kernel, **more}
        return await self._platform.ask("POST", "/v1/vms", schemas.Task, new_key(), json=body)

    async def act(self, name: str, action: str, **more: Any) -> schemas.Task:
        """Submit `stop`, `pause`, `resume`, or `introspect` with its view."""
        return await self._platform.ask("POST", f"/v1/vms/{name}/{action}", schemas.Task, new_key(), json=more)

    async def remove(self, name: str, force: bool = False) -> schemas.Task:
        query = {"force": str(force).lower()}
        return await self._platform.ask("DELETE", f"/v1/vms/{name}", schemas.Task, new_key(), params=query)


class AsyncHostList:
    """The hosts of a platform."""

    def __init__(self, platform: AsyncPlatform) -> None:
        self._platform = platform

    async def list(self) -> Sequence[schemas.Host]:
        return (await self._platform.ask("GET", "/v1/hosts", schemas.Hosts)).items

    async def get(self, name: str) -> schemas.Host:
        return await self._platform.ask("GET", f"/v1/hosts/{name}", schemas.Host)

    async def declare_dead(self, name: str, reason: str) -> schemas.Given:
        path = f"/v1/hosts/{name}/declare-dead"
        return await self._platform.ask("POST", path, schemas.Given, json={"reason": reason})

    async def drain(self, name: str, reason: str) -> schemas.Host:
        """Give a host no new work; what is bound to it still runs there."""
        return await self._platform.ask("POST", f"/v1/hosts/{name}/drain", schemas.Host, json={"reason": reason})

    async def undrain(self, name: str, reason: str) -> schemas.Host:
        return await self._platform.ask("POST", f"/v1/hosts/{name}/undrain", schemas.Host, json={"reason": reason})

    async def remove(self, name: str) -> None:
        await self._platform.ask("DELETE", f"/v1/hosts/{name}", type(None))


class AsyncTokenList:
    """The tokens of a platform; needs the scope admin."""

    def __init__(self, platform: AsyncPlatform) -> None:
        self._platform = platform

    async def create(
        self, name: str, scopes: Sequence[str] = ("read",), tenant: str = "default", expires_s: float = 0
    ) -> schemas.TokenEntry:
        """Make a token; its secret is in `token`, this once."""
        body = {"name": name, "scopes": list(scopes), "tenant": tenant, "expires_s": expires_s}
        return await self._platform.ask("POST", "/v1/tokens", schemas.TokenEntry, json=body)

    async def list(self) -> Sequence[schemas.TokenEntry]:
        return (await self._platform.ask("GET", "/v1/tokens", schemas.TokenList)).items

    async def revoke(self, token: str) -> None:
        """Raises NotFound."""
        await self._platform.ask("DELETE", f"/v1/tokens/{token}", type(None))
