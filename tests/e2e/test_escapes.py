"""No way leads out of an island: paths, races, privileges, other processes, sockets, the caller's terminal.

`hostile_escapes` tries them and prints a line for each that worked; `test_jail.py` holds the walls themselves.
"""

import fcntl
import os
import pty
import signal
import socket
import stat
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from commandline import ENISLE, enisle

pytestmark = [pytest.mark.kvm, pytest.mark.root]
SOURCE = Path(__file__).parents[1] / "conformance" / "programs" / "hostile_escapes.c"


@pytest.fixture(scope="module")
def escapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("escapes") / "escapes"
    flags = ["-O1", "-pthread", "-D_GNU_SOURCE", "-Wno-unused-result", "-Wno-format-truncation"]
    subprocess.run(["gcc", *flags, "-o", target, SOURCE], check=True)
    return target


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("outside") / "file"
    path.write_text("SECRET\n")
    return path


@pytest.fixture
def bystander() -> Iterator["subprocess.Popen[bytes]"]:
    """A process of the host that must not notice anything."""
    with subprocess.Popen(["sleep", "100"]) as process:
        yield process
        assert process.poll() is None
        process.kill()


def shown(*paths: Path) -> list[str]:
    return [word for path in paths for word in ("--mount", f"{path}:{path}:ro")]


@pytest.mark.parametrize("exitless", ["auto", "off"])
def test_every_way_out_is_refused(
    exitless: str, escapes: Path, secret: Path, bystander: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0enisle-escape-test")
        listener.listen()
        places = [*shown(escapes.parent), "--mount", f"{tmp_path}:/work:rw", "--cwd", "/work"]
        result = enisle(
            *("run", "--exitless", exitless, *places, "--", str(escapes), str(bystander.pid), str(secret)),
            stdin=subprocess.DEVNULL,
        )
    assert result.stdout == "tried many\n", result.stderr
    assert result.returncode == 128 + signal.SIGKILL  # its own child's kill(-1)
    assert Path("/proc/self/mountinfo").read_text() == before
    assert list(tmp_path.iterdir()) == []


def test_the_program_would_notice_a_way_out(escapes: Path, secret: Path) -> None:
    places = shown(escapes.parent, secret.parent)
    result = enisle("run", *places, "--cwd", "/tmp", "--", str(escapes), "1", str(secret), "here", input="x")
    assert "WORKED: above a descriptor of it\n" in result.stdout


def test_a_directory_moved_on_the_host_gives_no_view_of_where_it_is(
    escapes: Path, secret: Path, tmp_path: Path
) -> None:
    work, elsewhere = tmp_path / "work" / "deep", secret.parent / "moved"
    work.mkdir(parents=True)
    inner = work / "inner"
    inner.mkdir()
    places = [*shown(escapes.parent), "--mount", f"{work}:/data:rw", "--cwd", "/data/inner"]
    command = [ENISLE, "run", *places, "--", escapes, "1", str(secret), "moved"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        inner.rename(elsewhere)
        output, _ = process.communicate("x")
    elsewhere.rmdir()
    assert output == "tried\n"


def described(path: Path) -> tuple[int, int, int, bool]:
    status = path.stat()
    return status.st_mode, status.st_uid, status.st_gid, status.st_mtime > 1  # the program tries to make it 1


def test_what_the_callers_files_are_cannot_be_changed(escapes: Path, secret: Path, tmp_path: Path) -> None:
    """Mode, owner, times and attributes of a file, a device and a pipe that the program was given."""
    null, fifo, file, errors = tmp_path / "null", tmp_path / "fifo", tmp_path / "file", tmp_path / "errors"
    os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(fifo)
    file.write_text("x")
    errors.touch()
    given = (null, fifo, file, errors)
    before = [described(path) for path in given]
    command = [ENISLE, "run", *shown(escapes.parent), "--", escapes, "1", str(secret), "caller"]
    for path in (null, fifo, file):
        writer = os.open(fifo, os.O_RDWR)  # keeps the pipe open
        with open(path, "rb") as stdin, open(errors, "wb") as stderr:
            done = subprocess.run(command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, timeout=60)
        os.close(writer)
        assert done.stdout == b"tried\n", path
    assert [described(path) for path in given] == before


def test_nothing_can_be_typed_into_the_callers_terminal(escapes: Path, secret: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        places = shown(escapes.parent)
        words = ["--cwd", "/tmp", "--", str(escapes), str(os.getppid()), str(secret)]
        os.execv(ENISLE, [ENISLE, "run", *places, *words])
    output = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            break
        output += piece
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGKILL
    assert output == b"tried many\r\n"


def test_a_symbolic_link_in_a_writable_mount_is_the_islands(secret: Path, tmp_path: Path) -> None:
    """What a program leaves in a directory of the host may point anywhere; in the island it leads nowhere."""
    (tmp_path / "link").symlink_to(secret)
    (tmp_path / "up").symlink_to("../" * 30 + str(secret)[1:])
    script = "cat /data/link /data/up; echo x > /data/link; echo x > /data/up; echo done"
    result = enisle("run", "--mount", f"{tmp_path}:/data:rw", "--", "sh", "-c", script)
    assert result.stdout == "done\n"
    assert secret.read_text() == "SECRET\n"


def test_a_device_in_a_writable_mount_is_no_device(tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", 0o666 | 0o020000, os.makedev(1, 3))
    result = enisle("run", "--mount", f"{tmp_path}:/data:rw", "--", "sh", "-c", "echo x > /data/null")
    assert result.returncode != 0
    assert "ermission denied" in result.stderr


def test_files_made_in_a_writable_mount_are_the_callers_with_its_umask(tmp_path: Path) -> None:
    script = "cp /bin/sh /data/shell; umask"
    old = os.umask(0o027)
    try:
        result = enisle("run", "--mount", f"{tmp_path}:/data:rw", "--", "sh", "-c", f"{script}; echo x > /data/text")
    finally:
        os.umask(old)
    assert result.stdout == "0027\n"
    assert (tmp_path / "text").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "shell").stat().st_uid == os.geteuid()


def test_the_host_keeps_its_terminal_modes_time_and_name() -> None:
    master, slave = pty.openpty()
    before, name = termios.tcgetattr(slave), os.uname().nodename
    script = "hostname other; date -s 2001-01-01; stty raw 2>&1; true"
    command = [ENISLE, "run", "--", "busybox", "sh", "-c", script]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True) as process:
        process.wait(20)
    assert os.uname().nodename == name
    assert time.gmtime().tm_year > 2020
    assert termios.tcgetattr(slave) == before
    assert fcntl.fcntl(slave, fcntl.F_GETFL) & os.O_NONBLOCK == 0
    os.close(master)
    os.close(slave)
