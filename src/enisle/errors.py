"""What can go wrong, by who must act.

    EnisleError            any failure of ours; ``exit_code`` is what the command line exits with
    ├── InvalidRequest     2   the request can never work: fix the words (API 400)
    ├── NotFound           3   the thing named does not exist (API 404)
    ├── StateError         4   right request, wrong moment (API 409)
    ├── HostError          5   this computer cannot or will not do it (API 503)
    └── GuestError         6   the guest did the impossible, or our kernel failed it; the island is gone
    LinuxError                 an errno on its way to the guest's rax; never leaves dispatch

An AssertionError is our own bug and is never caught below the edge of the process.
"""

import os

__all__ = ["EnisleError", "GuestError", "HostError", "InvalidRequest", "LinuxError", "NotFound", "StateError"]


class EnisleError(Exception):
    """A failure told in three parts: what failed, why in the user's terms, and what to type next."""

    exit_code = 1

    def __init__(self, message: str, why: str = "", hint: str = "") -> None:
        super().__init__(message, why, hint)
        self.message = message
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        """Return the parts that are there, one a line, as the command line prints them."""
        lines = [self.message]
        if self.why:
            lines.append(f"  {self.why}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


class InvalidRequest(EnisleError):
    """The request can never work as it was put."""

    exit_code = 2


class NotFound(EnisleError):
    """The thing named does not exist."""

    exit_code = 3


class StateError(EnisleError):
    """The thing exists, but not in a state that allows this."""

    exit_code = 4


class HostError(EnisleError):
    """The host lacks something or forbids it."""

    exit_code = 5


class GuestError(EnisleError):
    """An island came to an end that no guest program can ask for."""

    exit_code = 6


class LinuxError(Exception):
    """An errno for the guest. Raised often, so it holds one integer and formats nothing until shown."""

    __slots__ = ("errno",)

    def __init__(self, errno: int) -> None:
        self.errno = errno

    def __str__(self) -> str:
        """Return the name of the errno and what it means."""
        import errno as names

        return f"{names.errorcode.get(self.errno, self.errno)}: {os.strerror(self.errno)}"
