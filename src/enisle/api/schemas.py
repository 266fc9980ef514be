"""What goes over the wire: the bodies, parameters and answers, as structures.

The structures of requests refuse what they do not name; those of answers tell what is promised, and islands, machines
and hosts may tell more. `/openapi.json` is written from these.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

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


# ---- answers -------------------------------------------------------------------------------------------------------


class Resource(Struct):
    """Something a task holds."""

    kind: str
    id: str
    mode: str


class Blockage(Struct):
    """What a task waits for, who has it or comes first, and its place in the row."""

    resource: str
    by: str
    position: int
    since: float


class Failure(Struct):
    """Why a task did not do what was asked."""

    message: str
    why: str
    hint: str


class Progress(Struct):
    """How far a task is: 0 to 1, which part, and about how many seconds are left."""

    fraction: float
    phase: str
    left_s: float | None
    attempt: int


class Task(Struct):
    """A task. Times are seconds since 1970, null: not yet."""

    id: str
    routine: str
    arguments: dict[str, Any]
    resources: list[Resource]
    state: str
    host: str
    placement: str
    attempt: int
    attempts: int
    submitted: float
    started: float | None
    finished: float | None
    deadline: float | None
    blocked: Blockage | None
    cancel: str
    result: Any
    failure: Failure | None
    progress: Progress | None
    actor: str
    tenant: str
    trace: str


class TaskPage(Struct):
    """Tasks and the cursor of the next page."""

    items: list[Task]
    next: str | None


class CallOutcome(Struct):
    """What came of a program. `truncated`: it wrote more; `reason`: why nothing could be run (126, 127)."""

    exit_code: int
    timed_out: bool
    seconds: float
    stdout: str
    stderr: str
    truncated: bool
    encoding: str
    reason: dict[str, Any] | None


class Called(Struct):
    """A call: `waiting` (or running), `done` with its result, or `failed`. `runs`: 2 or more, it was begun again."""

    id: str
    state: str
    runs: int | None
    result: CallOutcome | None
    failure: Failure | None


class HeldResource(Struct):
    """A resource in use: the tasks that hold it and those that wait for it, in their order."""

    kind: str
    id: str
    mode: str
    holders: list[str]
    waiting: list[str]


class ResourceList(Struct):
    """All resources in use."""

    items: list[HeldResource]


class RoutineEntry(Struct):
    """A routine and its arguments."""

    name: str
    usage: str
    parameters: dict[str, Any]


class RoutineList(Struct):
    """What can be run."""

    items: list[RoutineEntry]


class TokenEntry(Struct):
    """A token, without its secret. `token` stands only in the answer that makes it."""

    id: str
    name: str
    kind: str
    scopes: list[str]
    tenant: str
    created: float
    expires: float | None
    used: float | None
    """When it was last used, within a minute or two; null: not yet."""
    token: str | UnsetType = UNSET


class TokenList(Struct):
    """The tokens there are."""

    items: list[TokenEntry]


class Act(Struct):
    """What somebody did, when, for which tenant and from where; `about` says to what. Actions: `submit`, `cancel`,
    `unlock`, `declare-dead`, `create-token`, `revoke-token`, `sign-in`, `sign-out`, `refused`, `admit-host`, …
    """

    id: str
    time: float
    action: str
    actor: str
    tenant: str
    address: str
    reason: str
    about: dict[str, Any]


class Acts(Struct):
    """Acts, and the cursor of the next page."""

    items: list[Act]
    next: str | None


class Version(Struct):
    """What the platform is."""

    version: str
    api: str


class Session(Struct):
    """Who is signed in."""

    actor: str
    tenant: str
    scopes: list[str]


class Problem(Struct):
    """What went wrong (RFC 9457): what failed, why, and what to do about it."""

    type: str
    title: str
    status: int
    detail: str
    why: str
    hint: str
    kind: str


class Chunk(Struct):
    """A piece of output; `data` is base64."""

    n: int
    stream: str
    data: str
    time: float


class Taken(Struct):
    """How much was taken: the writer goes on at `next`; `later`: not all of it, the command does not read now."""

    next: int
    later: bool


class Output(Struct):
    """Pieces of output; `next` is where to go on."""

    chunks: list[Chunk]
    next: int
    ended: bool
    truncated: bool


class Health(Struct):
    """Whether the platform works; `reasons` when not."""

    ok: bool
    reasons: list[str]


class Joined(Struct):
    """What a new host needs to reach the engine."""

    engine_url: str
    ca: str
    host: str


class Freed(HeldResource):
    """A resource after an operator unlocked it; `freed`: the tasks that held it."""

    freed: list[str]


class Given(Struct):
    """A host that was given up."""

    name: str
    state: str


class Island(Struct):
    """An island: what was asked for and how it is. Times are seconds since 1970."""

    name: str
    host: str
    tenant: str
    state: str
    configuration: dict[str, Any]
    program: list[str]
    created: float
    exit_code: int | None
    memory_used: int | None
    memory_limit: int | None
    processes: int | None
    age: float | None
    holder: str | None
    notes: list[str]


class Islands(Struct):
    """The islands of a tenant, and the cursor of the next page."""

    items: list[Island]
    next: str | None = None


class Vm(Struct):
    """A full Linux machine."""

    name: str
    host: str
    tenant: str
    state: str


class Vms(Struct):
    """The machines of a tenant, and the cursor of the next page."""

    items: list[Vm]
    next: str | None = None


class Host(Struct):
    """A computer of the platform: live, draining (no new work), lost (silent) or gone; `since` when, and `why`."""

    name: str
    state: str
    processors: int
    memory: int
    version: str
    islands: int
    vms: int
    tasks: int
    since: float
    joined: float = 0.0
    why: str = ""


class Hosts(Struct):
    """The hosts."""

    items: list[Host]


Thing = dict[str, Any]


class Things(Struct):
    """A list of records."""

    items: list[dict[str, Any]]
