"""Platforms that are killed, hindered, doubled or joined from elsewhere: what the command line says and does then."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from certificates_of_tests import certificate
from commandline import ENISLE
from upplatform import Up, up, wait_until

ORDINARY = 12345


def test_every_process_killed_is_told_and_up_brings_all_back() -> None:
    with up() as platform:
        platform.ok("island", "create", "--memory", "256M", "web")
        platform.ok("island", "exec", "web", "--", "sh", "-c", "echo kept > /tmp/file")
        running = platform.start("island", "exec", "--no-stdin", "web", "--", "sh", "-c", "echo on; sleep 4; echo over")
        assert running.stdout
        assert running.stdout.readline() == "on\n"
        parts = {pid: words for pid, words in platform.pids().items() if " keeper " not in words and pid != running.pid}
        assert len(parts) >= 5
        for pid in parts:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        down = platform.enisle("status")
        assert down.returncode == 4
        assert down.stderr.splitlines()[-1] == "  hint: enisle up"
        assert len(down.stderr.splitlines()) == 3
        lost = platform.enisle("island", "ls")
        assert lost.returncode == 5
        assert len(lost.stderr.splitlines()) == 3
        before = json.loads(next((platform.directory / "config").rglob("contexts.json")).read_text())
        both = [platform.start("up", "--json"), platform.start("up", "--json")]
        told = [json.loads(one.communicate(timeout=60)[0]) for one in both]
        assert told[0]["pid"] == told[1]["pid"]
        assert sorted(one["started"] for one in told) == [False, True]
        assert json.loads(next((platform.directory / "config").rglob("contexts.json")).read_text()) == before
        # Whoever followed goes on, and so did the program.
        assert running.communicate(timeout=40)[0] == "over\n"
        assert running.returncode == 0
        assert platform.ok("island", "exec", "web", "--", "cat", "/tmp/file") == "kept\n"
        assert platform.ok("down", "--islands").startswith("stopped the platform and its islands in ")
        assert wait_until(lambda: not platform.pids())
        assert platform.enisle("down").returncode == 4


def test_a_store_that_is_gone_stops_every_change_and_harms_no_island() -> None:
    """What runs is the truth: once its operator has accepted the loss, islands are there again as they were."""
    with up() as platform:
        platform.ok("island", "create", "--memory", "128M", "-q", "web")
        platform.ok("island", "exec", "web", "--", "sh", "-c", "echo kept > /tmp/file")
        keepers = {pid for pid, words in platform.pids().items() if " keeper " in words}
        platform.ok("down")
        shutil.rmtree(platform.state / "engine" / "store")
        platform.ok("up", "-q")
        for words in (("status",), ("island", "ls"), ("island", "create", "new"), ("island", "rm", "--force", "web")):
            refused = platform.enisle(*words)
            assert refused.returncode == 5
            assert "the store is gone" in refused.stdout + refused.stderr
        assert {pid for pid, words in platform.pids().items() if " keeper " in words} == keepers
        assert platform.enisle("up", "--accept-store").returncode == 4
        platform.ok("down")
        platform.ok("up", "--accept-store", "-q")
        wait_until(lambda: platform.enisle("island", "ls", "-q").stdout == "web\n")
        assert platform.ok("island", "exec", "web", "--", "cat", "/tmp/file") == "kept\n"
        assert {pid for pid, words in platform.pids().items() if " keeper " in words} == keepers


@pytest.fixture
def not_up() -> Iterator[Up]:
    with up("not") as platform:
        yield platform


def refused(platform: Up, code: int, *words: str, **environment: str) -> str:
    """Run what must fail; return its three lines."""
    done = platform.enisle(*words, **environment)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 3, done.stderr
    assert not platform.pids()
    return done.stderr


def test_what_keeps_a_platform_from_starting_is_told(not_up: Up) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = str(server.getsockname()[1])
        assert "in use" in refused(not_up, 5, "up", "--port", taken)
    assert "ports are" in refused(not_up, 2, "up", "--port", "70000")
    assert "2.12 or later" in refused(not_up, 5, "up", "--engine", "/nowhere/nats-server")
    assert "without TLS" in refused(not_up, 2, "up", "--listen", "0.0.0.0", "--port", "0")
    assert "no-such" in refused(not_up, 2, "up", "--listen", "no-such.invalid")
    (not_up.directory / "file").write_text("")
    assert "Not a directory" in refused(not_up, 5, "up", "--state", str(not_up.directory / "file" / "x"))
    assert "not up" in refused(not_up, 4, "down")
    assert "not up" in refused(not_up, 4, "status")
    assert "enisle up" in refused(not_up, 3, "island", "ls")


HIDING = """
import importlib.util, sys
from enisle.cli.main import main
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == sys.argv[1] else find(name, package)
sys.exit(main(["up"]))
"""
WITHOUT_ENGINE = """
import sys
import sysconfig
from enisle.cli.main import main
find = sysconfig.get_path
sysconfig.get_path = lambda name, *more, **named: "/nowhere" if name == "scripts" else find(name, *more, **named)
sys.exit(main(["up", "--foreground"]))
"""


@pytest.mark.parametrize("code", [HIDING, WITHOUT_ENGINE], ids=["library", "engine"])
def test_what_is_not_installed_is_told_with_what_to_type(code: str, not_up: Up) -> None:
    environment = not_up.environment | {"PATH": "/nowhere"}
    words = [sys.executable, "-c", code, "starlette"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 5, done.stderr
    assert "not installed" in done.stderr
    assert "hint: pip install 'enisle[platform]'" in done.stderr


def test_in_the_foreground_over_stale_files_it_tells_what_is_not_well_and_ends_with_ctrl_c(not_up: Up) -> None:
    not_up.state.mkdir(mode=0o700)
    told = {
        "url": "http://127.0.0.1:1",
        "pid": os.getpid(),
        "engine_port": 1,
        "started": 0,
        "version": "0",
        "host": "h",
    }
    (not_up.state / "platform.json").write_text(json.dumps(told | {"directory": str(not_up.state)}))
    (not_up.state / "supervisor.lock").write_text(f"{os.getpid()}\n")
    assert "not up" in refused(not_up, 4, "status")
    running = not_up.start("up", "--foreground", "-q")
    assert running.stdout
    try:
        assert running.stdout.readline().startswith("http://127.0.0.1:")
        status = json.loads(not_up.ok("status", "--json"))
        assert status["ok"]
        os.kill(status["parts"]["dispatcher"], signal.SIGSTOP)
        try:
            wait_until(lambda: not_up.enisle("status").returncode == 5)
            told = json.loads(not_up.enisle("status", "--json").stdout)
            assert (told["ok"], len(told["reasons"])) == (False, 1)
        finally:
            os.kill(status["parts"]["dispatcher"], signal.SIGCONT)
        wait_until(lambda: not_up.enisle("status").returncode == 0)
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=30)
    assert running.returncode == 0
    assert wait_until(lambda: not not_up.pids())


def ordinary_program() -> tuple[str, ...]:
    """Return how another user runs us: the tests' own Python may lie where others see nothing."""
    environment = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PATH": os.defpath}
    for python in (sys.executable, "/usr/bin/python3"):
        probe = [python, "-c", "import enisle.api.app, enisle.tasks, enisle.cli.main"]
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            options = {"user": ORDINARY, "group": ORDINARY, "extra_groups": [], "cwd": "/", "env": environment}
            subprocess.run(probe, check=True, capture_output=True, **options)  # type: ignore[call-overload]
            return (python, "-m", "enisle")
    pytest.skip(f"there is no Python here that user {ORDINARY} may run with our packages")


@pytest.mark.root
def test_an_ordinary_users_platform_stands_beside_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    program = ordinary_program()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    with up() as ours, up(user=ORDINARY, program=program) as theirs:
        ours.ok("island", "create", "--memory", "256M", "-q", "same")
        theirs.ok("island", "create", "--memory", "256M", "-q", "same")
        for platform, uid in ((ours, os.geteuid()), (theirs, ORDINARY)):
            platform.ok("island", "exec", "same", "--", "sh", "-c", f"echo {uid} > /tmp/whose")
            assert platform.state.stat().st_uid == uid
            assert platform.state.stat().st_mode & 0o777 == 0o700
        for platform, uid in ((ours, os.geteuid()), (theirs, ORDINARY)):
            assert platform.ok("island", "exec", "same", "--", "cat", "/tmp/whose") == f"{uid}\n"
        foreign = theirs.enisle("up", "--state", str(ours.state))
        assert foreign.returncode == 5
        assert len(foreign.stderr.splitlines()) == 3
        theirs.ok("down", "--islands")
        assert ours.enisle("status").returncode == 0
        assert ours.ok("island", "ls", "-q") == "same\n"


@contextlib.contextmanager
def namespace(index: int) -> Iterator[tuple[str, str, str]]:
    """Make a network namespace on a wire of its own; yield its name, our address and its address."""
    name, ours, theirs = f"enisle-cli-{os.getpid()}", f"10.213.{index}.1", f"10.213.{index}.2"
    wire = f"ec{os.getpid() % 100000}"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", f"{ours}/24", "dev", wire)
        ip("link", "set", wire, "up")
        ip("-n", name, "addr", "add", f"{theirs}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield name, ours, theirs
    finally:
        subprocess.run(["ip", "link", "del", wire], capture_output=True)
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.mark.root
@pytest.mark.network
def test_a_second_host_joins_over_tls_runs_islands_and_leaves(tmp_path: Path) -> None:
    with namespace(os.getpid() % 250) as (name, ours, _):
        ca, key = certificate(tmp_path, ours)
        listening = ("--listen", ours, "--tls-certificate", ca, "--tls-key", key, "--host", "one")
        with up(*listening) as platform, up("not", program=("ip", "netns", "exec", name, ENISLE)) as second:
            url = json.loads(platform.ok("status", "--json"))["url"]
            assert url.startswith(f"https://{ours}:")
            reader = platform.ok("token", "new", "r", "-q").strip()
            joiner = platform.ok("token", "new", "j", "--scope", "join", "--expires", "5m", "-q").strip()
            for token, words, told in (
                (joiner, ("join", url, "--name", "two"), "not to be trusted"),
                (reader, ("join", url, "--name", "two", "--ca", ca), "scope join"),
                ("", ("join", url, "--name", "two", "--ca", ca), "no token"),
            ):
                failed = second.enisle(*words, ENISLE_TOKEN=token)
                assert failed.returncode != 0
                assert told in failed.stderr
                assert len(failed.stderr.splitlines()) == 3
            joined = second.enisle("join", url, "--token", "-", "--ca", ca, "--name", "two", "--detach", stdin=joiner)
            assert joined.returncode == 0, joined.stderr
            wait_until(lambda: "two" in platform.ok("host", "ls", "-q").split())
            platform.ok("island", "create", "--memory", "256M", "--host", "two", "far")
            assert platform.ok("island", "exec", "far", "--", "echo", "from there") == "from there\n"
            hosts = {one["name"]: one for one in json.loads(platform.ok("host", "ls", "--json"))}
            assert hosts["two"]["islands"] == 1
            for words, told in (
                (("join", url, "--name", "two", "--detach"), "cannot join as two here"),
                (("up",), "no platform can start here"),
            ):
                assert told in second.enisle(*words).stderr

            def two() -> dict[str, Any]:
                return json.loads(platform.ok("host", "show", "--json", "two"))

            watched = json.loads(second.ok("status", "--json"))
            assert (watched["url"], watched["host"], watched["ok"]) == (url, "two", True)
            os.kill(watched["parts"]["agent"], signal.SIGKILL)
            wait_until(
                lambda: (
                    json.loads(second.enisle("status", "--json").stdout)["parts"].get("agent", 0)
                    not in (0, watched["parts"]["agent"])
                )
            )
            assert platform.ok("island", "exec", "far", "--", "echo", "watched") == "watched\n"
            os.kill(watched["pid"], signal.SIGKILL)  # the agent dies with it; islands do not
            wait_until(lambda: two()["state"] == "lost")
            assert two()["processors"] >= 1
            wait_until(lambda: time.time() - 30 < two()["since"] < time.time())
            again = second.enisle("join", url, "--name", "two", "--detach")  # the key it has is good
            assert again.returncode == 0, again.stderr
            wait_until(lambda: two()["state"] == "live")
            assert platform.ok("island", "exec", "far", "--", "echo", "still there") == "still there\n"
            platform.ok("island", "rm", "--force", "far")
            assert platform.ok("host", "drain", "two") == "drained two\n"
            wait_until(lambda: two()["state"] == "draining")
            assert platform.ok("host", "undrain", "two") == "undrained two\n"
            assert second.ok("down").startswith("stopped the agent of two in ")
            wait_until(lambda: two()["state"] == "gone")  # and not lost: it left in order
            assert platform.ok("host", "rm", "two") == "forgot two, and took its key away\n"
            wait_until(lambda: "two" not in platform.ok("host", "ls", "-q").split())
