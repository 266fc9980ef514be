"""Calls find their modules, and the modules can be imported in any order."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from enisle.kernel import TABLE, handlers, load_handlers

KERNEL = Path(handlers.__file__).parent
PACKAGES = {"enisle.kernel": "", "enisle.kernel.calls": "calls.", "enisle.kernel.proc": "proc."}


def test_each_call_is_told_to_be_where_its_handler_is() -> None:
    load_handlers()
    found: dict[str, tuple[int, ...]] = {}
    for entry in filter(None, TABLE):
        module = entry.handler.__module__.removeprefix("enisle.kernel.")
        found[module] = (*found.get(module, ()), entry.number)
    del found["calls.absent"]
    assert found == {name: tuple(sorted(numbers)) for name, numbers in handlers.NUMBERS.items()}


def test_a_call_imports_its_module_and_no_other() -> None:
    probe = (
        "import sys; from enisle.kernel import handlers as h; e = h.find(41), h.find(317), h.find(471), h.find(9999)"
    )
    probe += "\nprint(*[x and x.name for x in e], *[n for n in sys.modules if n.startswith('enisle.kernel.calls.')])"
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
    assert found[:4] == ["socket", "seccomp", "None", "None"]
    assert {"enisle.kernel.calls.socket", "enisle.kernel.calls.absent"} <= set(found)
    assert "enisle.kernel.calls.epoll" not in found


def imports_of(path: Path) -> set[str]:
    """Return the kernel modules that a module imports in its body."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module in PACKAGES:
            names |= {PACKAGES[node.module] + alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("enisle.kernel."):
            names.add((node.module or "").removeprefix("enisle.kernel."))
    return names


def test_module_bodies_import_in_one_direction_so_that_threads_may_import_at_the_same_time() -> None:
    modules = [path for path in KERNEL.rglob("*.py") if path.stem != "__init__"]
    graph = {".".join(path.relative_to(KERNEL).with_suffix("").parts): imports_of(path) for path in modules}
    assert {"calls.open", "proc.root", "thread"} <= graph.keys()
    TopologicalSorter(graph).prepare()  # raises CycleError
