"""The platform from the command line, with real processes: what a person does with it in a day, and what goes wrong."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator

import pytest

from commandline import ENISLE, least_work
from onterminal import OnTerminal
from upplatform import Up, up, wait_until

ID = re.compile(r"[0-9a-f]{24}")


@pytest.fixture(scope="module")
def platform() -> Iterator[Up]:
    with up() as platform:
        yield platform


@pytest.fixture(scope="module")
def web(platform: Up) -> str:
    """An island that all tests of this file may use."""
    assert platform.ok("island", "create", "--memory", "256M", "web").startswith("created web in ")
    return "web"


def lines(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def test_up_again_says_that_it_is_up_and_gives_another_way_in(platform: Up) -> None:
    first, second = platform.enisle("up"), platform.enisle("up")
    assert first.returncode == second.returncode == 0
    assert "up already" in second.stderr
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?code=\S{20,}\n", second.stdout)
    assert first.stdout != second.stdout
    assert json.loads(platform.ok("up", "--json"))["started"] is False


def test_status_tells_how_it_is(platform: Up, web: str) -> None:
    told = json.loads(platform.ok("status", "--json"))
    assert told["ok"] is True
    assert told["hosts"] == {"live": 1}
    assert told["islands"]["running"] >= 1
    assert "health    ok\n" in platform.ok("status")
    assert lines(platform.ok("context", "ls"))[0][:2] == ["*", "local-state"]


def test_an_island_is_listed_shown_and_named_for_programs(platform: Up, web: str) -> None:
    rows = {row[0]: row for row in lines(platform.ok("island", "ls"))}
    assert rows[web][1] == "running"
    assert web in platform.ok("island", "ls", "-q").split()
    told = json.loads(platform.ok("island", "show", "--json", web))
    assert (told["name"], told["memory_limit"]) == (web, 192 << 20)
    hosts = json.loads(platform.ok("host", "ls", "--json"))
    assert [told["host"]] == [host["name"] for host in hosts]


def test_a_programs_streams_and_exit_code_are_its_own(platform: Up, web: str) -> None:
    done = platform.enisle("island", "exec", web, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    done = platform.enisle("island", "exec", web, "--", "sh", "-c", "kill -TERM $$")
    assert done.returncode == 128 + signal.SIGTERM
    for words, code, why in ((("no-such-program",), 127, "not in PATH="), (("/tmp",), 126, "it is a directory")):
        done = platform.enisle("island", "exec", web, "--", *words)
        assert (done.returncode, why in done.stderr, len(done.stderr.splitlines())) == (code, True, 3)
    done = platform.enisle("island", "exec", "--timeout", "0.5", web, "--", "sleep", "60")
    assert (done.returncode, done.stdout) == (124, "")
    assert "note: killed after 0.5 seconds" in done.stderr


def test_what_is_piped_in_reaches_the_program(platform: Up, web: str) -> None:
    text = "line\n" * 40_000
    assert platform.ok("island", "exec", web, "--", "wc", "-c", stdin=text).strip() == str(len(text))
    refused = platform.enisle("island", "exec", web, "--", "cat", stdin="x" * (600 << 10))
    assert refused.returncode == 2
    assert "standard input is too long" in refused.stderr


def test_piped_input_has_no_bound_and_waits_for_who_reads_late(platform: Up, web: str) -> None:
    text = "0123456789abcde\n" * (1 << 17)
    assert platform.ok("island", "exec", "-i", web, "--", "sh", "-c", "sleep 0.2; exec cat", stdin=text) == text
    assert platform.ok("island", "exec", "-i", web, "--", "true", stdin=text) == ""


def on_terminal(platform: Up, *words: str) -> OnTerminal:
    environment = [f"{name}={value}" for name, value in platform.environment.items()]
    return OnTerminal("-i", *environment, *platform.program, *words, program="/usr/bin/env")


def part_of(platform: Up, words: str) -> int:
    (pid,) = (pid for pid, line in platform.pids().items() if words in line)
    return pid


def test_a_shell_at_a_terminal_is_left_and_come_back_to_while_parts_of_the_platform_die(platform: Up, web: str) -> None:
    seen = on_terminal(platform, "island", "exec", "-it", "--env", "PS1=> ", web, "--", "bash", "--norc")
    seen.expect(b"> ")
    seen.resize(40, 120)
    seen.type(b"stty size\r")
    seen.expect(b"40 120\r\n")
    seen.type(b"sh -c 'echo o\"\"n; exec sleep 1000'\r")
    seen.expect(b"on\r\n")
    seen.type(b"\x03")
    seen.expect(b"> ")
    seen.type(b"echo $?\r")
    seen.expect(b"130\r\n")
    assert not seen.takes_lines()
    seen.type(b"\x10\x11")
    seen.expect(b"enisle task attach ")
    seen.wait_for(seen.has_ended)
    assert seen.takes_lines()
    assert seen.end() == 130
    task = json.loads(platform.ok("task", "ls", "--json", "--state", "running", "--resource", f"island/{web}"))[0]["id"]
    seen = on_terminal(platform, "task", "attach", task[:10])
    seen.expect(b"130\r\n")
    for part in ("control agent", "enisle.api"):
        os.kill(part_of(platform, part), signal.SIGKILL)
    seen.type(b"echo af''ter; echo on''ce\r")
    seen.expect(b"after\r\nonce\r\n")
    seen.type(b"exit 7\r")
    seen.wait_for(seen.has_ended)
    assert seen.takes_lines()
    assert seen.end() == 7


def test_output_comes_while_the_program_runs(platform: Up, web: str) -> None:
    begin = time.monotonic()
    running = platform.start("island", "exec", "--no-stdin", web, "--", "sh", "-c", "echo first; sleep 1.5; echo last")
    assert running.stdout
    assert running.stdout.readline() == "first\n"
    first = time.monotonic() - begin
    assert running.communicate(timeout=30) == ("last\n", "")
    assert time.monotonic() - begin > first + 0.7


def test_files_go_in_and_out_as_they_are(platform: Up, web: str, tmp_path: "os.PathLike[str]") -> None:
    source = os.path.join(tmp_path, "source")
    content = bytes(range(256)) * 512
    with open(source, "wb") as file:
        file.write(content)
    os.chmod(tmp_path, 0o755)
    assert platform.ok("island", "files", "put", "--mode", "750", web, "/tmp/b", source).startswith(
        "wrote /tmp/b (128K)"
    )
    words = [*platform.program, "island", "files", "cat", web, "/tmp/b"]
    found = subprocess.run(words, env=platform.environment, capture_output=True, check=True)
    assert found.stdout == content
    assert any(
        row[-1] == "b" and row[0] == "-rwxr-x---" for row in lines(platform.ok("island", "files", "ls", web, "/tmp"))
    )
    assert platform.ok("island", "exec", web, "--", "stat", "-c", "%a %s", "/tmp/b") == f"750 {len(content)}\n"


def hold(platform: Up, resource: str) -> str:
    """Return a task that holds something and says how far it is."""
    words = ("task", "submit", "-q", "--no-wait", "platform.sleep@1", "seconds=60", "--resource", resource)
    holder = platform.ok(*words).strip()
    wait_until(lambda: json.loads(platform.ok("task", "show", "--json", holder))["progress"])
    return holder


def test_a_second_client_is_told_who_blocks_it_and_goes_on_when_it_may(platform: Up, web: str) -> None:
    holder = hold(platform, f"island/{web}")
    waiting = platform.start("island", "exec", "--no-stdin", web, "--", "echo", "through")
    assert waiting.stderr
    told = waiting.stderr.readline()
    assert f"note: island.exec {web}  waits for island/{web}, held by {holder[:12]} platform.sleep {web}  " in told
    assert "% sleeping" in told
    assert waiting.poll() is None
    platform.ok("task", "cancel", holder)
    assert waiting.communicate(timeout=30) == ("through\n", "")
    assert waiting.returncode == 0
    states = {row[0]: row[2] for row in lines(platform.ok("task", "ls", "--resource", f"island/{web}"))}
    assert states[holder] == "cancelled"


def test_who_will_not_wait_is_refused_with_the_holders_name(platform: Up) -> None:
    holder = hold(platform, "disk/a")
    refused = platform.enisle("task", "submit", "platform.sleep@1", "seconds=60", "--resource", "disk/a", "--fail")
    assert refused.returncode == 4
    assert len(refused.stderr.splitlines()) == 3
    assert holder in refused.stderr
    assert "unlocked disk/a" in platform.ok("task", "unlock", "disk/a", "--reason", "the test is over")
    assert platform.enisle("task", "wait", holder).returncode in (1, 130)


def test_on_a_terminal_progress_is_drawn_and_ctrl_c_only_leaves(platform: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in platform.environment.items():
        monkeypatch.setenv(name, value)
    seen = OnTerminal("task", "submit", "platform.sleep@1", "seconds=30.0", "--resource", "disk/b")
    seen.expect("█".encode())
    seen.expect(b"sleeping")
    seen.type(b"\x03")
    seen.expect(b"detached; task ")
    seen.expect(b" goes on")
    assert seen.end() == 130
    (identity,) = [row[0] for row in lines(platform.ok("task", "ls", "--resource", "disk/b"))]
    assert json.loads(platform.ok("task", "show", "--json", identity))["state"] == "running"
    assert platform.ok("task", "cancel", identity[:8]).startswith("cancelled platform.sleep b in ")
    waited = platform.enisle("task", "wait", identity)
    assert waited.returncode == 130
    assert "from the command line" in waited.stderr


def test_watching_through_a_pipe_gives_a_line_for_each_event(platform: Up) -> None:
    watching = platform.start("watch")
    assert watching.stdout
    try:
        time.sleep(0.5)
        task = platform.ok("task", "submit", "-q", "platform.sleep@1", "seconds=0.2", "--resource", "disk/c").strip()
        seen: list[list[str]] = []
        while not any(row[1:4] == ["task", task, "done"] for row in seen):
            seen.append(watching.stdout.readline().rstrip("\n").split("\t"))
        assert any(row[1:3] == ["lock", "disk.c"] and task in row for row in seen)
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=10)
    assert watching.returncode == 130
    once = [json.loads(line) for line in platform.ok("watch", "--once", "--json").splitlines()]
    assert {"host", "task"} <= {event["event"] for event in once}


def test_a_program_of_its_own_writes_the_islands_log(platform: Up) -> None:
    script = "for i in 1 2 3 4; do echo line $i; done; echo oops >&2; sleep 60"
    platform.ok("island", "create", "--memory", "256M", "-q", "logger", "--", "sh", "-c", script)
    wait_until(lambda: "oops" in platform.enisle("island", "logs", "logger").stderr)
    done = platform.enisle("island", "logs", "logger")
    assert (done.stdout, done.stderr) == ("line 1\nline 2\nline 3\nline 4\n", "oops\n")
    tail = platform.enisle("island", "logs", "--tail", "2", "logger")
    assert (tail.stdout, tail.stderr) == ("line 4\n", "oops\n")
    following = platform.start("island", "logs", "--follow", "logger")
    assert following.stdout
    assert following.stdout.readline() == "line 1\n"
    assert platform.ok("island", "stop", "logger").startswith("stopped logger in ")
    following.communicate(timeout=30)
    assert following.returncode == 0
    assert platform.ok("island", "rm", "-q", "logger") == "logger\n"
    assert "logger" not in platform.ok("island", "ls", "-q").split()


def test_processes_and_counters_of_an_island_are_told(platform: Up, web: str) -> None:
    sleeper = platform.start("island", "exec", web, "--", "sleep", "60")
    try:
        wait_until(lambda: [row for row in lines(platform.ok("island", "ps", web)) if row[4] == "sleep"])
        pid = platform.ok("island", "ps", "-q", web).split()
        assert all(word.isdigit() for word in pid)
        assert json.loads(platform.ok("island", "stats", "--json", web))["processes_started"] >= 1
        assert web in platform.ok("completion", "words", "--", "island", "stop", web[:2]).split()
    finally:
        sleeper.kill()
        sleeper.communicate()


@pytest.mark.qemu
def test_a_machine_of_the_platform_is_run_and_removed_and_one_of_this_computer_is_another_matter(platform: Up) -> None:
    kernel = platform.directory / "stub"  # multiboot: cli, hlt, again
    kernel.write_bytes(
        bytes.fromhex("02b0ad1b 00000100 fe4f51e4 00001000 00001000 00000000 00000000 20001000 faf4ebfd")
    )
    there = ("--context", "local-state", "vm")
    words = ("--kernel", str(kernel), "--memory", "64M", "--accelerator", "tcg", "--name", "m1")
    assert platform.ok(*there, "run", *words).startswith("started m1 in ")
    assert platform.ok("vm", "ls", "--url", "", "-q", "--context", "local-state") == "m1\n"
    assert json.loads(platform.ok(*there, "show", "--json", "m1"))["memory"] == 64 << 20
    refused = platform.enisle(*there, "rm", "m1")
    assert (refused.returncode, "is running" in refused.stderr) == (1, True)
    assert platform.ok(*there, "rm", "--force", "-q", "m1") == "m1\n"
    assert json.loads(platform.ok(*there, "ls", "--json")) == []


def test_a_call_is_a_program_on_whichever_host_is_free(platform: Up) -> None:
    before = platform.ok("island", "ls", "-q")
    done = platform.enisle(
        "call", "--memory", "256M", "--env", "A=B", "--", "sh", "-c", "cat; echo $A >&2; exit 3", stdin="in"
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "in", "B\n")
    late = platform.enisle("call", "--timeout", "0.3", "--", "sleep", "60")
    assert (late.returncode, late.stdout) == (124, "")
    missing = platform.enisle("call", "--", "no-such-program")
    assert (missing.returncode, len(missing.stderr.splitlines())) == (127, 3)
    told = json.loads(platform.ok("call", "--json", "--", "echo", "hi"))
    assert (told["state"], told["runs"], told["result"]["stdout"]) == ("done", 1, "hi\n")
    refused = platform.enisle("call", "--memory", "lots", "--", "true")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 3)
    assert platform.ok("island", "ls", "-q") == before


def test_run_leaves_nothing_behind(platform: Up) -> None:
    before = platform.ok("island", "ls", "-q")
    done = platform.enisle(
        "island", "run", "--memory", "256M", "--", "sh", "-c", "echo $0 $1; exit 3", "a", "b", stdin=""
    )
    assert (done.returncode, done.stdout) == (3, "a b\n"), done.stderr
    assert platform.ok("island", "ls", "-q") == before


def test_tokens_open_what_their_scopes_say_and_no_more(platform: Up) -> None:
    url = json.loads(platform.ok("status", "--json"))["url"]
    made = json.loads(platform.ok("token", "new", "reader", "--expires", "1h", "--json"))
    own = {"ENISLE_URL": url, "ENISLE_TOKEN": made["token"]}
    assert platform.enisle("island", "ls", **own).returncode == 0
    cases = {"scope": ("island", "create", "x"), "scope admin": ("token", "ls")}
    for why, words in cases.items():
        refused = platform.enisle(*words, **own)
        assert refused.returncode != 0
        assert len(refused.stderr.splitlines()) == 3
        assert why in refused.stderr
    assert platform.ok("token", "revoke", made["id"]) == f"revoked {made['id']}\n"
    short = platform.ok("token", "new", "brief", "--expires", "1s", "-q").strip()
    time.sleep(1.1)
    for secret in (made["token"], short):
        refused = platform.enisle("island", "ls", ENISLE_URL=url, ENISLE_TOKEN=secret)
        assert refused.returncode != 0
        assert "not valid" in refused.stderr
        assert len(refused.stderr.splitlines()) == 3
    assert "reader" not in platform.ok("token", "ls")


def test_another_tenants_island_is_not_there(platform: Up, web: str) -> None:
    url = json.loads(platform.ok("status", "--json"))["url"]
    secret = platform.ok("token", "new", "t", "--tenant", "other", "--scope", "read", "--scope", "write", "-q").strip()
    own = {"ENISLE_URL": url, "ENISLE_TOKEN": secret}
    assert platform.enisle("island", "ls", "-q", **own).stdout == ""
    for verb in ("show", "logs", "stop", "rm"):
        refused = platform.enisle("island", verb, web, **own)
        assert refused.returncode == 3, (verb, refused.stderr)
        assert len(refused.stderr.splitlines()) == 3
    assert platform.enisle("island", "exec", "--no-stdin", web, "--", "true", **own).returncode == 3


def test_an_administrator_acts_in_a_tenant_and_finds_who_did_what(platform: Up, web: str) -> None:
    nap = ("task", "submit", "platform.sleep@1", "seconds=60.0", "--no-wait", "-q")
    task = platform.ok("--tenant", "elsewhere", *nap).strip()
    assert platform.enisle("task", "show", task).returncode == 3
    assert [web, "default"] in [row[:2] for row in lines(platform.ok("--tenant", "*", "island", "ls"))]
    platform.ok("--tenant", "*", "task", "cancel", "--why", "it sleeps", task)
    found = lines(platform.ok("--tenant", "elsewhere", "audit"))
    told = [("cancel", "local", "elsewhere", "127.0.0.1"), ("submit", "local", "elsewhere", "127.0.0.1")]
    assert [tuple(row[1:5]) for row in found] == told
    assert [row[6] for row in found] == ["it sleeps", "-"]
    history = sqlite3.connect(platform.state / "controller" / "history.db")
    wait_until(lambda: history.execute("SELECT 1 FROM audit WHERE value LIKE ?", (f"%{task}%",)).fetchone())
    history.close()
    assert lines(platform.ok("--tenant", "elsewhere", "audit")) == found  # each once, wherever it is kept by now


def test_contexts_are_kept_and_a_token_is_nobody_elses_to_read(platform: Up) -> None:
    url = json.loads(platform.ok("status", "--json"))["url"]
    secret = platform.ok("token", "new", "ctx", "-q").strip()
    assert "added" in platform.ok("context", "add", "there", url, "--token", "-", stdin=secret + "\n")
    (kept,) = (platform.directory / "config").rglob("contexts.json")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert platform.enisle("--context", "there", "island", "ls").returncode == 0
    assert platform.enisle("island", "create", "no", "--context", "there").returncode != 0  # it may only read
    assert secret not in platform.ok("context", "ls", "--json")
    assert platform.ok("context", "rm", "-q", "there") == "there\n"
    missing = platform.enisle("--context", "there", "island", "ls")
    assert missing.returncode == 3
    assert len(missing.stderr.splitlines()) == 3


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("island", "show", "nobody"), 3, "nobody"),
        (("island", "exec", "nobody", "true"), 3, "nobody"),
        (("island", "stop", "nobody"), 3, "nobody"),
        (("island", "rm", "nobody"), 3, "nobody"),
        (("island", "logs", "nobody"), 3, "nobody"),
        (("island", "create", "--memory", "lots", "x"), 2, "lots"),
        (("island", "create", "--mount", "relative:/a", "x"), 2, "relative"),
        (("island", "create", "--network", "pigeon", "x"), 2, "pigeon"),
        (("island", "files", "cat", "nobody", "/etc/passwd"), 3, "nobody"),
        (("task", "show", "ffffffffffffffffffffffff"), 3, "ffff"),
        (("task", "wait", "zz"), 3, "zz"),
        (("task", "submit", "no.such@1"), 2, "no such routine"),
        (("task", "submit", "platform.sleep@1", "minutes=3"), 2, "minutes"),
        (("host", "show", "nowhere"), 3, "nowhere"),
        (("token", "revoke", "nothing"), 3, "nothing"),
        (("context", "use", "nowhere"), 3, "nowhere"),
        (("--url", "nonsense", "island", "ls"), 2, "nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_every_refusal_has_three_lines_and_its_code(words: tuple[str, ...], code: int, told: str, platform: Up) -> None:
    refused = platform.enisle(*words)
    assert refused.returncode == code, refused.stderr
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 3, refused.stderr
    assert told in refused.stderr
    assert "hint: " in refused.stderr


def test_a_verb_takes_less_than_150_ms_of_processor() -> None:
    assert least_work([ENISLE, "--url", "http://127.0.0.1:9", "task", "ls"], 5) < 0.150
    assert least_work([ENISLE, "island", "--help"], 5) < 0.100


def test_nobody_there_is_told_within_seconds(platform: Up) -> None:
    begin = time.monotonic()
    refused = platform.enisle("--url", f"http://127.0.0.1:{free_port()}", "island", "ls")
    assert refused.returncode == 5
    assert len(refused.stderr.splitlines()) == 3
    assert time.monotonic() - begin < 10
    spoken = platform.enisle(
        "--url", json.loads(platform.ok("status", "--json"))["url"].replace("http", "https"), "task", "ls"
    )
    assert spoken.returncode == 5
    assert len(spoken.stderr.splitlines()) == 3
