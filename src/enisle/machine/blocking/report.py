"""What the command line tells of values and processors: rows and records, and the answers to its questions.

Everything here returns plain data; printing is the terminal's owner's. Any thread.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from enisle.abi.cpuid import CpuidTable
from enisle.abi.linux_syscalls import NAMES as CALLS
from enisle.errors import EnisleError
from enisle.machine.blocking import baseline, dumps, files, fingerprint, levels, qemu
from enisle.machine.blocking.admission import check_tiers, held_classes
from enisle.machine.blocking.instructions import Action, Refusal
from enisle.machine.blocking.query import Queries
from enisle.machine.blocking.successor import losses
from enisle.machine.blocking.value import BlockingValue


def describe(value: BlockingValue) -> dict[str, Any]:
    """Return what a value says, by names."""
    by_action = {action: sorted(name for name, own in value.actions.items() if own == action) for action in Action}
    record: dict[str, Any] = {
        "name": value.name,
        "digest": value.digest,
        "require": value.require,
        "unnamed": "hide" if value.strict else "allow",
        "demands": sorted(value.demands),
        "shows": sorted(value.features),
        "blocks": by_action[Action.BLOCK],
        "emulates": by_action[Action.EMULATE],
        "traps": sorted(map(str, value.trapped())),
    }
    if value.refuses_calls:
        default = Refusal(value.calls.default).name
        refused = {CALLS.get(number, str(number)): Refusal(entry).name for number, entry in value.calls.codes}
        calls: dict[str, Any] = {"default": default, **refused}
        for number, second in value.seconds.items():
            codes = {hex(code): Refusal(entry).name for code, entry in second.table.codes}
            calls[f"{CALLS.get(number, number)}()"] = {
                "default": Refusal(second.table.default).name,
                **codes,
            }
        record["syscalls"] = calls
    return record


def level_rows(table: CpuidTable) -> list[tuple[str, bool, list[str]]]:
    """Return each built-in value: whether this processor can be it, and what it demands or is missing."""
    rows: list[tuple[str, bool, list[str]]] = []
    for name in levels.names():
        queries = Queries(levels.level(name), table)
        rows.append((name, not queries.missing, sorted(queries.missing or queries.value.demands)))
    return rows


def verify(value: BlockingValue, backend: str, measured: bool = True) -> dict[str, Any]:
    """Return how each class is held here under a value, what is missing, and whether a machine may start.

    `measured`: by the controls' last measurement in this boot, where there is one.
    """
    from enisle.machine.enforcement.tiers import TierTable, probe_controls

    table = dumps.take(backend)
    queries = Queries(value, table)
    matrix = probe_controls(backend, measured)
    tiers = TierTable(matrix, value)
    held = set(held_classes(value, table.features))
    rows = [
        {"instruction": str(kind), "tier": row.tier.name.lower(), "how": row.way, "held": kind in held}
        for kind, row in tiers.rows.items()
    ]
    problems: list[str] = []
    if queries.missing:
        problems.append(f"missing: {', '.join(sorted(queries.missing))}")
    try:
        check_tiers(value, table.features, {kind: row.tier for kind, row in tiers.rows.items()})
    except EnisleError as error:
        problems.append(error.why)
    controls = {name: found for name, found in matrix._asdict().items() if name != "backend"}
    about = {"backend": backend, "value": value.name, "digest": value.digest, "require": value.require}
    return {**about, "good": not problems, "problems": problems, "controls": controls, "classes": rows}


def difference(first: CpuidTable | BlockingValue, second: CpuidTable | BlockingValue) -> dict[str, Any]:
    """Return what one has and the other has not: features of processors, or what values permit."""
    one, two = (side.features for side in (first, second))
    record: dict[str, Any] = {"only_first": sorted(one - two), "only_second": sorted(two - one)}
    if isinstance(first, BlockingValue) and isinstance(second, BlockingValue):
        record["second_loses"], record["first_loses"] = losses(first, second), losses(second, first)
        record["same"] = first == second
    elif isinstance(first, CpuidTable) and isinstance(second, CpuidTable):
        record["entries"] = dumps.strip({"first": first, "second": second})
        record["same"] = dumps.digest(first) == dumps.digest(second)
    else:
        record["same"] = not record["only_first"] and not record["only_second"]
    return record


strip = dumps.strip


def read_dump(word: str) -> CpuidTable:
    """Return a processor: a dump, or "host" for this one."""
    return dumps.take(word) if word == "host" else dumps.load(files.read_text(word), word)


def read(word: str) -> CpuidTable | BlockingValue:
    """Return the processor or value a word names: a dump, "host", a level, a template, a file."""
    if word not in levels.names():
        text = files.read_text(word)
        if f'"{dumps.KIND}"' in text[:200]:
            return dumps.load(text, word)
    return files.find_value(word)


def baseline_of(sources: Sequence[str], name: str) -> BlockingValue:
    """Return the baseline of hosts given as dumps; "host" is this one."""
    return baseline.baseline((baseline.host(read_dump(word)) for word in sources), name)


def compare_fingerprint(saved: str, backend: str, value: BlockingValue, cross_vendor: bool) -> dict[str, Any]:
    """Return whether what was saved under a fingerprint may go on here."""
    from enisle.machine.enforcement.tiers import TierTable, probe_controls

    before, here = fingerprint.load(files.read_text(saved), saved), fingerprint.fingerprint(backend)
    tiers = TierTable(probe_controls(backend), value)
    found = fingerprint.compare(before, here, value, {k: row.tier for k, row in tiers.rows.items()}, cross_vendor)
    return {"verdict": found.verdict, "reasons": list(found.reasons), "notes": list(found.notes)}


def qemu_words(value: BlockingValue, table: CpuidTable, known: Iterable[str] | None = None) -> str:
    """Return the argument of QEMU's -cpu for a value on a processor."""
    return qemu.cpu_words(Queries(value, table), known)
