"""The terminal while it is a machine's console: every key goes to the guest, but for the one that leaves.

Promises: the terminal's modes are what they were, however `show` ends short of SIGKILL. Owned by the main thread.
"""

import os
import select
import socket
import termios
import tty

LEAVE = b"\x1d"
"""Ctrl-], as telnet has it: no shell or editor of a guest needs it."""


class Screen:
    """Standard input and output, connected to a serial console."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._input = 0

    def show(self) -> bool:
        """Pass bytes both ways until the guest's end goes; whether the user left before."""
        try:
            modes = termios.tcgetattr(self._input)
        except termios.error:
            return self._pass(raw=False)
        try:
            tty.setraw(self._input, termios.TCSANOW)
            return self._pass(raw=True)
        finally:
            termios.tcsetattr(self._input, termios.TCSADRAIN, modes)

    def _pass(self, raw: bool) -> bool:
        watched = select.poll()
        watched.register(self._connection, select.POLLIN)
        try:
            watched.register(self._input, select.POLLIN)
        except OSError:
            pass  # closed by the caller
        while True:
            for descriptor, _ in watched.poll():
                if descriptor == self._connection.fileno():
                    if not self._show_output():
                        return False
                elif (typed := os.read(self._input, 4096)) == b"":
                    watched.unregister(self._input)  # no more to type; the guest goes on
                elif raw and LEAVE in typed:
                    self._type(typed.partition(LEAVE)[0])
                    return True
                else:
                    self._type(typed)

    def _show_output(self) -> bool:
        try:
            output = self._connection.recv(65536)
        except ConnectionError:
            return False
        rest = output
        while rest:
            rest = rest[os.write(1, rest) :]
        return bool(output)

    def _type(self, typed: bytes) -> None:
        try:
            self._connection.sendall(typed)
        except ConnectionError:
            pass  # its end is read next
