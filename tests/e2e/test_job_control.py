"""A program alone on an island is stopped and continued by its caller's shell, or by whoever sends signals.

What a program without an island sees is what it must see here: its terminal's modes, and each signal once.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from commandline import ENISLE
from onterminal import OnTerminal

pytestmark = [pytest.mark.kvm, pytest.mark.root]

EDITOR = """
import os, select, signal, termios, tty
cooked, continued = termios.tcgetattr(0), 0
# A handler of Python's runs between instructions: a read that has just begun would hide a signal until the next key.
bell, ringer = os.pipe2(os.O_NONBLOCK)
signal.set_wakeup_fd(ringer)
def count(*_):
    global continued
    continued += 1
def stop(*_):
    termios.tcsetattr(0, termios.TCSADRAIN, cooked)
    signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTSTP)
    tty.setcbreak(0)
    signal.signal(signal.SIGTSTP, stop)
    os.write(1, b"<again>")
signal.signal(signal.SIGTSTP, stop)
signal.signal(signal.SIGCONT, count)
tty.setcbreak(0)
os.write(1, b"<up>")
key = b""
while key != b"q":
    ready, _, _ = select.select([0, bell], [], [])
    if bell in ready:
        os.read(bell, 100)
    if 0 in ready:
        key = os.read(0, 1)
        os.write(1, b"<%s, continued %d times>" % (key, continued))
"""
"""Handles its terminal as editors and pagers do: gives the modes back, stops, takes them again."""


def test_a_full_screen_program_has_its_modes_again_when_it_is_continued(tmp_path: Path) -> None:
    (tmp_path / "editor.py").write_text(EDITOR)
    shell = OnTerminal("--norc", "--noprofile", "-i", program="/bin/bash")
    shell.expect(b"# ")
    shell.type(f"{ENISLE} run --mount '{tmp_path}:/data' -- {sys.executable} -S /data/editor.py\r".encode())
    shell.expect(b"<up>")
    for turn in range(1, 9):
        shell.type(b"\x1a")
        shell.expect(b"Stopped")
        shell.expect(b"# ")
        shell.type(b"fg\r")
        shell.expect(b"<again>")
        shell.type(b"k")  # without Return: it comes through only in the program's own modes
        shell.expect(b"<k, continued %d times>" % turn)
    shell.type(b"q")
    shell.expect(b"# ")
    shell.type(b"exit\r")
    assert shell.end() == 0


@pytest.mark.parametrize("signo", [signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN])
def test_a_program_that_stops_itself_stops_the_command_and_is_continued_with_it(signo: int) -> None:
    command = [ENISLE, "run", "--", "busybox", "sh", "-c", f"echo before; kill -{signo} $$; echo after; exit 3"]
    # A group of its own in our session: in an orphaned one (setpgid(2)) SIGTSTP and SIGTTIN would stop nothing.
    with subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"before\n"
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == b"after\n"
        assert process.wait(30) == 3
