"""Whose page tables do processors walk? Counted on emulated nodes; timed only where there is hardware that can.

    python -m bench.walks [--json FILE] [--nodes 4] [--mib 64] [--updates 20000] [--local 280] [--remote 580]
    python -m bench.walks --hardware

A program of random updates runs with a thread on each virtual node: tables on one node, copies on every node, then all
threads moved away from their tables, and the tables after them. What is counted are reads of page-table pages by the
emulator's misses; cycles are an estimate of the cost model given. No speed-up is ever printed from one node.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from bench.sides import compile_programs
from bench.walks_hardware import measure_hardware
from enisle.errors import EnisleError
from enisle.kernel import Kernel, KernelConfig, Process
from enisle.machine import AddressSpace, Machine
from enisle.machine.node_machine import NodePlan
from enisle.machine.replication import Replication
from enisle.machine.walks import CostModel, Walks, WalkStatistics

PROMISES = {
    "tables on one node": (0.72, 0.78),
    "a copy on every node": (0.0, 0.0),
    "threads moved away": (1.0, 1.0),
    "tables moved after them": (0.0, 0.0),
}
"""Least and most share of remote reads, with four nodes; with N nodes the first is (N - 1) / N ± 0.03."""


class Guest:
    """The program of `bench/programs/gups.c` on an emulated machine with nodes, stopped between phases."""

    def __init__(self, program: Path, nodes: int, mib: int, updates: int, model: CostModel) -> None:
        self.nodes = nodes
        self.machine = Machine("emulated", (mib * 2 + 256) << 20, processors=nodes, nodes=NodePlan(nodes, "off"))
        assert self.machine.replication
        assert self.machine.walks
        self.replication: Replication = self.machine.replication
        self.walks: Walks = self.machine.walks
        self.walks.model = model
        self.kernel = Kernel(self.machine, KernelConfig(processors=nodes))
        stdin, self._stdin = os.pipe()
        self._stdout, stdout = os.pipe()
        argv = [os.fsencode(program), *(str(number).encode() for number in (nodes, mib, updates))]
        self.process: Process = self.kernel.start(argv, [b"PATH=/bin"], b"/", (stdin, stdout, 2))
        for descriptor in (stdin, stdout):
            os.close(descriptor)
        self._lines = open(self._stdout)  # noqa: SIM115 - closed in `close`
        self._expect("ready")

    def _expect(self, word: str) -> str:
        line = self._lines.readline()
        assert line.startswith(word), f"the program said {line!r}, not {word!r}"
        return line

    @property
    def space(self) -> AddressSpace:
        return next(iter(self.process.threads.values())).mm.space

    def place(self, nodes: list[int]) -> None:
        """Put the k-th worker on the k-th node. Requires: between phases, when no worker computes."""
        workers = sorted(self.process.threads)[1:]
        for tid, node in zip(workers, nodes, strict=True):
            self.replication.enter(self.process.threads[tid].processor, self.space, node)
        first = self.process.threads[min(self.process.threads)]
        self.replication.enter(first.processor, self.space, nodes[0])

    def phase(self) -> WalkStatistics:
        """Let every worker do its updates once; return what was counted meanwhile."""
        self.walks.reset()
        os.write(self._stdin, b"\n")
        self._expect("done")
        return self.walks.statistics()

    def close(self) -> None:
        os.close(self._stdin)
        self._lines.close()
        self.kernel.shutdown()
        self.machine.close()


def scenarios(guest: Guest) -> "dict[str, WalkStatistics]":
    """Run the four situations, one after the other, in one running program."""
    everywhere, away = list(range(guest.nodes)), [guest.nodes - 1] * guest.nodes

    def copies() -> None:
        guest.replication.set_mode("eager")
        guest.place(everywhere)

    def moved() -> None:
        guest.replication.set_mode("off")
        guest.place(away)

    def followed() -> None:
        guest.replication.migrate(guest.space, away[0])
        guest.place(away)

    steps: dict[str, Callable[[], None]] = {
        "tables on one node": lambda: guest.place(everywhere),
        "a copy on every node": copies,
        "threads moved away": moved,
        "tables moved after them": followed,
    }
    found: dict[str, WalkStatistics] = {}
    for name, prepare in steps.items():
        prepare()
        found[name] = guest.phase()
    return found


def measure(nodes: int, mib: int, updates: int, model: CostModel) -> "dict[str, WalkStatistics]":
    """Compile the program, run it, and return what was counted in each situation."""
    programs = compile_programs()
    try:
        guest = Guest(programs / "gups", nodes, mib, updates, model)
        try:
            return scenarios(guest)
        finally:
            guest.close()
    finally:
        shutil.rmtree(programs, ignore_errors=True)


def promised(name: str, nodes: int) -> tuple[float, float]:
    """Return the least and the most share of remote reads."""
    if name == "tables on one node":
        return (nodes - 1) / nodes - 0.03, (nodes - 1) / nodes + 0.03
    return PROMISES[name]


def show(found: "dict[str, WalkStatistics]", nodes: int, model: CostModel) -> bool:
    """Print the table; return whether every share is as promised."""
    kept = True
    print(f"{'':26}{'walks':>9}{'reads':>10}{'remote':>9}{'promised':>16}{'estimated cycles a walk':>26}")
    for name, counted in found.items():
        low, high = promised(name, nodes)
        good = low <= counted.remote_share <= high
        kept = kept and good
        wanted = f"{low:.0%}" if low == high else f"{low:.0%} … {high:.0%}"
        cycles = counted.estimated_cycles() / max(1, counted.walks)
        verdict = "" if good else "  MISSED"
        reads = counted.local + counted.remote
        print(f"{name:26}{counted.walks:9}{reads:10}{counted.remote_share:9.1%}{wanted:>16}{cycles:26.0f}{verdict}")
    print(
        f"\nCounted on {nodes} virtual nodes of emulated processors. Cycles are an estimate: {model.local} for a local,"
        f"\n{model.remote} for a remote read, no caches. What a real machine gains was not measured here."
    )
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.walks", description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=4, help="virtual nodes, each with a thread (4)")
    parser.add_argument("--mib", type=int, default=64, help="size of the table, a power of two (64)")
    parser.add_argument("--updates", type=int, default=20000, help="of each thread in each situation (20000)")
    parser.add_argument("--local", type=int, default=CostModel().local, help="cycles of a local read (280)")
    parser.add_argument("--remote", type=int, default=CostModel().remote, help="cycles of a remote read (580)")
    parser.add_argument("--hardware", action="store_true", help="measure with the processor's counters instead")
    parser.add_argument("--json", metavar="FILE", help="write the counts to FILE as well (- for standard output)")
    options = parser.parse_args()
    if options.updates < 1 or options.mib < 1 or options.mib & (options.mib - 1):
        parser.error("--updates is 1 or more, and --mib a power of two")
    if options.hardware:
        return measure_hardware(options.mib, options.updates)
    try:
        model = CostModel(options.local, options.remote).check()
        found = measure(options.nodes, options.mib, options.updates, model)
    except EnisleError as error:
        print(f"bench.walks: {error}", file=sys.stderr)
        return error.exit_code
    kept = show(found, options.nodes, model)
    if options.json:
        text = json.dumps({name: counted._asdict() for name, counted in found.items()}, indent=2)
        if options.json == "-":
            print(text)
        else:
            Path(options.json).write_text(text + "\n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
