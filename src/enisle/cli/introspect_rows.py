"""How the views of `enisle introspect` look as lines. Pure."""

from collections.abc import Callable, Sequence
from typing import Any

from enisle.cli.output import size
from enisle.introspect import CodeHash, Fact, Mapped, Process, Report

HEADS: dict[str, tuple[str, ...]] = {
    "facts": ("NAME", "KIND", "VALUE", "STATUS", "WITNESSES", "TRACE"),
    "ps": ("PID", "PPID", "TGID", "UID", "STATE", "THREADS", "COMM"),
    "creds": ("PID", "UID", "EUID", "GID", "EGID", "FSUID", "COMM"),
    "lsmod": ("MODULE", "STATE", "USED", "ADDRESS"),
    "syscalls": ("NUMBER", "NAME", "HANDLER", "TABLE", "IMPLEMENTED"),
    "idt": ("VECTOR", "HANDLER", "PLACE", "ATTRIBUTES", "STACK"),
    "msr": ("PROCESSOR", "MSR", "NAME", "VALUE", "PLACE"),
    "locks": ("LOCK", "KIND", "ADDRESS", "HELD", "OWNER"),
    "maps": ("PROCESS", "START", "END", "SIZE", "RIGHTS"),
    "wx": ("PROCESS", "START", "END", "SIZE", "RIGHTS"),
    "hashes": ("PROCESS", "START", "END", "SHA256", "MISSING"),
}


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)


def _address(value: int | None) -> str:
    return "-" if value is None else f"{value:#x}"


def _fact(fact: Fact) -> Sequence[str]:
    roots = {witness.root for witness in fact.witnesses}
    return (fact.name, fact.kind, _address(fact.value), fact.status, str(len(roots)), fact.trace or "-")


def _process(process: Process) -> Sequence[str]:
    comm = f"[{process.comm}]" if process.kernel_thread else process.comm
    numbers = (str(process.pid), str(process.ppid), str(process.tgid), _number(process.uid))
    return (*numbers, process.state, str(len(process.threads)), comm)


def _credentials(process: Process) -> Sequence[str]:
    return (str(process.pid), *(_number(getattr(process.credentials, name)) for name in
            ("uid", "euid", "gid", "egid", "fsuid")), process.comm)  # fmt: skip


def _mapped(row: tuple[str, Mapped]) -> Sequence[str]:
    process, run = row
    return (process, f"{run.start:#x}", f"{run.start + run.size:#x}", size(run.size), run.rights)


def _hash(row: tuple[str, CodeHash]) -> Sequence[str]:
    process, code = row
    return (process, f"{code.start:#x}", f"{code.start + code.size:#x}", code.sha256, str(code.missing))


ROWS: dict[str, Callable[[Any], Sequence[str]]] = {
    "facts": _fact,
    "ps": _process,
    "creds": _credentials,
    "lsmod": lambda m: (m.name, m.state, _number(m.references), _address(m.address)),
    "syscalls": lambda s: (
        str(s.number), s.name, _address(s.handler), _address(s.table), "yes" if s.implemented else "no"
    ),
    "idt": lambda g: (f"{g.vector:#04x}", _address(g.target), g.place, f"{g.attributes:#x}", str(g.stack)),
    "msr": lambda m: (str(m.processor), f"{m.number:#x}", m.name, _address(m.value), m.place),
    "locks": lambda k: (k.name, k.kind, _address(k.address), {True: "yes", False: "no"}.get(k.held, "?"), k.owner),
    "maps": _mapped,
    "wx": _mapped,
    "hashes": _hash,
}  # fmt: skip


def status_line(rows: int, seconds: float, paused: float) -> str:
    """Return what is told beneath a table."""
    return f"{rows} rows in {seconds * 1000:.0f} ms; the guest stood still for {paused * 1000:.0f} ms\n"


def report_lines(report: Report) -> list[str]:
    """Return a check's result, findings first."""
    lines = [f"FOUND  {finding.kind}: {finding.subject}: {finding.message}" for finding in report.findings]
    lines += [f"note   {note}" for note in report.notes]
    lines += [f"{len(report.findings)} findings" if report.findings else f"clean: {', '.join(report.checked)}"]
    return lines
