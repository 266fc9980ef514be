"""The room of durable work: submit, lease, lock resources, run, tell progress, keep the result.

Owns the engine (NATS JetStream) and everything that speaks to it. Imports `abi` and `errors` only; knows nothing of
what a task does: routines come in from above. Promises: starting a task and taking what it holds is one atomic act, as
is its end and letting go; whoever acts carries a fencing token; what was acknowledged survives the death of anybody.
"""

from enisle.tasks.agent import Agent
from enisle.tasks.client import Request, Tasks
from enisle.tasks.dispatcher import Dispatcher
from enisle.tasks.engine import Engine
from enisle.tasks.jetstream import CONTROL, PROGRESS, JetStream
from enisle.tasks.journal import Journal, StaleToken
from enisle.tasks.policy import Picture, plan
from enisle.tasks.records import EXCLUSIVE, FAIL, PINNED, RETRYABLE, SHARED, WAIT, Lock, Resource, Task
from enisle.tasks.routines import Context, Routine, Routines, Temporary, example_routines
from enisle.tasks.states import ENDED, State
from enisle.tasks.store import Change, Conflict, Entry, Lease, Store, Unavailable

__all__ = [
    "CONTROL",
    "ENDED",
    "EXCLUSIVE",
    "FAIL",
    "PINNED",
    "PROGRESS",
    "RETRYABLE",
    "SHARED",
    "WAIT",
    "Agent",
    "Change",
    "Conflict",
    "Context",
    "Dispatcher",
    "Engine",
    "Entry",
    "JetStream",
    "Journal",
    "Lease",
    "Lock",
    "Picture",
    "Request",
    "Resource",
    "Routine",
    "Routines",
    "StaleToken",
    "State",
    "Store",
    "Task",
    "Tasks",
    "Temporary",
    "Unavailable",
    "example_routines",
    "plan",
]
