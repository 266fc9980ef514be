"""What an island is asked to be: one frozen record, the same from the command line, the SDK and over a socket.

Words are read here and refused here (InvalidRequest), before anything is made. Pure: looks at no file.
"""

import os
from collections.abc import Sequence
from typing import Any

from enisle.errors import InvalidRequest
from enisle.island.registry import validate_name
from enisle.records import Record

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
UNITS = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": GIB << 10}
DEFAULT_MEMORY = 4 * GIB
SMALLEST_MEMORY, LARGEST_MEMORY = 24 * MIB, 16 << 40
DEFAULT_PROCESSES = 4096


class Mount(Record):
    """A directory or file of the host, shown at `destination`."""

    source: str
    destination: str
    writable: bool = False


class Configuration(Record):
    """One island. Sizes in bytes, times in seconds; None means the default told beside it."""

    root: str | None = None
    """A directory to use as the root instead of a view of the host's system directories."""
    mounts: tuple[Mount, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    cwd: str | None = None
    """In the island; None: the caller's working directory, shown read-only."""
    memory: int = DEFAULT_MEMORY
    processors: int = 0
    """0: as many as the host has for this process."""
    processes: int = DEFAULT_PROCESSES
    network: str = "none"
    processor: str = "auto"
    exitless: str = "auto"
    memory_kind: str = "anonymous"
    trace: bool = False
    timing: bool = False
    """Measure the time in the guest: two clock readings for each exit."""
    nodes: int = 1
    page_tables: str = "off"
    """How page tables are replicated over the nodes: a mode, and after a colon the nodes that get copies."""
    vm_per_node: bool = False
    verify_page_tables: bool = False
    """Check after every change of page tables that all copies agree. Slow."""
    blocking: str = ""
    """What the processors may execute, as `BlockingValue.encode` writes it; empty: all they can."""
    name: str = ""
    """What `enisle ps` calls it; without one it goes by its id."""

    @property
    def has_nodes(self) -> bool:
        return self.nodes > 1 or self.page_tables != "off"

    @property
    def files_limit(self) -> int:
        """Bytes of `memory` that written files may take: a quarter."""
        return self.memory // 4

    @property
    def memory_limit(self) -> int:
        """Bytes of `memory` that programs may take."""
        return self.memory - self.files_limit


NETWORKS = ("none", "host")
PROCESSORS = ("auto", "kvm", "emulated")
EXITLESS = ("auto", "off")
MEMORY_KINDS = ("anonymous", "shared")
PAGE_TABLES = ("off", "eager", "lazy", "auto", "migrate")
MOST_NODES = 64


def validate(configuration: Configuration) -> Configuration:
    """Return the record with defaults filled in. Raises InvalidRequest for what can never work."""
    for name, value, allowed in (
        ("network", configuration.network, NETWORKS),
        ("processor", configuration.processor, PROCESSORS),
        ("exitless", configuration.exitless, EXITLESS),
        ("memory kind", configuration.memory_kind, MEMORY_KINDS),
        ("mode of page tables", configuration.page_tables.partition(":")[0], PAGE_TABLES),
    ):
        if value not in allowed:
            raise InvalidRequest(f"no such {name}: {value!r}", "only these are known", f"one of {', '.join(allowed)}")
    if configuration.name:
        validate_name(configuration.name)
    if configuration.memory < SMALLEST_MEMORY:
        raise InvalidRequest(
            f"memory of {configuration.memory} bytes is too small",
            f"an island needs {SMALLEST_MEMORY >> 20}M for its tables and the smallest program",
            "--memory 64M",
        )
    if configuration.memory > LARGEST_MEMORY:
        why = f"an island's memory ends at {LARGEST_MEMORY >> 40}T"
        raise InvalidRequest(f"memory of {configuration.memory} bytes is too large", why, "--memory 64G")
    if not 0 <= configuration.processors <= 256:
        raise InvalidRequest(
            f"cannot make {configuration.processors} processors", "there are 1 to 256", "--processors 2"
        )
    if not 1 <= configuration.processes <= 1 << 22:
        raise InvalidRequest(
            f"a limit of {configuration.processes} processes makes no sense", "1 to 4194304 do", "--processes 64"
        )
    if configuration.cwd is not None and not configuration.cwd.startswith("/"):
        raise InvalidRequest(
            f"the working directory {configuration.cwd!r} is not absolute", "it is a path of the island", "--cwd /tmp"
        )
    _check_nodes(configuration)
    if configuration.processors:
        return configuration
    return configuration._replace(processors=max(len(os.sched_getaffinity(0)), configuration.nodes))


def _check_nodes(configuration: Configuration) -> None:
    """Raises InvalidRequest."""
    nodes = configuration.nodes
    if not 1 <= nodes <= MOST_NODES:
        raise InvalidRequest(f"cannot make {nodes} nodes", f"there are 1 to {MOST_NODES}", "--nodes 2")
    if configuration.vm_per_node and nodes == 1:
        raise InvalidRequest("one virtual machine per node needs nodes", "there is one node", "--nodes 2")
    if configuration.verify_page_tables and nodes == 1:
        raise InvalidRequest("there are no copies of page tables to verify", "there is one node", "--nodes 2")
    _, colon, mask = configuration.page_tables.partition(":")
    if colon:
        from enisle.machine import node_mask  # only for those who ask: the machine room takes long to import

        node_mask(mask, nodes)


def parse_size(text: str) -> int:
    """Return bytes for 512M, 2G, 1.5GiB or 1048576."""
    words = text.strip().lower().removesuffix("b").removesuffix("i")
    number, unit = (words[:-1], words[-1]) if words[-1:] in tuple("kmgt") else (words, "")
    try:
        size = int(float(number) * UNITS[unit])
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{text!r} is not a size", "a size is a number of bytes, K, M, G or T", "512M or 2G"
        ) from None
    if size < 0:
        raise InvalidRequest(
            f"the size {text!r} is negative", "a size is a number of bytes, K, M, G or T", "512M or 2G"
        )
    return size


def parse_mount(text: str) -> Mount:
    """Return the mount for SRC:DST[:ro|rw]."""
    parts = text.split(":")
    mode = parts.pop() if len(parts) > 2 and parts[-1] in ("ro", "rw") else "ro"
    if len(parts) != 2 or not all(parts):
        raise InvalidRequest(
            f"{text!r} is not a mount",
            "it names a path of the host and one of the island",
            "SRC:DST, SRC:DST:ro or SRC:DST:rw",
        )
    source, destination = os.path.abspath(parts[0]), os.path.normpath(parts[1])
    if not destination.startswith("/") or destination.strip("/") == "":
        raise InvalidRequest(f"cannot mount at {parts[1]!r}", "the place must be an absolute path below /", "SRC:/data")
    if source.split("/")[1] in ("proc", "sys"):
        raise InvalidRequest(
            f"cannot show {source}",
            "the host's /proc and /sys stay outside",
            "programs have a /proc and /sys of their own",
        )
    return Mount(source, destination, mode == "rw")


def parse_environment(words: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return (name, value) for each NAME=VALUE."""
    pairs: list[tuple[str, str]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise InvalidRequest(f"{word!r} sets no variable", "there is no name with a value", "--env NAME=VALUE")
        pairs.append((name, value))
    return tuple(pairs)


def to_record(configuration: Configuration) -> dict[str, Any]:
    """Return what `from_record` reads: plain lists, strings and numbers."""
    return configuration._asdict()


def from_record(record: dict[str, Any]) -> Configuration:
    """Return the configuration that `to_record` wrote."""
    mounts = tuple(Mount(*mount) for mount in record["mounts"])
    environment = tuple((name, value) for name, value in record["environment"])
    return Configuration(**record)._replace(mounts=mounts, environment=environment)
