"""What may be asked for: an island or a machine in words, checked as far as that can be done away from its host.

Paths are of the host that will run it, so nothing is looked up here. Pure. Raises InvalidRequest for what can never be.
"""

import re
import secrets
from dataclasses import asdict, dataclass
from typing import Any

from enisle.errors import InvalidRequest
from enisle.island import Configuration, parse_mount, parse_size, validate
from enisle.tasks import require_token

LARGEST_TERMINAL = 1000
MAX_WORDS, MAX_ENVIRONMENT = 32 << 10, 32 << 10
"""Bytes of a command and of its environment: a task's arguments hold 64 KiB."""
ELSEWHERE = ("name", "program", "host")
"""Of a spec: what is no part of its configuration."""
DEFAULT_TENANT = "default"
IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
"""A file of a tenant's images, on the host that has them (`Places.images`)."""
SHARING = ("root", "mounts", "network")
"""Of a configuration: what shows something of the host."""


@dataclass(frozen=True, slots=True)
class IslandSpec:
    """An island to be made, in the words of `enisle run`; what is empty is as there. Sizes as "512M"."""

    name: str = ""
    memory: str = ""
    processors: int = 0
    processes: int = 0
    network: str = ""
    processor: str = ""
    root: str = ""
    mounts: tuple[str, ...] = ()
    env: dict[str, str] | None = None
    cwd: str = ""
    cpu: tuple[str, ...] = ()
    nodes: int = 0
    page_tables: str = ""
    program: tuple[str, ...] = ()
    host: str = ""

    def configuration(self) -> dict[str, Any]:
        """Return what differs from the defaults, as JSON holds it and the SDK takes it."""
        told = {
            name: value for name, value in asdict(self).items() if value and name not in ("name", "program", "host")
        }
        return told | {name: list(told[name]) for name in ("mounts", "cpu") if name in told}

    def named(self) -> str:
        return self.name or f"island-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True)
class VmSpec:
    """A full Linux machine to be run; files are of its host."""

    kernel: str = ""
    name: str = ""
    initrd: str = ""
    append: str = ""
    memory: str = ""
    processors: int = 0
    disks: tuple[str, ...] = ()
    accelerator: str = ""
    host: str = ""

    def configuration(self) -> dict[str, Any]:
        told = {name: value for name, value in asdict(self).items() if value and name not in ("name", "host")}
        return told | ({"disks": list(self.disks)} if self.disks else {})

    def named(self) -> str:
        return self.name or f"vm-{secrets.token_hex(3)}"


def check_island(spec: IslandSpec, tenant: str = DEFAULT_TENANT) -> None:
    """Raises InvalidRequest for a spec that no host can make, or that this tenant may not ask for."""
    if spec.name:
        require_name("an island", spec.name)
    if spec.host:
        require_token("a host", spec.host)
    for path in (spec.root, *(mount.split(":")[0] for mount in spec.mounts)):
        if path and not path.startswith("/"):
            raise InvalidRequest(f"{path!r} is not an absolute path", "it is one of the host's", "begin it with /")
    check_environment(spec.env or {})
    if spec.program:
        check_command(list(spec.program))
    told = {name: value for name in ("network", "processor", "page_tables") if (value := getattr(spec, name))}
    numbers = {name: value for name in ("processors", "processes", "nodes") if (value := getattr(spec, name))}
    validate(
        Configuration(
            mounts=tuple(parse_mount(text) for text in spec.mounts),
            cwd=spec.cwd or None,
            name=spec.name,
            **({"memory": parse_size(spec.memory)} if spec.memory else {}),
            **told,
            **numbers,
        )
    )
    if tenant != DEFAULT_TENANT:
        for name in SHARING:
            if getattr(spec, name) and getattr(spec, name) != "none":
                why = "it would show something of the host, which is not the tenant's"
                raise InvalidRequest(f"the tenant {tenant} cannot ask for {name}", why, f"leave {name} out")
        if any("/" in word or "." in word for word in spec.cpu):
            why = "it would be read from a file of the host"
            raise InvalidRequest(f"the tenant {tenant} cannot ask for that processor", why, "name a level")


KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("memory", "network", "processor", "root", "cwd", "page_tables"), (str,)),
    **dict.fromkeys(("processors", "processes", "nodes"), (int,)),
    **dict.fromkeys(("mounts", "cpu"), (list, tuple)),
    "env": (dict,),
}


def island_spec(name: str, configuration: dict[str, Any], program: Any) -> IslandSpec:
    """Return the spec of an island whose words came as JSON. Raises InvalidRequest."""
    told: dict[str, Any] = {}
    for word, value in configuration.items():
        kinds = KINDS.get(word)
        if kinds is None:
            raise InvalidRequest(f"an island has no {word!r:.60}", f"it has {', '.join(KINDS)}", "")
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise InvalidRequest(f"{word} of an island cannot be {value!r:.60}", f"it is a {kinds[0].__name__}", "")
        told[word] = tuple(str(one) for one in value) if word in ("mounts", "cpu") else value
    return IslandSpec(name=name, program=tuple(check_command(program)) if program else (), **told)


def require_name(what: str, name: object) -> str:
    """Return a name that can be a resource's and an island's. Raises InvalidRequest."""
    text = require_token(what, name)
    if not text[0].isalnum():
        raise InvalidRequest(f"{what} cannot be {text!r}", "it begins with a letter or a digit", "choose another")
    return text


def check_command(argv: object) -> list[str]:
    """Return the words of a command. Raises InvalidRequest."""
    words: list[Any] = argv if isinstance(argv, list) else []  # pyright: ignore[reportUnknownVariableType]
    if not words or not all(isinstance(word, str) for word in words) or not words[0]:
        raise InvalidRequest("a command needs a program", "its words are a list of texts", '["ls", "-l"]')
    _check_texts("a command", words, MAX_WORDS)
    return words


def check_interaction(wanted: object, terminal: object, fed: bool) -> dict[str, Any]:
    """Return how a command is talked to: "" or "open" input, none or a terminal of [rows, columns]."""
    size: list[Any] = terminal if isinstance(terminal, list) else [None]  # pyright: ignore[reportUnknownVariableType]
    if wanted not in ("", "open"):
        raise InvalidRequest(f"the input of a command cannot be {wanted!r:.40}", '"open", or left out', "")
    if size and (len(size) != 2 or not all(type(one) is int and 1 <= one <= LARGEST_TERMINAL for one in size)):
        raise InvalidRequest(
            f"a terminal cannot be {size!r:.40}", f"rows and columns, 1 to {LARGEST_TERMINAL}", "[24, 80]"
        )
    if fed and (wanted or size):
        raise InvalidRequest("a command cannot have both", "an input given at once, and a terminal or open input", "")
    return {"input": wanted, "terminal": size}


def check_environment(environment: object) -> dict[str, str]:
    """Return variables. Raises InvalidRequest."""
    if not isinstance(environment, dict):
        raise InvalidRequest("an environment is made of names and texts", f"not {environment!r:.40}", "")
    pairs: dict[Any, Any] = environment  # pyright: ignore[reportUnknownVariableType]
    for name, value in pairs.items():
        if not isinstance(name, str) or not isinstance(value, str) or not name or "=" in name:
            raise InvalidRequest(f"{name!r:.60} cannot be a variable", "names have no = and values are texts", "")
    _check_texts("an environment", [*pairs.keys(), *pairs.values()], MAX_ENVIRONMENT)
    return pairs


def _check_texts(what: str, texts: list[str], limit: int) -> None:
    try:
        size = sum(len(text.encode()) + 1 for text in texts)
    except UnicodeEncodeError:
        raise InvalidRequest(f"{what} holds what is no text", "it cannot be written as UTF-8", "") from None
    if any("\0" in text for text in texts):
        raise InvalidRequest(f"{what} cannot hold a NUL", "Linux ends texts there", "leave it out")
    if size > limit:
        raise InvalidRequest(f"{what} of {size} bytes is too long", f"at most {limit}", "put it into a file")


def check_vm(spec: VmSpec, tenant: str = DEFAULT_TENANT) -> None:
    """Raises InvalidRequest for a machine that no host can run, or that this tenant may not ask for."""
    if spec.name:
        require_name("a machine", spec.name)
    if spec.host:
        require_token("a host", spec.host)
    if not spec.kernel:
        raise InvalidRequest("no kernel to boot", "a machine needs one", "name its file")
    for path in filter(None, (spec.kernel, spec.initrd, *spec.disks)):
        check_file(path, tenant)
    if spec.memory:
        parse_size(spec.memory)
    if spec.processors < 0:
        raise InvalidRequest(f"a machine cannot have {spec.processors} processors", "1 to 64", "")


def check_file(path: str, tenant: str) -> None:
    """Raises InvalidRequest for a file that this tenant may not boot from: a host's own files are not for everybody."""
    if IMAGE.match(path.removesuffix(":rw").removesuffix(":ro")):
        return
    if tenant != DEFAULT_TENANT:
        why = "a path is one of the host, which is not the tenant's"
        raise InvalidRequest(f"the tenant {tenant} cannot name {path!r:.100}", why, "name a file of its images")
    if not path.startswith("/"):
        raise InvalidRequest(
            f"{path!r:.100} is neither a path nor an image", "a path begins with /", "an image is a file name"
        )
