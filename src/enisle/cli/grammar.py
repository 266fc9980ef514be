"""How words are read: options and words of a verb, by the table that its help is printed from.

Read here rather than by `argparse`, which takes five milliseconds of every start. Pure but for `--help`, which prints.
"""

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from enisle import __version__
from enisle.cli.output import say
from enisle.errors import InvalidRequest
from enisle.records import Record


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
SHORT = {"-h": "--help", "-q": "--quiet", "-i": "--interactive", "-t": "--tty"}


class Verb(Record):
    """One verb: how it is used, what it does, its options, what its help ends with, and how many words it takes."""

    usage: str
    about: str
    groups: tuple[Group, ...]
    epilogue: str = ""
    most_words: int = 0


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


def read_verb(left: list[str], verb: Verb, options: Options) -> None:
    """Read the options and words of a verb. Raises InvalidRequest."""
    read_options(left, verb, options)
    options.words = _read_words(left, verb, options)


def read_command(left: list[str], verb: Verb, options: Options, names: int) -> None:
    """Read options, `names` words, options; what is left is a program with its arguments. Raises InvalidRequest."""
    options.words = []
    ended = read_options(left, verb, options)
    while left and not ended and len(options.words) < names:
        options.words.append(left.pop(0))
        ended = read_options(left, verb, options)
    options.command = left


def _read_words(left: list[str], verb: Verb, options: Options) -> list[str]:
    """Return the words that are no options, which may stand between them."""
    words: list[str] = []
    while left:
        words.append(left.pop(0))
        if len(words) > verb.most_words:
            raise InvalidRequest(f"{options.verb} takes no {words[-1]!r}", hint=f"enisle {options.verb} --help")
        read_options(left, verb, options)
    return words


def unknown(message: str, word: str, known: Iterable[str], hint: str) -> InvalidRequest:
    """Return the error for a word that is not known, with the known one that it may have been meant to be."""
    from difflib import get_close_matches

    near = get_close_matches(word, known, 1)
    return InvalidRequest(message, f"did you mean {near[0]}?" if near else "", hint)


def read_options(left: list[str], verb: Verb, options: Options) -> bool:
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
            raise unknown(f"there is no option {word}", flag, known, f"{_command(verb)} --help")
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
    return verb.usage.partition(" [")[0].removesuffix(" …").removesuffix(" VERB")


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
