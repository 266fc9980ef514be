"""The words of the command line: its verbs, and the options of `run`. Those of the others are imported when used."""

from collections.abc import Sequence

from enisle.cli.grammar import DEBUG, HELP, Group, Option, Options, Verb, help_of, read_options, read_verb, unknown
from enisle.cli.output import say
from enisle.errors import InvalidRequest

EXIT_CODES = """
exit codes of run:
  the program's own; 128 + N when signal N ended it
  2     the request can never work: an impossible option, a mount that does not exist
  124   --timeout ended the program
  125   the island could not be made, or came to an end of its own
  126   the program is there but cannot be run
  127   the program was not found
"""

EXAMPLES = """
examples:
  enisle run -- python3 script.py
  enisle run --mount ./data:/data:rw --memory 512M --timeout 60 -- sh -c 'sort /data/in > /data/out'
  enisle run --stats -- true
"""

CONTEXT = Option("--context", "the platform to speak to, by its name (the current one)", "NAME", "")
URL = Option("--url", "the platform to speak to, by its address (ENISLE_URL)", "URL", "")
TENANT = Option("--tenant", "act in it, as an administrator; '*' looks at all (ENISLE_TENANT)", "TENANT", "")
WHERE = (
    Option("--context", "at the platform of that name", "NAME", ""),
    Option("--url", "at the platform of that address", "URL", ""),
    Option("--tenant", "at the current platform; in it, as an administrator", "TENANT", ""),
)
"""The same, of verbs that are about this machine as long as none of them is given."""
ENISLE: tuple[Group, ...] = (
    ("options", (HELP, Option("--version", "show the version and exit"), CONTEXT, URL, TENANT, DEBUG)),
)
RUN: tuple[Group, ...] = (
    (
        "what the program sees",
        (
            Option("--root", "use DIR as the root (default: a view of the host's system)", "DIR", None),
            Option("--mount", "show a path of the host at DST, read-only unless :rw", "SRC:DST[:ro|rw]", many="mounts"),
            Option("--env", "set an environment variable", "K=V", many="variables"),
            Option("--cwd", "start in DIR (default: the working directory, shown read-only)", "DIR", None),
            Option("--network", "none: a private loopback (default)", "none|host", "none"),
        ),
    ),
    (
        "what it may use",
        (
            Option("--memory", "a quarter of it for written files (4G)", "SIZE", "4G"),
            Option("--processors", "default: the host's", "N", 0, int),
            Option("--processes", "processes and threads (4096)", "N", 4096, int),
            Option("--timeout", "kill the program after that long", "SECONDS", None, float),
        ),
    ),
    (
        "what it runs on",
        (
            Option("--processor", "(auto)", "auto|kvm|emulated", "auto"),
            Option("--nodes", "memory nodes with processors of their own (1)", "N", 1, int),
            Option(
                "--page-tables",
                "copies of page tables per node, of all or some nodes (off)",
                "off|eager|lazy|auto|migrate[:NODES]",
                "off",
            ),
            Option("--vm-per-node", "the hypervisor's own tables per node, too"),
            Option("--verify-page-tables", "check every change of copies (slow)"),
            Option("--exitless", "serve calls without leaving (auto)", "auto|off", "auto"),
            Option("--cpu", "what its processors may execute; may be given often", "LEVEL|TEMPLATE|FILE", many="cpus"),
            Option("--cpu-require", "how well every block must hold (none)", "none|detect|enforced|patch|hw", ""),
            Option("--cpu-key", "take only values signed with the key in FILE", "FILE", ""),
        ),
    ),
    (
        "what you are told",
        (
            Option("--trace", "print system calls on stderr"),
            Option("--name", "what `enisle ps` calls it (default: its id)", "NAME", ""),
            Option("--stats", "print statistics on stderr when it ends"),
            Option("--json", "print one JSON record on stdout, output captured in it"),
            DEBUG,
            HELP,
        ),
    ),
)
RUN_VERB = Verb(
    "enisle run [OPTIONS] [--] PROGRAM [ARGUMENTS…]", "run a program on an island", RUN, EXAMPLES + EXIT_CODES
)
ABOUT = {
    "run": RUN_VERB.about,
    "ps": "list your running islands",
    "top": "watch what islands do",
    "inspect": "look into a running island",
    "replicate": "change how copies of page tables are kept",
    "cpu": "what processors are, and what programs may do with them",
    "vm": "full Linux machines, by QEMU; on a platform with --context",
    "introspect": "look into a guest's kernel, without symbols, or an island",
    "doctor": "say what this host can do, with remedies",
    "up": "start the platform on this machine (enisle up --help)",
    "down": "end it; its islands stay",
    "status": "say how the platform is",
    "island": "islands of the platform: create, run, exec, logs, files, stop, rm …",
    "task": "its tasks: ls, show, wait, cancel, retry, output …",
    "call": "run a short program on whichever of its hosts is free",
    "watch": "watch what it does, live",
    "host": "its hosts",
    "join": "let it use this machine, too",
    "token": "tokens that permit to use it",
    "audit": "who did what",
    "context": "platforms by their names",
    "help": "the same as --help: enisle help island exec",
    "completion": "words of the command line for bash, zsh or fish",
}
"""Verbs, and what they do."""
PLATFORM = frozenset(
    {"up", "down", "status", "island", "task", "call", "watch", "host", "join", "token", "audit", "context"}
)
"""Verbs of the platform; the others are about this machine."""
EITHER = frozenset({"vm", "introspect"})
"""Verbs about this machine, or about a platform if the command line names one."""
NOUNS = frozenset({"vm", "completion"}) | PLATFORM
"""Verbs that have verbs of their own, and read their words themselves (`read_verb`)."""
TOP = Verb(
    "enisle [OPTIONS] VERB …",
    "Run any Linux program on an island of its own: a machine in hardware, a kernel in Python.",
    (("verbs", tuple(Option(name, about) for name, about in ABOUT.items())), *ENISLE),
    EXAMPLES,
)


def parse(words: Sequence[str]) -> Options:
    """Return the options. Raises InvalidRequest for words that make no sense; exits for --help and --version."""
    left, options = list(words), Options()
    read_options(left, TOP, options)
    if not left:
        say(help_of(TOP))
        raise SystemExit(InvalidRequest.exit_code)
    verb = options.verb = left.pop(0)
    if verb == "help":
        return parse([*left, "--help"])
    if verb not in ABOUT:
        raise unknown(f"there is no verb {verb!r}", verb, ABOUT, "enisle --help")
    if (options.context or options.url or options.tenant) and verb not in PLATFORM | EITHER:
        why = "--context, --url and --tenant are about a platform"
        raise InvalidRequest(f"enisle {verb} is about this machine", why, "enisle island --help")
    if verb in NOUNS:
        options.words = left
    elif verb == "run":
        read_options(left, RUN_VERB, options)
        options.command = left
        if not left:
            raise InvalidRequest("no program to run", hint="enisle run -- PROGRAM ARGUMENTS…")
    else:
        from enisle.cli.local_options import LOCAL

        read_verb(left, LOCAL[verb], options)
    return options
