"""The verbs of the platform: reads their words, finds the platform, and tells what goes wrong in three lines."""

import signal

from enisle.cli.carrying import complete
from enisle.cli.grammar import Options, Verb, help_of, read_command, read_verb, unknown
from enisle.cli.island_options import ISLAND
from enisle.cli.output import say
from enisle.cli.platform_options import CONTEXTS, HOST, SINGLE, TOKEN, PlatformOptions, noun
from enisle.cli.task_options import TASK
from enisle.errors import EnisleError, InvalidRequest

NOUNS = {
    "island": noun("island", "Islands of the platform.", ISLAND),
    "task": noun("task", "What the platform does: everything is a task, and can be followed.", TASK),
    "host": noun("host", "The platform's hosts. `enisle join` adds one.", HOST),
    "token": noun("token", "Tokens that permit to use the platform.", TOKEN),
    "context": noun("context", "Platforms by their names, with their tokens.", CONTEXTS),
}
VERBS = {"island": ISLAND, "task": TASK, "host": HOST, "token": TOKEN, "context": CONTEXTS}
NAMED = {"call": 0, "island create": 1, "island run": 0, "island exec": 1}
"""Verbs whose words end with a program, and how many names stand before it."""
UNSAID = ("json", "quiet", "no_wait", "fail", "force", "keep", "detach", "no_stdin", "once", "all")
EMPTY = ("tenant", "name", "cwd", "mode", "reason", "why", "token", "ca", "state", "host")


def platform(options: Options) -> int:
    """Run a verb of the platform; return the exit code."""
    typed = PlatformOptions(options)
    typed.verb = options.verb
    try:
        found = _read(typed, list(options.words))
        return _run(typed) if found is None else found
    except EnisleError as error:
        complete(error, typed.verb)
        raise
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _read(typed: PlatformOptions, words: list[str]) -> int | None:
    """Read the words; return the exit code when that was all there is to do."""
    verb = typed.verb
    if verb in NOUNS:
        found = _find_verb(words, typed, verb)
        if found is None:
            return 0 if words else InvalidRequest.exit_code
        typed.verb = f"{verb} {words.pop(0)}"
    else:
        found = SINGLE[verb]
    if typed.verb in NAMED:
        read_command(words, found, typed, NAMED[typed.verb])
    else:
        read_verb(words, found, typed)
    _fill(typed)
    return None


def _find_verb(words: list[str], typed: PlatformOptions, name: str) -> Verb | None:
    """Return the verb of a noun that the words begin with; None when help was asked for, and told."""
    while words and words[0] == "--debug":
        typed.debug = bool(words.pop(0))
    if not words or words[0] in ("--help", "-h"):
        say(help_of(NOUNS[name]))
        return None
    if words[0] not in VERBS[name]:
        raise unknown(f"there is no verb '{name} {words[0]}'", words[0], VERBS[name], f"enisle {name} --help")
    return VERBS[name][words[0]]


def _fill(typed: PlatformOptions) -> None:
    """Give what a verb has no option for the value of one that was not said."""
    for names, value in ((UNSAID, False), (EMPTY, "")):
        for name in names:
            if not hasattr(typed, name):
                setattr(typed, name, value)


def _run(options: PlatformOptions) -> int:
    match options.verb.partition(" ")[0]:
        case "up" | "down":
            from enisle.cli.up import up

            return up(options)
        case "status":
            from enisle.cli.status import status

            return status(options)
        case "join":
            from enisle.cli.join import join

            return join(options)
        case "host" if options.verb == "host permissions":
            from enisle.cli.host import permissions

            return permissions(options)
        case "context":
            from enisle.cli.context import context

            return context(options)
        case noun:
            return _ask(options, noun)


def _ask(options: PlatformOptions, noun: str) -> int:
    """Run a verb that asks a platform."""
    from enisle.cli.reach import reach

    with reach(options) as door:
        match noun:
            case "island":
                from enisle.cli.island import island

                return island(options, door)
            case "task":
                from enisle.cli.task import task

                return task(options, door)
            case "watch":
                from enisle.cli.watch import watch

                return watch(options, door)
            case "host":
                from enisle.cli.host import host

                return host(options, door)
            case "token":
                from enisle.cli.token import token

                return token(options, door)
            case "call":
                from enisle.cli.call import call

                return call(options, door)
            case "audit":
                from enisle.cli.audit import audit

                return audit(options, door)
            case _:
                raise AssertionError(f"{noun=}")
