"""`enisle run` from the outside: output, exit codes, signals, limits, terminals, and what is left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from commandline import ENISLE, enisle
from onterminal import OnTerminal

pytestmark = [pytest.mark.kvm, pytest.mark.root]
BUSYBOX = shutil.which("busybox") or "busybox"


def sh(script: str, *options: str, **more: object) -> "subprocess.CompletedProcess[str]":
    """Run a script in busybox's shell on an island."""
    return enisle("run", *options, "--", "busybox", "sh", "-c", script, **more)


def test_output_and_exit_code_pass_through() -> None:
    result = sh("echo out; echo err >&2; exit 42")
    assert (result.returncode, result.stdout, result.stderr) == (42, "out\n", "err\n")


def test_standard_input_passes_through() -> None:
    assert sh("cat", input="one\ntwo\n").stdout == "one\ntwo\n"


def test_a_death_by_signal_is_128_and_the_signal() -> None:
    assert sh("kill -TERM $$").returncode == 128 + signal.SIGTERM
    assert sh("kill -KILL $$").returncode == 128 + signal.SIGKILL


def test_the_working_directory_is_the_callers(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content\n")
    result = sh("pwd; cat file; touch new", cwd=tmp_path)
    assert result.stdout == f"{tmp_path}\ncontent\n"
    assert "Read-only" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_home_as_working_directory_is_told() -> None:
    result = sh("pwd", cwd=os.path.expanduser("~"))
    assert result.stdout == "/\n"
    assert result.stderr.startswith("enisle: note: ")
    assert len(result.stderr.splitlines()) == 1


def test_the_callers_environment_is_not_visible() -> None:
    result = sh("env", "--env", "A=b c", env={**os.environ, "SECRET": "1"})
    variables = dict(line.split("=", 1) for line in result.stdout.splitlines())
    assert variables["A"] == "b c"
    assert not set(variables) - {"A", "HOME", "LANG", "OLDPWD", "PATH", "PWD", "SHLVL", "TERM"}


def test_mounts_are_as_asked(tmp_path: Path) -> None:
    result = sh("echo x > /data/file && cat /data/file", "--mount", f"{tmp_path}:/data:rw")
    assert result.stdout == "x\n"
    assert (tmp_path / "file").read_text() == "x\n"
    assert sh("echo x > /data/new", "--mount", f"{tmp_path}:/data").returncode == 1


def test_programs_that_cannot_run_are_told_apart(tmp_path: Path) -> None:
    script, foreign, lost = tmp_path / "plain", tmp_path / "foreign", tmp_path / "lost"
    script.write_text("x")
    foreign.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + (183).to_bytes(2, "little"))
    lost.write_text("#!/no/interpreter\n")
    for path in (foreign, lost):
        path.chmod(0o755)
    for program, code, words in (
        ("no-such-program", 127, "PATH"),
        ("/no/such/program", 127, "does not exist"),
        (str(script), 126, "not executable"),
        (str(foreign), 126, "64-bit ARM"),
        (str(lost), 126, "/no/interpreter"),
        ("/usr", 126, "directory"),
    ):
        result = enisle("run", "--", program, cwd=tmp_path)
        assert result.returncode == code, result.stderr
        assert words in result.stderr
        assert len(result.stderr.splitlines()) == 3


def test_a_root_with_busybox_alone_is_enough_and_nothing_is_imported_late(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    shutil.copy(BUSYBOX, tmp_path / "bin" / "busybox")
    for name in ("cat", "ls", "sleep"):
        (tmp_path / "bin" / name).symlink_to("busybox")
    script = "echo $(( 6 * 7 )); echo a | cat; ls / > /tmp/names; (exit 3); echo $?; sleep 0.01; "
    script += (
        "cat /proc/self/comm /proc/uptime > /tmp/proc; ls -lR /proc/self /dev > /tmp/list; ulimit -n > /tmp/limit; "
    )
    script += "busybox nc -l -p 1234 -e busybox echo served & "
    script += "until busybox nc 127.0.0.1 1234 2> /tmp/refused; do sleep 0.05; done; "
    script += "busybox mkfifo /tmp/fifo; echo through > /tmp/fifo & cat /tmp/fifo; busybox timeout 1 true; kill -9 $$"
    result = enisle("run", "--debug", "--root", str(tmp_path), "--", "/bin/busybox", "sh", "-c", script)
    assert result.stdout == "42\na\n3\nserved\nthrough\n", result.stderr
    assert result.returncode == 137
    assert "imported" not in result.stderr


PROBE = """
import os, sys
from enisle.island import Command, Configuration, IslandProcess, validate
nowhere = os.open(os.devnull, os.O_RDWR)
island = IslandProcess(validate(Configuration(memory=1 << 28)), print, print)
process = island.start(Command(["/bin/true"], {}, "/", (nowhere, nowhere, nowhere)))
assert island.wait_for_end(process) == 0
print(*sys.modules, flush=True)
os._exit(0)
"""


def test_what_a_small_program_does_not_use_is_not_imported() -> None:
    found = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    loaded = {name.removeprefix("enisle.kernel.") for name in found.stdout.split()}
    assert {"enisle.kernel", "calls.memory", "calls.process"} <= loaded
    topics = {"epoll", "locks", "messages", "operand", "passing", "pipes", "readiness", "sockets", "trace"}
    assert not topics & loaded
    assert not {name for name in loaded if name.startswith(("proc.", "terminal", "unix_", "enisle.machine.emulated"))}
    assert len([name for name in loaded if name.startswith("calls.")]) <= 11
    assert "weakref" not in loaded


def test_a_timeout_ends_a_loop_and_a_wait() -> None:
    reader, writer = os.pipe()
    for script in ("while :; do :; done", "sleep 60", "cat"):
        begin = time.monotonic()
        result = sh(script, "--timeout", "0.5", stdin=reader)
        assert result.returncode == 124, result.stderr
        assert time.monotonic() - begin < 5
    os.close(reader)
    os.close(writer)


def test_a_record_tells_the_whole_run() -> None:
    result = sh("echo out; echo err >&2; exit 3", "--json")
    record = json.loads(result.stdout)
    assert result.returncode == record["exit_code"] == 3
    assert (record["stdout"], record["stderr"], record["signal"]) == ("out\n", "err\n", 0)
    assert record["statistics"]["syscalls"] > 5


def test_statistics_go_to_standard_error() -> None:
    result = sh("echo x", "--stats")
    assert result.stdout == "x\n"
    names = {line.split()[0] for line in result.stderr.splitlines()}
    assert {"seconds", "syscalls", "exits", "backend"} <= names


def test_a_reader_that_leaves_early_ends_the_writer() -> None:
    command = f"{ENISLE} run -- busybox yes | head -1; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
    assert result.stdout == f"y\n{128 + signal.SIGPIPE}\n"


def test_standard_descriptors_that_are_closed_are_closed_in_the_island() -> None:
    for redirection in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        for program in ("cat", "sh -c 'echo x'", "sh -c 'echo x >&2'", "sh -c 'exit 5'"):
            native = f"busybox {program} {redirection} > /dev/null; echo $?".replace(">&- > /dev/null", ">&-")
            command = native.replace("busybox", f"{ENISLE} run -- busybox", 1)
            codes = [
                subprocess.run(["sh", "-c", words], capture_output=True, text=True, timeout=30).stdout
                for words in (native, command)
            ]
            assert codes[0] == codes[1], command


def test_an_ignored_signal_stays_ignored() -> None:
    command = f"trap '' HUP; exec {ENISLE} run -- busybox sh -c 'echo ready; sleep 1; exit 4'"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.wait(10) == 4


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signals_reach_the_program_and_its_end_is_ours(signo: int) -> None:
    command = [ENISLE, "run", "--", "busybox", "cat"]  # no shell, which would ignore some
    with subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x\n")
        assert process.stdout.readline() == b"x\n"
        process.send_signal(signo)
        assert process.wait(10) == 128 + signo


def test_a_program_may_handle_a_signal() -> None:
    command = [
        ENISLE,
        "run",
        "--",
        "busybox",
        "sh",
        "-c",
        "trap 'echo caught; exit 7' TERM; echo ready; sleep 60 & wait",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"caught\n"
        assert process.wait(10) == 7


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.08, 0.1, 0.15])
def test_ctrl_c_at_any_moment_leaves_nothing_behind(delay: float) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    process = subprocess.Popen(
        [ENISLE, "run", "--", "busybox", "sleep", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(delay)
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    process.communicate(timeout=5)
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT, 1)  # 1: Python was not up yet
    assert Path("/proc/self/mountinfo").read_text() == before
    assert not os.path.exists(f"/proc/{process.pid}")


def test_a_shell_on_a_terminal_edits_interrupts_and_ends() -> None:
    shell = OnTerminal("run", "--env", "PS1=$ ", "--", "busybox", "sh", "-i")
    shell.expect(b"$ ")
    shell.type(b"echo abd\x7fc\r")
    shell.expect(b"\nabc\r\n")
    shell.expect(b"$ ")
    shell.type(b"cat\r")
    shell.wait_for(shell.takes_lines)
    shell.type(b"x\r")
    shell.expect(b"x\r\nx\r\n")  # it has read: it is in front
    shell.type(b"\x03")
    shell.expect(b"$ ")
    shell.type(b"stty size\r")
    shell.expect(b"24 80")
    shell.expect(b"$ ")
    shell.resize(50, 132)
    shell.type(b"stty size\r")
    shell.expect(b"50 132")
    shell.expect(b"$ ")
    shell.type(b"exit 9\r")
    assert shell.end() == 9


def test_the_terminals_modes_are_restored() -> None:
    session = OnTerminal("run", "--", "busybox", "sh", "-c", "stty raw -echo; echo ready; read x; exit 0")
    before = termios.tcgetattr(session.fd)
    session.expect(b"ready")
    assert termios.tcgetattr(session.fd) != before
    session.type(b"\n")
    session.wait_for(session.has_ended)
    after = termios.tcgetattr(session.fd)
    assert session.end() == 0
    assert after == before


def test_a_program_alone_stops_and_continues_with_the_callers_shell() -> None:
    shell = OnTerminal("--norc", "--noprofile", "-i", program="/bin/bash")
    shell.expect(b"# ")
    shell.type(f"{ENISLE} run -- busybox sh -c 'echo ready; read x; echo got $x'\r".encode())
    shell.expect(b"\rready")
    shell.type(b"\x1a")
    shell.expect(b"Stopped")
    shell.expect(b"# ")  # not before: the shell names the job, with our command's words, while it prepares its prompt
    shell.type(b"fg\r")
    shell.wait_for(shell.is_behind_a_job)
    shell.type(b"line\r")
    shell.expect(b"got line")
    shell.expect(b"# ")
    shell.type(b"exit 3\r")
    assert shell.end() == 3


def test_python_runs_unchanged() -> None:
    result = enisle("run", "--", sys.executable, "-c", "import sys, json; print(json.dumps(sys.argv[1:]))", "ä", "")
    assert (result.returncode, result.stdout) == (0, '["\\u00e4", ""]\n'), result.stderr
