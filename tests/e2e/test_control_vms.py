"""Full Linux machines as resources of the platform: run, paused, found again by the next agent, removed."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from control_parts import WHO, Platform
from enisle.control import VmSpec
from enisle.errors import InvalidRequest, NotFound, StateError
from enisle.linuxvm import machines
from enisle.tasks import EVERY, Request, Resource, State, Tasks

pytestmark = pytest.mark.qemu
STUB = bytes.fromhex("02b0ad1b 00000100 fe4f51e4 00001000 00001000 00000000 00000000 20001000 faf4ebfd")
"""A multiboot image that stops at once: cli, hlt, again. It costs the host nothing."""


def test_a_machine_is_run_paused_found_again_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "vms"))
    (tmp_path / "stub").write_bytes(STUB)
    (tmp_path / "text").write_text("no kernel")

    async def check() -> None:
        async with Platform(tmp_path / "state") as platform:
            ask = platform.operations
            spec = VmSpec(kernel=str(tmp_path / "stub"), name="m1", memory="64M", accelerator="tcg")
            made = await platform.done(ask.run_vm(spec, **WHO), 60)
            assert made["accelerator"] == "tcg"
            shown = await ask.vm("m1")
            assert (shown["state"], shown["host"], shown["memory"]) == ("running", "h1", 64 << 20)
            assert [machine.name for machine in machines()] == ["m1"]
            await platform.done(ask.pause_vm("m1", **WHO))
            assert (await ask.vm("m1"))["state"] == "paused"
            # The agent dies: the machine goes on, and the next agent knows it as its own.
            platform.processes["agent"].send_signal(signal.SIGKILL)
            platform.processes["agent"].wait()
            platform.start_agent()
            await platform.done(ask.resume_vm("m1", **WHO), 30)
            assert (await ask.vm("m1"))["state"] == "running"
            looked = await platform.end(ask.introspect_vm("m1", "ps", **WHO), 60)
            assert looked.state is State.FAILED  # there is no kernel in it
            assert looked.failure
            assert looked.failure.message
            with pytest.raises(InvalidRequest):
                await ask.introspect_vm("m1", "everything", **WHO)
            refused = await platform.end(ask.remove_vm("m1", **WHO))
            assert refused.failure
            assert "running" in refused.failure.message
            again = await platform.end(
                Tasks(platform.store).submit(
                    Request("vm.run@1", {"name": "m1", "configuration": {}}, (Resource("vm", "m1"),))
                )
            )
            assert again.failure
            assert "already" in again.failure.message
            record = machines()[0].status()
            os.kill(record.pid, signal.SIGKILL)
            await platform.until(lambda: platform.view.live["vm.m1"]["state"] == "ended", 20)
            await platform.done(ask.remove_vm("m1", **WHO))
            with pytest.raises(NotFound):
                await ask.vm("m1")
            assert machines() == []
            broken = await platform.end(ask.run_vm(VmSpec(kernel=str(tmp_path / "text"), name="m2"), **WHO))
            assert broken.failure
            assert "is not a kernel" in broken.failure.message
            assert await ask.vms() == []
            with pytest.raises((NotFound, StateError)):
                await ask.stop_vm("m2", **WHO)
            await another_tenants_machine_is_its_own(platform, tmp_path)

    asyncio.run(check())


async def another_tenants_machine_is_its_own(platform: Platform, directory: Path) -> None:
    ask, acme, globex = platform.operations, {"tenant": "acme", "actor": "a"}, {"tenant": "globex", "actor": "g"}
    images = platform.places.images("h1", "acme")
    images.mkdir(parents=True)
    (images / "stub").write_bytes(STUB)
    with pytest.raises(InvalidRequest, match="cannot name"):
        await ask.run_vm(VmSpec(kernel=str(directory / "stub")), **acme)
    past = Request("vm.run@1", {"name": "t1", "configuration": {"kernel": "/etc/passwd"}}, (Resource("vm", "t1"),))
    refused = await platform.end(Tasks(platform.store, "acme").submit(past))
    assert refused.failure
    assert "cannot name" in refused.failure.message
    elsewhere = await platform.end(ask.run_vm(VmSpec(kernel="stub", name="t0"), **globex))
    assert elsewhere.failure
    assert "there is no image stub" in elsewhere.failure.message
    await platform.done(ask.run_vm(VmSpec(kernel="stub", name="t1", memory="64M", accelerator="tcg"), **acme), 60)
    assert [one["tenant"] for one in await ask.vms("acme")] == ["acme"]
    assert [one["name"] for one in await ask.vms(EVERY)] == ["t1"]
    assert await ask.vms("globex") == []
    for attempt in (
        ask.stop_vm("t1", **globex),
        ask.remove_vm("t1", **globex),
        ask.introspect_vm("t1", "ps", **globex),
    ):
        with pytest.raises(NotFound):
            await attempt
    # Whatever the store forgets, the host knows whose it is.
    record = await platform.store.get_leader("res.vm.t1")
    await platform.store.cas(record.key, None, record.revision)
    stop = Request("vm.stop@1", {"vm": "t1"}, (Resource("vm", "t1"),))
    stolen = await platform.end(Tasks(platform.store, "globex").submit(stop))
    assert stolen.failure
    assert "there is no machine t1" in stolen.failure.message
    assert machines()[0].is_alive
    await platform.done(ask.stop_vm("t1", **acme), 30)
    await platform.done(ask.remove_vm("t1", **acme))
    assert machines() == []
