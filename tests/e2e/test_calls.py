"""Calls on real hosts: what a program gives, and that it is done though hosts and the engine die."""

import asyncio
import base64
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from control_parts import Platform
from enisle.control import call_work
from enisle.control.calls import Calls
from enisle.errors import NotFound
from enisle.tasks import Engine, FastLane, JetStream, Outcome, Overloaded, Tasks, admit_host, new_identity

NAP = {"argv": ["sh", "-c", "sleep 0.7; echo rested"], "timeout_s": 20}


class Hosts(Platform):
    """A platform of two hosts, and its calls."""

    calls: Calls

    async def run(self, tenant: str = "acme", key: str = "", **arguments: Any) -> Outcome:
        _, outcome = await self.calls.run({"memory": "64M", **arguments}, tenant, key, 30)
        assert outcome is not None, self.logs()
        return outcome

    def running_on(self) -> list[str]:
        """Return the agents whose processes have children: the islands of calls are nothing else."""
        found: list[str] = []
        for name in ("agent", "other"):
            pid = self.processes[name].pid
            try:
                tasks = list(Path(f"/proc/{pid}/task").iterdir())
                if any((task / "children").read_text() for task in tasks):
                    found.append(name)
            except OSError:
                pass  # it ended just now
        return found

    def start_other(self) -> None:
        self.start("other", "agent", str(self.places.directory), "--host", "h2")

    async def begun(self) -> str:
        await self.until(self.running_on)
        await asyncio.sleep(0.2)
        (name,) = self.running_on()
        return name


@pytest.mark.timeout(90)
def test_calls_give_what_programs_give_and_outlive_hosts_and_the_engine(tmp_path: Path) -> None:
    async def check() -> None:
        async with Hosts(tmp_path / "state") as platform, FastLane(platform.store) as lane:
            platform.calls = Calls(lane)
            platform.start_other()
            await platform.until(lambda: len(platform.view.hosts) == 2)
            await programs(platform)
            await a_host_that_ends(platform)
            await a_host_that_is_killed_with_the_engine(platform)

    asyncio.run(check())


async def programs(platform: Hosts) -> None:
    script = "cat; echo $NAME >&2; pwd; exit 3"
    told = (await platform.run(argv=["sh", "-c", script], stdin="in ", env={"NAME": "x"}, cwd="/usr")).get()
    assert [told[name] for name in ("exit_code", "stdout", "stderr")] == [3, "in /usr\n", "x\n"]
    raw = base64.b64encode(bytes(range(256))).decode()
    outcomes = await asyncio.gather(
        platform.run(argv=["cat"], stdin=raw, encoding="base64"),
        platform.run(argv=["sh", "-c", "yes | head -c 3000000"]),
        platform.run(argv=["sleep", "60"], timeout_s=0.3),
        platform.run(argv=["no-such-program"]),
        platform.run(argv=["true"], key="once"),
        platform.run(argv=["true"], key="once"),
    )
    same, long, late, missing, *twice = [one.get() for one in outcomes]
    assert same["stdout"] == raw
    assert (len(long["stdout"]), long["truncated"]) == (64 << 10, True)
    assert (late["timed_out"], late["exit_code"]) == (True, 137)
    assert (missing["exit_code"], "no-such-program" in missing["reason"]["message"]) == (127, True)
    assert outcomes[4].call == outcomes[5].call
    assert twice[0] == twice[1]
    with pytest.raises(NotFound):
        await platform.calls.wait(outcomes[0].call, "globex")
    assert await platform.calls.wait(outcomes[0].call, "acme") == outcomes[0]


async def a_host_that_ends(platform: Hosts) -> None:
    """Told to end, it gives the call back: the other has it at once, and it counts as begun once."""
    running = asyncio.create_task(platform.run(**NAP))
    name = await platform.begun()
    platform.processes[name].terminate()
    outcome = await running
    assert (outcome.get()["stdout"], outcome.runs, platform.processes[name].wait()) == ("rested\n", 1, 0)
    (platform.start_agent if name == "agent" else platform.start_other)()


async def a_host_that_is_killed_with_the_engine(platform: Hosts) -> None:
    running = asyncio.create_task(platform.run(**NAP))
    name = await platform.begun()
    platform.processes[name].kill()
    os.kill(platform.engine.pid, signal.SIGKILL)
    while platform.engine.running:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(platform.engine.start)
    outcome = await running
    assert (outcome.get()["stdout"], outcome.runs) == ("rested\n", 2)
    assert (await platform.calls.figures()).repeated == 0, "begun twice, and done once"


@pytest.mark.timeout(60)
def test_a_host_of_its_own_account_takes_no_calls_when_drained_and_a_full_queue_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_work, "LOOK_S", 0.1)
    may = True

    async def check() -> None:
        nonlocal may
        with Engine(tmp_path / "engine") as engine:
            async with JetStream(engine.url) as store, FastLane(store) as lane:
                calls, small = Calls(lane), {"argv": ["true"], "memory": "64M"}
                await store.cas("member.h1", {"host": "h1"}, 0)
                who = new_identity()
                admit_host(engine.directory, "h1", who.public)
                own = {"seed": who.seed, "ca": engine.address.ca, "host": "h1"}
                working = asyncio.create_task(call_work.do_calls(engine.hosts_url, "h1", own, lambda: may, 1))
                try:
                    assert (await calls.run(small, "acme", wait_s=20))[1]
                    await Tasks(store).drain("h1", "so that a call waits")
                    await asyncio.sleep(0.5)
                    queue = (await store._ask("STREAM.INFO.RUN", {}))["config"]
                    await store._ask("STREAM.UPDATE.RUN", queue | {"max_msgs": 1})
                    call, outcome = await calls.run(small, "acme", wait_s=0.5)
                    assert outcome is None
                    with pytest.raises(Overloaded, match="queue is full"):
                        await calls.run(small, "acme")
                    may = False
                    await Tasks(store).drain("h1", "enough", on=False)
                    assert await calls.wait(call, "acme", 0.5) is None, "its lease is not fresh"
                    may = True
                    assert (await lane.wait(call, 20, "acme")).get()["exit_code"] == 0
                finally:
                    working.cancel()
                    await asyncio.wait([working])

    asyncio.run(check())
