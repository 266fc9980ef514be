"""Functions that the processor lacks, or that the value says software executes: a program computes as it does natively."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conformance.harness import Runner

FLAGS = ["-mavx2", "-mfma", "-mf16c", "-msha", "-maes", "-mpclmul", "-mbmi", "-mbmi2", "-mlzcnt", "-mpopcnt", "-madx"]
NEEDED = ("avx2", "fma", "f16c", "sha_ni", "aes", "pclmulqdq", "bmi2", "adx", "abm", "popcnt")
VECTORS = ("avx2", "fma", "f16c", "sha_ni")
LEGACY = ("aes", "pclmulqdq", "popcnt", "rdrand")


@pytest.fixture(autouse=True)
def host_has_the_functions() -> None:
    """The native run is the reference."""
    flags = Path("/proc/cpuinfo").read_text().split()
    if missing := [name for name in NEEDED if name not in flags]:
        pytest.skip(f"the processor of this host has no {', '.join(missing)}")


@pytest.mark.emulated
@pytest.mark.timeout(240)
def test_functions_executed_in_software_compute_as_the_processor_does(
    compile_c: Callable[..., Path], run_both: Runner, tmp_path: Path
) -> None:
    """On KVM the processor has them: there the legacy ones are trapped, and the others run natively."""
    template = tmp_path / "emulate.toml"
    names = VECTORS + LEGACY
    template.write_text(f"[features]\nemulate = [{', '.join(map(repr, names))}]\n")
    run_both([compile_c("emulated_functions", *FLAGS)], options=["--cpu", str(template)], timeout=100)


@pytest.mark.emulated(alone=True)
@pytest.mark.timeout(150)
@pytest.mark.parametrize("mode", ["eager", "lazy"])
def test_emulated_vectors_on_processors_of_several_nodes(
    mode: str, compile_c: Callable[..., Path], run_both: Runner, tmp_path: Path
) -> None:
    """Processors are stopped before AVX whichever node's tree they walk."""
    template = tmp_path / "emulate.toml"
    template.write_text(f"[features]\nemulate = [{', '.join(map(repr, VECTORS + LEGACY))}]\n")
    options = ["--cpu", str(template), "--nodes", "2", "--page-tables", mode, "--verify-page-tables"]
    run_both([compile_c("emulated_functions", *FLAGS)], options=options, timeout=100)


@pytest.mark.emulated(alone=True)
@pytest.mark.timeout(150)
def test_glibc_chooses_and_uses_emulated_vectors(run_both: Runner, tmp_path: Path) -> None:
    """Its string functions take AVX2 when it is announced, its linker saves the registers with XSAVE."""
    template = tmp_path / "emulate.toml"
    template.write_text(f"[features]\nemulate = [{', '.join(map(repr, VECTORS))}]\n")
    script = "printf 'b\\na\\nc\\n' | sort | tr a-z A-Z; printf %s abcabc | grep -o bc | wc -l"
    run_both(["sh", "-c", script], options=["--cpu", str(template)], timeout=100)


@pytest.mark.emulated(alone=True)
@pytest.mark.timeout(150)
def test_without_a_value_the_emulated_processor_has_no_vectors(
    compile_c: Callable[..., Path], run_both: Runner
) -> None:
    _, island = run_both.outcomes([compile_c("emulated_functions", *FLAGS)], stdin=b"", files={}, env={}, timeout=100)
    assert island.status == 132, island.stdout
