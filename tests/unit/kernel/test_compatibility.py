"""COMPATIBILITY.md says what the table does."""

import importlib.util
from pathlib import Path

from enisle.kernel import TABLE, Support, load_handlers

ROOT = Path(__file__).resolve().parents[3]


def test_the_document_is_what_the_table_renders() -> None:
    specification = importlib.util.spec_from_file_location("compatibility", ROOT / "tools" / "compatibility.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    written = (ROOT / "COMPATIBILITY.md").read_text()
    assert written == module.render(), "run: python tools/compatibility.py > COMPATIBILITY.md"


def test_a_partial_call_says_what_is_missing() -> None:
    load_handlers()
    silent = [entry.name for entry in TABLE if entry and entry.support is Support.PARTIAL and not entry.note]
    assert silent == []
