"""What is asked of the API, as structures: the parameters and the bodies of requests.

They refuse what they do not name. `/openapi.json` is written from these and from `schemas`.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Text = Annotated[str, Meta(max_length=200)]
Scope = Literal["read", "write", "admin", "join"]
Mode = Literal["exclusive", "shared"]
IfBlocked = Literal["wait", "fail"]
Side = Annotated[int, Meta(ge=1, le=1000)]
"""Rows or columns of a terminal."""
Environment = dict[str, str]
Words = list[str]


class Asked(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The base of what is asked: nothing but what is named."""


# ---- queries -------------------------------------------------------------------------------------------------------


class NoQuery(Asked):
    """No parameters."""


class InTenant(Asked):
    """In which tenant, for an administrator; without it one's own."""

    tenant: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{0,64}$")] = ""


class InTenants(Asked):
    """In which tenant, for an administrator; `*`: in every one."""

    tenant: Annotated[str, Meta(pattern=r"^([A-Za-z0-9_-]{0,64}|\*)$")] = ""


class Waiting(Asked):
    """How many seconds the answer may wait for the end of the task it tells of."""

    wait: Annotated[float, Meta(ge=0, le=30)] = 0


class ThingFilter(Asked):
    """Which islands or machines, by name; `limit` 0: all of them at once."""

    state: Annotated[str, Meta(max_length=20)] = ""
    host: Annotated[str, Meta(max_length=64)] = ""
    limit: Annotated[int, Meta(ge=0, le=1000)] = 0
    cursor: Annotated[str, Meta(max_length=400)] = ""


class AuditFilter(Asked):
    """Which acts, the latest first. `since`: seconds since 1970."""

    actor: Annotated[str, Meta(max_length=100)] = ""
    tenant: Annotated[str, Meta(pattern=r"^([A-Za-z0-9_-]{0,64}|\*)$")] = ""
    action: Annotated[str, Meta(max_length=40)] = ""
    since: Annotated[float, Meta(ge=0, le=1e12)] = 0
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    cursor: Annotated[str, Meta(max_length=400)] = ""


class TaskFilter(Asked):
    """Which tasks, newest first."""

    state: Literal["queued", "blocked", "running", "interrupted", "done", "failed", "cancelled", ""] = ""
    resource: Annotated[str, Meta(max_length=130)] = ""
    routine: Annotated[str, Meta(max_length=200)] = ""
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    cursor: Annotated[str, Meta(max_length=400)] = ""


class Wait(Asked):
    """How many seconds the answer may wait for the end."""

    wait: Annotated[float, Meta(ge=0, le=30)] = 0


class CallWait(Asked):
    """How many seconds the answer may wait for the call's end."""

    wait: Annotated[float, Meta(ge=0, le=30)] = 30


class OutputQuery(Asked):
    """Output from number `after` on, or the last `tail` pieces; `wait` for some when there is none."""

    after: Annotated[int, Meta(ge=0, le=1 << 53)] = 0
    tail: Annotated[int, Meta(ge=0, le=100_000)] = 0
    wait: Annotated[float, Meta(ge=0, le=30)] = 0


class Input(Asked):
    """Where a piece of input begins: each `writer` counts its bytes from 0. `end`: nothing comes after it."""

    offset: Annotated[int, Meta(ge=0, le=1 << 53)] = 0
    writer: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{0,64}$")] = ""
    end: bool = False


class Force(Asked):
    """`force`: also when it runs."""

    force: bool = False


class FileQuery(Asked):
    """A file of an island."""

    path: Annotated[str, Meta(min_length=1, max_length=4096)]


class FileWrite(Asked):
    """A file of an island and its permission bits (octal, as chmod takes them)."""

    path: Annotated[str, Meta(min_length=1, max_length=4096)]
    mode: Annotated[str, Meta(pattern=r"^[0-7]{1,4}$")] = ""


class EventQuery(Asked):
    """Where to resume, for those who cannot send Last-Event-ID."""

    since: Annotated[str, Meta(max_length=100)] = ""


class SignIn(Asked):
    """The one-time code that `enisle up` prints."""

    code: Annotated[str, Meta(max_length=200)] = ""


# ---- bodies --------------------------------------------------------------------------------------------------------


class AskedResource(Asked):
    """Something a task holds while it runs."""

    kind: Name
    id: Name
    mode: Mode = "exclusive"


class TaskRequest(Asked):
    """A routine to be run, by name and version."""

    routine: Annotated[str, Meta(max_length=200)]
    arguments: dict[str, Any] = {}
    resources: Annotated[list[AskedResource], Meta(max_length=64)] = []
    host: Annotated[str, Meta(max_length=64)] = ""
    placement: Literal["retryable", "pinned"] = "retryable"
    attempts: Annotated[int, Meta(ge=1, le=100)] = 1
    deadline_s: Annotated[float, Meta(ge=0, le=30 * 86400)] = 0
    if_blocked: IfBlocked = "wait"


class Why(Asked):
    """Why it shall be cancelled."""

    why: Text = ""


class Reason(Asked):
    """Why an operator steps in; kept in the audit."""

    reason: Annotated[str, Meta(min_length=1, max_length=200)]


class TokenRequest(Asked):
    """A token: what it may do, for whom, how long (seconds; 0: until revoked)."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=4)]
    tenant: Name = "default"
    expires_s: Annotated[float, Meta(ge=0, le=10 * 366 * 86400)] = 0


class IslandRequest(Asked):
    """An island to be made; what is left out is as for `enisle run`. `program`: what it runs from its start."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{0,64}$")] = ""
    memory: Annotated[str, Meta(max_length=32)] = ""
    processors: Annotated[int, Meta(ge=0, le=256)] = 0
    processes: Annotated[int, Meta(ge=0, le=100_000)] = 0
    network: Annotated[str, Meta(max_length=32)] = ""
    processor: Annotated[str, Meta(max_length=32)] = ""
    root: Annotated[str, Meta(max_length=4096)] = ""
    mounts: Annotated[Words, Meta(max_length=64)] = []
    env: Environment = {}
    cwd: Annotated[str, Meta(max_length=4096)] = ""
    cpu: Annotated[Words, Meta(max_length=64)] = []
    nodes: Annotated[int, Meta(ge=0, le=64)] = 0
    page_tables: Annotated[str, Meta(max_length=32)] = ""
    program: Annotated[Words, Meta(max_length=1024)] = []
    host: Annotated[str, Meta(max_length=64)] = ""
    if_blocked: IfBlocked = "wait"


class ExecRequest(Asked):
    """A command for an island. `stdin` is base64; `timeout_s` 0: no limit.

    `input` "open": what it reads comes later, by `/v1/tasks/{task}/input`. `tty`: it has a terminal of that size.
    """

    argv: Annotated[Words, Meta(min_length=1, max_length=1024)]
    env: Environment = {}
    cwd: Annotated[str, Meta(max_length=4096)] = ""
    stdin: str = ""
    timeout_s: Annotated[float, Meta(ge=0, le=30 * 86400)] = 0
    input: Literal["", "open"] = ""
    tty: bool = False
    rows: Side = 24
    columns: Side = 80
    if_blocked: IfBlocked = "wait"


class CallRequest(Asked):
    """A short program for an island of its own, on any host. `encoding` says how `stdin` and what it writes are told.

    `timeout_s` 0: 10 seconds.
    """

    argv: Annotated[Words, Meta(min_length=1, max_length=1024)]
    env: Environment = {}
    cwd: Annotated[str, Meta(max_length=4096)] = ""
    stdin: str = ""
    encoding: Literal["text", "base64"] = "text"
    timeout_s: Annotated[float, Meta(ge=0, le=60)] = 0
    memory: Annotated[str, Meta(max_length=32)] = ""
    processors: Annotated[int, Meta(ge=0, le=256)] = 0
    network: Annotated[str, Meta(max_length=32)] = ""


class TerminalSize(Asked):
    """The size of a terminal, in characters."""

    rows: Side
    columns: Side


class How(Asked):
    """Whether to wait for what is in use."""

    if_blocked: IfBlocked = "wait"


class Nothing(Asked):
    """No words are needed."""


class StopVm(Asked):
    """How long the guest has to power off; 0: no time."""

    timeout_s: Annotated[float, Meta(ge=0, le=300)] = 10.0


class VmRequest(Asked):
    """A machine to be run: files are of its host."""

    kernel: Annotated[str, Meta(min_length=1, max_length=4096)]
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{0,64}$")] = ""
    initrd: Annotated[str, Meta(max_length=4096)] = ""
    append: Annotated[str, Meta(max_length=4096)] = ""
    memory: Annotated[str, Meta(max_length=32)] = ""
    processors: Annotated[int, Meta(ge=0, le=256)] = 0
    disks: Annotated[Words, Meta(max_length=32)] = []
    accelerator: Annotated[str, Meta(max_length=16)] = ""
    host: Annotated[str, Meta(max_length=64)] = ""


class Look(Asked):
    """What to look at in a machine's guest."""

    view: Annotated[str, Meta(min_length=1, max_length=64)]


class HostRequest(Asked):
    """A host that wants to join: its name and the public half of its nkey."""

    name: Name
    public_key: Annotated[str, Meta(min_length=1, max_length=100)]
