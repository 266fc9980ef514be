"""`enisle top`: what islands do, refreshed; one row an island, or all about one of them.

Rates are of the time since the last look. Figures of walks are counts of emulated processors, and cycles an estimate of
a stated model: nothing here is a measurement of hardware.
"""

import sys
import time
from typing import Any

from enisle.cli.grammar import Options
from enisle.cli.output import plain, say, size, table
from enisle.cli.ps import age
from enisle.cli.top_memory import memory_lines
from enisle.errors import EnisleError, InvalidRequest
from enisle.island import Entry, ask, find, islands

HEAD = ("NAME", "PID", "AGE", "CPU", "MEMORY", "CALLS/s", "EXITS/s", "FAULTS/s", "PROGRAM")
SECONDS = {"kernel_seconds", "guest_seconds"}
RATED = ("syscalls", "exits", "faults")
CLEAR = "\x1b[H\x1b[J"

Sample = dict[str, Any]


def top(options: Options) -> int:
    """Print tables until interrupted, or one."""
    if not 0.1 <= options.interval <= 3600:
        why = f"{options.interval:g} seconds"
        raise InvalidRequest("that interval makes no sense", why, "--interval 1 (0.1 to 3600)")
    terminal = sys.stdout.isatty()
    once = options.once or not (terminal or options.json)
    entry = find(options.words[0]) if options.words else None
    before: dict[str, Sample] = {}
    while True:
        samples = _look(entry)
        if options.json:
            import json

            say(json.dumps(list(samples.values()) if entry is None else samples[entry.id]) + "\n")
        else:
            text = _page(samples, before, entry, options)
            say(text if once or not terminal else CLEAR + text)
        if once:
            return 0
        before = samples
        time.sleep(options.interval)


def _look(entry: Entry | None) -> dict[str, Sample]:
    """Return what the islands say, by id. Raises NotFound when the one asked for has ended."""
    if entry is not None:
        return {entry.id: _sample(entry)}
    found: dict[str, Sample] = {}
    for sighting in islands():
        try:
            found[sighting.entry.id] = _sample(sighting.entry)
        except EnisleError as error:
            found[sighting.entry.id] = {**sighting.entry._asdict(), "trouble": error.message}
    return found


def _sample(entry: Entry) -> Sample:
    about, counted = ask(entry, {"call": "about"}), ask(entry, {"call": "statistics"})
    return {**about, **entry._asdict(), "statistics": counted, "at": time.monotonic()}


def _page(samples: dict[str, Sample], before: dict[str, Sample], entry: Entry | None, options: Options) -> str:
    aligned = sys.stdout.isatty()
    text = table(HEAD, [_row(sample, before.get(key, {})) for key, sample in samples.items()], aligned)
    if not samples:
        return "no island of yours is running\n" if aligned else ""
    if entry is not None:
        text += _details(samples[entry.id])
    if options.memory:
        shown = [sample for sample in samples.values() if "statistics" in sample]
        text += "".join(memory_lines(plain(sample["name"]), sample["statistics"]) for sample in shown)
    return text


def _row(sample: Sample, before: Sample) -> tuple[str, ...]:
    head = (plain(sample["name"]), str(sample["pid"]))
    if "trouble" in sample:
        return (*head, "-", "-", "-", "-", "-", "-", f"({plain(sample['trouble'])})")
    counted = sample["statistics"]
    memory = f"{size(counted['memory_used'])}/{size(counted['memory_limit'])}"
    rates = tuple(f"{_rate(sample, before, name):.0f}" for name in RATED)
    busy = f"{_rate(sample, before, *SECONDS) * 100:.0f}%"
    program = plain(" ".join(map(str, sample["program"])))[:40]
    return (*head, age(sample["age"]), busy, memory, *rates, program)


def _rate(sample: Sample, before: Sample, *names: str) -> float:
    """Return what was counted per second since the last sample, or since the island began."""
    then = before.get("statistics", {})
    seconds = sample["at"] - before["at"] if then else sample["age"]
    return sum(sample["statistics"][name] - then.get(name, 0) for name in names) / max(seconds, 0.001)


def _details(sample: Sample) -> str:
    counted = sample["statistics"]
    kinds = ", ".join(f"{plain(kind)} {count}" for kind, count in sorted(counted["exits_by_kind"].items()))
    rows = (
        ("processors", f"{sample['processors']} ({plain(sample['backend'])}); {counted['processors']} made"),
        ("processes", f"{sample['processes']} now, {counted['processes_started']} started"),
        ("system calls", f"{counted['syscalls']}, {counted['syscalls_without_exit']} of them without an exit"),
        ("exits", f"{counted['exits']} ({kinds})"),
        ("faults", f"{counted['faults']}"),
        ("page tables", f"{counted['page_tables']} ({size(counted['page_tables'] * 4096)})"),
        ("flushes", f"{counted['flushes']}"),
    )
    return "\n" + "".join(f"{name:<16}{text}\n" for name, text in rows)
