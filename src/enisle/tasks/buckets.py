"""The buckets of the engine: what they are called, where they are kept and for how long."""

from dataclasses import dataclass
from typing import Any

TOMBSTONE_S = 60
"""How long the engine remembers that a key is gone; afterwards its revision is ABSENT again."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A set of keys with a life of its own. `max_age_s` 0: kept until deleted."""

    name: str
    storage: str = "file"
    max_age_s: int = 0

    @property
    def stream(self) -> str:
        return f"KV_{self.name}"

    @property
    def root(self) -> str:
        return f"$KV.{self.name}."


CONTROL = Bucket("ctl")
"""The single source of truth: tasks, locks, orders, leases."""
PROGRESS = Bucket("prog", "memory", 3600)
"""How far tasks are: worth nothing after a restart."""
OBJECTS = Bucket("obj", "file", 3600)
"""What is too large for a key."""
RUN, RESULTS, BEGINNINGS = "RUN", "RES", "BEG"
"""The streams of the fast lane, which hold messages and no keys."""
POOL = "default"
"""The pool of calls that every host serves."""


def stream_configuration(bucket: Bucket, replicas: int) -> dict[str, Any]:
    """Return the stream's configuration (NATS ADR-8, ADR-43, ADR-50)."""
    return {
        "name": bucket.stream,
        "subjects": [f"{bucket.root}>"],
        "retention": "limits",
        "storage": bucket.storage,
        "max_age": bucket.max_age_s * 1_000_000_000,
        "discard": "new",
        "num_replicas": replicas,
        "max_msgs_per_subject": 1,
        "deny_delete": True,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "allow_atomic": True,
        "subject_delete_marker_ttl": TOMBSTONE_S * 1_000_000_000,
    }
