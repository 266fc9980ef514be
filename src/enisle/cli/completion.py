"""`enisle completion`: what a shell offers at the Tab key. The words come from the tables that help is printed from.

The script only asks `enisle completion words -- …` at each Tab, so it is as true as the `enisle` it asks.
"""

import os
from collections.abc import Iterable, Sequence

from enisle.cli.grammar import HELP, SHORT, Option, Options, Verb, help_of, unknown
from enisle.cli.local_options import LOCAL
from enisle.cli.options import ABOUT, RUN_VERB, TOP
from enisle.cli.output import say
from enisle.errors import EnisleError, InvalidRequest

BASH = """
_enisle() {
    local IFS=$'\\n'
    COMPREPLY=($(enisle completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _enisle enisle
"""
ZSH = """
#compdef enisle
_enisle() {
    local -a found
    found=(${(f)"$(enisle completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    if (( $#found )); then compadd -a found; else _files; fi
}
compdef _enisle enisle
"""
FISH = """
complete -c enisle -a '(enisle completion words -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
PAGE = Verb(
    "enisle completion bash|zsh|fish",
    "print what makes a shell complete the words of enisle",
    (("options", (HELP,)),),
    """
examples:
  eval "$(enisle completion bash)"             in ~/.bashrc
  eval "$(enisle completion zsh)"              in ~/.zshrc, after compinit
  enisle completion fish > ~/.config/fish/completions/enisle.fish
""",
)
NAMED = {"island": "/v1/islands", "host": "/v1/hosts", "task": "/v1/tasks", "token": "/v1/tokens"}
NEW = {"create", "run", "new", "add", "submit"}
"""Verbs whose first word is the name of what is not there yet."""


def completion(options: Options) -> int:
    """Print a script, or the words that may stand where the last one is being typed."""
    words = options.words
    if not words or words[0] in ("--help", "-h"):
        say(help_of(PAGE))
        return 0 if words else InvalidRequest.exit_code
    if words[:2] == ["words", "--"]:
        say("".join(f"{word}\n" for word in offered(words[2:])))
        return 0
    if len(words) > 1 or words[0] not in SCRIPTS:
        raise unknown(f"there is no completion for {' '.join(words)!r:.60}", words[0], SCRIPTS, PAGE.usage)
    say(SCRIPTS[words[0]].lstrip())
    return 0


def offered(words: Sequence[str]) -> list[str]:
    """Return what may stand in the place of the last word, whose beginning it is."""
    *before, begun = list(words) or [""]
    if "--" in before:
        return []
    return sorted(word for word in _possible(before, begun) if word.startswith(begun))


def _possible(before: list[str], begun: str) -> Iterable[str]:
    said = before[1:] if before[:1] == ["help"] else before
    page, rest = _page(said)
    choices = _value_of(page, before[-1]) if before else None
    if choices is not None:
        return choices
    if begun.startswith("-"):
        return (option.flag for option in _options(page) if option.flag.startswith("-"))
    verbs = [option.flag for _, group in page.groups for option in group if not option.flag.startswith("-")]
    if verbs or rest is None:
        return verbs
    return _names(rest[0], rest[1])


def _options(page: Verb) -> list[Option]:
    return [option for _, group in page.groups for option in group]


def _value_of(page: Verb, flag: str) -> list[str] | None:
    """Return the values of an option that waits for one; none where a file or a number is wanted."""
    option = next((one for one in _options(page) if one.flag == SHORT.get(flag, flag)), None)
    if option is None or not option.value:
        return None
    return option.value.split("|") if "|" in option.value and "[" not in option.value else []


def _page(words: Sequence[str]) -> tuple[Verb, tuple[str, str] | None]:
    """Return the page that the next word is read by, and the noun and verb whose names may follow."""
    from enisle.cli.platform import NOUNS, VERBS
    from enisle.cli.platform_options import SINGLE
    from enisle.cli.vm_options import TOP as VM
    from enisle.cli.vm_options import VERBS as VM_VERBS

    nouns, verbs = {**NOUNS, "vm": VM}, {**VERBS, "vm": VM_VERBS}
    spoken = [word for word in words if not word.startswith("-")]
    verb = next((word for word in spoken if word in ABOUT), "")
    if not verb:
        return TOP, None
    if verb in nouns:
        after = spoken[spoken.index(verb) + 1 :]
        second = next((word for word in after if word in verbs[verb]), "")
        return (verbs[verb][second], (verb, second)) if second else (nouns[verb], None)
    if verb == "completion":
        return Verb("", "", (("", tuple(Option(shell, "") for shell in SCRIPTS)),)), None
    return {**LOCAL, **SINGLE, "run": RUN_VERB, "help": TOP}[verb], (verb, "")


def _names(noun: str, verb: str) -> list[str]:
    """Return the names of what is there; nothing when nobody can be asked."""
    if noun not in NAMED or verb in NEW:
        return []
    from enisle.cli.platform_options import PlatformOptions
    from enisle.cli.reach import reach

    typed = PlatformOptions(Options())
    typed.context = typed.url = ""
    typed.tenant = os.environ.get("ENISLE_TENANT", "")
    try:
        with reach(typed) as door:
            found = door.ask("GET", NAMED[noun])["items"]
    except EnisleError:
        return []
    return [str(one.get("name") if noun in ("island", "host") else one["id"]) for one in found]
