"""Tell of an error without reading source files: in an island their paths lead to the guest's."""

import sys
from types import TracebackType


def report(error: BaseException) -> str:
    """Return a traceback of names and line numbers: like Python's, without the lines of the source."""
    parts: list[str] = []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        parts.append(report(cause) + "\nwhich led to:\n")
    parts.append("Traceback (most recent call last):\n")
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        parts.append(f'  File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_qualname}\n')
        trace = trace.tb_next
    return "".join(parts) + f"{type(error).__name__}: {error}"


def print_report(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    """Be `sys.excepthook`."""
    sys.stderr.write(report(error) + "\n")
