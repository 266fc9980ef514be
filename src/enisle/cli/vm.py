"""`enisle vm`: full Linux machines, of this computer, or of a platform when the command line names one.

Only what is typed names one: neither a variable nor the current context turns a verb about this computer into one about
another.
"""

import signal

from enisle.cli.grammar import Options, help_of, read_options, read_verb, unknown
from enisle.cli.output import say
from enisle.cli.vm_options import TOP, VERBS, WHERE, VmOptions
from enisle.errors import EnisleError, InvalidRequest

HERE = ("console", "dump")
"""Verbs that no platform has: they need the machine's own files and sockets."""


def vm(options: Options) -> int:
    """Run one of its verbs; return the exit code."""
    words, typed = list(options.words), VmOptions(options)
    read_options(words, TOP, typed)
    if not words:
        say(help_of(TOP))
        return InvalidRequest.exit_code
    verb = words.pop(0)
    typed.verb = f"vm {verb}"
    if verb not in VERBS:
        raise unknown(f"there is no verb {typed.verb!r}", verb, VERBS, "enisle vm --help")
    flags = {option.flag for option in WHERE}
    if verb in HERE and (typed.away or any(word.partition("=")[0] in flags for word in words)):
        raise only_here(typed.verb, "it needs files and sockets of the machine's host")
    read_verb(words, VERBS[verb], typed)
    if verb == "run" and not typed.kernel:
        raise InvalidRequest("no kernel to boot", "a machine needs one", "enisle vm run --kernel FILE")
    try:
        return _away(typed) if typed.away else _here(typed, verb)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def only_here(verb: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"no platform has `{verb}`", why, f"on that host: enisle {verb} …")


def _here(typed: VmOptions, verb: str) -> int:
    if vars(typed).get("no_wait") or vars(typed).get("host"):
        raise InvalidRequest(
            "--no-wait and --host are about a platform", "the command line names none", "--context NAME"
        )
    from enisle.cli.vm_here import ACTIONS

    return ACTIONS[verb](typed)


def _away(typed: VmOptions) -> int:
    from enisle.cli.carrying import complete
    from enisle.cli.reach import reach
    from enisle.cli.vm_away import vm_away

    try:
        with reach(typed) as door:
            return vm_away(typed, door)
    except EnisleError as error:
        complete(error, typed.verb)
        raise
