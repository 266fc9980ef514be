"""Dispatcher and API together, as the first process of the controller's island: both or none.

`python -m enisle.control controller API… -- DISPATCHER…`. One thread owns it: it waits.
"""

import os
import signal
import subprocess

from enisle.control.parts import python

PATIENCE_S = 6.0


def main(words: list[str]) -> int:
    """Run both until one ends or a signal comes; return the status of the one that ended first."""
    at = words.index("--")
    commands = (python("enisle.api", *words[:at]), python("enisle.control", "dispatcher", *words[at + 1 :]))
    asked: list[int] = []
    parts: list[subprocess.Popen[bytes]] = []

    def stop(signo: int, frame: object) -> None:
        asked.append(signo)
        for part in parts:
            part.send_signal(signal.SIGTERM)

    for signo in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signo, stop)
    parts += [subprocess.Popen(command, stdin=subprocess.DEVNULL) for command in commands]
    pid, status = os.wait()
    for part in parts:
        if part.pid == pid:
            part.returncode = os.waitstatus_to_exitcode(status)
        else:
            part.terminate()
    for part in parts:
        try:
            part.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            part.kill()
    return 0 if asked else os.waitstatus_to_exitcode(status) & 0xFF or 1
