"""The command line: quick to start, plain in its errors, with the exit codes it documents."""

import json
import subprocess
import sys

import pytest

from commandline import ENISLE, enisle, least_work


def test_help_is_there_in_less_than_100_ms() -> None:
    assert least_work([ENISLE, "--help"]) < 0.100
    assert least_work([ENISLE, "run", "--help"]) < 0.100


def test_what_a_run_imports_is_a_small_multiple_of_the_interpreters_own_start() -> None:
    bare = least_work([sys.executable, "-c", "pass"])
    loaded = least_work(
        [sys.executable, "-c", "import enisle.cli.run, enisle.island.process as p; p.preload.preload()"]
    )
    assert loaded < 8 * bare, f"{bare=:.4f} {loaded=:.4f}"


def test_heavy_modules_are_imported_by_those_who_use_them_alone() -> None:
    probe = "import sys, enisle.cli.run, enisle.island.process as p; p.preload.preload(); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    loaded = set(found.stdout.split())
    assert "enisle.kernel" in loaded
    heavy = {"asyncio", "dataclasses", "inspect", "json", "logging", "numpy", "subprocess", "tempfile", "unicorn"}
    assert not heavy & loaded


def test_every_way_to_ask_for_the_version_works() -> None:
    from enisle import __version__

    assert enisle("--version").stdout == f"enisle {__version__}\n"
    module = subprocess.run([sys.executable, "-m", "enisle", "--version"], capture_output=True, text=True)
    assert module.stdout == f"enisle {__version__}\n"


def test_the_exit_codes_are_documented_where_one_looks() -> None:
    text = enisle("run", "--help").stdout
    assert all(code in text for code in ("124", "125", "126", "127", "128 + N"))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["run"], 2),
        (["run", "--"], 2),
        (["run", "--memory", "lots", "true"], 2),
        (["run", "--memory", "1M", "true"], 2),
        (["run", "--mount", "/nonsense", "true"], 2),
        (["run", "--env", "X", "true"], 2),
        (["run", "--timeout", "0", "true"], 2),
        (["run", "--timeout", "-3", "true"], 2),
        (["run", "--processors", "1000", "true"], 2),
        (["run", "--network", "carrier-pigeon", "true"], 2),
        (["run", "--cwd", "here", "true"], 2),
        (["run", "--no-such-option", "true"], 2),
        (["run", "--trace=yes", "true"], 2),
        (["run", "--processors", "two", "true"], 2),
        (["run", "--memory"], 2),
        (["doctor", "now"], 2),
        (["fly"], 2),
    ],
)
def test_impossible_requests_are_told_in_a_few_lines_with_a_hint(words: list[str], code: int) -> None:
    result = enisle(*words)
    lines = result.stderr.splitlines()
    assert (result.returncode, result.stdout) == (code, "")
    assert lines[0].startswith("enisle: ")
    assert len(lines) <= 3
    assert lines[-1].startswith("  hint: ")


def test_no_words_at_all_get_the_help_and_end_with_2() -> None:
    assert (enisle().returncode, enisle().stdout) == (2, enisle("-h").stdout)


def test_a_traceback_is_shown_with_debug_alone() -> None:
    assert "Traceback" not in enisle("run", "--memory", "lots", "true").stderr
    assert "Traceback" in enisle("--debug", "run", "--memory", "lots", "true").stderr
    assert "Traceback" in enisle("run", "--debug", "--memory", "lots", "true").stderr


def test_the_doctor_finds_the_same_in_words_and_in_json() -> None:
    words, record = enisle("doctor"), json.loads(enisle("doctor", "--json").stdout)
    names = [check["name"] for check in record["checks"]]
    assert {"kernel", "kvm", "namespaces", "network", "root", "confinement"} <= set(names)
    assert [line.split()[1] for line in words.stdout.splitlines() if line[:4] in ("ok  ", "FAIL")] == names
    assert words.returncode == (0 if record["able"] else 5)
