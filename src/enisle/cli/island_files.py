"""`enisle island files`: what is in directories and files of an island; writing one."""

import os
import sys
import time
from typing import Any

from enisle.cli.carrying import Wish, carry_out, say_json, segment
from enisle.cli.output import plain, say, size, table
from enisle.cli.platform_options import PlatformOptions
from enisle.cli.reach import Door
from enisle.cli.task_drawing import Json
from enisle.errors import HostError, InvalidRequest

MAX_FILE = 16 << 20
HEAD = ("MODE", "SIZE", "MODIFIED", "NAME")
USAGE = "enisle island files ls|cat|put NAME PATH"


def files(options: PlatformOptions, door: Door) -> int:
    """List a directory, print a file or write one."""
    if len(options.words) < 2:
        raise InvalidRequest("which files of which island?", "a verb and an island are missing", USAGE)
    verb, name = options.words[0], segment(options.words[1], "an island")
    if verb == "ls" and len(options.words) <= 3:
        return _list(options, door, name, _path(options.words[2] if len(options.words) > 2 else "/"))
    if verb == "cat" and len(options.words) == 3:
        for part in door.download(f"/v1/islands/{name}/files", {"path": _path(options.words[2])}):
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
        return 0
    if verb == "put" and len(options.words) >= 3:
        return _put(options, door, name)
    raise InvalidRequest(f"files takes no such words: {plain(' '.join(options.words))}", "", USAGE)


def _path(word: str) -> str:
    if not word.startswith("/") or "\0" in word:
        raise InvalidRequest(f"{plain(word)!r} is no path of an island", "it begins with /", "/tmp/file")
    return word


def _list(options: PlatformOptions, door: Door, name: str, path: str) -> int:
    items = door.ask("GET", f"/v1/islands/{name}/listing", {"path": path})["items"]
    if options.json:
        say_json(items)
    elif options.quiet:
        say("".join(f"{plain(_named(one))}\n" for one in items))
    else:
        terminal = sys.stdout.isatty()
        say(table(HEAD, [_row(one, terminal) for one in items], terminal) if items else "")
    return 0


def _named(entry: Any) -> str:
    return entry if isinstance(entry, str) else entry["name"]


def _row(entry: Any, terminal: bool) -> tuple[str, str, str, str]:
    """Return an entry's line; one that is only a name has only that."""
    told: Json = {"name": entry} if isinstance(entry, str) else entry
    mode, length, modified = told.get("mode"), told.get("size"), told.get("modified")
    return (
        _permissions(mode) if isinstance(mode, int) else plain(mode or "-"),
        "-" if length is None else size(length) if terminal else str(length),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(modified)) if modified else "-",
        plain(told["name"]) + "/" * bool(told.get("directory")),
    )


def _permissions(mode: int) -> str:
    import stat

    return stat.filemode(mode)


def _put(options: PlatformOptions, door: Door, name: str) -> int:
    path, source = _path(options.words[2]), options.words[3] if len(options.words) > 3 else "-"
    content = _content(source)
    query: dict[str, str] = {"path": path} | ({"mode": options.mode} if options.mode else {})
    wish = Upload(f"/v1/islands/{name}/files", path, query, content)
    return carry_out(options, door, [wish])


class Upload(Wish):
    """A file to be written."""

    def __init__(self, place: str, path: str, query: dict[str, str], content: bytes) -> None:
        super().__init__("PUT", place, path, lambda _: f"wrote {plain(path)} ({size(len(content))})", None, query)
        self._content = content

    def submit(self, door: Door) -> Json:
        return door.upload(self.path, self.query, self._content, self.key)


def _content(source: str) -> bytes:
    """Return what is in a file of this machine, or on standard input. Raises InvalidRequest, HostError."""
    try:
        with open(0 if source == "-" else source, "rb", closefd=source != "-") as file:
            found = file.read(MAX_FILE + 1)
    except OSError as error:
        what = "standard input" if source == "-" else source
        raise HostError(f"cannot read {plain(what)}", os.strerror(error.errno or 0), "name a file") from error
    if len(found) > MAX_FILE:
        why = f"at most {size(MAX_FILE)} are written at once"
        raise InvalidRequest(f"{plain(source)} is too large", why, "--mount a directory when the island is made")
    return found
