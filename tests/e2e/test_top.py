"""Running islands are listed and watched; a dead one leaves nothing that is believed; a name has one island."""

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import pytest

from commandline import ENISLE, enisle
from enisle import Island
from enisle.errors import StateError
from running import running

pytestmark = [pytest.mark.kvm, pytest.mark.root]
CLEAR = b"\x1b[H\x1b[J"
THREADS = (
    "python3",
    "-c",
    "import sys, threading\n"
    "def work():\n"
    "    for _ in range(200): bytes(4096).count(1)\n"
    "for line in sys.stdin:\n"
    "    threads = [threading.Thread(target=work) for _ in range(4)]\n"
    "    [t.start() for t in threads]; [t.join() for t in threads]\n"
    "    print('done', flush=True)\n",
)


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "enisle"


def listed() -> dict[str, dict[str, object]]:
    return {island["name"]: island for island in json.loads(enisle("ps", "--json").stdout)}


# ---- ps --------------------------------------------------------------------------------------------------------------


def test_an_island_is_listed_while_it_runs_and_not_afterwards(runtime: Path) -> None:
    assert enisle("ps").stdout == ""
    with running("--memory", "512M", "--processors", "3") as island, running(name="db"):
        found = listed()
        assert list(found) == ["db", "web"]
        web = found["web"]
        assert (web["id"], web["pid"]) == (island.entry.id, island.process.pid)
        assert (web["program"], web["backend"], web["processors"]) == (["/bin/sleep", "60"], "kvm", 3)
        assert web["memory_limit"] == 384 << 20  # a quarter is for files
        assert 0 < int(str(web["memory_used"])) < 384 << 20
        lines = enisle("ps").stdout.splitlines()
        assert [line.split("\t")[0] for line in lines] == ["db", "web"]
        assert enisle("ps", "--quiet").stdout == "db\nweb\n"
        island.process.send_signal(signal.SIGTERM)
        island.process.wait(10)
        assert not list((runtime / "web").iterdir())  # it took its socket back itself
        assert list(listed()) == ["db"]
        assert not (runtime / "web").exists()
    assert listed() == {}


def test_an_island_of_the_sdk_is_listed_by_its_name_or_its_id() -> None:
    with Island(memory="128M", cwd="/", name="plugin") as one, Island(memory="128M", cwd="/"):
        one.run(["true"])
        found = listed()
        assert found["plugin"]["program"] == ["true"]
        (other,) = (island for name, island in found.items() if name != "plugin")
        assert other["name"] == other["id"]
        with pytest.raises(StateError, match="'plugin' runs already"):
            Island(memory="128M", cwd="/", name="plugin")
    assert listed() == {}


def test_a_program_finds_nothing_of_it_inside(runtime: Path) -> None:
    shown = str(runtime.parent)
    look = (
        "import os, socket, sys, time\n"
        "place = sys.argv[1] + '/enisle/web'\n"
        "name = os.listdir(place)[0]\n"
        "peer = socket.socket(socket.AF_UNIX); peer.settimeout(10)\n"
        "peer.connect(place + '/' + name)\n"
        'body = b\'{"call":"about"}\'\n'
        "peer.sendall(len(body).to_bytes(4, 'little') + body)\n"
        "print(peer.recv(4096)[4:].decode())\n"
    )
    result = enisle("run", "--name", "web", "--", "ls", shown)
    assert result.returncode == 2 or "enisle" not in result.stdout
    # Even where the owner shows the directory, the socket does not answer what runs on an island.
    result = enisle("run", "--name", "web", "--mount", f"{shown}:{shown}:rw", "--", "python3", "-c", look, shown)
    assert "you may not ask this island" in result.stdout, result


# ---- names and death -------------------------------------------------------------------------------------------------


def test_two_islands_cannot_have_one_name() -> None:
    with running() as island:
        result = enisle("run", "--name", "web", "--", "true")
        lines = result.stderr.splitlines()
        assert (result.returncode, result.stdout, len(lines)) == (125, "", 3)
        assert "'web' runs already" in lines[0]
        assert str(island.process.pid) in lines[1]
        assert lines[2].startswith("  hint: ")
        assert list(listed()) == ["web"]
    assert enisle("run", "--name", "web", "--", "true").returncode == 0


@pytest.mark.parametrize(
    "words", [["/no/such/program"], ["--timeout", "0.2", "sleep", "9"], ["sh", "-c", "kill -9 $$"]]
)
def test_however_a_run_ends_it_takes_its_socket_back(words: list[str], runtime: Path) -> None:
    options = words[:2] if words[0][0] == "-" else []
    assert enisle("run", "--name", "web", *options, "--", *words[len(options) :]).returncode in (124, 127, 137)
    assert list(runtime.glob("*/*")) == []


def test_a_killed_island_leaves_a_socket_that_is_swept_and_a_name_that_is_free(runtime: Path) -> None:
    with running() as island:
        island.kill()
        assert list((runtime / "web").iterdir())  # nobody was left to take it back
        result = enisle("top", "web", "--once")
        assert (result.returncode, result.stdout) == (3, "")
        assert "no island 'web'" in result.stderr
        assert list(runtime.iterdir()) == []
    with running() as island:
        island.kill()
        assert enisle("run", "--name", "web", "--", "true").returncode == 0


def test_a_stopped_island_is_listed_as_such_and_holds_nobody_up() -> None:
    with running() as island:
        os.kill(island.process.pid, signal.SIGSTOP)
        begin = time.monotonic()
        result = enisle("ps", "--json")
        assert time.monotonic() - begin < 20
        (web,) = json.loads(result.stdout)
        assert "does not answer" in web["trouble"]
        os.kill(island.process.pid, signal.SIGCONT)
        assert "trouble" not in listed()["web"]


@pytest.mark.parametrize("name", ["a/b", "..", "", "-x", "x" * 65])
def test_a_name_that_is_none_is_refused_before_anything_is_made(name: str, runtime: Path) -> None:
    result = enisle("run", "--name", name, "--", "true")
    if name:
        assert (result.returncode, result.stdout) == (2, "")
        assert "cannot name an island" in result.stderr
        assert not runtime.exists()
    else:
        assert result.returncode == 0  # as without the option


def test_without_a_place_islands_run_unlisted_unless_they_are_to_have_a_name(runtime: Path) -> None:
    runtime.mkdir()
    runtime.chmod(0o755)
    assert enisle("run", "--", "true").returncode == 0
    result = enisle("run", "--name", "web", "--", "true")
    assert result.returncode == 125
    assert "not private" in result.stderr
    assert enisle("ps").returncode == 5


# ---- top -------------------------------------------------------------------------------------------------------------


def test_top_shows_what_an_island_does_since_the_last_look() -> None:
    with running(program=THREADS) as island:
        top = subprocess.Popen(
            [ENISLE, "top", "web", "--json", "--interval", "0.2"], stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert top.stdout
        first = json.loads(top.stdout.readline())
        assert island.say("go") == "done"
        for _ in range(50):
            later = json.loads(top.stdout.readline())
            if later["statistics"]["syscalls"] > first["statistics"]["syscalls"] + 8:
                break
        else:
            raise AssertionError("the calls of the program were never seen")
        top.send_signal(signal.SIGINT)
        top.communicate(timeout=10)
        assert later["age"] > first["age"]
        assert later["statistics"]["exits"] > first["statistics"]["exits"]


def test_on_a_terminal_it_is_refreshed_in_place_until_interrupted() -> None:
    with running():
        ours, theirs = pty.openpty()
        top = subprocess.Popen([ENISLE, "top", "web", "--interval", "0.2"], stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = b""
        while shown.count(CLEAR) < 3:
            shown += os.read(ours, 4096)
        top.send_signal(signal.SIGINT)
        assert top.wait(10) == -signal.SIGINT
        os.close(ours)
        lines = shown.split(CLEAR)[1].decode().splitlines()
        assert lines[0].split()[:3] == ["NAME", "PID", "AGE"]
        assert lines[1].split()[0] == "web"
        assert any(line.startswith("page tables") for line in lines)


def test_top_ends_with_the_island_it_watches() -> None:
    with running() as island:
        top = subprocess.Popen(
            [ENISLE, "top", "web", "--json", "--interval", "0.2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert top.stdout
        assert json.loads(top.stdout.readline())["name"] == "web"
        island.kill()
        _, errors = top.communicate(timeout=20)
        assert top.returncode == 3
        assert "has ended" in errors


def test_top_of_all_islands_has_a_row_for_each_and_one_look_when_piped() -> None:
    with running(), running(name="db"):
        rows = [line.split("\t") for line in enisle("top").stdout.splitlines()]
        assert [row[0] for row in rows] == ["db", "web"]
        assert len(json.loads(enisle("top", "--once", "--json").stdout)) == 2


def test_memory_by_node_and_copies_of_page_tables_are_shown() -> None:
    with running("--nodes", "2", "--page-tables", "eager", program=THREADS) as island:
        assert island.say("go") == "done"
        text = enisle("top", "web", "--once", "--memory").stdout
        assert "copies: mode eager" in text
        assert "ring hops" in text
        now = json.loads(enisle("top", "web", "--once", "--json").stdout)["statistics"]["replication"]
        assert (now["mode"], now["nodes"]) == ("eager", 2)
        assert now["replicas"] > 0
        assert now["ring_hops"] > 0
        assert len(now["node_memory_bytes"]) == 2
        assert now["remote_walks"] is None  # nobody looks
        assert enisle("replicate", "web", "auto").returncode == 0
        assert "remote walks/s: an estimate" in enisle("top", "web", "--once", "--memory").stdout


def test_walks_are_counted_on_emulated_nodes_and_called_an_estimate() -> None:
    with running("--processor", "emulated", "--nodes", "2") as island:
        text = enisle("top", island.entry.id, "--once", "--memory").stdout
        assert "counted on emulated processors" in text
        assert "estimate, not a measurement" in text
        walks = json.loads(enisle("top", "web", "--once", "--json").stdout)["statistics"]["walks"]
        assert walks["walks"] > 0
        assert walks["local"] + walks["remote"] == sum(map(sum, walks["reads"]))
        assert walks["model"] == [280, 580]


@pytest.mark.parametrize(
    "words", [["top", "web", "db"], ["top", "--interval", "0"], ["top", "--interval", "never"], ["ps", "web"]]
)
def test_words_that_make_no_sense_are_told_with_a_hint(words: list[str]) -> None:
    result = enisle(*words)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1].startswith("  hint: ")
