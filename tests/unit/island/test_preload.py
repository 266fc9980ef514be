"""After the door is closed every module of ours is still there, from memory, and nothing else is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from enisle.island.preload import read_code

PROBE = """
import os, sys
from enisle.island import hatch, preload
from enisle import abi, kernel, machine
machine.Guard  # as a machine with a blocking value has loaded it: a module of the kernel's is for such machines alone
preload.preload()
rooms = {room.__name__: sorted(os.listdir(room.__path__[0])) for room in (abi, kernel, machine)}
preload.seal()
import importlib
for room, files in rooms.items():
    for file in files:
        if file.endswith(".py") and not file.startswith(preload.UNNEEDED):
            importlib.import_module(f"{room}.{file[:-3]}")
assert not preload.refused, preload.refused
import json
from enisle.island import answers
assert json.loads(json.dumps({"a": [1, "ä", None]})) == {"a": [1, "ä", None]}
assert not preload.refused, preload.refused
for name in ("decimal", "enisle.machine.findings"):
    try:
        importlib.import_module(name)
    except ImportError:
        continue
    raise AssertionError(name)
assert preload.refused == ["decimal", "enisle.machine.findings"]
"""


@pytest.mark.parametrize("cached", [True, False], ids=["byte code", "source"])
def test_every_module_can_be_imported_from_memory_and_no_other(cached: bool, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(tmp_path)
    if cached:
        subprocess.run([sys.executable, "-c", "from enisle.kernel import load_handlers as l; l()"], env=environment)
    else:
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    subprocess.run([sys.executable, "-c", PROBE], env=environment, check=True)


def test_stale_byte_code_is_not_taken(tmp_path: Path) -> None:
    source = tmp_path / "some.py"
    source.write_text("value = 1\n")
    assert read_code(str(source)) == (str(source), b"value = 1\n", False)
    probe = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import some"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-c", probe], env=environment, check=True)
    assert read_code(str(source))[2]
    source.write_text("value = 12\n")
    assert read_code(str(source)) == (str(source), b"value = 12\n", False)
