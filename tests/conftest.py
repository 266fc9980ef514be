"""What a test needs, probed once and said aloud.

A test marked `@pytest.mark.kvm`, `root`, `qemu` or `browser` is skipped with the reason when the need is missing;
`ENISLE_REQUIRE=kvm,root` turns those skips into failures. The folder says what is typical, the mark what is needed.
Time limits of single tests are pytest-timeout's (`timeout` in pyproject.toml, or the mark).
"""

import ctypes
import fcntl
import functools
import os
import shutil
import signal
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something of the neighbours on this computer, nothing of the property.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

KVM_GET_API_VERSION = 0xAE00
KVM_CREATE_VM = 0xAE01


def _missing_kvm() -> str | None:
    try:
        device = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"/dev/kvm cannot be opened: {error.strerror}"
    try:
        if fcntl.ioctl(device, KVM_GET_API_VERSION) != 12:
            return "/dev/kvm speaks another version of the interface"
        os.close(fcntl.ioctl(device, KVM_CREATE_VM, 0))
    except OSError as error:
        return f"/dev/kvm refuses a machine: {error.strerror}"
    finally:
        os.close(device)
    return None


def _missing_root() -> str | None:
    return None if os.geteuid() == 0 else f"user {os.geteuid()} is not root"


def _missing_command(*names: str) -> str | None:
    return None if any(shutil.which(name) for name in names) else f"none of {', '.join(names)} is installed"


PROBES: dict[str, Callable[[], str | None]] = {
    "kvm": _missing_kvm,
    "root": _missing_root,
    "network": lambda: _missing_command("ip"),
    "qemu": lambda: _missing_command("qemu-system-x86_64"),
    "browser": lambda: _missing_command("chromium", "chromium-browser", "google-chrome", "chrome"),
}


@functools.cache
def missing(need: str) -> str | None:
    """Return why `need` is not met on this host, or None."""
    return PROBES[need]()


def required() -> frozenset[str]:
    """Return the needs whose absence is a failure, from ENISLE_REQUIRE."""
    return frozenset(filter(None, (word.strip() for word in os.environ.get("ENISLE_REQUIRE", "").split(","))))


def stop_ignoring_internal_signals() -> None:
    """Give signals 32 and 33 their default action: some launchers leave them ignored, which a native run would show.

    They are the C library's own, so that only the raw system call rt_sigaction (13) may change them.
    """
    libc = ctypes.CDLL(None)
    for signo in (32, 33):
        libc.syscall(13, signo, ctypes.create_string_buffer(32), None, ctypes.c_size_t(8))


def give_programs_their_signals() -> None:
    """Let what the tests start begin with default actions, as from a shell's prompt, wherever the tests run.

    A script's background job ignores SIGINT and SIGQUIT, `nohup` SIGHUP. A handler does not outlive execve(2).
    """
    for signo in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(signo) is signal.SIG_IGN:
            signal.signal(signo, lambda *_: None)


def pytest_configure(config: pytest.Config) -> None:
    stop_ignoring_internal_signals()
    give_programs_their_signals()
    unknown = required() - PROBES.keys()
    if unknown:
        raise pytest.UsageError(f"ENISLE_REQUIRE names unknown needs: {', '.join(sorted(unknown))}")


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [f"need {need}: {missing(need) or 'met'}{' (required)' * (need in required())}" for need in PROBES]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for need in PROBES:
        reason = missing(need) if item.get_closest_marker(need) else None
        if reason is None:
            continue
        if need in required():
            pytest.fail(f"needs {need}, which ENISLE_REQUIRE promises: {reason}", pytrace=False)
        pytest.skip(f"needs {need}: {reason}")
