"""The promises of the task system under faults, with every part a process of its own: kills, partitions, usurpers.

Short forms here; `ENISLE_SOAK=1` runs the long ones.
"""

import asyncio
import contextlib
import itertools
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from enisle.tasks import (
    ENDED,
    EXCLUSIVE,
    FAIL,
    PROGRESS,
    Engine,
    JetStream,
    Request,
    Resource,
    State,
    Task,
    Tasks,
    View,
    admit_host,
    new_identity,
)

HERE = Path(__file__).parents[1]
SOAK = bool(os.environ.get("ENISLE_SOAK"))
Process = subprocess.Popen[bytes]
CUT_OFF = ("h1", "h3", "h4")
"""Hosts behind the wire that is cut."""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "engine") as engine:
        yield engine


class Platform:
    """An engine, a client and a view; dispatchers and agents are processes that may be killed."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self.engine, self.path = engine, path
        self.processes: dict[str, Process] = {}
        self.killed: dict[str, list[float]] = {}
        self.view: View
        self.tasks: Tasks

    def start(self, name: str, *more: str, program: tuple[str, ...] = ()) -> None:
        if name.startswith("d"):
            words: list[object] = [HERE / "task_dispatcher.py", self.engine.url, name, *more]
        else:
            url = self.engine.hosts_url if more else self.engine.url
            words = [HERE / "task_agent.py", url, name, self.path / f"{name}.db", self.path / f"{name}.log", *more]
        self.processes[name] = subprocess.Popen([*program, sys.executable, *map(str, words)], stdin=subprocess.DEVNULL)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()
        self.killed.setdefault(name, []).append(time.time())

    async def restart_engine(self) -> None:
        os.kill(self.engine.pid, signal.SIGKILL)
        while self.engine.running:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(self.engine.start)

    def log(self, name: str) -> list[list[str]]:
        path = self.path / f"{name}.log"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    async def until(self, condition: object, seconds: float = 30) -> float:
        """Wait for a condition of the view; return the seconds it took."""
        begin = time.monotonic()
        async with asyncio.timeout(seconds):
            while not condition():  # pyright: ignore
                await asyncio.sleep(0.005)
        return time.monotonic() - begin


@contextlib.asynccontextmanager
async def platform(engine: Engine, path: Path, *names: str) -> AsyncIterator[Platform]:
    parts = Platform(engine, path)
    async with JetStream(engine.url) as store, JetStream(engine.url, bucket=PROGRESS) as progress:
        parts.view = View(store, progress)
        running = asyncio.create_task(parts.view.run())
        await parts.view.ready()
        parts.tasks = Tasks(store, view=parts.view)
        try:
            for name in names:
                parts.start(name)
            await parts.until(lambda: set(parts.view.hosts) >= {name for name in names if name.startswith("h")})
            yield parts
        finally:
            running.cancel()
            await asyncio.wait([running])
            for process in parts.processes.values():
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()


def hold(seconds: float, *names: str, **more: object) -> Request:
    resources = tuple(Resource("island", name) for name in names)
    return Request("test.hold@1", {"seconds": seconds}, resources, **more)  # pyright: ignore


def check_holders(parts: Platform, *agents: str) -> int:
    """Assert that no two attempts were with one resource at once; return how many attempts there were."""
    spans: dict[str, list[tuple[float, float, str]]] = {}
    attempts = 0
    for agent in agents:
        begun: dict[tuple[str, str], tuple[float, list[str]]] = {}
        for what, task, attempt, names, at in parts.log(agent):
            if what == "in":
                attempts += 1
                begun[task, attempt] = float(at), names.split(",")
            elif (task, attempt) in begun:
                since, held = begun.pop((task, attempt))
                for name in held:
                    spans.setdefault(name, []).append((since, float(at), task))
        for (task, _), (since, held) in begun.items():  # killed in it
            until = min((at for at in parts.killed.get(agent, []) if at >= since), default=since)
            for name in held:
                spans.setdefault(name, []).append((since, until, task))
    for name, held_by in spans.items():
        held_by.sort()
        for (_, left, first), (came, _, second) in itertools.pairwise(held_by):
            assert came >= left - 0.001, f"{first} and {second} had {name} at once"
    return attempts


def check_order(tasks: list[Task]) -> None:
    """Assert that on each resource tasks were first started in the order of their submission."""
    for name in {one.name for task in tasks for one in task.resources}:
        on_it = [task for task in tasks if any((one.name, one.mode) == (name, EXCLUSIVE) for one in task.resources)]
        on_it = sorted((task for task in on_it if task.started), key=lambda task: task.order)
        for first, second in itertools.pairwise(on_it):
            assert first.started <= second.started + 0.001, f"{second.id} overtook {first.id} on {name}"


@pytest.mark.timeout(3600 if SOAK else 120)
def test_many_clients_few_resources_and_deaths_all_around(engine: Engine, tmp_path: Path) -> None:
    """16 clients, 8 resources, 1 to 4 for each task: no double holder, no deadlock, nobody overtakes, all is freed."""
    count, chance = (10_000 if SOAK else 120), random.Random(7)
    deaths = ["d1", "h1", "engine", "d2", "h2"] * 20 if SOAK else ["d1", "h1", "engine"]

    async def check() -> None:
        async with platform(engine, tmp_path, "d1", "d2", "h1", "h2") as parts:
            made: list[Task] = []

            async def client() -> None:
                while len(made) < count:
                    names = chance.sample("abcdefgh", chance.randint(1, 4))
                    task = await parts.tasks.submit(hold(chance.uniform(0, 0.05), *names))
                    made.append(task)
                    await parts.tasks.wait(task.id, 300)

            async def trouble() -> None:
                for number, name in enumerate(deaths, 1):
                    while len(made) < count * number / (len(deaths) + 1):
                        await asyncio.sleep(0.01)
                    if name == "engine":
                        await parts.restart_engine()
                    else:
                        parts.kill(name)
                        parts.start(name)

            async with asyncio.TaskGroup() as group:
                group.create_task(trouble())
                for _ in range(16):
                    group.create_task(client())
            await parts.until(lambda: all(task.id in parts.view.tasks for task in made))
            ends = [parts.view.tasks[task.id] for task in made]
            assert {task.state for task in ends} == {State.DONE}
            assert not parts.view.locks
            assert check_holders(parts, "h1", "h2") >= count
            check_order(ends)

    asyncio.run(check())


async def lose_the_dispatcher(parts: Platform) -> None:
    """Kill the only dispatcher with forty tasks in the queue; another goes on with them, and keeps a deadline."""
    now = parts.view.tasks
    late = await parts.tasks.submit(hold(60, "late", deadline_s=6))
    blocker = await parts.tasks.submit(hold(0.5, *"abcd"))
    queued = [await parts.tasks.submit(hold(0.01, "abcd"[n % 4])) for n in range(40)]
    await parts.until(lambda: (one := now.get(queued[-1].id)) and one.blocked)
    parts.kill("d1")
    parts.start("d1")
    assert await parts.until(lambda: any(now[task.id].started for task in queued)) < (5 if SOAK else 8)
    await parts.until(lambda: all(now[task.id].state is State.DONE for task in [blocker, *queued]))
    ended = await parts.tasks.wait(late.id, 30)
    assert ended.failure
    assert (ended.state, ended.failure.why) == (State.FAILED, "its deadline has passed")
    assert abs(ended.finished - late.deadline) <= (1 if SOAK else 2)
    assert not parts.view.locks


@pytest.mark.timeout(600 if SOAK else 60)
def test_forty_queued_tasks_survive_their_dispatcher_and_two_that_both_lead_break_nothing(
    engine: Engine, tmp_path: Path
) -> None:
    async def check() -> None:
        async with platform(engine, tmp_path, "d1", "h1") as parts:
            for _ in range(10 if SOAK else 1):
                await lose_the_dispatcher(parts)
            for name in ("d2", "d3"):
                parts.start(name, "always")
            made = [await parts.tasks.submit(hold(0.01, *random.sample("abcd", 2))) for _ in range(30)]
            now = parts.view.tasks
            await parts.until(lambda: all((one := now.get(task.id)) and one.state in ENDED for task in made))
            assert {(now[task.id].state, now[task.id].attempt) for task in made} == {(State.DONE, 1)}
            assert not parts.view.locks
            check_holders(parts, "h1")

    asyncio.run(check())


async def wait_in_turn(parts: Platform) -> tuple[float, float, float]:
    """Let one task wait for another; return how soon it was told, a third began elsewhere, and it began itself."""
    now, name = parts.view.tasks, str(len(parts.view.tasks))
    running = Request("test.steps@1", {"count": 4, "seconds": 0.1}, (Resource("island", name),))
    first = await parts.tasks.submit(running)
    await parts.until(lambda: first.id in parts.view.progress)
    begin = time.monotonic()
    second = await parts.tasks.submit(hold(0.0, name))
    await parts.until(lambda: (one := now.get(second.id)) and one.blocked)
    told = time.monotonic() - begin
    blocked = now[second.id].blocked
    assert blocked
    assert blocked.by == first.id
    assert parts.view.progress[first.id]["fraction"] > 0
    begin = time.monotonic()
    third = await parts.tasks.submit(hold(0.0, f"{name}-other"))
    await parts.until(lambda: (one := now.get(third.id)) and one.started)
    elsewhere = time.monotonic() - begin
    refused = await parts.tasks.wait((await parts.tasks.submit(hold(0.0, name, if_blocked=FAIL))).id, 10)
    assert refused.failure
    assert refused.failure.why == f"task {first.id} holds it"
    ends = [await parts.tasks.wait(task.id, 20) for task in (first, second)]
    return told, elsewhere, ends[1].started - ends[0].finished


@pytest.mark.timeout(60)
def test_who_waits_is_told_by_whom_at_once_and_starts_as_soon_as_it_may(engine: Engine, tmp_path: Path) -> None:
    """Told within 100 ms, a third unaffected within 100 ms, started 200 ms after the unblocking: as medians."""

    async def check() -> None:
        async with platform(engine, tmp_path, "d1", "h1") as parts:
            await parts.tasks.wait((await parts.tasks.submit(hold(0.0, "w"))).id, 20)
            tries = [await wait_in_turn(parts) for _ in range(20 if SOAK else 5)]
            told, elsewhere, started = (statistics.median(one) for one in zip(*tries, strict=True))
            assert (told <= 0.1, elsewhere <= 0.1, started <= 0.2) == (True, True, True), tries
            assert min(one for _, _, one in tries) >= 0

    asyncio.run(check())


@pytest.mark.timeout(600 if SOAK else 90)
def test_a_cancellation_that_meets_the_end_leaves_one_of_both(engine: Engine, tmp_path: Path) -> None:
    count = 200 if SOAK else 30

    async def check() -> None:
        async with platform(engine, tmp_path, "d1", "h1") as parts:
            states: list[State] = []
            for number in range(count):
                task = await parts.tasks.submit(hold(0.02, "a"))
                await asyncio.sleep(0.04 * number / count)
                with contextlib.suppress(Exception):
                    await parts.tasks.cancel(task.id, "enough")
                ended = await parts.tasks.wait(task.id, 20)
                states.append(ended.state)
                assert ended.state in (State.DONE, State.CANCELLED)
            await asyncio.sleep(0.2)
            assert not parts.view.locks
            assert [parts.view.tasks[one].state for one in parts.view.tasks] == states

    asyncio.run(check())


@contextlib.contextmanager
def namespace() -> Iterator[tuple[str, str, str]]:
    """Make a network namespace on a wire of its own; yield its name, the wire and our address on it."""
    name, wire, subnet = f"enisle-t-{os.getpid()}", f"et{os.getpid() % 100000}", f"10.214.{os.getpid() % 250}"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", f"{subnet}.1/24", "dev", wire)
        ip("link", "set", wire, "up")
        ip("-n", name, "addr", "add", f"{subnet}.2/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield name, wire, f"{subnet}.1"
    finally:
        subprocess.run(["ip", "link", "del", wire], capture_output=True)
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


def tidied_up(parts: Platform, task: str) -> bool:
    """Whether h1 has dropped what it knew of a task that it lost."""
    with contextlib.closing(sqlite3.connect(parts.path / "h1.db")) as journal:
        return not journal.execute("SELECT 1 FROM runs WHERE task = ?", (task,)).fetchall()


async def cut_off(parts: Platform, wire: str) -> list[float]:
    """Cut the wire of all but h2, and of h1 under a task: h2 begins after h1 has stopped, and h1 knows it when back.

    Return how long after the healing each was back, and h1 had tidied up.
    """
    await parts.until(lambda: set(parts.view.hosts) == {"h2", *CUT_OFF})
    request = Request("test.steps@1", {"count": 40, "seconds": 0.2}, (Resource("island", "a"),), host="h1")
    task = await parts.tasks.submit(request)

    def begun(host: str) -> list[float]:
        return [float(line[1]) for line in parts.log(host) if task.id in line[0]]

    await parts.until(lambda: len(begun("h1")) >= 3)
    assert not tidied_up(parts, task.id)
    subprocess.run(["ip", "link", "set", wire, "down"], check=True)
    try:
        await parts.until(lambda: begun("h2"))
        await asyncio.sleep(1)
    finally:
        subprocess.run(["ip", "link", "set", wire, "up"], check=True)
    healed = time.monotonic()

    async def until_back(condition: Callable[[], bool]) -> float:
        await parts.until(condition)
        return time.monotonic() - healed

    back = await asyncio.gather(
        until_back(lambda: "h1" in parts.view.hosts and tidied_up(parts, task.id)),
        *(until_back(lambda host=host: host in parts.view.hosts) for host in CUT_OFF),
    )
    await asyncio.sleep(0.5)
    # A step lasts 0.2 s, so it ended at most that much after it began.
    assert min(begun("h2")) - (max(begun("h1")) + 0.2) >= 0.5
    await parts.tasks.cancel(task.id, "seen enough")
    assert (await parts.tasks.wait(task.id, 20)).state is State.CANCELLED
    assert not parts.view.locks
    return back


@pytest.mark.root
@pytest.mark.network
@pytest.mark.timeout(900 if SOAK else 90)
def test_a_host_that_is_cut_off_stops_before_another_begins_and_tidies_up_when_it_is_back(tmp_path: Path) -> None:
    """The agents come in as admitted hosts, over TLS; some have their wire cut. They are back within 5 s (median)."""

    async def check(name: str, wire: str, engine: Engine) -> None:
        async with platform(engine, tmp_path, "d1") as parts:
            for host in ("h2", *CUT_OFF):
                program = ("ip", "netns", "exec", name) if host in CUT_OFF else ()
                identity = new_identity()
                admit_host(engine.directory, host, identity.public)
                seed = tmp_path / f"{host}.seed"
                seed.write_text(identity.seed)
                parts.start(host, str(seed), str(engine.address.ca), program=program)
            for _ in range(20 if SOAK else 1):
                back = await cut_off(parts, wire)
                assert statistics.median(back) <= 5, back

    with namespace() as (name, wire, address), Engine(tmp_path / "engine", listen=address) as engine:
        asyncio.run(check(name, wire, engine))


@pytest.mark.timeout(900 if SOAK else 60)
def test_many_hosts_keep_their_leases_under_load(engine: Engine, tmp_path: Path) -> None:
    """300 hosts for ten minutes, or some for a moment: none is taken for lost while tasks run."""
    count, seconds = (300, 600) if SOAK else (60, 4)

    async def check() -> None:
        async with platform(engine, tmp_path, "d1", "h1") as parts, JetStream(engine.url) as store:
            leases = [await store.lease(f"host.s{number}", {"host": f"s{number}"}, 3.0) for number in range(count)]
            gone: list[str] = []

            async def watch() -> None:
                async with parts.view.subscribe(parts.view.revision) as subscription:
                    while True:
                        gone.extend(
                            news.id for news in await subscription.news() if news.kind == "host" and not news.value
                        )

            watching = asyncio.create_task(watch())
            end, done = time.monotonic() + seconds, 0
            while time.monotonic() < end:
                made = [await parts.tasks.submit(hold(0.0, f"i{n}", host="h1", placement="pinned")) for n in range(8)]
                for task in made:
                    done += (await parts.tasks.wait(task.id, 20)).state is State.DONE
            assert not gone
            assert all(lease.held for lease in leases)
            assert done >= 3 * seconds
            watching.cancel()
            for lease in leases:
                await lease.release()

    asyncio.run(check())
