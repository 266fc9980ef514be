"""The oracle of the tests of instructions in software."""

import shutil
from pathlib import Path

import pytest

from native_processor import NativeProcessor

SOURCE = Path(__file__).with_name("native.c")


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> NativeProcessor:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    if " avx2 " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("the processor of this host has no AVX2")
    return NativeProcessor(SOURCE, tmp_path_factory.mktemp("native") / "native")
