"""A command's terminal on its caller's side: sizes, which characters mean what, and the flush that belongs to them."""

import os
import select
import signal
import termios
from collections.abc import Iterator

import pytest

from enisle.errors import InvalidRequest
from enisle.island import command_terminal as terminal


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    pair = terminal.open_pair(24, 80)
    yield pair
    for descriptor in pair:
        os.close(descriptor)


def test_a_new_size_is_told_once(pair: tuple[int, int]) -> None:
    ours, theirs = pair
    assert os.get_terminal_size(theirs) == (80, 24)
    assert terminal.resize(ours, 40, 120) == (signal.SIGWINCH,)
    assert os.get_terminal_size(theirs) == (120, 40)
    assert terminal.resize(ours, 40, 120) == ()
    for rows, columns in ((0, 80), (24, 0), (1001, 80), (24, -1)):
        with pytest.raises(InvalidRequest, match="terminal"):
            terminal.resize(ours, rows, columns)
        with pytest.raises(InvalidRequest, match="terminal"):
            terminal.open_pair(rows, columns)


def test_characters_mean_what_the_modes_say(pair: tuple[int, int]) -> None:
    ours, theirs = pair
    modes = termios.tcgetattr(ours)
    assert terminal.first_signal(modes, b"ab\x1acd\x03") == 3
    assert terminal.first_signal(modes, b"abc") == 3
    assert terminal.meant_by(modes, b"ab\x1a") == (signal.SIGTSTP,)
    assert terminal.meant_by(modes, b"ab\x1acd") == ()
    assert terminal.end_of_input(modes, at_line_begin=True) == b"\x04"
    assert terminal.end_of_input(modes, at_line_begin=False) == b"\x04\x04"
    modes[6][termios.VSUSP] = b"\0"  # switched off
    modes[6][termios.VINTR] = b"x"
    termios.tcsetattr(theirs, termios.TCSANOW, modes)
    modes = termios.tcgetattr(ours)
    assert terminal.meant_by(modes, b"\x1a") == terminal.meant_by(modes, b"\0") == ()
    assert terminal.meant_by(modes, b"x") == (signal.SIGINT,)
    modes[3] &= ~termios.ISIG
    assert terminal.meant_by(modes, b"x") == ()
    assert terminal.first_signal(modes, b"axb") == 3


def test_what_is_shown_after_a_signal_is_not_flushed_with_it(pair: tuple[int, int]) -> None:
    ours, theirs = pair
    modes = termios.tcgetattr(ours)
    waiting = select.poll()
    waiting.register(theirs, select.POLLIN)
    os.set_blocking(ours, False)
    for _ in range(200):
        os.write(ours, b"typed ahead\r\x03")
        terminal.settle(ours, modes)
        os.write(theirs, b"the answer\n")
        seen = b""
        while b"answer\r\n" not in seen:
            assert select.select([ours], [], [], 5)[0], seen
            seen += os.read(ours, 4096)
        assert not waiting.poll(0)
