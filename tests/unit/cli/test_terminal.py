"""Stopping with the program and being continued, each in a process that may be stopped."""

import os
import signal
import subprocess
import sys

import pytest

PREPARED = """
import os, signal, sys
from types import SimpleNamespace
from enisle.cli.terminal import SignalForwarder, Terminal, hold_signals
class Target:
    def signal_terminal(self, signo): print("foreground", signo, flush=True)
    def kill(self, signo): print("all", signo, flush=True)
    def window_changed(self): print("window", flush=True)
held = hold_signals()
program = SimpleNamespace(stopped=int(sys.argv[1]), exiting=False)
"""
STOPS = PREPARED + "Terminal().stop_with(program); print('on', flush=True)"
STOPS_CONTINUED = PREPARED + (
    "os.kill(os.getpid(), signal.SIGCONT); Terminal().stop_with(program); print(signal.SIGCONT in signal.sigpending())"
)
FORWARDS = PREPARED + (
    "forwarder = SignalForwarder(held, Target(), Terminal()); forwarder.stop_with(program); sys.stdin.read()"
)


def start(script: str, signo: int) -> "subprocess.Popen[str]":
    """Run a script in a process group that is not orphaned: there is a shell, this process, to continue it."""
    return subprocess.Popen(
        [sys.executable, "-c", script, str(int(signo))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def stop_of(process: "subprocess.Popen[str]") -> int:
    """Wait until the process has stopped; return the signal."""
    status = os.waitpid(process.pid, os.WUNTRACED)[1]
    assert os.WIFSTOPPED(status), status
    return os.WSTOPSIG(status)


@pytest.mark.parametrize(
    ("stopped_by", "stops_with"),
    [
        (signal.SIGTSTP, signal.SIGTSTP),
        (signal.SIGSTOP, signal.SIGSTOP),
        (signal.SIGTTIN, signal.SIGSTOP),
        (signal.SIGTTOU, signal.SIGSTOP),
    ],
)
def test_this_process_stops_as_its_program_did(stopped_by: int, stops_with: int) -> None:
    with start(STOPS, stopped_by) as process:
        assert stop_of(process) == stops_with
        process.send_signal(signal.SIGCONT)
        assert process.communicate() == ("on\n", None)


@pytest.mark.parametrize("stopped_by", [signal.SIGTSTP, signal.SIGSTOP])
def test_who_has_been_continued_already_does_not_stop(stopped_by: int) -> None:
    with start(STOPS_CONTINUED, stopped_by) as process:
        assert process.communicate(timeout=30) == ("True\n", None)
    assert process.returncode == 0


def test_a_program_that_goes_on_meanwhile_stops_nobody() -> None:
    with start(STOPS, 0) as process:
        assert process.communicate(timeout=30) == ("on\n", None)


@pytest.mark.parametrize("stopped_by", [signal.SIGTSTP, signal.SIGSTOP])
def test_the_programs_are_continued_once_and_signals_are_forwarded_again(stopped_by: int) -> None:
    with start(FORWARDS, stopped_by) as process:
        assert process.stdout is not None
        stop_of(process)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == f"all {signal.SIGCONT:d}\n"
        process.send_signal(signal.SIGCHLD)  # means nothing
        process.send_signal(signal.SIGWINCH)
        assert process.stdout.readline() == "window\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == f"foreground {signal.SIGINT:d}\n"
        assert process.communicate("") == ("", None)
