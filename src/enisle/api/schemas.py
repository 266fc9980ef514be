"""What the API answers, as structures: what is promised; islands, machines and hosts may tell more.

`/openapi.json` is written from these and from `forms`.
"""

from typing import Any

from msgspec import UNSET, Struct, UnsetType


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


class Whole(Struct):
    """What a task returned, however much."""

    result: Any


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
