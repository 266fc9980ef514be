"""Words in, calls down, tables out. Alone owns the terminal; cheap to import.

May import the doors of all rooms below. Promises: results on stdout, messages on stderr, three-line errors with a
hint, documented exit codes, a traceback with --debug alone.
"""

from enisle.cli.main import main

__all__ = ["main"]
