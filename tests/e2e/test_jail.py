"""What a process in the jail can see and do, as root and as an ordinary user; and that nothing is left behind."""

import errno
import fcntl
import os
import socket
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enisle.abi import host
from enisle.errors import HostError, InvalidRequest
from enisle.island import Configuration, Mount, jail
from enisle.island.configuration import validate
from enisle.island.rootfs import SECRETS
from jailed import in_child, jailed

pytestmark = pytest.mark.root
both = pytest.mark.parametrize("user", [False, True], ids=["root", "ordinary"])
SMALL = 256 << 20
DEVICES = "fd full null ptmx pts random shm stderr stdin stdout urandom zero"


def errno_of(call: Callable[[], Any]) -> str:
    """Return the name of the errno that `call` fails with, or "OK"."""
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "OK"


@both
def test_the_root_holds_the_system_and_nothing_personal(user: bool) -> None:
    def probe(place: jail.Jail) -> Any:
        return {"names": os.listdir("/"), "home": os.listdir(place.home), "others": os.listdir("/home")}

    found = jailed(probe, user=user)
    assert {"bin", "dev", "etc", "proc", "sys", "tmp", "usr", "var"} <= set(found["names"])
    assert not {"boot", "lost+found", "old_root"} & set(found["names"])
    assert found["others"] == (["user"] if user else [])
    ways = {Path(prefix).parts[2] for prefix in (sys.prefix, sys.base_prefix) if prefix.startswith("/root/")}
    assert set(found["home"]) <= ways, "nothing of the home but the way to the running Python"


@both
def test_what_only_root_may_read_on_the_host_cannot_be_read(user: bool) -> None:
    private = [
        os.path.join(directory, name)
        for directory, _, names in os.walk("/etc")
        for name in names
        if not os.lstat(os.path.join(directory, name)).st_mode & 0o004
    ]
    assert "/etc/shadow" in private

    def probe(place: jail.Jail) -> Any:
        return {path: errno_of(lambda path=path: os.open(path, os.O_RDONLY)) for path in private}

    found = jailed(probe, user=user)
    assert set(found.values()) <= {"ENOENT", "EACCES"}
    assert found["/etc/shadow"] == "ENOENT"


@both
def test_public_configuration_can_be_read(user: bool) -> None:
    def probe(_: jail.Jail) -> Any:
        return Path("/etc/passwd").read_text(), Path("/etc/hosts").read_text()

    passwd, hosts = jailed(probe, user=user)
    assert passwd == Path("/etc/passwd").read_text()
    assert "localhost" in hosts


@both
def test_the_hosts_proc_and_sys_are_not_there(user: bool) -> None:
    def probe(_: jail.Jail) -> Any:
        return {
            "proc": errno_of(lambda: os.listdir("/proc")),
            "environ": errno_of(lambda: os.open("/proc/self/environ", os.O_RDONLY)),
            "sys": sorted(os.listdir("/sys")),
            "online": Path("/sys/devices/system/cpu/online").read_text(),
        }

    found = jailed(probe, Configuration(memory=SMALL, processors=3), user=user)
    assert found == {"proc": "ELOOP", "environ": "ELOOP", "sys": ["devices", "fs", "kernel"], "online": "0-2\n"}


@both
def test_devices_are_the_harmless_ones(user: bool) -> None:
    def probe(_: jail.Jail) -> Any:
        Path("/dev/null").write_bytes(b"x")
        terminal, other = os.openpty()
        return {
            "names": " ".join(sorted(os.listdir("/dev"))),
            "zero": Path("/dev/zero").open("rb").read(2) == b"\0\0",
            "random": len(os.read(os.open("/dev/urandom", os.O_RDONLY), 8)),
            "full": errno_of(lambda: os.write(os.open("/dev/full", os.O_WRONLY), b"x")),
            "pty": os.ttyname(other),
            "terminal": os.isatty(terminal),
            "shm": stat.filemode(os.stat("/dev/shm").st_mode),
        }

    found = jailed(probe, user=user)
    assert found.pop("names") == DEVICES
    assert found.pop("pty").startswith("/dev/pts/")
    assert found == {"zero": True, "random": 8, "full": "ENOSPC", "terminal": True, "shm": "drwxrwxrwt"}


def test_writes_stay_in_the_island() -> None:
    def probe(_: jail.Jail) -> Any:
        for path in ("/etc/passwd", "/etc/new", "/usr/bin/new", "/usr/bin/env", "/tmp/new", "/var/tmp/new", "/opt/new"):
            Path(path).write_text("island")
        os.rename("/usr/bin/env", "/usr/bin/moved")
        os.mkdir("/usr/new")
        return os.path.exists("/usr/bin/env")

    before = os.stat("/usr/bin/env").st_mtime_ns, Path("/etc/passwd").read_text()
    assert jailed(probe) is False
    assert (os.stat("/usr/bin/env").st_mtime_ns, Path("/etc/passwd").read_text()) == before
    assert not any(
        os.path.exists(path) for path in ("/etc/new", "/usr/bin/new", "/usr/new", "/usr/bin/moved", "/var/tmp/new")
    )


@both
def test_what_is_written_is_limited(user: bool) -> None:
    def probe(_: jail.Jail) -> Any:
        with open("/tmp/large", "wb", buffering=0) as file:
            return errno_of(lambda: [file.write(bytes(1 << 20)) for _ in range(64)])

    assert jailed(probe, Configuration(memory=64 << 20), user=user) == "ENOSPC"


@both
def test_the_working_directory_is_visible_and_read_only(tmp_path: Path, user: bool) -> None:
    work = shared(tmp_path) / "work"
    work.mkdir()
    (work / "file").write_text("content")
    work.chmod(0o777)

    def probe(place: jail.Jail) -> Any:
        return place.cwd, os.getcwd(), Path("file").read_text(), errno_of(lambda: Path("new").write_text("x"))

    assert jailed(probe, user=user, cwd=str(work)) == [str(work), str(work), "content", "EROFS"]


def shared(path: Path) -> Path:
    """Let every user reach a directory that pytest made private."""
    for parent in (path, *path.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    return path


@both
def test_mounts_are_read_only_unless_told_and_lose_set_user_id(tmp_path: Path, user: bool) -> None:
    for name in ("a", "b"):
        (shared(tmp_path) / name).mkdir()
        (tmp_path / name).chmod(0o777)
    (tmp_path / "file").write_text("one file")
    mounts = (
        Mount(str(tmp_path / "a"), "/data/a", False),
        Mount(str(tmp_path / "b"), "/data/b", True),
        Mount(str(tmp_path / "file"), "/data/file", False),
    )

    def probe(_: jail.Jail) -> Any:
        Path("/data/b/new").write_text("from the island")
        flags = [os.statvfs(f"/data/{name}").f_flag & (os.ST_NOSUID | os.ST_NODEV) for name in ("a", "b")]
        return errno_of(lambda: Path("/data/a/new").write_text("x")), flags, Path("/data/file").read_text()

    found = jailed(probe, Configuration(memory=SMALL, mounts=mounts), user=user)
    assert found == ["EROFS", [os.ST_NOSUID | os.ST_NODEV] * 2, "one file"]
    assert (tmp_path / "b" / "new").read_text() == "from the island"


def test_a_link_in_a_foreign_root_leads_no_mount_out_of_it(tmp_path: Path) -> None:
    root, data, outside = tmp_path / "root", tmp_path / "data", tmp_path / "outside"
    for directory in (root, data, outside):
        directory.mkdir()
    (root / str(outside)[1:]).mkdir(parents=True)
    (root / "data").symlink_to(outside)

    def probe(_: jail.Jail) -> Any:
        return os.listdir(outside)

    mounts = (Mount(str(data), "/data/in", True),)
    assert jailed(probe, Configuration(root=str(root), memory=SMALL, mounts=mounts)) == ["in"]
    assert not list(outside.iterdir())


@both
def test_a_directory_can_be_the_root(tmp_path: Path, user: bool) -> None:
    root = shared(tmp_path) / "a,b:c"
    for name in ("bin", "proc", "dev"):
        (root / name).mkdir(parents=True)
    (root / "bin" / "program").write_text("program")
    (root / "proc" / "leftover").write_text("x")
    root.chmod(0o777)

    def probe(_: jail.Jail) -> Any:
        Path("/tmp/x").write_text("x")
        return sorted(os.listdir("/")), Path("/bin/program").read_text(), errno_of(lambda: os.listdir("/proc"))

    names, program, proc = jailed(probe, Configuration(root=str(root), memory=SMALL), user=user)
    assert "usr" not in names
    assert {"bin", "dev", "proc", "tmp"} <= set(names)
    assert (program, proc) == ("program", "ELOOP")
    assert sorted(path.name for path in root.iterdir()) == ["bin", "dev", "proc"]


def test_no_path_leads_out(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")

    def probe(_: jail.Jail) -> Any:
        os.symlink("/" + "../" * 30 + str(tmp_path), "/tmp/link")
        escapes = ("../" * 30 + f"{tmp_path}/secret", "/tmp/link/secret", f"/proc/1/root{tmp_path}/secret")
        return [errno_of(lambda path=path: os.open(path, os.O_RDONLY)) for path in escapes]

    assert set(jailed(probe)) <= {"ENOENT", "ELOOP"}


@both
def test_the_network_is_a_private_loopback_that_works(user: bool) -> None:
    def probe(_: jail.Jail) -> Any:
        with socket.create_server(("127.0.0.1", 0)) as server:
            with socket.socket() as client:
                client.connect(server.getsockname())
                client.sendall(b"x")
                return [name for _, name in socket.if_nameindex()], server.accept()[0].recv(1).decode()

    assert jailed(probe, user=user) == [["lo"], "x"]


def test_the_hosts_network_is_kept_when_asked_for() -> None:
    def probe(_: jail.Jail) -> Any:
        return [name for _, name in socket.if_nameindex()]

    assert jailed(probe, Configuration(network="host", memory=SMALL)) == [name for _, name in socket.if_nameindex()]


@both
def test_a_confined_process_can_do_nothing_to_the_host(user: bool) -> None:
    parent = os.getpid()

    def probe(place: jail.Jail) -> Any:
        attempts: dict[str, Callable[[], Any]] = {
            "fork": os.fork,
            "execve": lambda: os.execv("/bin/true", ["true"]),
            "mount": lambda: host.mount(b"x", b"/tmp", b"tmpfs", 0, None),
            "umount": lambda: host.umount2(b"/dev/pts", 0),
            "chroot": lambda: os.chroot("/"),
            "unshare": lambda: host.unshare(host.CLONE_NEWNS),
            "kill": lambda: os.kill(parent, 0),
            "mknod": lambda: os.mknod("/tmp/sda", stat.S_IFBLK, os.makedev(8, 0)),
            "vsock": lambda: socket.socket(40, socket.SOCK_STREAM),
            "tiocsti": lambda: fcntl.ioctl(0, 0x5412, b"x"),
            "nice": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
        }
        return {name: errno_of(attempt) for name, attempt in attempts.items()}

    assert set(jailed(probe, user=user, confined=True).values()) == {"EPERM"}


@both
def test_a_confined_process_can_still_serve_a_guest(user: bool) -> None:
    def probe(_: jail.Jail) -> Any:
        seen: list[str] = []
        thread = threading.Thread(target=lambda: seen.append(threading.current_thread().name), name="guest")
        thread.start()
        thread.join()
        Path("/tmp/file").write_text("x")
        os.chmod("/tmp/file", 0o4755)
        os.kill(os.getpid(), 0)
        if not user:
            os.chown("/tmp/file", 1000, 1000)
            os.chmod("/tmp/file", 0)
        return seen, Path("/tmp/file").read_text(), [os.memfd_create("x") >= 0, os.eventfd(0) >= 0]

    assert jailed(probe, user=user, confined=True) == [["guest"], "x", [True, True]]


def test_only_what_serves_a_guest_is_left_of_roots_capabilities() -> None:
    def probe(place: jail.Jail) -> Any:
        descriptor = os.open("status", os.O_RDONLY, dir_fd=place.host_proc)
        lines = dict(line.split(":\t", 1) for line in os.read(descriptor, 1 << 16).decode().splitlines())
        return lines["CapEff"], lines["CapPrm"], lines["NoNewPrivs"], lines["Seccomp"]

    kept = f"{1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 10 | 1 << 13:016x}"
    assert jailed(probe, confined=True) == [kept, kept, "1", "2"]
    assert jailed(probe, confined=True, user=True)[:2] == ["0" * 16, "0" * 16]


@both
def test_nothing_is_left_on_the_host(user: bool) -> None:
    before = Path("/proc/self/mountinfo").read_text(), sorted(os.listdir("/sys"))
    jailed(lambda _: Path("/tmp/rubbish-of-an-island").write_text("x"), user=user)
    assert (Path("/proc/self/mountinfo").read_text(), sorted(os.listdir("/sys"))) == before
    assert not os.path.exists("/tmp/rubbish-of-an-island")


def test_a_host_whose_own_root_is_an_overlay_works_too(tmp_path: Path) -> None:
    def body() -> Any:
        host.unshare(host.CLONE_NEWNS)
        host.mount(None, b"/", None, host.MS_REC | host.MS_PRIVATE, None)
        stacked = os.fsencode(tmp_path)
        host.mount(b"t", stacked, b"tmpfs", 0, None)
        for name in (b"upper", b"work", b"root"):
            os.mkdir(stacked + b"/" + name)
        options = b"lowerdir=/,upperdir=%s/upper,workdir=%s/work" % (stacked, stacked)
        host.mount(b"o", stacked + b"/root", b"overlay", 0, options)
        for name in (b"proc", b"sys", b"dev"):
            host.mount(b"/" + name, stacked + b"/root/" + name, None, host.MS_BIND | host.MS_REC, None)
        os.chroot(stacked + b"/root")
        os.chdir("/")
        place = jail.enter(validate(Configuration(memory=SMALL)))
        Path("/usr/bin/new").write_text("x")
        Path("/etc/new").write_text("x")
        secrets = [errno_of(lambda name=name: os.stat(f"/etc/{name}")) for name in SECRETS]
        return place.notes, secrets, Path("/etc/passwd").stat().st_size

    notes, secrets, size = in_child(body)
    assert notes == []
    assert set(secrets) == {"ENOENT"}
    assert size == Path("/etc/passwd").stat().st_size


@pytest.mark.parametrize("what", ["missing source", "missing root", "root is a file", "missing start"])
def test_what_cannot_be_shown_is_told_with_a_hint(tmp_path: Path, what: str) -> None:
    file = tmp_path / "file"
    file.write_text("")
    wrong = {
        "missing source": Configuration(mounts=(Mount(str(tmp_path / "none"), "/data", False),)),
        "missing root": Configuration(root=str(tmp_path / "none")),
        "root is a file": Configuration(root=str(file)),
        "missing start": Configuration(cwd="/no/such/place"),
    }
    with pytest.raises(InvalidRequest) as caught:
        jailed(lambda _: None, wrong[what]._replace(memory=SMALL))
    assert caught.value.hint


def test_a_host_that_forbids_user_name_spaces_is_told_from_the_rest() -> None:
    def body() -> Any:
        from jailed import ORDINARY, become

        os.chdir("/")
        become(ORDINARY, "/nonexistent")
        host.unshare(host.CLONE_NEWUSER)
        # The limit is the user name space's own, so nothing else on this host is touched.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{ORDINARY} {ORDINARY} 1")
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
        jail.enter(validate(Configuration(memory=SMALL)))

    with pytest.raises(HostError) as caught:
        in_child(body)
    assert "max_user_namespaces is 0" in caught.value.why
    assert "sysctl user.max_user_namespaces" in caught.value.hint
