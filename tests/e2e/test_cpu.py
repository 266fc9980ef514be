"""`enisle run --cpu`: what programs are told agrees everywhere, and islands that cannot be it are refused."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from commandline import enisle
from enisle import Island
from enisle.abi.x86_features import FEATURES
from enisle.errors import HostError, InvalidRequest, NotFound
from enisle.machine import Queries, find_value
from enisle.machine.blocking import dumps

pytestmark = pytest.mark.root
KVM = pytest.param("kvm", marks=pytest.mark.kvm)
BACKENDS = [KVM, "emulated"]
SOURCE = Path(__file__).parent / "told.c"
NO_AVX512 = '[features]\nblock = ["avx512f"]\n'
SLOW_CLOCK = '[instructions]\nemulate = ["rdtsc", "rdtscp"]\n'
CET = 0b11 << 11


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, linked so that no dynamic linker asks before it."""
    target = tmp_path_factory.mktemp("told") / "told"
    subprocess.run(["gcc", "-O1", "-static", "-o", target, SOURCE], check=True)
    return target


@pytest.fixture
def template(tmp_path: Path) -> Any:
    def write(text: str, name: str = "template") -> str:
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return str(path)

    return write


def run(told: Path, backend: str, *options: str) -> dict[str, list[str]]:
    """Return the words of each line by its first."""
    places = ("--mount", f"{told.parent}:{told.parent}", "--cwd", "/")
    result = enisle("run", "--processor", backend, *places, *options, "--", str(told))
    assert result.returncode == 0, result.stderr
    lines: dict[str, list[str]] = {}
    for line in result.stdout.splitlines():
        key, *words = line.split()
        if key in ("cpuid", "auxv"):
            count = 2 if key == "cpuid" else 1
            lines[" ".join([key, *words[:count]])] = words[count:]
        else:
            lines[key] = words
    return lines


def check_cpuid(lines: dict[str, list[str]], queries: Queries) -> int:
    """Compare every answer with what is derived; return how many there were."""
    count = 0
    for key, words in lines.items():
        if not key.startswith("cpuid "):
            continue
        leaf, subleaf = (int(word, 16) for word in key.split()[1:])
        seen = [int(word, 16) for word in words]
        wanted = list(queries.cpuid(leaf, subleaf))
        masks = dumps.PER_CORE.get(leaf, (0xFFFF_FFFF,) * 4)  # another core has another number
        if leaf == 0xD and subleaf == 1:
            seen[2] &= ~CET
            wanted[2] &= ~CET
        assert [s & m for s, m in zip(seen, masks, strict=True)] == [
            w & m for w, m in zip(wanted, masks, strict=True)
        ], key
        count += 1
    return count


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["x86-64-v1", "x86-64-v2", "x86-64-v3", "no-avx512"])
def test_everything_a_program_is_told_agrees(backend: str, name: str, told: Path, template: Any) -> None:
    word = template(NO_AVX512) if name == "no-avx512" else name
    table = dumps.take(backend)
    value = find_value(word)
    queries = Queries(value, table, table.xcr0)
    if queries.missing:
        pytest.skip(f"this processor ({backend}) is not {name}: {', '.join(sorted(queries.missing))}")
    lines = run(told, backend, "--cpu", word)
    assert check_cpuid(lines, queries) == 0x21 * 8 + 0x29 * 8
    assert ("xcr0" in lines) == ("osxsave" in queries.visible)
    if "xcr0" in lines:
        assert int(lines["xcr0"][0], 16) == queries.xcr0
    assert int(lines["auxv 16"][0], 16) == queries.hwcap
    assert int(lines["auxv 26"][0], 16) == 0, "FSGSBASE is off for guests"
    xfeatures = queries.xcr0 | 3
    assert lines["supported"] == ["0", f"{xfeatures:x}"]
    magic, size, present = (int(word, 16) for word in lines["frame"])
    assert (magic, present & ~xfeatures) == (0x4650_5853, 0)
    assert size == xfeatures, "the components of the frame"
    assert int(lines["auxv 51"][0], 16) == queries.xsave_size + 944


@pytest.mark.parametrize("backend", BACKENDS)
def test_cpuinfo_tells_the_features_of_the_value(backend: str) -> None:
    result = enisle("run", "--processor", backend, "--cpu", "x86-64-v2", "--", "cat", "/proc/cpuinfo")
    flags = set(re.findall(r"^flags\s*: (.*)$", result.stdout, re.MULTILINE)[0].split())
    queries = Queries(find_value("x86-64-v2"), dumps.take(backend))
    assert flags == set(queries.flags)
    assert {name for name in flags if name in FEATURES} <= queries.value.features
    assert f"vendor_id\t: {queries.host.vendor}\n" in result.stdout


@pytest.mark.parametrize("backend", BACKENDS)
def test_clocks_are_the_kernels_where_the_counter_is(backend: str, told: Path, template: Any) -> None:
    assert run(told, backend, "--cpu", template(SLOW_CLOCK))["tsc"] == ["1", "1"]
    blocked = template('[instructions]\nblock = ["rdtsc"]\n')
    assert run(told, backend, "--cpu", blocked)["tsc"] == ["2", "1"]


def test_a_processor_that_is_less_is_refused_by_name() -> None:
    result = enisle("run", "--processor", "emulated", "--cpu", "x86-64-v3", "--", "true")
    assert result.returncode == 125
    assert "cannot be x86-64-v3" in result.stderr
    assert "missing: avx" in result.stderr
    assert "hint:" in result.stderr


@pytest.mark.kvm
def test_a_host_that_cannot_hold_it_is_refused_by_name() -> None:
    record = json.loads(enisle("cpu", "verify", "x86-64-v2", "--cpu-require", "hw", "--json").stdout)
    result = enisle("run", "--cpu", "x86-64-v2", "--cpu-require", "hw", "--", "true")
    assert (result.returncode == 0) == record["good"]
    if not record["good"]:
        weak = [row["instruction"] for row in record["classes"] if row["held"] and row["tier"] != "hw"]
        assert weak
        assert all(name in result.stderr for name in weak)


@pytest.mark.kvm
def test_what_the_host_lacks_is_held_by_its_absence(template: Any) -> None:
    absent = sorted({"avx512er", "fma4", "xop", "mpx", "avx512_fp16"} - dumps.take("kvm").features)
    path = template(f"[features]\nblock = {absent}\n")
    assert enisle("run", "--cpu", path, "--cpu-require", "enforced", "--", "echo", "held").stdout == "held\n"


@pytest.mark.parametrize("word", ["x86-64-v9", "/etc/passwd", "/proc/nothere"])
def test_words_that_name_no_value_are_refused(word: str) -> None:
    result = enisle("run", "--cpu", word, "--", "true")
    assert result.returncode in (2, 3)
    assert "Traceback" not in result.stderr


def test_a_forged_value_starts_no_island(tmp_path: Path) -> None:
    key, value = tmp_path / "key", tmp_path / "value.json"
    key.write_bytes(b"k" * 32)
    assert enisle("cpu", "show", "x86-64-v1", "--key", str(key), "--output", str(value)).returncode == 0
    words = ("run", "--processor", "emulated", "--cpu", str(value), "--cpu-key", str(key), "--", "true")
    assert enisle(*words).returncode == 0
    forged = json.loads(value.read_text())
    forged["signature"] = "0" * 64
    value.write_text(json.dumps(forged))
    refused = enisle(*words)
    assert refused.returncode == 2
    assert "not signed with this key" in refused.stderr


def test_a_policy_of_the_host_stands_above_a_template(told: Path, template: Any) -> None:
    policy = template('[features]\nblock = ["rdrand"]\n', "policy")
    generous = template('base = "x86-64-v2"\n[features]\nallow = ["rdrand"]\n', "tenant")
    lines = run(told, "emulated", "--cpu", policy, "--cpu", generous)
    assert int(lines["cpuid 1 0"][2], 16) >> 30 & 1 == 0
    assert int(run(told, "emulated", "--cpu", generous)["cpuid 1 0"][2], 16) >> 30 & 1 == 1


def test_the_sdk_takes_the_same_words(template: Any) -> None:
    with Island(cpu=["x86-64-v2"], processor="emulated") as island:
        flags = island.run(["grep", "-m1", "flags", "/proc/cpuinfo"]).stdout.decode().split()
    assert "sse4_2" in flags
    assert "rdrand" not in flags
    with pytest.raises(HostError, match="cannot be"):
        Island(cpu="x86-64-v4", processor="emulated")
    with pytest.raises(NotFound):
        Island(cpu="x86-64-v9")
    with pytest.raises(InvalidRequest):
        Island(cpu=template("[features]\nblock = ['sse2']"))


@pytest.mark.kvm
def test_verify_prints_a_tier_for_every_class(capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads(enisle("cpu", "verify", "--json").stdout)
    assert record["good"]
    assert {row["tier"] for row in record["classes"]} <= {"advisory", "detect", "step", "patch", "hw"}
    assert {"cpuid", "rdtsc", "avx512", "syscall"} <= {row["instruction"] for row in record["classes"]}


@pytest.mark.kvm
def test_a_fingerprint_of_this_host_is_this_host(tmp_path: Path) -> None:
    path = str(tmp_path / "here.json")
    assert enisle("cpu", "fingerprint", "--output", path).returncode == 0
    same = enisle("cpu", "fingerprint", path, "--json")
    assert json.loads(same.stdout)["verdict"] == "same"
    moved = enisle("cpu", "fingerprint", path, "--processor", "emulated", "--json")
    assert moved.returncode == 5
    assert any("missing" in reason for reason in json.loads(moved.stdout)["reasons"])
    level = ["--cpu", "x86-64-v2", "--cross-vendor"]
    domain = enisle("cpu", "fingerprint", path, "--processor", "emulated", *level, "--json")
    assert json.loads(domain.stdout)["verdict"] == "compatible"
