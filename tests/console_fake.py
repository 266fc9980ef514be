"""A platform for the console's tests that does as it is told: the API's shapes, and a stream of events by script.

`put` changes what is (and tells every stream), `answer` says how requests are answered; what was asked is in `asked`.
Its server runs in a thread of its own; the methods may be called from any.
"""

import asyncio
import base64
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from enisle.api.static import Static

CONSOLE = Path(__file__).parent.parent / "src/enisle/api/console"
Json = dict[str, Any]


def island(name: str, **more: Any) -> Json:
    told = {
        "name": name,
        "host": "h1",
        "tenant": "default",
        "state": "running",
        "configuration": {"memory": "512M"},
        "program": ["python3", "-m", "http.server"],
        "created": time.time() - 400,
        "backend": "kvm",
        "exit_code": None,
        "memory_used": 96 << 20,
        "memory_limit": 512 << 20,
        "processes": 2,
        "age": 400.0,
        "holder": None,
        "notes": [],
    }
    return told | more


def task(identity: str, routine: str = "island.stop@1", *resources: str, **more: Any) -> Json:
    told = {
        "id": identity,
        "routine": routine,
        "arguments": {},
        "resources": [{"kind": one.split(".")[0], "id": one.split(".")[1], "mode": "exclusive"} for one in resources],
        "state": "running",
        "host": "h1",
        "placement": "retryable",
        "attempt": 1,
        "attempts": 1,
        "submitted": time.time() - 3,
        "started": time.time() - 2,
        "finished": None,
        "deadline": None,
        "blocked": None,
        "cancel": "",
        "result": None,
        "failure": None,
        "progress": None,
        "actor": "session:console",
        "tenant": "default",
        "trace": "",
    }
    return told | more


def host(name: str, **more: Any) -> Json:
    return {
        "name": name,
        "state": "live",
        "processors": 2,
        "memory": 8 << 30,
        "version": "0.1.0",
        "islands": 1,
        "vms": 0,
        "tasks": 0,
        "since": time.time() - 9000,
    } | more


def output(*pieces: str, ended: bool = True, stream: str = "stdout") -> Json:
    chunks = [
        {"n": n, "stream": stream, "data": base64.b64encode(piece.encode()).decode(), "time": time.time()}
        for n, piece in enumerate(pieces)
    ]
    return {"chunks": chunks, "next": len(chunks), "ended": ended, "truncated": False}


def problem(status: int, detail: str, why: str = "", hint: str = "", **more: Any) -> tuple[int, Json]:
    return status, {
        "type": "about:blank",
        "title": "Problem",
        "status": status,
        "detail": detail,
        "why": why,
        "hint": hint,
        "kind": "state-error",
    } | more


class Fake:
    """The server and its script. A context manager."""

    def __init__(self) -> None:
        self.things: dict[tuple[str, str], tuple[int, Any]] = {}
        self.revision = 1
        self.epoch = 1
        self.floor = 0
        """Who resumes before this revision starts anew."""
        self.asked: list[tuple[str, str, Json]] = []
        self.resumed: list[str] = []
        self.answers: dict[tuple[str, str], Any] = {}
        self.signed_in = True
        self.administrator = True
        self.stalled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: set[asyncio.Event] = set()
        self._cuts = 0
        self._static = Static(CONSOLE)
        routes = [
            Route("/", self._index),
            Route("/console/{file:path}", self._file),
            Route("/v1/events", self._events),
            Route("/{path:path}", self._rest, methods=["GET", "POST", "PUT", "DELETE"]),
        ]
        self._app = Starlette(routes=routes)
        self.url = ""

    # -- the script

    def put(self, kind: str, identity: str, value: Any) -> None:
        """Change what is; None takes it away."""
        self._in_loop(self._put, kind, identity, value)

    def put_all(self, kind: str, values: dict[str, Any]) -> None:
        """Change many things in one go."""
        self._in_loop(lambda: [self._put(kind, identity, value) for identity, value in values.items()])

    def lock(
        self, resource: str, holder: Json, fraction: float | None = None, phase: str = "", mode: str = "exclusive"
    ) -> None:
        """Let a task hold a resource ("kind.id")."""
        self.put("task", holder["id"], holder)
        self.put("lock", resource, {"mode": mode, "holders": [holder["id"]], "waiting": []})
        if fraction is not None:
            self.put("progress", holder["id"], {"fraction": fraction, "phase": phase, "left_s": 4.0, "attempt": 1})

    def end(self, resource: str, holder: Json, state: str, **more: Any) -> None:
        """Let the task end and what it holds be free."""
        self.put("task", holder["id"], holder | {"state": state, "finished": time.time()} | more)
        self.put("lock", resource, None)

    def cut(self) -> None:
        """Break every stream."""
        self._in_loop(self._cut)

    def _cut(self) -> None:
        self._cuts += 1
        for one in self._changed:
            one.set()

    def answer(self, method: str, path: str, value: Any) -> None:
        """Answer with JSON, (status, problem), bytes, or what a function of the request returns."""
        self.answers[method, path] = value

    # -- the server

    def __enter__(self) -> "Fake":
        config = uvicorn.Config(self._app, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/"
        return self

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve()

    def __exit__(self, *_: object) -> None:
        self.stalled = False
        self.signed_in = False
        self.cut()
        self._server.should_exit = True
        self._thread.join()

    def _in_loop(self, act: Any, *words: Any) -> None:
        assert self._loop
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (act(*words), done.set()))
        assert done.wait(5)

    def _put(self, kind: str, identity: str, value: Any) -> None:
        self.revision += 1
        self.things[kind, identity] = (self.revision, value)
        for one in self._changed:
            one.set()

    async def _index(self, request: Request) -> Response:
        return self._static.answer(request, "index.html")

    async def _file(self, request: Request) -> Response:
        return self._static.answer(request, request.path_params["file"])

    async def _events(self, request: Request) -> Response:
        if not self._knows(request):
            return _refuse(*problem(401, "this needs a token", "none was given"))
        if self.stalled:
            return _refuse(
                *problem(
                    503,
                    "the platform is in safe mode",
                    "its store was damaged",
                    "`enisle down; enisle up --accept-store`",
                )
            )
        if "tenant" in request.query_params and not self.administrator:
            return _refuse(*problem(403, "another tenant needs the scope admin"))
        given = request.headers.get("last-event-id", "")
        self.resumed.append(given)
        return StreamingResponse(self._stream(given), media_type="text/event-stream")

    def _knows(self, request: Request) -> bool:
        return self.signed_in or request.headers.get("authorization") == "Bearer good"

    async def _stream(self, given: str) -> AsyncIterator[str]:
        changed = asyncio.Event()
        self._changed.add(changed)
        seen = int(given.partition("-")[2] or 0)
        if given and (given.partition("-")[0] != str(self.epoch) or seen < self.floor):
            yield "event: reset\ndata: {}\n\n"
            seen = 0
        current = False
        cuts = self._cuts
        try:
            while cuts == self._cuts:
                changed.clear()
                for (kind, identity), (revision, value) in sorted(self.things.items(), key=lambda one: one[1][0]):
                    if revision > seen and (value is not None or seen):
                        mark = "" if kind == "progress" else f"id: {self.epoch}-{revision}\n"
                        yield f"{mark}event: {kind}\ndata: {json.dumps({'id': identity, 'value': value})}\n\n"
                seen = self.revision
                if not current:
                    yield f"id: {self.epoch}-{seen}\nevent: current\ndata: {{}}\n\n"
                    current = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(5):
                        await changed.wait()
                yield ": still here\n\n"
        finally:
            self._changed.discard(changed)

    async def _rest(self, request: Request) -> Response:
        body = await request.body()
        read = (
            json.loads(body)
            if body and request.headers.get("content-type") == "application/json"
            else {"body": body}
            if body
            else {}
        )
        path = request.url.path
        self.asked.append((request.method, path, {**dict(request.query_params), **read}))
        if not self._knows(request):
            return _refuse(*problem(401, "this token is not valid", "it is unknown"))
        found = self.answers.get((request.method, path), self._usual(request.method, path))
        if callable(found):
            found = await asyncio.to_thread(found, request)
        if isinstance(found, tuple):
            return _refuse(*found)
        if isinstance(found, bytes):
            return Response(found, media_type="application/octet-stream")
        if "chunks" in found:
            found = found | {"chunks": found["chunks"][int(request.query_params.get("after", 0)) :]}
        return JSONResponse(found, 202 if request.method != "GET" else 200)

    def _usual(self, method: str, path: str) -> Any:
        parts = path.strip("/").split("/")
        if method == "GET" and parts[:2] == ["v1", "tasks"] and len(parts) == 3:
            found = self.things.get(("task", parts[2]), (0, None))[1]
            return found or problem(404, "there is no such task", "", "`enisle task ls`")
        if path == "/v1/tasks":
            return {"items": [], "next": None}
        if path == "/v1/sessions":
            return {"actor": "local", "tenant": "default", "scopes": ["admin"]}
        if path.endswith(("/output", "/logs")):
            return output()
        if method != "GET":
            return task("made", "island.something@1")
        return {"items": []}


def _refuse(status: int, document: Json) -> Response:
    return JSONResponse(document, status, media_type="application/problem+json")
