"""The words of the platform's verbs but those of islands and tasks: up, down, status, watch, join, hosts, tokens."""

from typing import Any

from enisle.cli.grammar import DEBUG, HELP, Group, Option, Options, Verb
from enisle.cli.options import CONTEXT, TENANT, URL

JSON = Option("--json", "print JSON")
QUIET = Option("--quiet", "print names only (-q)")
ASKING = (JSON, QUIET, CONTEXT, URL, TENANT, DEBUG, HELP)
"""What every verb that asks a platform takes."""
NO_WAIT = Option("--no-wait", "only submit the task; `enisle task wait` waits for it")
NAMES = 99
LAYOUTS = "host|island|islands"
STATE = Option("--state", "the platform's directory (ENISLE_STATE)", "DIR", "")
REASON = Option("--reason", "why; kept in the audit", "TEXT", "")


def asking(*options: Option) -> tuple[Group, ...]:
    """Return the groups of a verb that asks a platform."""
    return (("options", (*options, *ASKING)),)


def noun(name: str, about: str, verbs: dict[str, Verb], epilogue: str = "") -> Verb:
    """Return the page that lists the verbs of a noun."""
    listed = tuple(Option(verb, one.about) for verb, one in verbs.items())
    return Verb(f"enisle {name} VERB …", about, (("verbs", listed), ("options", (DEBUG, HELP))), epilogue)


UP: tuple[Group, ...] = (
    (
        "where it listens",
        (
            Option("--listen", "address of the API and the console (127.0.0.1)", "ADDRESS", "127.0.0.1"),
            Option("--port", "(one that is free; the same again the next time)", "PORT", 0, int),
            Option("--tls-certificate", "speak TLS with the certificate in FILE", "FILE", ""),
            Option("--tls-key", "and its key", "FILE", ""),
            Option("--insecure", "speak without TLS, although others may listen"),
        ),
    ),
    (
        "what it consists of",
        (
            STATE,
            Option("--foreground", "stay, and end it on Ctrl-C"),
            Option("--no-agent", "run no islands on this machine"),
            Option("--controller", "run dispatcher and API on an island, or on one each (host)", LAYOUTS, "host"),
            Option("--host", "what this machine is called in it (its own name)", "NAME", ""),
            Option("--nats", "use the engine at URL instead of one of its own; may name several", "URL[,URL…]", ""),
            Option("--engine", "run this nats-server (2.12 or later) instead of the installed one", "FILE", ""),
            Option("--accept-store", "after damage was found: take the store as it is now"),
        ),
    ),
    ("what you are told", (JSON, Option("--quiet", "print the address only (-q)"), DEBUG, HELP)),
)
UP_TELLS = """
The address it prints signs a browser in, once. On this machine, other verbs
need nothing more.

examples:
  enisle up
  enisle island run -- python3 -c 'print("hello")'
  enisle down
"""
CALLS = """
A call is done at least once: when its host dies it is begun again on another.
Its output comes when it has ended, 64 KiB of each stream.

exit codes:
  the program's own; 128 + N when signal N ended it
  4     too many calls wait
  124   its time was over
  125   its island could not be made, or came to an end of its own
  126   the program is there but cannot be run
  127   the program was not found

example:
  enisle call -- python3 -c 'print(6 * 7)'
"""
JOIN_TELLS = """
A token to join is made at the platform, by `enisle token new NAME --scope join`.
It may also be in ENISLE_TOKEN.
"""
SINGLE = {
    "up": Verb("enisle up [OPTIONS]", "Start the platform on this machine.", UP, UP_TELLS),
    "down": Verb(
        "enisle down [OPTIONS]",
        "End the platform of this machine; its islands go on unless told otherwise.",
        (("options", (STATE, Option("--islands", "stop its islands first"), JSON, DEBUG, HELP)),),
    ),
    "status": Verb(
        "enisle status [OPTIONS]",
        "Say how the platform is: its parts, hosts, islands and tasks.",
        (("options", (STATE, *ASKING)),),
    ),
    "call": Verb(
        "enisle call [OPTIONS] [--] PROGRAM [ARGUMENTS…]",
        "Run a short program on an island of its own, on whichever host is free.",
        asking(
            Option("--timeout", "kill it after that long, at most 60 (10)", "SECONDS", None, float),
            Option("--memory", "a quarter of it for written files (4G)", "SIZE", ""),
            Option("--processors", "(the host's)", "N", 0, int),
            Option("--network", "none: a private loopback (default)", "none|host", ""),
            Option("--env", "set an environment variable; often", "K=V", many="variables"),
            Option("--cwd", "start in DIR", "DIR", ""),
            Option("--no-stdin", "give it no standard input; by default what is piped in"),
        ),
        CALLS,
    ),
    "watch": Verb(
        "enisle watch [OPTIONS]",
        "Watch tasks and what they hold, live; piped, one line for each event.",
        asking(Option("--once", "print what is so now, and end")),
    ),
    "audit": Verb(
        "enisle audit [OPTIONS]",
        "Say who did what, the latest first; of the tenant that --tenant names, or of all.",
        asking(
            Option("--actor", "what somebody did: local, token:NAME, session:console", "ACTOR", ""),
            Option("--action", "submit, cancel, unlock, create-token, sign-in, refused, …", "ACTION", ""),
            Option("--since", "in the last 90s, 15m, 12h or 30d", "TIME", ""),
            Option("--limit", "no more than N (50)", "N", 50, int),
        ),
    ),
    "join": Verb(
        "enisle join [OPTIONS] URL | --nats URL",
        "Let a platform run islands on this machine.",
        (
            (
                "options",
                (
                    Option("--token", "a token to join, or - to read it from standard input", "TOKEN", ""),
                    Option("--name", "what the platform calls this host (its own name)", "NAME", ""),
                    Option("--ca", "trust certificates signed by those in FILE", "FILE", ""),
                    Option("--nats", "its engine is a cluster of yours, at URL", "URL[,URL…]", ""),
                    STATE,
                    Option("--detach", "leave the agent running"),
                    JSON,
                    DEBUG,
                    HELP,
                ),
            ),
        ),
        JOIN_TELLS,
        1,
    ),
}

PERMISSIONS_TELL = """
For `enisle up --nats 'tls://enisle:PASSWORD@A,B,C?questions=questions'`: name all
hosts there are, put what is printed into a file that the configuration of each
server includes, ENISLE_PASSWORD into the servers' environment, and reload them
twice (nats-server --signal reload).
"""
HOST = {
    "ls": Verb("enisle host ls [OPTIONS]", "list hosts", asking()),
    "show": Verb("enisle host show [OPTIONS] NAME", "tell about a host", asking(), most_words=1),
    "declare-dead": Verb(
        "enisle host declare-dead [OPTIONS] NAME",
        "say that a host will not come back: what it held goes free",
        asking(REASON),
        "\nOnly for a host that is surely off: its islands may be started elsewhere.\n",
        1,
    ),
    "drain": Verb(
        "enisle host drain [OPTIONS] NAME…",
        "give hosts no new work; what is bound to them still runs there",
        asking(REASON),
        most_words=NAMES,
    ),
    "undrain": Verb("enisle host undrain [OPTIONS] NAME…", "give hosts work again", asking(REASON), most_words=NAMES),
    "permissions": Verb(
        "enisle host permissions [OPTIONS] NAME=KEY…",
        "print the accounts that servers of your own need for hosts with these keys",
        (("options", (DEBUG, HELP)),),
        PERMISSIONS_TELL,
        NAMES,
    ),
    "rm": Verb("enisle host rm [OPTIONS] NAME…", "forget hosts, and take their keys away", asking(), most_words=NAMES),
}
SCOPES = """
scopes: read  look at everything of the tenant     write  change it, too
        admin  every tenant, hosts, tokens, audit  join   let a host join; nothing else
A token is for the tenant that --tenant names: default.
"""
TOKEN = {
    "new": Verb(
        "enisle token new [OPTIONS] NAME",
        "make a token; it is shown this once",
        asking(
            Option("--scope", "read, write, admin or join (read); may be given often", "SCOPE", many="scopes"),
            Option("--expires", "after 90s, 15m, 12h or 30d (never)", "TIME", ""),
        ),
        SCOPES,
        1,
    ),
    "ls": Verb("enisle token ls [OPTIONS]", "list tokens", asking()),
    "revoke": Verb("enisle token revoke [OPTIONS] ID…", "make tokens worthless", asking(), most_words=NAMES),
}
LOCAL = (("options", (JSON, QUIET, DEBUG, HELP)),)
CONTEXTS = {
    "ls": Verb("enisle context ls [OPTIONS]", "list the platforms you know; * marks the current one", LOCAL),
    "use": Verb("enisle context use [OPTIONS] NAME", "make one the current", LOCAL, most_words=1),
    "add": Verb(
        "enisle context add [OPTIONS] NAME URL",
        "remember a platform",
        (
            (
                "options",
                (
                    Option("--token", "its token, or - to read it from standard input (ENISLE_TOKEN)", "TOKEN", ""),
                    Option("--ca", "trust certificates signed by those in FILE", "FILE", ""),
                    *LOCAL[0][1],
                ),
            ),
        ),
        most_words=2,
    ),
    "rm": Verb("enisle context rm [OPTIONS] NAME…", "forget platforms", LOCAL, most_words=NAMES),
}


class PlatformOptions(Options):
    """What was typed after a verb of the platform. `verb` is its whole name ("task wait")."""

    listen: str
    port: int
    state: str
    foreground: bool
    no_agent: bool
    nats: str
    engine: str
    accept_store: bool
    controller: str
    tls_certificate: str
    tls_key: str
    insecure: bool
    islands: bool
    token: str
    ca: str
    detach: bool
    scopes: list[str]
    actor: str
    action: str
    since: str
    expires: str
    reason: str
    why: str
    no_wait: bool
    resource: str
    resources: list[str]
    routine: str
    limit: int
    all: bool
    fail: bool
    deadline: float
    attempts: int
    follow: bool
    tail: int
    force: bool
    host: str
    keep: bool
    no_stdin: bool
    interactive: bool
    tty: bool
    mode: str

    def __init__(self, options: Options) -> None:
        self.__dict__.update(_typed(options))


def _typed(options: Options) -> dict[str, Any]:
    return {
        name: value for name, value in vars(options).items() if name in ("debug", "closed", "context", "url", "tenant")
    }
