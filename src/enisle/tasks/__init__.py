"""The room of durable work: submit, lease, lock resources, run, tell progress, keep the result.

Owns the engine (NATS JetStream) and everything that speaks to it. Imports `abi` and `errors` only; knows nothing of
what a task does: routines come in from above. Promises: starting a task and taking what it holds is one atomic act, as
is its end and letting go; whoever acts carries a fencing token; what was acknowledged survives the death of anybody.
"""

from enisle.tasks.admission import EngineAddress, admit_host, admitted, engine_address, expel_host
from enisle.tasks.agent import Agent, AgentStatistics
from enisle.tasks.archive import Archive, Copy
from enisle.tasks.audit import ADDRESS, EVERY, act_fits, act_of, act_place, audit_record
from enisle.tasks.buckets import CONTROL, OBJECTS, PROGRESS
from enisle.tasks.client import KeyTaken, Request, Tasks
from enisle.tasks.connection import is_own, spread
from enisle.tasks.dispatcher import Dispatcher, DispatcherStatistics
from enisle.tasks.engine import Engine
from enisle.tasks.fastlane import FastLane, LaneFigures, Overloaded
from enisle.tasks.history import History
from enisle.tasks.identity import Identity, cluster_accounts, identity_of, new_identity, require_public
from enisle.tasks.jetstream import JetStream
from enisle.tasks.journal import Journal, StaleToken
from enisle.tasks.lane import Outcome
from enisle.tasks.laneworker import LaneCall, LaneWorker
from enisle.tasks.names import require_token, task_id
from enisle.tasks.news import News, Subscription
from enisle.tasks.objects import Objects
from enisle.tasks.picture import Picture
from enisle.tasks.policy import plan
from enisle.tasks.processes import Ended, run_process
from enisle.tasks.questions import Questions, Silent
from enisle.tasks.records import (
    EXCLUSIVE,
    FAIL,
    PINNED,
    RETRYABLE,
    SHARED,
    WAIT,
    Blocked,
    Failure,
    Lock,
    Resource,
    Task,
)
from enisle.tasks.routines import Context, Routine, Routines, Temporary, example_routines
from enisle.tasks.safety import CHECKING, Safety, StoreGuard, check_store, put_aside
from enisle.tasks.states import ENDED, State
from enisle.tasks.store import Change, Conflict, Entry, Lease, Store, Unavailable
from enisle.tasks.view import View

__all__ = [
    "ADDRESS",
    "CHECKING",
    "CONTROL",
    "ENDED",
    "EVERY",
    "EXCLUSIVE",
    "FAIL",
    "OBJECTS",
    "PINNED",
    "PROGRESS",
    "RETRYABLE",
    "SHARED",
    "WAIT",
    "Agent",
    "AgentStatistics",
    "Archive",
    "Blocked",
    "Change",
    "Conflict",
    "Context",
    "Copy",
    "Dispatcher",
    "DispatcherStatistics",
    "Ended",
    "Engine",
    "EngineAddress",
    "Entry",
    "Failure",
    "FastLane",
    "History",
    "Identity",
    "JetStream",
    "Journal",
    "KeyTaken",
    "LaneCall",
    "LaneFigures",
    "LaneWorker",
    "Lease",
    "Lock",
    "News",
    "Objects",
    "Outcome",
    "Overloaded",
    "Picture",
    "Questions",
    "Request",
    "Resource",
    "Routine",
    "Routines",
    "Safety",
    "Silent",
    "StaleToken",
    "State",
    "Store",
    "StoreGuard",
    "Subscription",
    "Task",
    "Tasks",
    "Temporary",
    "Unavailable",
    "View",
    "act_fits",
    "act_of",
    "act_place",
    "admit_host",
    "admitted",
    "audit_record",
    "check_store",
    "cluster_accounts",
    "engine_address",
    "example_routines",
    "expel_host",
    "identity_of",
    "is_own",
    "new_identity",
    "plan",
    "put_aside",
    "require_public",
    "require_token",
    "run_process",
    "spread",
    "task_id",
]
