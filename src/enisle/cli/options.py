"""The words of the command line: verbs, options, their help, and the exit codes told in the epilogue."""

from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from argparse import _ActionsContainer as Container
from collections.abc import Sequence
from typing import Any

from enisle import __version__

EXIT_CODES = """exit codes of run:
  the program's own; 128 + N when signal N ended it
  2     the request can never work: an impossible option, a mount that does not exist
  124   --timeout ended the program
  125   the island could not be made, or came to an end of its own
  126   the program is there but cannot be run
  127   the program was not found
"""

EXAMPLES = """examples:
  enisle run -- python3 script.py
  enisle run --mount ./data:/data:rw --memory 512M --timeout 60 -- sh -c 'sort /data/in > /data/out'
  enisle run --stats -- true

"""


class Formatter(RawDescriptionHelpFormatter):
    """Help of a fixed width: asking the terminal would import half a dozen modules for every command (5 ms)."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=100)


class Options(Namespace):
    """What was typed. `verb` says which of the others are there."""

    verb: str
    debug: bool
    json: bool
    root: str | None
    mounts: list[str]
    variables: list[str]
    cwd: str | None
    memory: str
    processors: int
    processes: int
    timeout: float | None
    network: str
    processor: str
    exitless: str
    trace: bool
    stats: bool
    command: list[str]
    closed: frozenset[int]
    """Standard descriptors that were closed when we were started; not typed, but told the same way."""


def parse(words: Sequence[str]) -> Options:
    """Return the options; exits with 2 for words that make no sense, 0 for --help and --version."""
    parser = _parser()
    options = parser.parse_args(words, Options())
    if not getattr(options, "verb", None):
        parser.print_help()
        raise SystemExit(2)
    if options.verb == "run":
        if options.command[:1] == ["--"]:
            del options.command[0]
        if not options.command:
            parser.exit(2, "enisle: no program to run\n  hint: enisle run -- PROGRAM ARGUMENTS…\n")
    return options


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "enisle",
        description="Run any Linux program on an island of its own: a machine in hardware, a kernel in Python.",
        epilog=EXAMPLES,
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"enisle {__version__}")
    _add_debug(parser, False)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", prog="enisle")
    _add_run(verbs.add_parser("run", **_about("run a program on an island", EXAMPLES + EXIT_CODES)))
    check = verbs.add_parser("doctor", **_about("say what this host can do, with remedies", ""))
    check.add_argument("--json", action="store_true", help="print one JSON record")
    _add_debug(check, SUPPRESS)
    return parser


def _about(text: str, epilog: str) -> dict[str, Any]:
    return {"help": text, "description": text, "epilog": epilog, "formatter_class": Formatter, "allow_abbrev": False}


def _add_debug(parser: Container, default: object) -> None:
    # The verbs accept it too; their default must not overwrite what stood before the verb.
    parser.add_argument("--debug", action="store_true", default=default, help="show a traceback when something fails")


def _add_run(parser: ArgumentParser) -> None:
    parser.usage = "enisle run [OPTIONS] [--] PROGRAM [ARGUMENTS…]"
    see = parser.add_argument_group("what the program sees")
    see.add_argument("--root", metavar="DIR", help="use DIR as the root (default: a view of the host's system)")
    see.add_argument(
        "--mount",
        dest="mounts",
        metavar="SRC:DST[:ro|rw]",
        action="append",
        default=[],
        help="show a path of the host at DST, read-only unless :rw",
    )
    see.add_argument(
        "--env", dest="variables", metavar="K=V", action="append", default=[], help="set an environment variable"
    )
    see.add_argument("--cwd", metavar="DIR", help="start in DIR (default: the working directory, shown read-only)")
    see.add_argument("--network", default="none", metavar="none|host", help="none: a private loopback (default)")
    limits = parser.add_argument_group("what it may use")
    limits.add_argument("--memory", default="4G", metavar="SIZE", help="a quarter of it for written files (4G)")
    limits.add_argument("--processors", type=int, default=0, metavar="N", help="default: the host's")
    limits.add_argument("--processes", type=int, default=4096, metavar="N", help="processes and threads (4096)")
    limits.add_argument("--timeout", type=float, metavar="SECONDS", help="kill the program after that long")
    machine = parser.add_argument_group("what it runs on")
    machine.add_argument("--processor", default="auto", metavar="auto|kvm|emulated", help="(auto)")
    machine.add_argument("--exitless", default="auto", metavar="auto|off", help="serve calls without leaving (auto)")
    tell = parser.add_argument_group("what you are told")
    tell.add_argument("--trace", action="store_true", help="print system calls on stderr")
    tell.add_argument("--stats", action="store_true", help="print statistics on stderr when it ends")
    tell.add_argument("--json", action="store_true", help="print one JSON record on stdout, output captured in it")
    _add_debug(tell, SUPPRESS)
    parser.add_argument("command", nargs="...", help=SUPPRESS)
