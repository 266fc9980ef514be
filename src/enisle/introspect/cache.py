"""Facts kept between looks: by what makes a kernel build itself, and moved by where it was loaded this time.

The identity is a hash over the exported names with their places in the image, or, where nothing is exported, over the
kernel's banner and build id; so facts found under one KASLR slide serve another. Files that cannot be read or written
are as if not there.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enisle.introspect.exports import Exports
from enisle.introspect.facts import Fact, Facts, Witness
from enisle.introspect.image import Image
from enisle.introspect.syscalls import Dispatch

if TYPE_CHECKING:
    from enisle.introspect.discover import Kernel

FORMAT = 1
_PLACES = (
    "entry",
    "lstar",
    "dispatcher",
    "dispatcher_site",
    "switch",
    "switch_site",
    "table",
    "table_site",
    "not_implemented",
)
_MARK = re.compile(rb"Linux version [^\n\0%]{10,250}\n|\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0.{20}", re.DOTALL)
"""linux_banner (init/version.c), and a note NT_GNU_BUILD_ID (elf(5))."""
_LISTS = ("entry_sites", "handlers", "entries")


def identity(image: Image, exports: Exports, recipes: str) -> str | None:
    """Return what tells this build of a kernel, read with these recipes, from all others."""
    digest = hashlib.sha256(f"{FORMAT} {recipes} {image.end - image.start}\n".encode())
    if not exports.by_name:
        marks = _marks(image)
        digest.update(b"".join(marks))
        return digest.hexdigest()[:32] if len({mark[:1] for mark in marks}) == 2 else None
    for name, value in exports.by_name.items():
        place = value - image.start if value in image else value
        digest.update(f"{name} {place}\n".encode())
    return digest.hexdigest()[:32]


def _marks(image: Image) -> list[bytes]:
    """Return banner and build ids in read-only data, each with its place."""
    found: list[bytes] = []
    for start, end in image.runs(executable=False, writable=False):
        for mark in _MARK.finditer(image.content, start - image.start, end - image.start):
            found.append(mark[0] + mark.start().to_bytes(8, "little"))
    return found


def cache_directory() -> Path:
    """Return where facts are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "enisle" / "introspect"


def save(kernel: "Kernel", key: str, where: Path) -> None:
    """Keep what was found."""
    told = {
        "format": FORMAT,
        "start": kernel.image.start,
        "init_task": kernel.init_task,
        "facts": [[*fact[:4], [list(witness) for witness in fact.witnesses]] for fact in kernel.facts],
        "dispatch": kernel.dispatch._asdict(),
    }
    temporary = where / f".{key}.{os.getpid()}"
    try:
        where.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(told))
        temporary.replace(where / f"{key}.json")
    except OSError:
        temporary.unlink(missing_ok=True)


def load(key: str, image: Image, where: Path) -> tuple[Facts, Dispatch, int] | None:
    """Return (facts, dispatch, init_task) moved to where the image lies now; None when nothing sound is kept."""
    try:
        told: dict[str, Any] = json.loads((where / f"{key}.json").read_text())
        if told["format"] != FORMAT:
            return None
        slide = image.start - told["start"]
        facts = Facts(_fact(entry) for entry in told["facts"]).moved(slide)
        return facts, _dispatch(told["dispatch"], slide), told["init_task"] + slide
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _fact(entry: list[Any]) -> Fact:
    name, kind, value, status, witnesses = entry
    return Fact(name, kind, value, status, tuple(Witness(*witness) for witness in witnesses))


def _dispatch(told: dict[str, Any], slide: int) -> Dispatch:
    moved: dict[str, Any] = {name: told[name] + slide if told[name] else 0 for name in _PLACES}
    for name in _LISTS:
        moved[name] = tuple(place + slide for place in told[name])
    return Dispatch(**moved)
