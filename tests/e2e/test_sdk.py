"""The SDK against an island process with a real jail and a fake kernel: commands, files, crashes, threads, asyncio."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import enisle.island.child as child
from enisle import Island
from enisle.errors import GuestError, InvalidRequest, NotFound, StateError

pytestmark = pytest.mark.root
FAKE = str(Path(__file__).parent.parent / "fake_island.py")


@pytest.fixture(autouse=True)
def fake_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "child_command", lambda: [sys.executable, FAKE])


@pytest.fixture
def island() -> Iterator[Island]:
    with Island(memory="256M", cwd="/") as made:
        yield made


def test_a_command_gives_its_output_and_exit_code(island: Island) -> None:
    assert island.backend == "fake"
    result = island.run(["echo", "hello", "wörld"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "hello wörld\n".encode(), b"")
    assert result.statistics["syscalls"] == 7
    failed = island.run(["fail", "3"])
    assert (failed.exit_code, failed.stdout, failed.stderr, failed.timed_out) == (3, b"", b"failing\n", False)


def test_input_of_any_size_is_fed_while_output_is_read(island: Island) -> None:
    content = os.urandom(3 << 20)
    assert island.run(["cat"], stdin=content).stdout == content
    assert island.run(["cat"], stdin=b"").stdout == b""
    assert island.run(["cat"]).stdout == b""
    with open(FAKE, "rb") as file:
        assert island.run(["cat"], stdin=file).stdout == Path(FAKE).read_bytes()


def test_a_command_that_does_not_read_its_input_ends(island: Island) -> None:
    assert island.run(["echo", "x"], stdin=bytes(3 << 20)).stdout == b"x\n"


def test_one_can_talk_to_a_command(island: Island) -> None:
    with island.start(["cat"], stdin=subprocess.PIPE) as command:
        assert command.stdin is not None
        for line in (b"one\n", b"two\n"):
            command.stdin.write(line)
            assert command.stdout.read(4) == line
        assert command.poll() is None
        command.stdin.close()
        assert command.wait(5) == 0


def test_output_comes_as_it_is_written(island: Island) -> None:
    with island.start(["sleep", "60"]) as command:
        assert next(iter(command)) == ("stdout", b"sleeping\n")
        command.kill(signal.SIGTERM)
        assert command.wait(5) == 128 + signal.SIGTERM


def test_a_command_is_killed_after_its_timeout(island: Island) -> None:
    begin = time.monotonic()
    result = island.run(["sleep", "60"], timeout=0.2)
    assert (result.exit_code, result.timed_out, result.stdout) == (137, True, b"sleeping\n")
    assert time.monotonic() - begin < 5
    with island.start(["sleep", "60"]) as command, pytest.raises(TimeoutError):
        command.wait(0.05)


def test_what_a_command_leaves_behind_is_not_waited_for(island: Island) -> None:
    assert island.run(["linger"], timeout=10).stdout == b"done\n"


def test_variables_are_the_islands_and_the_commands() -> None:
    with Island(memory="256M", cwd="/", env={"A": "1", "B": "2"}) as island:
        output = island.run(["env"], env={"B": "3", "C": "4"}).stdout.decode()
    variables = dict(line.split("=", 1) for line in output.splitlines())
    assert {"A": "1", "B": "3", "C": "4"}.items() <= variables.items()
    assert not set(variables) - {"A", "B", "C", "HOME", "LANG", "PATH", "TERM"}


def test_commands_share_files_with_each_other_and_the_caller(island: Island) -> None:
    island.run(["put", "/tmp/file", "from a command"])
    assert island.files.read("/tmp/file") == b"from a command"
    large = os.urandom(5 << 20)
    island.files.write("/tmp/large", large)
    assert island.files.read("/tmp/large") == large
    assert [(entry.name, entry.size) for entry in island.files.list("/tmp")] == [("file", 14), ("large", 5 << 20)]
    assert not os.path.exists("/tmp/file")


def test_errors_about_files_are_the_hosts(island: Island) -> None:
    with pytest.raises(FileNotFoundError):
        island.files.read("/no/such/file")
    with pytest.raises(StateError):
        island.files.read("/dev/zero")
    with pytest.raises(NotFound):
        island.files.read("/proc/self/environ")
    with pytest.raises(InvalidRequest):
        island.files.list("relative")
    with pytest.raises(OSError, match="No space left"):
        island.files.write("/tmp/huge", bytes(80 << 20))


def test_a_program_that_is_not_there_is_told(island: Island) -> None:
    with pytest.raises(NotFound) as caught:
        island.run(["no-such-program"])
    assert caught.value.exit_code == 127
    assert island.run(["echo"]).exit_code == 0


def test_processes_are_listed_and_killed_together(island: Island) -> None:
    with island.start(["sleep", "60"]) as first, island.start(["sleep", "60"]) as second:
        assert [process.name for process in island.processes()] == ["sleep", "sleep"]
        island.kill()
        assert (first.wait(5), second.wait(5)) == (137, 137)
    assert island.processes() == []


def test_many_threads_use_one_island(island: Island) -> None:
    outputs: dict[int, bytes] = {}

    def work(number: int) -> None:
        for _ in range(5):
            outputs[number] = island.run(["echo", str(number)]).stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == {number: f"{number}\n".encode() for number in range(8)}


def test_coroutines_use_an_island_at_once_and_cancelling_kills() -> None:
    async def main() -> None:
        async with Island(memory="256M", cwd="/") as island:
            results = await asyncio.gather(*(island.run_async(["echo", str(n)]) for n in range(4)))
            assert [result.stdout for result in results] == [b"0\n", b"1\n", b"2\n", b"3\n"]
            sleeper = asyncio.create_task(island.run_async(["sleep", "60"]))
            while not island.processes():
                await asyncio.sleep(0.01)
            sleeper.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sleeper
            assert island.processes() == []

    asyncio.run(main())


def test_the_caller_survives_a_crash_and_hears_of_it(island: Island) -> None:
    with pytest.raises(GuestError) as caught:
        island.run(["crash"])
    assert "SIGABRT" in caught.value.message
    with pytest.raises(GuestError):
        island.run(["echo"])


def test_our_own_bug_is_told_from_a_broken_guest() -> None:
    with Island(memory="256M", cwd="/") as island, pytest.raises(GuestError) as ours:
        island.run(["bug"])
    assert "bug in Enisle" in ours.value.message
    assert "frame=0x1001" in ours.value.why
    with Island(memory="256M", cwd="/") as island, pytest.raises(GuestError) as theirs:
        island.run(["break_machine"])
    assert "bug" not in str(theirs.value)


def test_an_island_that_cannot_be_made_says_why() -> None:
    with pytest.raises(InvalidRequest, match="no/such"):
        Island(mounts=["/no/such:/data"])
    with pytest.raises(InvalidRequest):
        Island(memory="1M")


def test_a_closed_island_says_so_and_leaves_no_process() -> None:
    island = Island(memory="256M", cwd="/")
    pid = island.pid
    island.close()
    island.close()
    with pytest.raises(StateError):
        island.run(["echo"])
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_an_island_dies_with_its_caller(tmp_path: Path) -> None:
    script = tmp_path / "caller.py"
    script.write_text(
        "import os, sys\nimport enisle.island.child as child, enisle.island.sdk as sdk\n"
        f"child.child_command = lambda: [sys.executable, {FAKE!r}]\n"
        "island = sdk.Island(memory='256M', cwd='/')\nprint(island.pid, flush=True)\nos._exit(0)\n"
    )
    pid = int(subprocess.run([sys.executable, script], capture_output=True, check=True).stdout)
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}")


def test_descriptors_are_given_back() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    with Island(memory="256M", cwd="/") as island:
        during = count()
        for _ in range(5):
            island.run(["echo"], stdin=b"x")
            island.files.write("/tmp/x", b"")
            with pytest.raises(NotFound):
                island.run(["nothing"])
        assert count() == during
    assert count() == before
