"""The words of the command line: verbs, options, their help, and the exit codes told in the epilogue.

One table says what there is; it is read here rather than by `argparse`, which takes five milliseconds of every start.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from enisle import __version__
from enisle.cli.output import say
from enisle.errors import InvalidRequest
from enisle.records import Record

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


ISLANDS = """
ISLAND is a name, an id or its beginning, or a process id, as `enisle ps` shows them.
"""


class Option(Record):
    """One option: a switch, or followed by a value that `kind` reads."""

    flag: str
    help: str
    value: str = ""
    """What the help calls its value; without one it is a switch."""
    default: Any = False
    kind: Callable[[str], Any] = str
    many: str = ""
    """May be given often; the name of the list it is collected in."""


HELP = Option("--help", "show this help and exit")
DEBUG = Option("--debug", "show a traceback when something fails")
Group = tuple[str, tuple[Option, ...]]
CONTEXT = Option("--context", "the platform to speak to, by its name (the current one)", "NAME", "")
URL = Option("--url", "the platform to speak to, by its address (ENISLE_URL)", "URL", "")
TENANT = Option("--tenant", "act in it, as an administrator; '*' looks at all (ENISLE_TENANT)", "TENANT", "")
ENISLE: tuple[Group, ...] = (
    ("options", (HELP, Option("--version", "show the version and exit"), CONTEXT, URL, TENANT, DEBUG)),
)
SHORT = {"-h": "--help", "-q": "--quiet", "-i": "--interactive", "-t": "--tty"}
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
DOCTOR: tuple[Group, ...] = (("options", (Option("--json", "print one JSON record"), DEBUG, HELP)),)


JSON = Option("--json", "print one JSON record")
PS: tuple[Group, ...] = (("options", (JSON, Option("--quiet", "print names only"), DEBUG, HELP)),)
TOP_VERB: tuple[Group, ...] = (
    (
        "options",
        (
            Option("--memory", "show memory and page tables, by node"),
            Option("--once", "print one table and end (default when piped)"),
            Option("--interval", "refresh every SECONDS (1)", "SECONDS", 1.0, float),
            Option("--json", "print one JSON record a refresh"),
            DEBUG,
            HELP,
        ),
    ),
)
INSPECT: tuple[Group, ...] = (
    (
        "options",
        (
            Option("--process", "of the process PID of the island (default: all)", "PID", 0, int),
            Option("--svg", "draw them, with their copies and rings, into FILE (- for stdout)", "FILE", None),
            JSON,
            DEBUG,
            HELP,
        ),
    ),
)
REPLICATE: tuple[Group, ...] = (
    (
        "options",
        (
            Option("--on", "the nodes that get copies, as 0-1,3 (default: all)", "LIST", None),
            JSON,
            DEBUG,
            HELP,
        ),
    ),
)
MODES = """
modes:
  off      one copy
  eager    whole copies, made at once
  lazy     copies filled as their nodes use them
  auto     copies where remote walks are estimated to cost more than writing them
  migrate  one copy, which follows the processors
Without MODE it says what is so.
"""


CPU: tuple[Group, ...] = (
    (
        "options",
        (
            Option("--processor", "host, kvm or emulated (dump, levels: host; others: islands')", "WHICH", "auto"),
            Option("--cpu", "a level, template or file; several permit what all permit", "VALUE", many="cpus"),
            Option("--cpu-require", "how well every block must hold", "none|detect|enforced|patch|hw", ""),
            Option("--name", "name of a baseline", "NAME", ""),
            Option("--output", "write the result to FILE", "FILE", ""),
            Option("--key", "sign with, or ask for the signature of, the key in FILE", "FILE", ""),
            Option("--qemu", "print the value as QEMU's -cpu on this host"),
            Option("--again", "measure the controls again"),
            Option("--cross-vendor", "let a guest go on a processor of another vendor"),
            JSON,
            DEBUG,
            HELP,
        ),
    ),
)
CPU_VERBS = """
verbs:
  dump                 what CPUID answers: on the host, or as a guest sees it
  strip DUMP…          what differs between dumps; of one, what is the same on every core
  baseline [DUMP…]     the value that all these hosts can be ("host" is this one)
  show VALUE…          what a value permits, or several together; --output writes it, --key signs it
  verify [VALUE]       how well each block holds here; exits with 5 when that is less than required
  diff A B             features and functions that only one has: dumps, values, levels
  fingerprint [SAVED]  what guests depend on here; whether a saved one may go on here (else 5)
  levels               the built-in values, and which of them this host can be

examples:
  enisle cpu dump --output a.json
  enisle cpu baseline a.json b.json --output domain.json
  enisle run --cpu domain.json -- python3 app.py
  enisle cpu verify x86-64-v2 --cpu-require enforced
"""


INTROSPECT: tuple[Group, ...] = (
    (
        "options",
        (
            Option("--watch", "show a list again and again"),
            Option("--interval", "every SECONDS (1)", "SECONDS", 1.0, float),
            Option("--live", "ps, creds: do not stop the guest; say so when readings disagree"),
            Option("--baseline", "check: compare with FILE", "FILE", ""),
            Option("--record", "check: write the baseline instead"),
            Option("--count", "watch FUNCTION: end after N hits", "N", 0, int),
            Option("--seconds", "watch FUNCTION: end after that long", "SECONDS", None, float),
            Option("--without-exports", "use system calls as the only roots"),
            JSON,
            DEBUG,
            HELP,
        ),
    ),
)
INTROSPECT_VIEWS = """
TARGET is a running machine of `enisle vm`, what `enisle vm dump` saved, or an island.
views:
  facts           addresses and offsets that were found, how sure they are, and why
  ps, creds       processes and threads; their ids
  lsmod           loaded modules
  syscalls        where system calls lead, by switch and by table
  idt, msr        interrupt gates; model-specific registers
  locks           known locks, and who holds them
  maps, wx        what is mapped with which rights; what can be both written and executed
  hashes          SHA-256 of every run of code that cannot be written
                  (of an island only these three: it has no Linux kernel inside)
  check           is the kernel as it should be (exits with 1 when not)
  watch FUNCTION  stop whenever it runs; sys:NAME is a system call

examples:
  enisle introspect web-1 ps
  enisle introspect web-1 check --baseline web-1.json
  enisle introspect web-1 watch do_faccessat --count 10
"""


class Verb(Record):
    """One verb: how it is used, what it does, its options, what its help ends with, and how many words it takes."""

    usage: str
    about: str
    groups: tuple[Group, ...]
    epilogue: str = ""
    most_words: int = 0


VERBS = {
    "run": Verb(
        "enisle run [OPTIONS] [--] PROGRAM [ARGUMENTS…]", "run a program on an island", RUN, EXAMPLES + EXIT_CODES
    ),
    "ps": Verb("enisle ps [OPTIONS]", "list your running islands", PS),
    "top": Verb("enisle top [OPTIONS] [ISLAND]", "watch what islands do", TOP_VERB, ISLANDS, 1),
    "inspect": Verb("enisle inspect page-tables [OPTIONS] [ISLAND]", "look into a running island", INSPECT, ISLANDS, 2),
    "replicate": Verb(
        "enisle replicate [OPTIONS] ISLAND [MODE]",
        "change how copies of page tables are kept",
        REPLICATE,
        MODES + ISLANDS,
        2,
    ),
    "cpu": Verb(
        "enisle cpu VERB [OPTIONS] [WORDS…]",
        "what processors are, and what programs may do with them",
        CPU,
        CPU_VERBS,
        99,
    ),
    "vm": Verb("enisle vm VERB …", "run full Linux machines, by QEMU (enisle vm --help)", ()),
    "introspect": Verb(
        "enisle introspect [OPTIONS] TARGET VIEW [FUNCTION]",
        "look into a guest's kernel, without symbols, or an island",
        INTROSPECT,
        INTROSPECT_VIEWS,
        3,
    ),
    "doctor": Verb("enisle doctor [OPTIONS]", "say what this host can do, with remedies", DOCTOR),
    "up": Verb("enisle up …", "start the platform on this machine (enisle up --help)", ()),
    "down": Verb("enisle down …", "end it; its islands stay", ()),
    "status": Verb("enisle status …", "say how the platform is", ()),
    "island": Verb("enisle island VERB …", "islands of the platform: create, run, exec, logs, files, stop, rm …", ()),
    "task": Verb("enisle task VERB …", "its tasks: ls, show, wait, cancel, retry, output …", ()),
    "watch": Verb("enisle watch …", "watch what it does, live", ()),
    "host": Verb("enisle host VERB …", "its hosts", ()),
    "join": Verb("enisle join URL …", "let it use this machine, too", ()),
    "token": Verb("enisle token VERB …", "tokens that permit to use it", ()),
    "audit": Verb("enisle audit …", "who did what", ()),
    "context": Verb("enisle context VERB …", "platforms by their names", ()),
}
PLATFORM = frozenset({"up", "down", "status", "island", "task", "watch", "host", "join", "token", "audit", "context"})
"""Verbs of the platform; the others are about this machine."""
NOUNS = frozenset({"vm"}) | PLATFORM
"""Verbs that have verbs of their own, and read their words themselves (`read_verb`)."""
TOP = Verb(
    "enisle [OPTIONS] VERB …",
    "Run any Linux program on an island of its own: a machine in hardware, a kernel in Python.",
    (("verbs", tuple(Option(name, verb.about) for name, verb in VERBS.items())), *ENISLE),
    EXAMPLES,
)


class Options:
    """What was typed. `verb` says which of the others are there."""

    verb: str
    debug: bool
    context: str
    url: str
    tenant: str
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
    nodes: int
    page_tables: str
    vm_per_node: bool
    verify_page_tables: bool
    cpus: list[str]
    cpu_require: str
    cpu_key: str
    output: str
    key: str
    qemu: bool
    again: bool
    cross_vendor: bool
    trace: bool
    stats: bool
    name: str
    command: list[str]
    words: list[str]
    """Of every verb but run: what is no option."""
    quiet: bool
    once: bool
    interval: float
    process: int
    svg: str | None
    on: str | None
    watch: bool
    live: bool
    baseline: str
    record: bool
    count: int
    seconds: float | None
    without_exports: bool
    closed: frozenset[int]
    """Standard descriptors that were closed when we were started; not typed, but told the same way."""


def parse(words: Sequence[str]) -> Options:
    """Return the options. Raises InvalidRequest for words that make no sense; exits for --help and --version."""
    left, options = list(words), Options()
    _read_options(left, TOP, options)
    if not left:
        say(help_of(TOP))
        raise SystemExit(InvalidRequest.exit_code)
    options.verb = left.pop(0)
    if options.verb not in VERBS:
        raise InvalidRequest(f"there is no verb {options.verb!r}", hint="enisle --help")
    if (options.context or options.url or options.tenant) and options.verb not in PLATFORM:
        why = "--context, --url and --tenant are about a platform"
        raise InvalidRequest(f"enisle {options.verb} is about this machine", why, "enisle island --help")
    if options.verb in NOUNS:
        options.words = left
        return options
    _read_options(left, VERBS[options.verb], options)
    if options.verb == "run":
        options.command = left
        if not left:
            raise InvalidRequest("no program to run", hint="enisle run -- PROGRAM ARGUMENTS…")
    else:
        options.words = _read_words(left, VERBS[options.verb], options)
    return options


def read_verb(left: list[str], verb: Verb, options: Options) -> None:
    """Read the options and words of a verb. Raises InvalidRequest."""
    _read_options(left, verb, options)
    options.words = _read_words(left, verb, options)


def read_command(left: list[str], verb: Verb, options: Options, names: int) -> None:
    """Read options, `names` words, options; what is left is a program with its arguments. Raises InvalidRequest."""
    options.words = []
    ended = _read_options(left, verb, options)
    while left and not ended and len(options.words) < names:
        options.words.append(left.pop(0))
        ended = _read_options(left, verb, options)
    options.command = left


def _read_words(left: list[str], verb: Verb, options: Options) -> list[str]:
    """Return the words that are no options, which may stand between them."""
    words: list[str] = []
    while left:
        words.append(left.pop(0))
        if len(words) > verb.most_words:
            raise InvalidRequest(f"{options.verb} takes no {words[-1]!r}", hint=f"enisle {options.verb} --help")
        _read_options(left, verb, options)
    return words


def _read_options(left: list[str], verb: Verb, options: Options) -> bool:
    """Take the options of `verb` off the front of the words, and a `--` that ends them; return whether one did."""
    known = {option.flag: option for option in _all(verb) if option.flag[0] == "-"}
    for option in known.values():
        if not hasattr(options, _name(option)):  # said already, before the verb or another word
            setattr(options, _name(option), [] if option.many else option.default)
    while left and left[0][:1] == "-" and left[0] != "-":
        word = left.pop(0)
        if word == "--":
            return True
        if len(word) == 3 and f"-{word[1]}" in SHORT and f"-{word[2]}" in SHORT:  # -it is -i -t
            left[:0] = [f"-{letter}" for letter in word[1:]]
            continue
        flag, equals, value = word.partition("=")
        flag = SHORT.get(flag, flag)
        if flag == "--help":
            _tell(help_of(verb))
        if flag not in known or (equals and not known[flag].value):
            raise InvalidRequest(f"there is no option {word}", hint=f"{_command(verb)} --help")
        if flag == "--version":
            _tell(f"enisle {__version__}\n")
        option = known[flag]
        if option.value and not equals:
            if not left:
                raise InvalidRequest(f"{flag} needs a value", hint=f"{flag} {option.value}")
            value = left.pop(0)
        _set(options, option, value)
    return False


def _set(options: Options, option: Option, value: str) -> None:
    try:
        read = option.kind(value) if option.value else True
    except ValueError:
        raise InvalidRequest(f"{option.flag} takes a number, not {value!r}", hint=f"{option.flag} 1") from None
    if option.many:
        getattr(options, option.many).append(read)
    else:
        setattr(options, _name(option), read)


def _name(option: Option) -> str:
    return option.many or option.flag.removeprefix("--").replace("-", "_")


def _all(verb: Verb) -> Iterable[Option]:
    return (option for _, group in verb.groups for option in group)


def _command(verb: Verb) -> str:
    return verb.usage.partition(" [")[0]


def _tell(text: str) -> NoReturn:
    say(text)
    raise SystemExit(0)


def help_of(verb: Verb) -> str:
    """Return what --help prints."""
    lines = [f"usage: {verb.usage}", "", verb.about]
    for title, group in verb.groups:
        lines += ["", f"{title}:"]
        for option in group:
            left = f"  {option.flag} {option.value}".rstrip()
            lines += [f"{left:<26}{option.help}"] if len(left) < 25 else [left, f"{'':<26}{option.help}"]
    return "\n".join(lines) + "\n" + verb.epilogue
