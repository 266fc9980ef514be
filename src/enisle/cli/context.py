"""`enisle context`: platforms by their names."""

import os
import sys
from typing import Any

from enisle.api import changed_contexts, find_context, load_contexts, require_context_name, use_context
from enisle.cli.carrying import one_word, say_json, say_list
from enisle.cli.http_door import HttpDoor
from enisle.cli.output import plain, say
from enisle.cli.platform_options import PlatformOptions
from enisle.errors import InvalidRequest

HEAD = ("", "NAME", "URL", "TOKEN", "TRUSTS")
MAX_TOKEN = 4096


def context(options: PlatformOptions) -> int:
    """Run one of its verbs; return the exit code."""
    match options.verb:
        case "context ls":
            return ls(options)
        case "context use":
            name = one_word(options, "name")
            use_context(name)
            return _tell(options, name, f"{plain(name)} is the current context\n")
        case "context add":
            return add(options)
        case "context rm":
            one_word(options, "name")
            for name in options.words:
                find_context(name)
            for name in options.words:
                with changed_contexts() as known:
                    known["contexts"].pop(name, None)
                    if known["current"] == name:
                        known["current"] = ""
                _tell(options, name, f"forgot {plain(name)}\n")
            return 0
        case verb:
            raise AssertionError(f"{verb=}")


def ls(options: PlatformOptions) -> int:
    """Print a line for each context, without its token."""
    known = load_contexts()
    rows = [_shown(name, one, known["current"]) for name, one in sorted(known["contexts"].items())]
    return say_list(options, HEAD, rows, _row, "no platform is known: `enisle up` starts one")


def _shown(name: str, one: dict[str, str], current: str) -> dict[str, Any]:
    """Return a context without its token, which is only said to be there."""
    return {"name": name, "url": one["url"], "token": bool(one["token"]), "ca": one["ca"], "current": name == current}


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    mark, token = "*" if one["current"] else "", "yes" if one["token"] else "no"
    return (mark, plain(one["name"]), plain(one["url"]), token, plain(one["ca"]) or "-")


def add(options: PlatformOptions) -> int:
    """Remember a platform; it is not asked anything."""
    if len(options.words) != 2:
        raise InvalidRequest("a context has a name and a URL", "", "enisle context add office https://10.0.0.1:4600")
    name, url = require_context_name(options.words[0]), options.words[1].rstrip("/")
    HttpDoor(url)  # only to see whether that can be one
    ca = os.path.abspath(options.ca) if options.ca else ""
    with changed_contexts() as known:
        known["contexts"][name] = {"url": url, "token": read_secret(options), "ca": ca}
        known["current"] = known["current"] or name
    return _tell(options, name, f"added {plain(name)}\n")


def read_secret(options: PlatformOptions) -> str:
    """Return the token that was said, piped in or set. Raises InvalidRequest."""
    token = options.token or os.environ.get("ENISLE_TOKEN", "")
    if token == "-":
        token = sys.stdin.readline(MAX_TOKEN)
    token = token.strip()
    if not token.isprintable() or not token.isascii() or " " in token:
        raise InvalidRequest("that is no token", "a token is one word", "enisle token new NAME")
    return token


def _tell(options: PlatformOptions, name: str, words: str) -> int:
    if options.json:
        say_json({"name": name})
    else:
        say(f"{plain(name)}\n" if options.quiet else words)
    return 0
