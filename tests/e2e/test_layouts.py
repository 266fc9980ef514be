"""The controller as a guest: on one island, or dispatcher and API on one each; killed, it comes back and goes on."""

import json
import os
import signal
import time

import pytest

from upplatform import Up, up, wait_until

PARTS = {"island": ("controller",), "islands": ("dispatcher", "api")}


def of_guests(platform: Up, layout: str) -> dict[str, int]:
    """Return the processes of the islands on which the controller is, when all run."""
    parts: dict[str, int] = json.loads(platform.ok("status", "--json"))["parts"]
    return {name: parts[name] for name in PARTS[layout] if name in parts}


def healthy(platform: Up) -> bool:
    return platform.enisle("status", "-q").returncode == 0


def hosts_come_and_go(guest: Up) -> None:
    """Let one in and out: the controller cannot signal the engine itself."""
    token = guest.ok("token", "new", "joining", "--scope", "join", "-q").strip()
    url = json.loads(guest.ok("status", "--json"))["url"]
    other = str(guest.directory / "other")
    guest.ok("join", url, "--token", token, "--name", "other", "--state", other, "--detach")
    try:
        wait_until(lambda: "other\tlive" in guest.ok("host", "ls"))
    finally:
        guest.ok("down", "--state", other)
    guest.ok("host", "rm", "other")
    assert "other" not in guest.ok("host", "ls")
    again = guest.enisle("host", "rm", "other")
    assert again.returncode != 0
    assert "no host other" in again.stderr


LONG = pytest.mark.skipif(not os.environ.get("ENISLE_SOAK"), reason="ENISLE_SOAK=1 runs it")


@pytest.mark.parametrize("layout", ["island", pytest.param("islands", marks=LONG)])
def test_a_controller_on_islands_serves_dies_and_goes_on(layout: str) -> None:
    with up("--controller", layout) as platform:
        told = json.loads(platform.ok("status", "--json"))
        assert told["controller"] == layout
        before = of_guests(platform, layout)
        assert [*before] == [*PARTS[layout]]
        names = {f"{name}-{told['pid']}" for name in before}
        assert names <= {line.split()[0] for line in platform.ok("ps").splitlines()}
        platform.ok("island", "create", "--memory", "256M", "web")
        working = platform.start(
            "island", "exec", "--no-stdin", "web", "--", "sh", "-c", "sleep 3; echo lived > /tmp/it"
        )
        wait_until(lambda: "sleep" in platform.ok("island", "ps", "web"))
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        wait_until(lambda: healthy(platform))
        assert time.monotonic() - began < 15.0
        after = of_guests(platform, layout)
        assert after.keys() == before.keys()
        assert not set(after.values()) & set(before.values())
        working.communicate(timeout=30)
        # An island of a user is nobody's child here: what ran on it went on, and its task ends.
        wait_until(lambda: platform.enisle("island", "exec", "web", "--", "cat", "/tmp/it").stdout == "lived\n")
        assert not platform.ok("task", "ls", "--state", "running", "-q")
        hosts_come_and_go(platform)
