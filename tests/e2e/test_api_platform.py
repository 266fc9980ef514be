"""The API's own process on a real platform: engine, dispatcher, agent and islands; killed, blocked, stopped."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from certificates_of_tests import certificate
from enisle.api import AsyncPlatform, Platform, sign_in_code
from enisle.control import Places, platform_info, start_platform, stop_platform
from enisle.errors import EnisleError, HostError, NotFound, StateError

ISLAND = pytest.mark.kvm


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    places = Places(tmp_path_factory.mktemp("up") / "state")
    start_platform(places)
    try:
        yield places
    finally:
        stop_platform(places, islands=True)


@pytest.fixture
def platform(places: Places) -> Iterator[Platform]:
    with Platform(platform_info(places).url, places.token.read_text().strip()) as platform:
        yield platform


@ISLAND
def test_an_island_is_created_used_while_its_output_is_streamed_and_stopped(platform: Platform) -> None:
    with platform.islands.create(name="web", memory="256M") as island:
        times: list[float] = []
        result = island.exec(
            "for n in 1 2 3 4; do echo $n; sleep 0.5; done", on_stdout=lambda _: times.append(time.time())
        )
        assert (result.exit_code, result.stdout) == (0, "1\n2\n3\n4\n")
        assert times[-1] - times[0] > 0.3, "output comes while the command runs"
        failed = island.exec("echo out; echo err >&2; exit 3", env={"A": "b"})
        assert (failed.exit_code, failed.stdout, failed.stderr) == (3, "out\n", "err\n")
        assert island.exec(["cat"], stdin=b"\0bytes").stdout == "\0bytes"
        content = os.urandom(700_000)
        island.files.write("/tmp/large", content, 0o640)
        assert island.files.read("/tmp/large") == content
        assert "large" in [one["name"] for one in island.files.list("/tmp")]
        with pytest.raises(NotFound):
            island.files.read("/tmp/none")
        assert island.refresh().state == "running"
        island.stop()
        assert island.refresh().state in ("stopped", "exited")
    with pytest.raises(NotFound):
        platform.islands.get("web")


@ISLAND
def test_commands_are_talked_to_from_python(places: Places, platform: Platform) -> None:
    async def echoed() -> list[tuple[str, bytes]]:
        async with AsyncPlatform(platform.url, places.token.read_text().strip()) as again:
            island = await again.islands.get("talk")
            async with await island.open("cat >&2") as command:
                await command.write("hi\n")
                await command.end()
                return [piece async for piece in command]

    with platform.islands.create(name="talk", memory="256M") as island:
        with island.open(["bash", "--norc"], tty=True, env={"PS1": "> ", "TERM": "dumb"}) as shell:
            shell.write("echo $((6 * 7))\r")
            shell.resize(30, 100)
            island.attach(shell.task).write("stty size; exit 3\r")
            seen = b"".join(content for _, content in shell)
            assert b"42\r\n" in seen
            assert b"30 100\r\n" in seen
            assert shell.wait().exit_code == 3
        with island.open("sleep 0.2; wc -c") as counting:
            counting.write(b"x" * (1 << 20))
            counting.end()
            assert list(counting) == [("stdout", b"1048576\n")]
        with island.open("sleep 100") as left:
            with pytest.raises(StateError, match="terminal"):
                left.resize(24, 80)
        assert platform.tasks.wait(left.task, 10).state == "cancelled"
        with pytest.raises(StateError, match="no input"):
            left.write("x")
        with pytest.raises(StateError, match="no input"):
            island.attach(island.start_command(["sleep", "5"]).id).write("x")
        assert asyncio.run(echoed()) == [("stderr", b"hi\n")]


@ISLAND
def test_who_holds_an_island_is_told_to_the_second_with_its_progress(platform: Platform) -> None:
    with platform.islands.create(name="busy", memory="256M"):
        held = platform.tasks.submit("platform.sleep@1", {"seconds": 2.0}, [("island", "busy")])
        while not platform.tasks.get(held.id).progress:
            time.sleep(0.02)
        begin = time.monotonic()
        with pytest.raises(StateError) as blocked:
            platform.islands.get("busy").start_command(["true"], if_blocked="fail")
        told = time.monotonic() - begin
        extras = blocked.value.extras  # pyright: ignore[reportAttributeAccessIssue]
        assert extras["holder"] == held.id
        assert 0 < extras["progress"]["fraction"] <= 1
        assert told < 2
        other = platform.tasks.submit("platform.sleep@1", {"seconds": 0.0}, [("island", "free")])
        assert platform.tasks.wait(other.id, 5).state == "done"
        assert platform.tasks.get(held.id).state == "running"


def test_events_of_a_real_platform_end_with_what_is(platform: Platform) -> None:
    task = platform.tasks.submit("platform.sleep@1", {"seconds": 0.5}, [("island", "x")])
    fractions: list[float] = []
    for event in platform.events():
        if event.name == "progress" and event.id == task.id and event.value:
            fractions.append(event.value["fraction"])
        if event.name == "task" and event.id == task.id and event.value["state"] == "done":
            break
    assert fractions == sorted(fractions)
    assert len(fractions) >= 2


def test_a_browser_stays_signed_in_when_the_api_is_killed_and_events_go_on(places: Places, platform: Platform) -> None:
    url = platform.url
    seen: list[str] = []
    done = threading.Event()

    def follow() -> None:
        for event in platform.events():
            seen.append(event.name)
            if done.is_set() and event.name == "task" and event.value and event.value["state"] == "done":
                return

    reader = threading.Thread(target=follow)
    reader.start()
    with httpx.Client(base_url=url, timeout=5) as browser:
        assert browser.get("/", params={"code": sign_in_code(places.directory)}).status_code == 303
        assert browser.get("/v1/sessions").json()["actor"] == "session:console"
        while "current" not in seen:
            time.sleep(0.01)
        before = platform_info(places).parts["api"]
        os.kill(before, signal.SIGKILL)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            try:
                if platform_info(places).parts.get("api", before) != before and browser.get("/healthz").is_success:
                    break
            except (httpx.HTTPError, EnisleError):
                pass
            time.sleep(0.05)
        assert browser.get("/v1/sessions").json()["actor"] == "session:console"
        assert browser.get("/").headers["content-type"].startswith("text/html")
    done.set()
    task = platform.tasks.submit("platform.sleep@1", {"seconds": 0.0})
    assert platform.tasks.wait(task.id, 10).state == "done"
    reader.join(20)
    assert not reader.is_alive(), "the reader came back by itself, and was told of what is new"


def test_figures_and_health_are_of_the_real_parts(platform: Platform) -> None:
    assert platform.health().ok
    figures = platform.ask("GET", "/metrics", bytes).decode()
    assert "enisle_hosts 1" in figures
    revision = next(line for line in figures.splitlines() if line.startswith("enisle_engine_revision "))
    assert float(revision.split()[1]) > 0


def test_a_silent_engine_is_told_and_passes(places: Places, platform: Platform) -> None:
    engine = platform_info(places).parts["engine"]
    os.kill(engine, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + 10
        while platform.health().ok:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert "engine" in platform.health().reasons[0]
    finally:
        os.kill(engine, signal.SIGCONT)
    deadline = time.monotonic() + 20
    while not platform.health().ok:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    task = platform.tasks.submit("platform.sleep@1", {"seconds": 0.0})
    assert platform.tasks.wait(task.id, 15).state == "done"


def start_api(*words: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "enisle.api", *words], stderr=subprocess.PIPE)


@pytest.mark.parametrize(
    ("words", "told", "status"),
    [
        (("--listen", "0.0.0.0"), b"without TLS", 2),
        (("--listen", "203.0.113.9", "--insecure"), b"cannot listen on 203.0.113.9", 5),
        (("--port", "{taken}"), b"another program has it", 5),
        (("--tls-certificate", "/nonexistent", "--tls-key", "/nonexistent"), b"TLS certificate", 5),
    ],
)
def test_what_cannot_be_served_is_said_clearly(
    places: Places, words: tuple[str, ...], told: bytes, status: int
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        given = [word.format(taken=taken.getsockname()[1]) for word in words]
        process = start_api(str(places.directory), *given)
        _, errors = process.communicate(timeout=20)
    assert told in errors, errors
    assert b"Traceback" not in errors
    assert b"hint:" in errors
    assert process.returncode == status


def test_without_a_platform_the_api_says_so(tmp_path: Path) -> None:
    process = start_api(str(tmp_path))
    _, errors = process.communicate(timeout=20)
    assert b"the platform is not up" in errors
    assert process.returncode == 4


def test_with_a_certificate_it_speaks_tls_to_those_who_trust_it(places: Places, tmp_path: Path) -> None:
    certificate_file, key = certificate(tmp_path, "127.0.0.1")
    port = free_port()
    words = ("--port", str(port), "--tls-certificate", certificate_file, "--tls-key", key)
    process = start_api(str(places.directory), *words)
    try:
        url, token = f"https://127.0.0.1:{port}", places.token.read_text().strip()
        with Platform(url, token, ca=certificate_file) as platform:
            wait_until_up(platform)
            task = platform.tasks.submit("platform.sleep@1", {"seconds": 0.0})
            assert platform.tasks.wait(task.id, 10).state == "done"
        trust = ssl.create_default_context(cafile=certificate_file)
        with httpx.Client(base_url=url, verify=trust) as browser:
            answer = browser.get("/", params={"code": sign_in_code(places.directory)})
            assert "secure" in answer.headers["set-cookie"].lower()
        with Platform(url, token) as stranger, pytest.raises(HostError, match="does not answer"):
            stranger.tasks.cancel("x")
    finally:
        process.terminate()
        process.communicate(timeout=20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_up(platform: Platform) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            platform.health()
            return
        except HostError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_sigterm_ends_a_second_api_at_once_with_a_stream_open(places: Places) -> None:
    port = free_port()
    process = start_api(str(places.directory), "--port", str(port))
    token = places.token.read_text().strip()
    url = f"http://127.0.0.1:{port}"
    with Platform(url, token) as platform:
        wait_until_up(platform)
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}) as client:
        with client.stream("GET", "/v1/events") as response:
            next(response.iter_lines())
            begin = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
    assert time.monotonic() - begin < 4
    assert process.stderr
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
