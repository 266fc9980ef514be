"""Function blocking: no way to get at what `--cpu x86-64-v2` hides, and real software runs clean on what it shows."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.conftest import EMULATED, KVM, KVM_EXIT_DOOR
from conformance.harness import ENISLE, Setting

SETTINGS = [
    pytest.param(KVM, id="kvm", marks=pytest.mark.kvm),
    pytest.param(KVM_EXIT_DOOR, id="kvm-exit-door", marks=pytest.mark.kvm),
    pytest.param(EMULATED, id="emulated"),
]
KVM_ONLY = SETTINGS[:2]
pytestmark = pytest.mark.root

Compiler = Callable[..., Path]

REFUSED = {"by_vm_write", "by_proc_mem"}
"""Ways that an island does not offer at all."""
DIES = {"prefix_lock", "prefix_too_many"}
"""What is no instruction on any processor."""


def run_blocked(
    setting: Setting, *words: str | Path, value: str = "x86-64-v2", mounts: tuple[Path, ...] = ()
) -> tuple[int, str, str]:
    """Run a command under a blocking value; return its exit code and output."""
    places = [word for path in mounts for word in ("--mount", f"{path}:{path}")]
    command = [ENISLE, "run", "--debug", *setting.options(), "--cpu", value, *places, "--", *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=110)
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done.returncode, done.stdout, done.stderr


def outcomes(output: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in output.splitlines())


@pytest.fixture(scope="session")
def bypass(compile_c: Compiler) -> Path:
    return compile_c("blocking_bypass", "-Wno-unused-result")


@pytest.fixture(scope="session")
def unmasked_natively(bypass: Path) -> set[str]:
    """The variants that do work where nothing is blocked: the others prove nothing."""
    done = subprocess.run([bypass], capture_output=True, text=True, timeout=60)
    return {name for name, outcome in outcomes(done.stdout).items() if outcome == "UNMASKED"}


@pytest.mark.parametrize("door", SETTINGS)
def test_no_variant_returns_an_unmasked_value(door: Setting, bypass: Path, unmasked_natively: set[str]) -> None:
    code, output, errors = run_blocked(door, bypass, mounts=(bypass.parent,))
    found = outcomes(output)
    assert code == 0, errors[-2000:]
    assert len(unmasked_natively & set(found)) >= 75, unmasked_natively
    assert [name for name, outcome in found.items() if outcome == "UNMASKED"] == []
    queries = {name: outcome for name, outcome in found.items() if not name.startswith("do_")}
    # What asks CPUID goes on and gets the masked answer; only what is no instruction dies.
    assert {name for name, outcome in queries.items() if outcome == "refused"} == REFUSED
    assert {name for name, outcome in queries.items() if outcome.startswith("signal")} == DIES
    executed = {name: outcome for name, outcome in found.items() if name.startswith("do_")}
    assert set(executed.values()) == {"signal 4"}, executed


@pytest.mark.parametrize("door", SETTINGS)
def test_stepped_code_computes_what_native_code_does(door: Setting, compile_c: Compiler) -> None:
    """The same functions, from a shared mapping that is never executable and from ordinary text."""
    program = compile_c("blocking_steps", "-Wno-unused-result", "-fPIC")
    native = subprocess.run([program], capture_output=True, text=True, timeout=60)
    code, output, errors = run_blocked(door, program, mounts=(program.parent,))
    assert (code, output) == (native.returncode, native.stdout), errors[-2000:]
    assert native.returncode == 0
    assert "same" in output


AVX = pytest.mark.skipif("avx" not in Path("/proc/cpuinfo").read_text(), reason="this processor has no AVX")


@AVX
@pytest.mark.parametrize("door", KVM_ONLY)
@pytest.mark.parametrize("way", ["computing", "calling"])
def test_a_program_that_uses_avx_gets_sigill_and_loses_the_state(door: Setting, way: str, compile_c: Compiler) -> None:
    program = compile_c("blocking_avx")
    code, output, errors = run_blocked(door, program, way, mounts=(program.parent,))
    assert code == 0, (output, errors[-2000:])
    found = dict(line.split(": ") for line in output.splitlines())
    assert found["signal"] == "SIGILL"
    assert found["upper halves"] == "zero"
    assert float(found["milliseconds"]) < 1000  # 10 ms on an idle host; the figure is the bench's


CIPHER = "openssl enc -aes-256-ctr -pass pass:x -pbkdf2"
CLEAN = {
    "digests": ["openssl", "speed", "-seconds", "1", "-bytes", "64", "sha256"],
    "ciphers": ["sh", "-c", f"echo hello | {CIPHER} | {CIPHER} -d"],
    "python": [
        "python3",
        "-c",
        "import hashlib, ssl, json; print(hashlib.sha512(bytes(10**6)).hexdigest()); ssl.create_default_context()",
    ],
    "tools": [
        "bash",
        "-c",
        "seq 3000 | sort -R | sort -n | sha1sum | cut -c1-40; printf %s abc | tr a-c A-C | grep -c ABC",
    ],
}


@pytest.mark.kvm
@pytest.mark.parametrize("name", CLEAN)
def test_real_software_runs_clean_on_what_is_reported(name: str) -> None:
    words = CLEAN[name]
    code, output, errors = run_blocked(KVM, *words)
    assert code == 0, errors[-2000:]
    if "speed" not in words:
        native = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        assert output == native.stdout


@pytest.mark.kvm
def test_cpuinfo_and_cpuid_agree(compile_c: Compiler) -> None:
    """What /proc/cpuinfo prints is what CPUID tells, for the features that both have."""
    program = compile_c("blocking_cpuid")
    code, output, errors = run_blocked(KVM, program, mounts=(program.parent,))
    assert code == 0, errors[-2000:]
    asked = set(output.split())
    code, output, _ = run_blocked(KVM, "cat", "/proc/cpuinfo")
    flags = re.search(r"^flags\s*: (.*)$", output, re.MULTILINE)
    assert flags
    printed = set(flags[1].split())
    names = "sse sse2 pni pclmulqdq ssse3 fma sse4_1 sse4_2 movbe popcnt aes xsave avx f16c rdrand"
    known = {*names.split(), "bmi1", "avx2", "bmi2", "rdseed", "adx", "sha_ni", "avx512f"}
    assert asked & known == printed & known
    assert "sse4_2" in asked
    assert not asked & {"avx", "aes", "rdrand", "avx2"}
