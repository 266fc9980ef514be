"""Bad input and faults: three lines with a hint and the documented exit code, and nothing left behind.

Hostile programs have `tests/conformance/test_hostile.py`, ways out `test_escapes.py`.
"""

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from commandline import ENISLE, enisle
from enisle import Island
from enisle.errors import GuestError
from enisle.island import child

pytestmark = [pytest.mark.kvm, pytest.mark.root]
BUSYBOX = shutil.which("busybox") or "busybox"
INTERPRETER = b"/lib64/ld-linux-x86-64.so.2"


def says_in_three_lines(result: "subprocess.CompletedProcess[str]", code: int, *words: str) -> None:
    """Assert that a run was refused: what, why, and a hint."""
    lines = result.stderr.splitlines()
    assert (result.returncode, result.stdout) == (code, ""), result.stderr
    assert len(lines) == 3, result.stderr
    assert lines[0].startswith("enisle: ")
    assert lines[2].startswith("  hint: ")
    assert all(word in result.stderr for word in words), result.stderr


# ---- programs ------------------------------------------------------------------------------------------------------


def with_interpreter(name: str) -> bytes:
    """Return /bin/true asking for another ELF interpreter."""
    assert len(name) <= len(INTERPRETER)
    return Path("/bin/true").read_bytes().replace(INTERPRETER, name.encode().ljust(len(INTERPRETER), b"\0"), 1)


def elf(machine: int = 62, bits: int = 64) -> bytes:
    return b"\x7fELF" + bytes((bits // 32, 1, 1)) + bytes(9) + struct.pack("<HHI", 2, machine, 1) + bytes(40)


PROGRAMS = {
    "arm": (elf(183), "64-bit ARM"),
    "i386": (elf(3, 32), "32-bit x86"),
    "32-bit": (elf(62, 32), "headers make no sense"),
    "no-segments": (elf(), "headers make no sense"),
    "cut": (Path("/bin/true").read_bytes()[:100], "headers make no sense"),
    "stub": (b"\x7fELF\2\1\1", "cut short"),
    "a.out": (struct.pack("<8I", 0x00640107, 4096, 0, 0, 0, 0, 0, 0), "neither an ELF program nor a script"),
    "empty": (b"", "it is empty"),
    "lost-loader": (with_interpreter("/no/such/loader.so"), "ELF interpreter"),
    "text-as-loader": (with_interpreter("/data/text"), "only x86-64"),
    "loop": (b"#!/data/loop\n", "links or #! lines in a row"),
    "lost-script": (b"#!/no/such/shell -x\n", "/no/such/shell"),
    "nameless-script": (b"#!   \n", "only x86-64"),
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("programs")
    for name, (content, _) in (*PROGRAMS.items(), ("text", (b"text\n" * 100, ""))):
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o755)
    return directory


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_is_none_is_told_by_kind(name: str, programs: Path) -> None:
    result = enisle("run", "--mount", f"{programs}:/data", "--", f"/data/{name}")
    says_in_three_lines(result, 126, PROGRAMS[name][1])


def test_a_program_as_loader_is_run_as_linux_would(programs: Path) -> None:
    """An interpreter's own PT_INTERP is ignored: it starts without its libraries and dies of that."""
    (programs / "odd").write_bytes(with_interpreter("/bin/cat"))
    (programs / "odd").chmod(0o755)
    native = subprocess.run([programs / "odd"]).returncode
    result = enisle("run", "--mount", f"{programs}:/data", "--", "/data/odd")
    assert result.returncode == (128 - native if native < 0 else native)
    assert "Traceback" not in result.stderr


# ---- requests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["--root", "/no/such"], 2, "does not exist"),
        (["--root", "/etc/passwd"], 2, "not a directory"),
        (["--memory", "1M"], 2, "24M"),
        (["--memory", "999999T"], 2, "16T"),
        (["--mount", "/no/such:/x"], 2, "does not exist"),
        (["--mount", "/tmp:/etc/passwd"], 2, "/etc/passwd"),
        (["--mount", "/proc:/x"], 2, "stay outside"),
        (["--cwd", "/no/such"], 2, "No such file"),
        (["--timeout", "nan"], 2, "more than 0"),
    ],
)
def test_impossible_requests_are_refused(words: list[str], code: int, why: str) -> None:
    says_in_three_lines(enisle("run", *words, "--", "busybox", "true"), code, why)


def test_the_smallest_memory_runs_the_smallest_program() -> None:
    assert enisle("run", "--memory", "24M", "--", "busybox", "echo", "hi").stdout == "hi\n"


def test_a_root_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir(mode=0)
    root.chmod(0)
    result = subprocess.run(
        ["setpriv", "--bounding-set=-dac_override,-dac_read_search", ENISLE, "run", "--root", root, "--", "true"],
        **captured(),
        preexec_fn=lambda: os.chown(root, 1, 1),
    )
    says_in_three_lines(result, 2, "cannot use")


def captured() -> dict[str, object]:
    return {"capture_output": True, "text": True, "timeout": 60}


# ---- /dev/kvm ------------------------------------------------------------------------------------------------------

PRIVATE_DEV = """set -e
mode=$1; shift
mount --make-rprivate /
mount -t tmpfs -o mode=755 dev /mnt
for n in null zero full random urandom tty; do touch /mnt/$n; mount --bind /dev/$n /mnt/$n; done
mkdir /mnt/pts /mnt/shm
mount --rbind /dev/pts /mnt/pts
[ $mode = missing ] || { mknod /mnt/kvm c 10 232; chown 1 /mnt/kvm; chmod 600 /mnt/kvm; }
mount --rbind /mnt /dev
[ $mode = missing ] || exec setpriv --bounding-set=-dac_override,-dac_read_search "$@"
exec "$@"
"""


def run_with_kvm(mode: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run `enisle` where /dev/kvm is missing, or may not be opened, in a mount name space of its own."""
    command = ["unshare", "-m", "sh", "-c", PRIVATE_DEV, "sh", mode, ENISLE, *words]
    return subprocess.run(command, **captured())  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("mode", "why"), [("missing", "/dev/kvm does not exist"), ("closed", "no permission on /dev/kvm")]
)
def test_without_kvm_the_fallback_is_told_in_one_line(mode: str, why: str) -> None:
    result = run_with_kvm(mode, "run", "--", "busybox", "echo", "hi")
    assert (result.returncode, result.stdout) == (0, "hi\n"), result.stderr
    told = [line for line in result.stderr.splitlines() if "emulated" in line]
    assert len(told) == 1
    assert why in told[0]


@pytest.mark.parametrize(
    ("mode", "why"), [("missing", "/dev/kvm does not exist"), ("closed", "no permission on /dev/kvm")]
)
def test_without_kvm_asking_for_it_is_refused(mode: str, why: str) -> None:
    says_in_three_lines(run_with_kvm(mode, "run", "--processor", "kvm", "--", "busybox", "true"), 125, why)


# ---- standard descriptors ------------------------------------------------------------------------------------------


def test_a_full_device_behind_standard_output_is_the_programs_to_notice() -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run([ENISLE, "run", "--", "busybox", "echo", "x"], stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    assert b"No space left" in result.stderr


@pytest.mark.parametrize("words", [["run", "--json", "--", "busybox", "true"], ["--help"], ["doctor"]])
def test_results_that_cannot_be_written_are_told(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run([ENISLE, *words], stdout=full, stderr=subprocess.PIPE, text=True)
    result.stdout = ""
    says_in_three_lines(result, 125 if words[0] == "run" else 5, "No space left")


def test_words_that_cannot_be_written_change_no_exit_code() -> None:
    for words, code in (
        (["run", "--stats", "--", "busybox", "sh", "-c", "exit 3"], 3),
        (["run", "--trace", "--", "busybox", "sh", "-c", "exit 3"], 3),
        (["run", "--memory", "1M", "--", "busybox", "true"], 2),
    ):
        with open("/dev/full", "w") as full:
            assert subprocess.run([ENISLE, *words], stderr=full).returncode == code


def test_captured_output_is_bounded_by_the_memory() -> None:
    result = enisle("run", "--json", "--memory", "48M", "--", "busybox", "yes")
    record = json.loads(result.stdout)
    assert record["exit_code"] == 1
    assert 4 << 20 < len(record["stdout"]) < 16 << 20


def test_a_reader_that_leaves_ends_every_writer_with_sigpipe() -> None:
    for program in ("busybox yes", f"{sys.executable} -S -c 'while 1: print(1)'", "sh -c 'while :; do echo x; done'"):
        command = f"{ENISLE} run -- {program} | head -c 10 > /dev/null; echo ${{PIPESTATUS[0]}}"
        found = subprocess.run(["bash", "-c", command], **captured()).stdout  # type: ignore[call-overload]
        native = subprocess.run(["bash", "-c", command.replace(f"{ENISLE} run -- ", "")], **captured()).stdout  # type: ignore[call-overload]
        assert found == native, program


# ---- the end at any moment -----------------------------------------------------------------------------------------


class Traces:
    """What an island could leave on the host: processes of its session, mounts, files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mounts = Path("/proc/self/mountinfo").read_text()
        self.memory = set(os.listdir("/dev/shm"))
        self.environment = os.environ | {"TMPDIR": str(directory)}

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [ENISLE, "run", *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def assert_none(self, session: int) -> None:
        assert Path("/proc/self/mountinfo").read_text() == self.mounts
        assert list(self.directory.iterdir()) == []
        assert set(os.listdir("/dev/shm")) <= self.memory
        deadline = time.monotonic() + 2
        while (left := list(of_session(session))) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not left


def of_session(session: int) -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                yield int(name)


def test_ctrl_c_at_any_moment_leaves_nothing(tmp_path: Path) -> None:
    traces, moments = Traces(tmp_path), random.Random(1)
    for _ in range(30):
        program = ["sh", "-c", "sleep 60 & while :; do busybox true; done"] if moments.random() < 0.6 else ["true"]
        process = traces.start("--", "busybox", *program)
        time.sleep(moments.random() * 0.16)
        deadline = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGINT)
            time.sleep(0.03)
        errors = process.communicate(timeout=5)[1]
        # 0: it was over before; 1 and a traceback of Python's own: the interpreter was not up yet.
        assert process.returncode in (0, -signal.SIGINT, 128 + signal.SIGINT, 1), errors
        assert process.returncode != 1 or b"KeyboardInterrupt" in errors
        traces.assert_none(process.pid)


def test_sigkill_at_any_moment_leaves_nothing(tmp_path: Path) -> None:
    traces, moments = Traces(tmp_path), random.Random(2)
    for _ in range(10):
        process = traces.start("--", "busybox", "sh", "-c", "sleep 60 & while :; do busybox true; done")
        time.sleep(moments.random() * 0.2)
        process.kill()
        process.communicate(timeout=5)
        traces.assert_none(process.pid)


def test_an_islands_process_killed_under_the_sdk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    traces = Traces(tmp_path)
    tempfile.tempdir = str(tmp_path)
    try:
        with Island(memory="128M", cwd="/") as island:
            running = island.start(["busybox", "sleep", "60"])
            os.kill(island.pid, signal.SIGKILL)
            with pytest.raises(GuestError, match="SIGKILL"):
                running.wait(10)
            running.close()
            session = island.pid
    finally:
        tempfile.tempdir = None
    traces.assert_none(session)


# ---- bugs of ours --------------------------------------------------------------------------------------------------

BUG = """
from enisle.kernel import load_handlers, TABLE
load_handlers()
def broken(thread, registers):
    assert thread is None, f"{thread.tid=}"
TABLE[63].call = broken  # uname
"""


def test_a_bug_of_ours_ends_the_island_with_a_report() -> None:
    code = f"{BUG}\nfrom enisle.cli import main\nraise SystemExit(main())"
    for door in ("auto", "off"):
        command = [sys.executable, "-c", code, "run", "--exitless", door, "--", "busybox", "uname"]
        result = subprocess.run(command, **captured())  # type: ignore[call-overload]
        says_in_three_lines(result, 125, "a bug in Enisle", "AssertionError: thread.tid=", "--debug")
        command.insert(4, "--debug")
        shown = subprocess.run(command, **captured())  # type: ignore[call-overload]
        assert "in broken" in shown.stderr


def test_a_bug_of_ours_spares_the_caller_of_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"{BUG}\nfrom enisle.island.service import main\nmain()"
    monkeypatch.setattr(child, "child_command", lambda: [sys.executable, "-c", code])
    with Island(memory="128M", cwd="/") as island:
        assert island.run(["busybox", "echo", "hi"]).stdout == b"hi\n"
        with pytest.raises(GuestError) as caught:
            island.run(["busybox", "uname"])
        assert caught.value.message == "a bug in Enisle ended the island"
        assert "thread.tid=" in caught.value.why
        assert "in broken" in caught.value.why
    with Island(memory="128M", cwd="/") as island:  # the caller can go on
        assert island.run(["busybox", "true"]).exit_code == 0


def test_a_program_that_breaks_itself_is_no_bug_of_ours() -> None:
    with Island(memory="128M", cwd="/") as island:
        assert island.run(["busybox", "sh", "-c", "kill -SEGV $$"]).exit_code == 128 + signal.SIGSEGV
        assert island.run(["busybox", "echo", "hi"]).stdout == b"hi\n"
