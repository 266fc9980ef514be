"""Figures for Prometheus, in its text format 0.0.4."""

import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from enisle.api.follow import Follower
from enisle.api.measures import BOUNDS_S, Measures
from enisle.api.services import Services
from enisle.errors import EnisleError
from enisle.tasks import State

Sample = tuple[dict[str, str], float]


async def exposition(services: Services, follower: Follower) -> str:
    """Return all figures as text."""
    health = await services.health()
    lines: list[str] = []
    families: list[tuple[str, str, str, list[Sample]]] = [
        *_platform(services),
        ("enisle_healthy", "gauge", "1: the platform works.", [({}, float(health.ok))]),
        ("enisle_safe_mode", "gauge", "1: the store is not trusted.", [({}, float(bool(health.safe_mode)))]),
        ("enisle_api_waiting_requests", "gauge", "Requests that wait for a task.", [({}, follower.count)]),
        *await _calls(services),
        *_process(services.measures),
    ]
    for name, kind, meaning, samples in families:
        lines += _family(name, kind, meaning, samples)
    lines += _latency(services.measures)
    return "\n".join(lines) + "\n"


def _platform(services: Services) -> Iterable[tuple[str, str, str, list[Sample]]]:
    view = services.view
    states = Counter(str(task.state) for task in view.tasks.values())
    held = Counter(lock.mode for lock in view.locks.values())
    records = Counter(key.partition(".")[0] for key in view.records)
    by_state: list[Sample] = [({"state": str(state)}, states[str(state)]) for state in State]
    yield "enisle_tasks", "gauge", "Tasks in the store, by state.", by_state
    modes: list[Sample] = [({"mode": mode}, held[mode]) for mode in ("exclusive", "shared")]
    yield "enisle_locks", "gauge", "Resources held, by mode.", modes
    yield "enisle_hosts", "gauge", "Hosts whose lease is fresh.", [({}, len(view.hosts))]
    kinds: list[Sample] = [({"kind": kind}, records[kind]) for kind in sorted({*records, "island", "vm"})]
    yield "enisle_resources", "gauge", "Resources with a record, by kind.", kinds
    yield "enisle_engine_revision", "gauge", "Revision of the store that the view has.", [({}, view.revision)]
    conflicts = getattr(view, "conflicts", None)
    if conflicts is not None:
        yield "enisle_engine_conflicts_total", "counter", "Changes that came second.", [({}, conflicts)]


async def _calls(services: Services) -> list[tuple[str, str, str, list[Sample]]]:
    """Return the figures of calls; none while the engine does not tell."""
    try:
        told = await services.calls.figures()
    except EnisleError:
        return []
    now: list[Sample] = [({"state": "waiting"}, told.waiting), ({"state": "running"}, told.running)]
    ended: list[Sample] = [({"state": "done"}, told.done), ({"state": "failed"}, told.failed)]
    return [
        ("enisle_calls", "gauge", "Calls in the queue, by state.", now),
        ("enisle_calls_ended_total", "counter", "Calls that ended, by how.", ended),
        ("enisle_calls_repeated_total", "counter", "Calls that ended more than once.", [({}, told.repeated)]),
        ("enisle_calls_given_up_total", "counter", "Calls that ended each of their workers.", [({}, told.given_up)]),
    ]


def _process(measures: Measures) -> Iterable[tuple[str, str, str, list[Sample]]]:
    yield "enisle_api_event_readers", "gauge", "Open streams.", [({}, measures.readers)]
    yield "enisle_api_events_total", "counter", "Events sent.", [({}, measures.events)]
    yield "enisle_api_dropped_readers_total", "counter", "Readers that took nothing.", [({}, measures.dropped)]
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    yield "process_resident_memory_bytes", "gauge", "Memory of the API's process.", [({}, resident)]
    yield "process_start_time_seconds", "gauge", "When it started.", [({}, measures.started)]
    yield "enisle_api_clock_seconds", "gauge", "The time of this answer.", [({}, time.time())]


def _latency(measures: Measures) -> list[str]:
    name = "enisle_api_request_seconds"
    lines = [f"# HELP {name} Time to answer, by operation.", f"# TYPE {name} histogram"]
    for (method, path), histogram in sorted(measures.requests.items()):
        labels, so_far = {"method": method, "path": path}, 0
        for bound, count in zip((*BOUNDS_S, float("inf")), histogram.buckets, strict=True):
            so_far += count
            le = "+Inf" if bound == float("inf") else repr(bound)
            lines.append(f"{name}_bucket{_labels(labels | {'le': le})} {so_far}")
        lines.append(f"{name}_sum{_labels(labels)} {histogram.total_s:.6f}")
        lines.append(f"{name}_count{_labels(labels)} {histogram.count}")
    answers: list[Sample] = [
        ({"method": method, "path": path, "status": str(status)}, count)
        for (method, path, status), count in sorted(measures.answers.items())
    ]
    return lines + _family("enisle_api_answers_total", "counter", "Answers, by operation and status.", answers)


def _family(name: str, kind: str, meaning: str, samples: Sequence[Sample]) -> list[str]:
    return [
        f"# HELP {name} {meaning}",
        f"# TYPE {name} {kind}",
        *(f"{name}{_labels(labels)} {value:.17g}" for labels, value in samples),
    ]


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    told = (f'{name}="{_escape(value)}"' for name, value in labels.items())
    return "{" + ",".join(told) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
