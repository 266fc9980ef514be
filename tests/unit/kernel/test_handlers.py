"""Calls find their modules, and the modules can be imported in any order."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from enisle.kernel import TABLE, handlers, load_handlers

KERNEL = Path(handlers.__file__).parent


def test_each_call_is_told_to_be_where_its_handler_is() -> None:
    load_handlers()
    found: dict[str, tuple[int, ...]] = {}
    for entry in filter(None, TABLE):
        module = entry.handler.__module__.removeprefix("enisle.kernel.")
        found[module] = (*found.get(module, ()), entry.number)
    del found["sys_absent"]
    assert found == {name: tuple(sorted(numbers)) for name, numbers in handlers.NUMBERS.items()}


def test_a_call_imports_its_module_and_no_other() -> None:
    probe = (
        "import sys; from enisle.kernel import handlers as h; e = h.find(41), h.find(317), h.find(471), h.find(9999)"
    )
    probe += "\nprint(*[x and x.name for x in e], *[n for n in sys.modules if n.startswith('enisle.kernel.sys_')])"
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
    assert found[:4] == ["socket", "seccomp", "None", "None"]
    assert {"enisle.kernel.sys_socket", "enisle.kernel.sys_absent"} <= set(found)
    assert "enisle.kernel.sys_epoll" not in found


def imports_of(path: Path) -> set[str]:
    """Return the kernel modules that a module imports in its body."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module == "enisle.kernel":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("enisle.kernel."):
            names.add((node.module or "").removeprefix("enisle.kernel."))
    return names


def test_module_bodies_import_in_one_direction_so_that_threads_may_import_at_the_same_time() -> None:
    graph = {path.stem: imports_of(path) for path in KERNEL.glob("*.py") if path.stem != "__init__"}
    TopologicalSorter(graph).prepare()  # raises CycleError
