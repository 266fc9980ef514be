"""The command line's edge: reads the words, calls the verb, turns what went wrong into lines and an exit code."""

import gc
import os
import signal
import sys
from collections.abc import Sequence

from enisle.cli.grammar import Options
from enisle.cli.options import PLATFORM, parse
from enisle.cli.output import forget_stdout, tell
from enisle.errors import EnisleError

INTERNAL = 70
"""sysexits.h EX_SOFTWARE: our own bug."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    # Until there is something to tidy up, Ctrl-C simply ends us: no traceback, nothing left behind.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    closed = _reserve_stdio()
    debug = False
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        options.closed, debug = closed, options.debug
        return _run_verb(options)
    except EnisleError as error:
        if debug:
            raise
        tell(error)
        return error.exit_code
    except BrokenPipeError:
        forget_stdout()  # closed early, as by `| head`: leave quietly
        return 128 + signal.SIGPIPE
    except Exception as error:
        if debug:
            raise
        tell(EnisleError("this is a bug in Enisle", f"{type(error).__name__}: {error}", "run it again with --debug"))
        return INTERNAL


def _reserve_stdio() -> frozenset[int]:
    """Open /dev/null for standard descriptors that are closed, so that no file of ours takes their numbers."""
    closed: set[int] = set()
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        closed.add(descriptor)
    os.close(descriptor)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115 - for good
    return frozenset(closed)


def _run_verb(options: Options) -> int:
    match options.verb:
        case "run":
            gc.disable()  # while everything is imported there is nothing to collect; the island turns it on again
            from enisle.cli.run import run

            return run(options)
        case "doctor":
            from enisle.cli.doctor import doctor

            return doctor(options)
        case "ps":
            from enisle.cli.ps import ps

            return ps(options)
        case "top":
            from enisle.cli.top import top

            return top(options)
        case "inspect":
            from enisle.cli.inspect import inspect

            return inspect(options)
        case "cpu":
            from enisle.cli.cpu import cpu

            return cpu(options)
        case "introspect":
            from enisle.cli.introspect import introspect

            return introspect(options)
        case "replicate":
            from enisle.cli.replicate import replicate

            return replicate(options)
        case "completion":
            from enisle.cli.completion import completion

            return completion(options)
        case "vm":
            from enisle.cli.vm import vm

            return vm(options)
        case verb if verb in PLATFORM:
            from enisle.cli.platform import platform

            return platform(options)
        case verb:
            raise AssertionError(f"{verb=}")
