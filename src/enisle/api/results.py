"""What a client gets back: values without behaviour."""

import base64
from typing import Any

from enisle.api import schemas
from enisle.errors import EnisleError, StateError
from enisle.records import Record

ENDED = frozenset({"done", "failed", "cancelled"})
CALL_WAIT_S = 25.0
"""How long one answer waits for the end of a call."""


class Result(Record):
    """What came of a command. `truncated`: more was written than is kept."""

    exit_code: int
    stdout: str
    stderr: str
    seconds: float = 0.0
    timed_out: bool = False
    truncated: bool = False
    task: str = ""
    reason: str = ""
    """Why nothing could be run: then `exit_code` is 126 or 127, as a shell's."""

    @property
    def ok(self) -> bool:
        return self.exit_code == 0


class Event(Record):
    """One event of the platform. `value` None: it is gone."""

    name: str
    id: str
    value: Any


class TaskFailed(EnisleError):
    """A task did not do what was asked; `task` is the task at its end."""

    task: schemas.Task


class CallFailed(EnisleError):
    """A call was not done: its island could not be made, or died, or took its host along each time."""

    call: schemas.Called


class Text:
    """Output put together from pieces: bytes of two streams."""

    def __init__(self) -> None:
        self.streams = {"stdout": bytearray(), "stderr": bytearray()}
        self.truncated = False

    def add(self, chunk: schemas.Chunk) -> bytes:
        content = base64.b64decode(chunk.data)
        self.streams.setdefault(chunk.stream, bytearray()).extend(content)
        return content

    def result(self, task: schemas.Task) -> Result:
        """Return what came of a command whose task is done."""
        told: dict[str, Any] = task.result if isinstance(task.result, dict) else {}  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return Result(
            exit_code=int(told.get("exit_code") or 0),
            stdout=self.streams["stdout"].decode(errors="replace"),
            stderr=self.streams["stderr"].decode(errors="replace"),
            seconds=float(told.get("seconds") or 0.0),
            timed_out=bool(told.get("timed_out")),
            truncated=self.truncated,
            task=task.id,
            reason=_in_words(told.get("reason")),
        )


def call_body(
    argv: Any, env: Any, cwd: str, stdin: bytes | str, timeout: float | None, more: dict[str, Any]
) -> dict[str, Any]:
    """Return the body of a call, whose bytes go and come as they are."""
    told = {name: str(value) if name == "memory" else value for name, value in more.items() if value}
    return command_body(argv, env, cwd, stdin, timeout) | told | {"encoding": "base64"}


def call_result(call: schemas.Called) -> Result:
    """Return what came of a call that ended. Raises CallFailed."""
    told = call.result
    if told is None:
        why = call.failure or schemas.Failure(f"call {call.id} has no outcome", "", "")
        failed = CallFailed(why.message, why.why, why.hint)
        failed.call = call
        raise failed
    stdout, stderr = (base64.b64decode(text).decode(errors="replace") for text in (told.stdout, told.stderr))
    end = (told.seconds, told.timed_out, told.truncated)
    return Result(told.exit_code, stdout, stderr, *end, task=call.id, reason=_in_words(told.reason))


def _in_words(reason: dict[str, Any] | None) -> str:
    return ": ".join(filter(None, (reason["message"], reason["why"]))) if reason else ""


def require_done(task: schemas.Task) -> schemas.Task:
    """Return a task that is done. Raises TaskFailed, StateError when it was cancelled."""
    if task.state == "done":
        return task
    told = task.failure or schemas.Failure(f"task {task.id} is {task.state}", "", "")
    if task.state == "cancelled":
        raise StateError(f"task {task.id} was cancelled", told.why or task.cancel, f"`enisle task show {task.id}`")
    failed = TaskFailed(told.message, told.why, told.hint or f"`enisle task show {task.id}`")
    failed.task = task
    raise failed


def island_body(program: Any, env: Any, more: dict[str, Any]) -> dict[str, Any]:
    """Return the body that asks for an island; sizes may be numbers of bytes."""
    body = {name: value for name, value in more.items() if value not in (None, "", 0, (), [], {})}
    if isinstance(body.get("memory"), int):
        body["memory"] = str(body["memory"])
    if isinstance(body.get("cpu"), str):
        body["cpu"] = [body["cpu"]]
    return body | ({"program": list(program)} if program else {}) | ({"env": dict(env)} if env else {})


def command_body(argv: Any, env: Any, cwd: str, stdin: bytes | str, timeout: float | None) -> dict[str, Any]:
    """Return the body that runs a command."""
    body: dict[str, Any] = {"argv": ["sh", "-c", argv] if isinstance(argv, str) else list(argv)}
    given = stdin.encode() if isinstance(stdin, str) else stdin
    if given:
        body["stdin"] = base64.b64encode(given).decode()
    return (
        body
        | ({"env": dict(env)} if env else {})
        | ({"cwd": cwd} if cwd else {})
        | ({"timeout_s": timeout} if timeout else {})
    )
