"""Real kernels for tests: fetched once from the Debian mirror of this machine (`tools/kernels`), and when that fails,
skipped with the reason, or failed where ENISLE_REQUIRE promises qemu."""

import os

import guests
import pytest

from enisle.errors import EnisleError


def guest_kernel(name: str = "6.1-cloud") -> guests.Kernel:
    """Return a kernel of `tools/kernels.toml`."""
    try:
        return guests.get(name)
    except EnisleError as error:
        if "qemu" in os.environ.get("ENISLE_REQUIRE", "").split(","):
            pytest.fail(f"needs the kernel {name}: {error}", pytrace=False)
        pytest.skip(f"needs the kernel {name}: {error}")
