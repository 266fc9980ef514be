"""`enisle cpu`: what processors are, what values permit, how well that holds here, and who can stand in for whom."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from enisle.cli.grammar import Options
from enisle.cli.output import plain, say, table
from enisle.errors import HostError, InvalidRequest
from enisle.machine import cpu_report as report
from enisle.machine import resolve

dumps, files, fingerprint = report.dumps, report.files, report.fingerprint

REFUSED = 5
COLUMNS = 100


def cpu(options: Options) -> int:
    """Run one verb of `enisle cpu`; return 0, or 5 when the answer is no."""
    if not options.words:
        raise InvalidRequest("cpu does what?", f"one of {', '.join(VERBS)}", "enisle cpu --help")
    verb, *words = options.words
    if verb not in VERBS:
        raise InvalidRequest(f"cpu cannot {verb!r}", f"one of {', '.join(VERBS)}", "enisle cpu --help")
    return VERBS[verb](options, words)


def _key(options: Options) -> bytes | None:
    return files.read_key(options.key) if options.key else None


def _value(options: Options, words: Sequence[str] = ()) -> Any:
    named = [*words, *options.cpus] or ["host"]
    return resolve(named, options.cpu_require, None if options.output else _key(options))


def _take_no(words: Sequence[str], verb: str) -> None:
    if words:
        raise InvalidRequest(f"cpu {verb} takes no {words[0]!r}", hint="enisle cpu --help")


def _write(options: Options, text: str, what: str) -> bool:
    """Write a result to --output, when that was asked for, and say so."""
    if not options.output:
        return False
    try:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise HostError(f"cannot write {options.output}", os.strerror(error.errno or 0)) from error
    if not options.json:
        say(f"wrote {what} to {options.output}\n")
    return True


def _backend(options: Options, default: str) -> str:
    backend = default if options.processor == "auto" else options.processor
    if backend not in ("host", "kvm", "emulated"):
        raise InvalidRequest(f"no such processor: {backend!r}", hint="one of host, kvm, emulated")
    return backend


def _guests(options: Options) -> str:
    """Return the backend that islands would take."""
    default = "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "emulated"
    backend = _backend(options, default)
    if backend == "host":
        raise InvalidRequest("islands do not run on the bare host", hint="--processor kvm or emulated")
    return backend


def _print(record: Any) -> None:
    say(json.dumps(record) + "\n")


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    say(table(head, [[plain(cell) for cell in row] for row in rows], sys.stdout.isatty()))


def _wrapped(title: str, names: Sequence[str]) -> str:
    """Return a title and names in lines of a readable length."""
    lines, line = list[str](), f"{title}:"
    for name in names:
        if len(line) + len(name) > COLUMNS:
            lines.append(line)
            line = "   "
        line += f" {name}"
    return "\n".join([*lines, line]) + "\n"


# ---- verbs -----------------------------------------------------------------------------------------------------------


def _dump(options: Options, words: list[str]) -> int:
    _take_no(words, "dump")
    backend = _backend(options, "host")
    found = dumps.take(backend)
    record = dumps.dump(found, backend)
    written = _write(options, json.dumps(record) + "\n", f"{len(found.entries)} answers of CPUID")
    if options.json:
        _print(record)
    elif not written:
        family, model, stepping = found.model
        say(f"{plain(found.vendor)} {plain(found.brand)} family {family} model {model} stepping {stepping}\n")
        say(_wrapped("features", record["features"]))
        head = ("LEAF", "SUB", "EAX", "EBX", "ECX", "EDX")
        _rows(head, [(f"{e[0]:#x}", str(e[1]), *(f"{word:08x}" for word in e[2:])) for e in record["entries"]])
    return 0


def _strip(options: Options, words: list[str]) -> int:
    if not words:
        raise InvalidRequest("no dumps to strip", hint="enisle cpu strip HOST.json OTHER.json")
    stripped = report.strip({word: report.read_dump(word) for word in words})
    written = _write(options, json.dumps(stripped) + "\n", "what differs")
    if options.json:
        _print(stripped)
    elif not written:
        rows = [
            (name, f"{e[0]:#x}", str(e[1]), *(f"{word:08x}" for word in e[2:]))
            for name in stripped
            for e in stripped[name]
        ]
        _rows(("HOST", "LEAF", "SUB", "EAX", "EBX", "ECX", "EDX"), rows)
    return 0


def _baseline(options: Options, words: list[str]) -> int:
    value = report.baseline_of(words or ["host"], options.name or "baseline")
    return _show_value(options, value)


def _show(options: Options, words: list[str]) -> int:
    return _show_value(options, _value(options, words))


def _show_value(options: Options, value: Any) -> int:
    record = report.describe(value)
    if options.qemu:
        say(report.qemu_words(value, dumps.take("host")) + "\n")
        return 0
    written = _write(options, files.dump(value, _key(options)), f"the value {value.digest[:12]}")
    if options.json:
        _print(record)
    elif not written:
        say(
            f"{plain(value.name or 'value')} {value.digest}\n"
            f"require: {value.require}; unnamed bits: {record['unnamed']}\n"
        )
        for title in ("demands", "shows", "emulates", "traps"):
            say(_wrapped(title, record[title]))
        for call, answer in record.get("syscalls", {}).items():
            say(f"system call {call}: {answer}\n")
    return 0


def _verify(options: Options, words: list[str]) -> int:
    record = report.verify(_value(options, words), _guests(options), measured=not options.again)
    if options.json:
        _print(record)
        return 0 if record["good"] else REFUSED
    rows = [(row["instruction"], row["tier"], "held" if row["held"] else "-", row["how"]) for row in record["classes"]]
    _rows(("INSTRUCTION", "TIER", "BLOCKED", "HOW"), rows)
    ignored = [name for name, found in record["controls"].items() if not found]
    if ignored:
        say(_wrapped("controls without effect on programs here", ignored))
    for problem in record["problems"]:
        say(f"{problem}\n")
    able = "can" if record["good"] else "cannot"
    say(f"{plain(record['value'])} {able} be held as required ({record['require']}) on {record['backend']}\n")
    return 0 if record["good"] else REFUSED


def _diff(options: Options, words: list[str]) -> int:
    if len(words) != 2:
        raise InvalidRequest("diff compares two", f"{len(words)} given", "enisle cpu diff A.json B.json")
    record = report.difference(*(report.read(word) for word in words))
    if options.json:
        _print(record)
    elif record["same"]:
        say("they are the same\n")
    else:
        for side, word in (("only_first", words[0]), ("only_second", words[1])):
            if record[side]:
                say(_wrapped(f"only {plain(word)}", record[side]))
        for line in record.get("second_loses", []):
            say(f"{plain(words[1])} permits less: {line}\n")
        for line in record.get("first_loses", []):
            say(f"{plain(words[0])} permits less: {line}\n")
        if "entries" in record:
            say(f"{len(record['entries']['first'])} answers of CPUID differ: enisle cpu strip\n")
    return 0


def _fingerprint(options: Options, words: list[str]) -> int:
    backend = _guests(options)
    if not words:
        taken = fingerprint.fingerprint(backend)
        if options.json or not _write(options, fingerprint.dump(taken), "the fingerprint"):
            say(fingerprint.dump(taken))
        return 0
    _take_no(words[1:], "fingerprint")
    found = report.compare_fingerprint(words[0], backend, _value(options), options.cross_vendor)
    if options.json:
        _print(found)
    else:
        for line in (*found["reasons"], *found["notes"]):
            say(f"{line}\n")
        say(f"{found['verdict']}\n")
    return REFUSED if found["verdict"] == "refused" else 0


def _levels(options: Options, words: list[str]) -> int:
    _take_no(words, "levels")
    rows = report.level_rows(dumps.take(_backend(options, "host")))
    if options.json:
        _print(
            [{"name": name, "possible": good, ("demands" if good else "missing"): names} for name, good, names in rows]
        )
        return 0
    cells = [
        (name, "yes" if good else "no", ("" if good else "missing: ") + " ".join(names)) for name, good, names in rows
    ]
    _rows(("LEVEL", "HERE", "DEMANDS"), cells)
    return 0


VERBS: dict[str, Callable[[Options, list[str]], int]] = {
    "dump": _dump,
    "strip": _strip,
    "baseline": _baseline,
    "show": _show,
    "verify": _verify,
    "diff": _diff,
    "fingerprint": _fingerprint,
    "levels": _levels,
}
