"""The Python client: islands, tasks, machines, hosts and tokens of a platform.

    with Platform() as platform, platform.islands.create(memory="256M") as island:
        print(island.exec(["uname", "-a"]).stdout)

Errors come back as the kinds of `enisle.errors`. What changes something carries a key, so it is asked again when an
answer is lost, and done once. Any thread may use a platform; its iterators belong to one.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

import httpx
import msgspec

from enisle.api import schemas
from enisle.api.client_islands import IslandList
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


class Platform:
    """A platform. Without an address: ENISLE_URL, else the current context, else the one of this computer.

    With a `tenant` (else ENISLE_TENANT) an administrator acts in it; `*` looks at every one's.
    """

    def __init__(self, url: str | None = None, token: str | None = None, *, ca: str = "", tenant: str = "") -> None:
        address = find_address(url, token)
        self.url, self.tenant = address.url, tenant or os.environ.get("ENISLE_TENANT", "")
        self._http = httpx.Client(**(address._replace(ca=ca) if ca else address).options())
        self.tasks, self.islands, self.vms = TaskList(self), IslandList(self), VmList(self)
        self.hosts, self.tokens = HostList(self), TokenList(self)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, method: str, path: str, kind: type[Kind], key: str = "", **more: Any) -> Kind:
        """Return an answer. Raises EnisleError. Asked again when lost, if it is a GET or has a key."""
        if key:
            more.setdefault("headers", {})["Idempotency-Key"] = key
        response = self._send(method, path, bool(key) or method in ("GET", "DELETE"), more)
        if kind is bytes:
            return response.content  # pyright: ignore[reportReturnType]
        return msgspec.json.decode(response.content or b"null", type=kind)

    def _send(self, method: str, path: str, again: bool, more: Json) -> httpx.Response:
        deadline = time.monotonic() + PATIENCE_S
        more["params"] = within(self.tenant, path, more.get("params") or {})
        for pause in pauses():
            try:
                response = self._http.request(method, path, **more)
                if response.is_success:
                    return response
                problem = error_of(response)
                again = again and is_worth_asking_again(response)
            except httpx.TransportError as error:
                problem = lost(self.url, error)
            if not again or time.monotonic() + pause > deadline:
                raise problem
            time.sleep(pause)
        raise AssertionError

    def run(
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
        called = self.ask("POST", "/v1/calls", schemas.Called, key or new_key(), json=body, params=query)
        while called.state == "waiting":
            called = self.ask("GET", f"/v1/calls/{called.id}", schemas.Called, params=query)
        return call_result(called)

    def events(self) -> Iterator[Event]:
        """Yield everything that is, `current`, then what changes, for ever; resumed where it broke off."""
        for name, told in self.stream("/v1/events"):
            yield Event(name, str(told.get("id", "")), told.get("value"))

    def stream(self, path: str, **query: Any) -> Iterator[tuple[str, Any]]:
        """Yield a stream's events; a connection that breaks is made again. Raises EnisleError."""
        reader, since, query = EventReader(), time.monotonic(), within(self.tenant, path, query)
        for pause in pauses():
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": reader.last} if reader.last else {})
            try:
                with self._http.stream("GET", path, params=query, headers=headers) as response:
                    if not response.is_success:
                        response.read()
                        raise error_of(response)
                    for line in response.iter_lines():
                        since = time.monotonic()
                        if event := reader.feed(line):
                            yield event
                            if event[0] in ("end", "problem"):
                                return
            except httpx.TransportError as error:
                if time.monotonic() - since > PATIENCE_S:
                    raise lost(self.url, error) from error
            reader = reader.again()
            time.sleep(pause)

    def audit(self, actor: str = "", tenant: str = "", action: str = "", since: float = 0) -> Iterator[schemas.Act]:
        """Yield who did what, the latest first; needs the scope admin. `since`: seconds since 1970."""
        query: Json = {"actor": actor, "tenant": tenant or self.tenant, "action": action, "since": since, "cursor": ""}
        while True:
            page = self.ask("GET", "/v1/audit", schemas.Acts, params=query)
            yield from page.items
            if not page.next:
                return
            query["cursor"] = page.next

    def version(self) -> schemas.Version:
        """Return what the platform is."""
        return self.ask("GET", "/v1/version", schemas.Version)

    def health(self) -> schemas.Health:
        """Return whether the platform works, and why not. Raises HostError when nobody answers."""
        try:
            response = self._http.get("/healthz")
        except httpx.TransportError as error:
            raise lost(self.url, error) from error
        return msgspec.json.decode(response.content, type=schemas.Health)


class TaskList:
    """The tasks of a platform."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def submit(
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
        return self._platform.ask("POST", "/v1/tasks", schemas.Task, key or new_key(), json=body)

    def get(self, task: str, wait: float = 0) -> schemas.Task:
        """Return a task, after at most `wait` seconds when it ends later. Raises NotFound."""
        return self._platform.ask("GET", f"/v1/tasks/{task}", schemas.Task, params={"wait": min(30.0, wait)})

    def list(self, state: str = "", resource: str = "", routine: str = "") -> Iterator[schemas.Task]:
        """Yield tasks, newest first; pages are asked for as they are needed."""
        query = {"state": state, "resource": resource, "routine": routine, "limit": 100, "cursor": ""}
        while True:
            page = self._platform.ask("GET", "/v1/tasks", schemas.TaskPage, params=query)
            yield from page.items
            if not page.next:
                return
            query["cursor"] = page.next

    def wait(self, task: str, timeout: float | None = None) -> schemas.Task:
        """Return a task at its end. Raises TimeoutError, NotFound."""
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        while True:
            left = deadline - time.monotonic()
            found = self.get(task, max(0.0, min(25.0, left)))
            if found.state in ENDED:
                return found
            if time.monotonic() >= deadline:
                raise TimeoutError(f"task {task} is {found.state} after {timeout} s")

    def cancel(self, task: str, why: str = "") -> schemas.Task:
        """Ask for the end of a task. Raises StateError when it has ended."""
        return self._platform.ask("POST", f"/v1/tasks/{task}/cancel", schemas.Task, json={"why": why})

    def retry(self, task: str) -> schemas.Task:
        """Submit an ended task again."""
        return self._platform.ask("POST", f"/v1/tasks/{task}/retry", schemas.Task, json={})

    def output(self, task: str) -> Iterator[schemas.Chunk]:
        """Yield what a task's command writes, as it comes, to its end."""
        for name, told in self._platform.stream(f"/v1/tasks/{task}/output"):
            if name == "chunk":
                yield msgspec.convert(told, schemas.Chunk)

    def routines(self) -> Sequence[schemas.RoutineEntry]:
        return self._platform.ask("GET", "/v1/routines", schemas.RoutineList).items

    def resources(self) -> Sequence[schemas.HeldResource]:
        return self._platform.ask("GET", "/v1/resources", schemas.ResourceList).items

    def result(self, task: str) -> Any:
        """Return what a task returned, whole; its `result` only names one that is large."""
        return (self._platform.ask("GET", f"/v1/tasks/{task}/result", schemas.Whole)).result

    def unlock(self, kind: str, id: str, reason: str) -> schemas.Freed:
        """Unlock a resource, as an operator. Raises StateError when it is not locked."""
        path = f"/v1/resources/{kind}/{id}/unlock"
        return self._platform.ask("POST", path, schemas.Freed, json={"reason": reason})


class VmList:
    """The full Linux machines of a platform."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def list(self, state: str = "", host: str = "") -> Sequence[schemas.Vm]:
        query = {"state": state, "host": host}
        return self._platform.ask("GET", "/v1/vms", schemas.Vms, params=query).items

    def get(self, name: str) -> schemas.Vm:
        return self._platform.ask("GET", f"/v1/vms/{name}", schemas.Vm)

    def run(self, kernel: str, **more: Any) -> schemas.Task:
        """Boot a kernel; `more`: name, initrd, append, memory, processors, disks, accelerator, host."""
        body = {"kernel": kernel, **more}
        return self._platform.ask("POST", "/v1/vms", schemas.Task, new_key(), json=body)

    def act(self, name: str, action: str, **more: Any) -> schemas.Task:
        """Submit `stop`, `pause`, `resume`, or `introspect` with its view."""
        return self._platform.ask("POST", f"/v1/vms/{name}/{action}", schemas.Task, new_key(), json=more)

    def remove(self, name: str, force: bool = False) -> schemas.Task:
        query = {"force": str(force).lower()}
        return self._platform.ask("DELETE", f"/v1/vms/{name}", schemas.Task, new_key(), params=query)


class HostList:
    """The hosts of a platform."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def list(self) -> Sequence[schemas.Host]:
        return self._platform.ask("GET", "/v1/hosts", schemas.Hosts).items

    def get(self, name: str) -> schemas.Host:
        return self._platform.ask("GET", f"/v1/hosts/{name}", schemas.Host)

    def declare_dead(self, name: str, reason: str) -> schemas.Given:
        path = f"/v1/hosts/{name}/declare-dead"
        return self._platform.ask("POST", path, schemas.Given, json={"reason": reason})

    def drain(self, name: str, reason: str) -> schemas.Host:
        """Give a host no new work; what is bound to it still runs there."""
        return self._platform.ask("POST", f"/v1/hosts/{name}/drain", schemas.Host, json={"reason": reason})

    def undrain(self, name: str, reason: str) -> schemas.Host:
        return self._platform.ask("POST", f"/v1/hosts/{name}/undrain", schemas.Host, json={"reason": reason})

    def remove(self, name: str) -> None:
        self._platform.ask("DELETE", f"/v1/hosts/{name}", type(None))


class TokenList:
    """The tokens of a platform; needs the scope admin."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def create(
        self, name: str, scopes: Sequence[str] = ("read",), tenant: str = "default", expires_s: float = 0
    ) -> schemas.TokenEntry:
        """Make a token; its secret is in `token`, this once."""
        body = {"name": name, "scopes": list(scopes), "tenant": tenant, "expires_s": expires_s}
        return self._platform.ask("POST", "/v1/tokens", schemas.TokenEntry, json=body)

    def list(self) -> Sequence[schemas.TokenEntry]:
        return self._platform.ask("GET", "/v1/tokens", schemas.TokenList).items

    def revoke(self, token: str) -> None:
        """Raises NotFound."""
        self._platform.ask("DELETE", f"/v1/tokens/{token}", type(None))
