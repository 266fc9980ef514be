"""The SDK with real programs on a real machine: what one island's commands share, and how they end."""

import asyncio
import sys
import time
from collections.abc import Iterator

import pytest

from enisle import Island
from enisle.errors import InvalidRequest, NotFound

pytestmark = [pytest.mark.kvm, pytest.mark.root]
JOB = b"""sh -c 'trap "echo ba""ck" CONT; echo o""n; while :; do read line; done'\r"""
"""It starts nothing: a child stopped between vfork and execve keeps its parent waiting, on Linux, too (vfork(2))."""
WATCH = b"""sh -c 'trap "stty size; exit" WINCH; echo o""n; while :; do sleep 0.1; done'\r"""


@pytest.fixture(scope="module")
def island() -> Iterator[Island]:
    with Island(memory="1G", cwd="/tmp") as made:
        yield made


def test_a_python_program_computes_on_an_island(island: Island) -> None:
    result = island.run([sys.executable, "-c", "import os; print(os.getcwd(), sum(range(10**6)))"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, b"/tmp 499999500000\n", b"")
    assert result.statistics["syscalls"] > 100


def test_commands_share_files_and_processes(island: Island) -> None:
    island.files.write("/tmp/script", "#!/bin/sh\nread line; echo got $line > /tmp/answer\n", 0o755)
    assert island.run(["/tmp/script"], stdin=b"this\n").exit_code == 0
    assert island.files.read("/tmp/answer") == b"got this\n"
    with island.start(["sh", "-c", "echo $$; exec sleep 60"]) as sleeper:
        pid = sleeper.stdout.readline().strip().decode()
        assert int(pid) in [process.pid for process in island.processes()]
        assert island.run(["sh", "-c", f"kill -TERM {pid}"]).exit_code == 0
        assert sleeper.wait(10) == 143


def test_a_loop_and_its_children_end_at_the_timeout(island: Island) -> None:
    begin = time.monotonic()
    result = island.run(["sh", "-c", "sleep 60 & while :; do :; done"], timeout=0.3)
    assert (result.exit_code, result.timed_out) == (137, True)
    assert time.monotonic() - begin < 10
    deadline = time.monotonic() + 5
    while island.processes() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert island.processes() == []


def test_programs_that_cannot_start_leave_the_island_as_it_was(island: Island) -> None:
    with pytest.raises(NotFound):
        island.run(["no-such-program"])
    with pytest.raises(InvalidRequest):
        island.run(["/etc/passwd"])
    assert island.run(["true"]).exit_code == 0


def test_a_shell_at_a_terminal_of_its_own_has_job_control(island: Island) -> None:
    with island.start(["bash", "--norc"], env={"TERM": "dumb", "PS1": "> "}, terminal=(30, 100)) as shell:
        seen, shown = bytearray(), iter(shell)

        def until(text: bytes) -> None:
            while text not in seen:
                name, chunk = next(shown)
                assert name == "stdout"
                seen.extend(chunk)
            del seen[: seen.index(text) + len(text)]

        until(b"> ")
        for typed, told in (
            (b"stty size\r", b"30 100"),
            (JOB, b"on\r\n"),
            (b"\x1a", b"Stopped"),
            (b"fg\r", b"back\r\n"),
            (b"\x03", b"> "),
            (b"echo $?\r", b"130"),
            (WATCH, b"on\r\n"),
        ):
            assert shell.write(typed, 5) == len(typed)
            until(told)
        shell.resize(40, 120)
        until(b"40 120")
        shell.write(b'echo o""n; cat; exit 9\r', 5)
        until(b"on\r\n")
        shell.write(b"half a line", 5)
        shell.end_input()  # is not the shell's: cat reads it, although a line has begun
        until(b"exit")
        assert shell.wait(10) == 9
        with pytest.raises(BrokenPipeError):
            shell.write(b"more", 1)
    with pytest.raises(InvalidRequest, match="terminal"):
        island.start(["true"], terminal=(0, 80))


def test_coroutines_run_programs_at_once(island: Island) -> None:
    async def main() -> list[bytes]:
        results = await asyncio.gather(*(island.run_async(["sh", "-c", f"echo {n}"]) for n in range(6)))
        return [result.stdout for result in results]

    assert asyncio.run(main()) == [f"{n}\n".encode() for n in range(6)]


def test_memory_is_limited_and_the_island_lives_on() -> None:
    with Island(memory="128M", cwd="/") as island:
        result = island.run([sys.executable, "-c", "x = [b'x' * (1 << 20) for _ in range(1000)]"], timeout=60)
        assert result.exit_code in (1, 137)
        assert island.run(["true"]).exit_code == 0
