"""The words of the verbs about this machine, but those of `run` and of `vm`."""

from enisle.cli.grammar import DEBUG, HELP, Group, Option, Verb
from enisle.cli.options import WHERE

ISLANDS = """
ISLAND is a name, an id or its beginning, or a process id, as `enisle ps` shows them.
"""
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
    ("at a platform, when one of them is given", WHERE),
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
At a platform TARGET is one of its machines; every view is a task there, but
watch, and --baseline and the other options that views take are only here.

examples:
  enisle introspect web-1 ps
  enisle introspect web-1 check --baseline web-1.json
  enisle introspect web-1 watch do_faccessat --count 10
"""


LOCAL = {
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
    "introspect": Verb(
        "enisle introspect [OPTIONS] TARGET VIEW [FUNCTION]",
        "look into a guest's kernel, without symbols, or an island",
        INTROSPECT,
        INTROSPECT_VIEWS,
        3,
    ),
    "doctor": Verb("enisle doctor [OPTIONS]", "say what this host can do, with remedies", DOCTOR),
}
