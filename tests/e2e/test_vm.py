"""Full Linux machines: one real kernel under QEMU's translator, looked into, saved, ended and broken in every way.

One guest at a time, and each no longer than it must: they share the host's processors with the other tests.
"""

import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import guests
import pytest

from commandline import ENISLE, enisle
from enisle.errors import EnisleError, HostError, InvalidRequest, StateError
from enisle.introspect import open_saved
from enisle.linuxvm import Disk, VirtualMachine, VmConfig, machines
from guest_kernels import guest_kernel

pytestmark = pytest.mark.qemu
MIB = 1 << 20
STUB = bytes.fromhex("02b0ad1b 00000100 fe4f51e4 00001000 00001000 00000000 00000000 20001000 faf4ebfd")
"""A multiboot image that stops at once: cli, hlt, again. It costs the host nothing."""


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep these machines apart from the user's; nothing of them may be left at the end."""
    base = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(base))
        yield base
        left = [machine.name for machine in machines()]
        for machine in machines():
            if machine.is_alive:
                machine.stop(force=True)
            machine.remove()
        assert left == []
        assert [path for path in (base / "enisle/vm").iterdir() if path.is_dir()] == []
        assert qemus() == []


@pytest.fixture
def stub(tmp_path: Path) -> str:
    (tmp_path / "stub").write_bytes(STUB)
    return str(tmp_path / "stub")


def small(kernel: str, name: str = "", **more: object) -> VmConfig:
    return VmConfig(kernel=kernel, name=name, memory=64 * MIB, accelerator="tcg", **more)  # type: ignore[arg-type]


def qemus() -> list[int]:
    """Return the processes of QEMU that the machines of these tests have, but for the one that runs Linux."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        try:
            log = os.readlink(entry / "fd/2") if entry.name.isdigit() else ""
            ours = os.environ["XDG_STATE_HOME"] in log and "/vm/linux/" not in log
            if ours and b"qemu-system-x86_64\0-nodefaults" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def others() -> list[str]:
    """Return the machines of these tests by name, but for the one that runs Linux."""
    return [machine.name for machine in machines() if machine.name != "linux"]


def listed() -> list[dict[str, object]]:
    """Return what `enisle vm ps` says of them."""
    return [each for each in json.loads(enisle("vm", "ps", "--json").stdout) if each["name"] != "linux"]


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)


def guardian_of(pid: int) -> int:
    """Return the parent of a process on the host."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def find(machine: VirtualMachine, content: bytes) -> int:
    """Return where something lies in a machine's memory, or -1; read, not mapped: that would fill its holes."""
    ram = machine.open_ram()
    try:
        for at in range(0, machine.config.memory, 16 * MIB):
            if (found := os.pread(ram, 16 * MIB + len(content), at).find(content)) >= 0:
                return at + found
    finally:
        os.close(ram)
    return -1


# ---- a real kernel ---------------------------------------------------------------------------------------------------


class Booted:
    """A machine that runs Linux, and what it told of itself when it was ready."""

    def __init__(self, machine: VirtualMachine, oracle: guests.Oracle) -> None:
        self.machine = machine
        self.oracle = oracle


@pytest.fixture(scope="module")
def booted(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    kernel = guest_kernel()
    disk = tmp_path_factory.mktemp("disk") / "disk.img"
    disk.write_bytes(b"from the host".ljust(MIB, b"\0"))
    config = VmConfig(
        kernel=str(kernel.image),
        initrd=str(guests.initramfs(kernel)),
        append="console=ttyS0 panic=-1 quiet PROCESSES=20 MODULES=10 DUMP=1",
        memory=384 * MIB,
        processors=2,
        disks=(Disk(str(disk)),),
        accelerator="tcg",
        name="linux",
        ports=("oracle",),
        gdb=True,
    )
    with VirtualMachine.start(config) as machine:
        machine.wait_for_console("=ready", 90)
        yield Booted(machine, guests.read_oracle(machine.port("oracle").read_bytes()))


def test_linux_boots_with_what_it_was_given(booted: Booted) -> None:
    assert booted.machine.accelerator == "tcg"
    assert booted.oracle.release == guest_kernel().release
    assert len(booted.oracle.modules()) >= 10
    assert sum(task.name.startswith("crowd-") for task in booted.oracle.tasks()) == 23
    status = booted.machine.status()
    assert (status.state, status.processors, status.memory) == ("running", 2, 384 * MIB)


def test_lstar_is_what_the_kernel_says_it_is(booted: Booted) -> None:
    begin = time.monotonic()
    msrs = booted.machine.msrs()
    seconds = time.monotonic() - begin
    (entry,) = booted.oracle.symbols()["entry_SYSCALL_64"]
    assert [own[0xC000_0082] for own in msrs] == [entry, entry]
    assert booted.machine.status().state == "running"
    assert seconds < 5  # 15 to 40 ms on an idle host


def test_registers_and_memory_belong_together(booted: Booted) -> None:
    machine = booted.machine
    with machine.paused():
        first, second = machine.registers()
        assert machine.registers()[0] == first
    assert first.idt.base == second.idt.base == 0xFFFFFE0000000000
    assert first.control["efer"] & 0x501 == 0x501
    # CR3 leads to a page table: the kernel half of its top level has entries, and they are present.
    offset = first.control["cr3"] & ~0xFFF
    (ranges,) = machine.memory_map()
    assert (ranges.gpa, ranges.size) == (0, 384 * MIB)
    top = machine.ram[ranges.offset + offset : ranges.offset + offset + 4096]
    entries = [int.from_bytes(top[at : at + 8], "little") for at in range(2048, 4096, 8)]
    assert any(entries)
    assert all(entry & 1 for entry in entries if entry)


def test_memory_is_seen_as_it_changes_and_is_not_writable(booted: Booted) -> None:
    with pytest.raises(TypeError):
        booted.machine.ram[0] = 1
    mark = b"a mark that only this test makes"
    with booted.machine.console() as console:
        console.sendall(b"echo " + mark + b" >/tmp/mark\n")
        wait_until(lambda: find(booted.machine, mark) >= 0, 20)
    at = find(booted.machine, mark)
    assert bytes(booted.machine.ram[at : at + len(mark)]) == mark


def test_the_console_answers_and_is_for_one_alone(booted: Booted) -> None:
    with booted.machine.console() as console:
        console.sendall(b"echo $((6*7))\n")
        heard = b""
        while b"42" not in heard:
            assert select.select([console], [], [], 20)[0], heard
            heard += console.recv(4096)
        with pytest.raises(StateError, match="taken"), booted.machine.console():
            pass


def test_a_disk_is_read_and_written(booted: Booted) -> None:
    with booted.machine.console() as console:
        console.sendall(b"head -c 13 /dev/vda; echo from the guest | dd of=/dev/vda conv=notrunc 2>/dev/null; sync\n")
        path = Path(booted.machine.config.disks[0].path)
        wait_until(lambda: path.read_bytes().startswith(b"from the guest"), 20)
        wait_until(lambda: "from the host" in booted.machine.console_log.read_text(errors="replace"), 20)


def test_a_debugger_may_connect(booted: Booted) -> None:
    with booted.machine.connect("gdb") as debugger:
        debugger.sendall(b"$?#3f")
        heard = b""
        while b"$T05" not in heard:  # gdb's remote protocol: stopped by a trap
            assert select.select([debugger], [], [], 10)[0], heard
            heard += debugger.recv(4096)
        debugger.sendall(b"+$D#44")
        assert select.select([debugger], [], [], 10)[0]
    wait_until(lambda: booted.machine.status().state == "running")


def test_pausing_holds_and_looking_does_not_release(booted: Booted) -> None:
    machine = booted.machine
    machine.pause()
    try:
        machine.msrs()
        assert machine.status().state == "paused"
        with machine.paused(), machine.paused():
            machine.registers()
            for change in (machine.pause, machine.resume):
                with pytest.raises(StateError, match="held still"):
                    change()
        assert machine.status().state == "paused"
    finally:
        machine.resume()
    assert machine.status().state == "running"


def test_whoever_is_killed_while_looking_does_not_leave_it_paused(booted: Booted) -> None:
    code = (
        "import sys, time; from enisle.linuxvm import VirtualMachine\n"
        "with VirtualMachine.find('linux').paused(): print('holding', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as looker:
        assert looker.stdout is not None
        assert looker.stdout.readline() == b"holding\n"
        assert booted.machine.status().state == "paused"
        looker.kill()
    wait_until(lambda: booted.machine.status().state == "running")


def test_looking_from_several_threads_at_once_is_one_after_the_other(booted: Booted) -> None:
    failures: list[BaseException] = []

    def look() -> None:
        try:
            for _ in range(3):
                with booted.machine.paused():
                    assert booted.machine.status().state == "paused"
                    booted.machine.msrs()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert booted.machine.status().state == "running"


def test_a_saved_machine_is_what_the_running_one_was(booted: Booted, tmp_path: Path) -> None:
    machine = booted.machine
    with machine.paused():
        saved = machine.dump(tmp_path / "saved")
        registers = machine.registers()
        sample = {at: bytes(machine.ram[at : at + 4096]) for at in range(0, 384 * MIB, 7 * MIB)}
    guest = open_saved(saved.path)
    assert [processor.cr3 for processor in guest.processors()] == [own.control["cr3"] for own in registers]
    assert guest.processors()[0].msrs[0xC000_0082] == booted.oracle.symbols()["entry_SYSCALL_64"][0]
    assert all(guest.memory.read(at, 4096) == content for at, content in sample.items())
    assert saved.written < saved.memory  # what the guest never touched takes no room


def test_qemu_has_no_rights_no_network_and_a_small_view(booted: Booted) -> None:
    pid = booted.machine.status().pid
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    for space in ("mnt", "net", "ipc", "uts", "pid"):
        assert os.readlink(f"/proc/{pid}/ns/{space}") != os.readlink(f"/proc/self/ns/{space}"), space
    if os.geteuid() == 0:
        assert int(status["Uid"].split()[0]) >= 1_600_000_000
        seen = set(os.listdir(f"/proc/{pid}/root"))
        assert not seen & {"root", "home", "etc", "var", "tmp", "work", "sys", "run"}, seen
        assert set(os.listdir(f"/proc/{pid}/root/dev")) == {"null", "zero", "urandom"}
        assert Path(f"/proc/{pid}/net/dev").read_text().count(":") == 1  # lo, which is down
    (core,) = (line.split() for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core" in line)
    assert core[4:6] == ["0", "0"]
    mode = os.stat(booted.machine.directory).st_mode
    assert mode & 0o077 == 0


def test_z_a_guest_that_powers_off_leaves_nothing(booted: Booted) -> None:
    with booted.machine.console() as console:
        console.sendall(b"poweroff -f\n")
        assert booted.machine.wait(30) == "the guest powered off or restarted"
    assert not booted.machine.directory.exists()
    with pytest.raises(StateError, match="powered off"):
        booted.machine.registers()


# ---- ends ------------------------------------------------------------------------------------------------------------


def test_qemu_killed_is_told_and_swept(stub: str) -> None:
    with VirtualMachine.start(small(stub, "killed")) as machine:
        os.kill(machine.status().pid, signal.SIGKILL)
        assert machine.wait(10) == "QEMU was killed by SIGKILL"
        for look in (machine.registers, machine.msrs, machine.pause, machine.memory_map, machine.stop):
            with pytest.raises(StateError, match="SIGKILL"):
                look()
        with pytest.raises(StateError):
            machine.open_ram()
    assert not machine.directory.exists()


def test_several_threads_hear_of_the_end(stub: str) -> None:
    heard: list[str | None] = []
    with VirtualMachine.start(small(stub, "heard")) as machine:
        threads = [threading.Thread(target=lambda: heard.append(machine.wait(20))) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert machine.wait(0) is None
        machine.stop(force=True)
        for thread in threads:
            thread.join()
    assert heard == ["stopped"] * 4


def test_a_killed_guardian_takes_qemu_with_it(stub: str) -> None:
    with VirtualMachine.start(small(stub, "orphan")) as machine:
        os.kill(guardian_of(machine.status().pid), signal.SIGKILL)
        assert machine.wait(10) == "its guardian was killed"
    wait_until(lambda: qemus() == [])
    assert not machine.directory.exists()


def test_a_killed_starter_takes_everything_with_it(stub: str, home: Path) -> None:
    code = (
        "import sys, time; from enisle.linuxvm import *\n"
        f"machine = VirtualMachine.start(VmConfig(kernel={stub!r}, name='short', memory=64 << 20, accelerator='tcg'))\n"
        "print(machine.status().pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        assert int(starter.stdout.readline()) in qemus()
        starter.kill()
    wait_until(lambda: qemus() == [] and not (home / "enisle/vm/short").exists())


def test_a_starter_killed_at_any_moment_leaves_nothing(stub: str) -> None:
    code = (
        "from enisle.linuxvm import *; import time\n"
        f"VirtualMachine.start(VmConfig(kernel={stub!r}, name='hasty', memory=64 << 20, accelerator='tcg'))\n"
        "time.sleep(60)"
    )
    for delay in (0.15, 0.2, 0.25, 0.3, 0.4):
        with subprocess.Popen([sys.executable, "-c", code]) as starter:
            time.sleep(delay)
            starter.kill()
        wait_until(lambda: qemus() == [] and others() == [])


def test_a_qemu_that_hangs_is_told_and_stopped(stub: str) -> None:
    with VirtualMachine.start(small(stub, "stuck")) as machine:
        os.kill(machine.status().pid, signal.SIGSTOP)
        assert machine.status().state == "hanging"
        with pytest.raises(HostError, match="stop --force stuck"), machine.monitor(timeout=0.3) as monitor:
            monitor.execute("query-status")
        begin = time.monotonic()
        assert machine.stop(force=True) == "stopped"
        assert time.monotonic() - begin < 10


def test_one_of_several_starters_gets_the_name(stub: str) -> None:
    started: list[VirtualMachine] = []
    refused: list[EnisleError] = []

    def start() -> None:
        try:
            started.append(VirtualMachine.start(small(stub, "wanted")))
        except StateError as error:
            refused.append(error)

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(started), len(refused)) == (1, 2)
    assert all("taken" in error.message for error in refused)
    started[0].close()
    with VirtualMachine.start(small(stub, "wanted")) as again:  # an attached machine frees its name
        assert again.is_alive


def test_a_start_that_qemu_refuses_tells_why_and_leaves_nothing(stub: str, home: Path) -> None:
    with pytest.raises(HostError) as refused:
        VirtualMachine.start(small(stub, "odd", cpu="no-such-model"))
    assert "no-such-model" in refused.value.why
    assert not (home / "enisle/vm/odd").exists()
    with pytest.raises(HostError):
        VirtualMachine.start(small(stub, "odd", cpu="no-such-model"), detached=True)
    assert not (home / "enisle/vm/odd").exists()


@pytest.mark.root
def test_a_full_disk_is_told_and_leaves_nothing(stub: str, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(Path(stub).read_bytes().ljust(4 * MIB, b"\0"))
    (tmp_path / "state").mkdir()
    script = (
        f'mount -t tmpfs -o size=2m none {tmp_path}/state && XDG_STATE_HOME={tmp_path}/state "$0" vm run '
        f"--kernel {tmp_path}/big --memory 64M --accelerator tcg --name full --detach; "
        f"echo $?; ls {tmp_path}/state/enisle/vm"
    )
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, ENISLE], capture_output=True, text=True, timeout=60)
    assert done.stdout == "5\n"
    assert "No space left" in done.stderr
    assert "hint: make room" in done.stderr


def python_of(user: int, environment: dict[str, str]) -> str:
    """Return a Python that a user may run: a virtual environment may lie where others see nothing."""
    for python in (sys.executable, "/usr/bin/python3"):
        words = [python, "-c", "import enisle.linuxvm.machine"]
        try:
            subprocess.run(words, user=user, group=user, extra_groups=[], env=environment, check=True, cwd="/")
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    pytest.skip(f"there is no Python here that user {user} may run with our packages")


@pytest.mark.root
def test_an_ordinary_user_runs_machines_too(stub: str, tmp_path: Path) -> None:
    user, place = 12345, Path(tempfile.mkdtemp(prefix="enisle-user-"))
    try:
        shutil.copy(stub, place / "stub")
        shutil.chown(place, user, user)
        code = (
            "from enisle.linuxvm import *\n"
            f"config = VmConfig(kernel={str(place / 'stub')!r}, name='mine', memory=64 << 20, accelerator='tcg')\n"
            "with VirtualMachine.start(config) as machine:\n"
            "    print(machine.status().jail, len(machine.ram), machine.msrs()[0][0x277] != 0)\n"
            "print(machines())"
        )
        paths = os.pathsep.join(path for path in sys.path if path)
        environment = {"HOME": str(place), "PATH": os.defpath, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
        python = python_of(user, environment)
        words = [python, "-c", code]
        done = subprocess.run(
            words, user=user, group=user, extra_groups=[], env=environment, capture_output=True, text=True, cwd="/"
        )
        assert done.returncode == 0, done.stderr
        jail, _, rest = done.stdout.partition("seccomp")
        assert jail == "name spaces, " or "forbids" in rest
        assert rest.endswith(f" {64 * MIB} True\n[]\n")
    finally:
        shutil.rmtree(place)


def test_a_processor_that_fails_the_probe_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from enisle.linuxvm import examine, find_qemu

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    words: list[str] = []
    found = examine(find_qemu(), words.append)
    assert found.able or found.why
    if words:  # there is a /dev/kvm to try: the second time it is known
        assert examine(find_qemu(), words.append) == found
        assert len(words) == 1


def test_the_probe_passes_where_processors_are_whole() -> None:
    from enisle.linuxvm import find_qemu
    from enisle.linuxvm.probe import run_probe

    assert run_probe(find_qemu(), "tcg", 30) is None


# ---- the command line ------------------------------------------------------------------------------------------------


def test_a_detached_machine_lives_on_and_is_ended_by_name(stub: str) -> None:
    begun = enisle("vm", "run", "--kernel", stub, "--memory", "64M", "--accelerator", "tcg", "--name", "d", "--detach")
    assert begun.returncode == 0, begun.stderr
    assert begun.stdout.startswith("started d (tcg, 64")
    (seen,) = listed()
    assert (seen["name"], seen["state"], seen["detached"]) == ("d", "running", True)
    assert seen["pid"] in qemus()
    assert enisle("vm", "pause", "d").stdout == "paused d\n"
    assert "d\tpaused\t" in enisle("vm", "ps").stdout
    assert enisle("vm", "resume", "d").returncode == 0
    again = enisle("vm", "run", "--kernel", stub, "--name", "d", "--accelerator", "tcg")
    assert (again.returncode, "enisle vm stop d" in again.stderr) == (4, True)
    assert enisle("vm", "rm", "d").returncode == 4
    ended = enisle("vm", "stop", "--timeout", "0", "d")
    assert (ended.returncode, ended.stdout.startswith("stopped d in ")) == (0, True), ended.stderr
    assert qemus() == []
    (seen,) = listed()
    assert (seen["state"], seen["reason"]) == ("ended", "stopped")
    assert enisle("vm", "stop", "d").returncode == 4
    assert enisle("vm", "rm", "d").returncode == 0
    assert listed() == []


def test_a_dump_from_the_command_line(stub: str, tmp_path: Path) -> None:
    with VirtualMachine.start(small(stub, "saved")) as machine:
        done = enisle("vm", "dump", "saved", str(tmp_path / "out"), "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["memory"] == 64 * MIB
        assert enisle("vm", "dump", "saved", str(tmp_path / "out")).returncode == 2
        assert machine.status().state == "running"
    assert open_saved(tmp_path / "out").memory.read(0x100000, len(STUB)) == STUB


def test_a_terminal_is_the_console_and_gets_its_modes_back(stub: str) -> None:
    import termios

    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    words = [ENISLE, "vm", "run", "--kernel", stub, "--memory", "64M", "--accelerator", "tcg", "--name", "seen"]
    with subprocess.Popen(words, stdin=slave, stdout=slave, stderr=subprocess.PIPE, text=True) as machine:
        wait_until(lambda: termios.tcgetattr(slave)[3] & termios.ICANON == 0)
        os.write(master, b"\x03")  # Ctrl-C is the guest's
        time.sleep(0.2)
        assert machine.poll() is None
        os.write(master, b"\x1d")
        assert machine.wait(20) == 0
        assert machine.stderr is not None
        assert "seen ended after" in machine.stderr.read()
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)
    assert qemus() == []


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_an_attached_machine(signo: signal.Signals, stub: str) -> None:
    words = [ENISLE, "vm", "run", "--kernel", stub, "--memory", "64M", "--accelerator", "tcg", "--name", "s"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        wait_until(lambda: qemus() != [])
        machine.send_signal(signo)
        assert machine.wait(20) == (-9 if signo == signal.SIGKILL else 128 + signo)
    wait_until(lambda: qemus() == [] and others() == [])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, ""),
        (("fly",), 2, "no verb 'vm fly'"),
        (("run",), 2, "no kernel"),
        (("run", "--kernel", "/no/such"), 2, "No such file"),
        (("run", "--kernel", "/bin/sh", "--memory", "1M"), 2, "64M"),
        (("run", "--kernel", "/etc/passwd"), 2, "is not a kernel"),
        (("run", "--kernel", "/etc/passwd", "--name", "a/b"), 2, "called 'a/b'"),
        (("stop",), 2, "no machine was named"),
        (("stop", "nobody"), 3, "no machine 'nobody'"),
        (("console", "nobody"), 3, "vm ps"),
        (("rm", "nobody"), 3, "nobody"),
        (("dump", "nobody"), 2, "a directory"),
        (("pause", "--fast"), 2, "no option --fast"),
    ],
)
def test_mistakes_are_told_with_a_hint(words: tuple[str, ...], code: int, said: str) -> None:
    done = enisle("vm", *words)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    if said:
        assert "hint: " in done.stderr


def test_without_qemu_the_package_is_named(stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = enisle("vm", "run", "--kernel", stub)
    assert done.returncode == 5
    assert "apt-get install qemu-system-x86" in done.stderr


def test_a_console_socket_path_may_be_long(stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    monkeypatch.setenv("XDG_STATE_HOME", str(deep))
    with VirtualMachine.start(small(stub, "n" * 63)) as machine:
        assert machine.registers()[0].number == 0
        with machine.console() as console:
            assert console.family == socket.AF_UNIX


def test_invalid_words_raise_before_anything_is_made(home: Path, stub: str) -> None:
    with pytest.raises(InvalidRequest):
        VirtualMachine.start(small(stub, "../escape"))
    assert not (home / "escape").exists()
