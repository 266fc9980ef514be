"""`enisle run`: this process becomes the island, runs one program in it, and exits as the program did."""

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

from enisle.cli.grammar import Options
from enisle.cli.output import mutter, say, tell, tell_note
from enisle.cli.terminal import SignalForwarder, Terminal, hold_signals
from enisle.errors import EnisleError, InvalidRequest
from enisle.island import Configuration, parse_environment, parse_mount, parse_size, report, validate
from enisle.records import Record

if TYPE_CHECKING:
    from enisle.island import Command, IslandProcess
    from enisle.kernel import Process

TIMED_OUT, ISLAND_FAILED = 124, 125


class Outcome(Record):
    """How a run ended."""

    exit_code: int
    signal: int
    timed_out: bool
    seconds: float
    statistics: dict[str, Any]


def run(options: Options) -> int:
    """Run the program; does not return but leaves the process with its exit code."""
    configuration = configure(options)
    if options.timeout is not None and not 0 < options.timeout < threading.TIMEOUT_MAX:
        raise InvalidRequest(
            f"a timeout of {options.timeout:g} seconds makes no sense", "it must be more than 0", "--timeout 60"
        )
    try:
        code = _run(options, configuration)
    except EnisleError as error:
        _show(error, options.debug)
        code = error.exit_code if error.exit_code in (2, 126, 127) else ISLAND_FAILED
    except Exception as error:
        _show(error, options.debug)
        code = ISLAND_FAILED
    _leave(code)


def _show(error: Exception, debug: bool) -> None:
    if debug:
        mutter(report(error) + "\n")
    elif isinstance(error, EnisleError):
        tell(error)
    else:
        hint = "run it again with --debug for a report"
        tell(EnisleError("a bug in Enisle ended the island", f"{type(error).__name__}: {error}", hint))


def _leave(code: int) -> NoReturn:
    """Exit at once: the interpreter's own tidying up takes milliseconds, and the host does it better."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        pass  # closed early, as by `| head`
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # closed by the caller
    os._exit(code)


def configure(options: Options) -> Configuration:
    """Return the configuration that the words ask for. Raises InvalidRequest."""
    return validate(
        Configuration(
            root=os.path.abspath(options.root) if options.root is not None else None,
            mounts=tuple(parse_mount(text) for text in options.mounts),
            environment=parse_environment(options.variables),
            cwd=options.cwd,
            memory=parse_size(options.memory),
            processors=options.processors,
            processes=options.processes,
            network=options.network,
            processor=options.processor,
            exitless=options.exitless,
            nodes=options.nodes,
            page_tables=options.page_tables,
            vm_per_node=options.vm_per_node,
            verify_page_tables=options.verify_page_tables,
            trace=options.trace,
            timing=options.stats or options.json,
            blocking=_blocking(options),
            name=options.name,
        )
    )


def _blocking(options: Options) -> str:
    if not options.cpus and not options.cpu_require:
        return ""
    from enisle.machine import read_key, resolve  # the machine room takes long to import: only for those who ask

    key = read_key(options.cpu_key) if options.cpu_key else None
    return resolve(options.cpus, options.cpu_require, key).encode()


def _run(options: Options, configuration: Configuration) -> int:
    capture = Capture() if options.json else None
    out, err = (capture.stdout, capture.stderr) if capture else (_unless_closed(1, options), _unless_closed(2, options))
    stdio = (_unless_closed(0, options), out, err)
    with Terminal() as terminal:
        from enisle.island import Command, IslandProcess  # machine and kernel: not needed to refuse a request

        held = hold_signals()
        # Never closed: the host takes processes, memory and mounts back with this process, faster than we could.
        island = IslandProcess(configuration, _write_note, _write_line)
        try:
            for note in island.notes():
                tell_note(note)
            command = Command(options.command, island.environment, island.jail.cwd, stdio)
            outcome = _run_on(island, command, options, terminal, held)
        finally:
            island.leave()
    if capture:
        capture.print_record(outcome)
    if options.stats:
        _print_statistics(outcome)
    if outcome.timed_out and not options.json:
        tell_note(f"killed after {options.timeout:g} seconds")
    return outcome.exit_code


def _run_on(
    island: "IslandProcess", command: "Command", options: Options, terminal: Terminal, held: frozenset[signal.Signals]
) -> Outcome:
    begin = time.monotonic()
    process = island.start(command)
    forwarder = SignalForwarder(held, island.kernel, terminal)
    unwatched = options.timeout is not None and not terminal.is_there
    status, expired = _wait(island, process, None if unwatched else forwarder, options.timeout)
    return _outcome(status, expired, time.monotonic() - begin, island.statistics())


def _unless_closed(descriptor: int, options: Options) -> int:
    return -1 if descriptor in options.closed else descriptor


def _wait(
    island: "IslandProcess", process: "Process", stopper: SignalForwarder | None, timeout: float | None
) -> tuple[int, bool]:
    """Return the program's last wait status, and whether its time ran out.

    Without a `stopper` this process does not stop when the program does: nobody is there to continue it, and the time
    runs.
    """
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        island.kernel.kill(signal.SIGKILL)

    watchdog = threading.Timer(timeout or 0, expire)
    watchdog.daemon = True
    if timeout is not None:
        watchdog.start()
    while True:
        status = island.wait(process)
        if os.WIFSTOPPED(status) and stopper is not None:
            stopper.stop_with(process)
        elif not os.WIFSTOPPED(status) and not os.WIFCONTINUED(status):
            watchdog.cancel()
            return status, expired.is_set()


def _outcome(status: int, expired: bool, seconds: float, statistics: dict[str, Any]) -> Outcome:
    killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    code = 128 + killed_by if killed_by else os.WEXITSTATUS(status)
    timed_out = expired and killed_by == signal.SIGKILL
    return Outcome(TIMED_OUT if timed_out else code, killed_by, timed_out, seconds, statistics)


def _write_line(line: str) -> None:
    """Print on stderr at once and whole: several threads do."""
    try:
        os.write(2, f"{line}\n".encode(errors="backslashreplace"))
    except OSError:
        pass  # nobody listens


def _write_note(line: str) -> None:
    _write_line(f"enisle: note: {line}")


class Capture:
    """Standard output and error kept in memory, for a record of the whole run."""

    def __init__(self) -> None:
        from json import dumps  # now: inside the island there is no importing any more

        self._encode = dumps
        self.stdout, self.stderr = os.memfd_create("stdout"), os.memfd_create("stderr")

    def print_record(self, outcome: Outcome) -> None:
        """Print one line of JSON; bytes that are not UTF-8 become lone surrogates (PEP 383)."""
        record = outcome._asdict() | {"stdout": _read(self.stdout), "stderr": _read(self.stderr)}
        say(self._encode(record) + "\n")


def _read(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return b"".join(os.pread(descriptor, 1 << 20, at) for at in range(0, size, 1 << 20)).decode(
        errors="surrogateescape"
    )


def _print_statistics(outcome: Outcome) -> None:
    mutter(f"{'seconds':<20} {outcome.seconds:.4f}\n")
    for name, value in outcome.statistics.items():
        shown = f"{value:.4f}" if isinstance(value, float) else f"{value}"
        mutter(f"{name:<20} {shown}\n")
