"""Who did what: told with the act, kept as it was told, found by who, for whom, what and when."""

import asyncio
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.tasks import (
    ADDRESS,
    EVERY,
    Dispatcher,
    Entry,
    Request,
    Resource,
    State,
    Task,
    Tasks,
    act_fits,
    act_of,
    act_place,
    audit_record,
)
from enisle.tasks.history import History
from memory_store import MemoryStore

ACTS = st.lists(
    st.fixed_dictionaries(
        {
            "at": st.integers(1, 6).map(float),  # few moments: some acts share one
            "actor": st.sampled_from(["local", "token:ci"]),
            "tenant": st.sampled_from(["acme", "globex"]),
            "act": st.sampled_from(["cancel", "unlock", "submit"]),
        }
    ),
    max_size=25,
)


def made(number: int, told: dict) -> Task:
    facts = {"submitted": told["at"], "actor": told["actor"], "tenant": told["tenant"], "finished": time.time()}
    return Task(f"{number:024x}", "a@1", {}, (), "", state=State.DONE, **facts)


@settings(max_examples=40, deadline=None)
@given(ACTS, st.integers(1, 5), st.data())
def test_pages_have_every_act_that_was_asked_for_once_the_latest_first(
    told: list, limit: int, data: st.DataObject
) -> None:
    with History(Path(":memory:")) as history:
        tasks = [made(number, one) for number, one in enumerate(told) if one["act"] == "submit"]
        others = [(f"audit.{number:013x}", one) for number, one in enumerate(told) if one["act"] != "submit"]
        history.add(tasks, others)
        history.add([], [(name, {**one, "actor": "forged"}) for name, one in others])  # what is told stays as it was
        asked = {name: data.draw(st.sampled_from(["", *{one[name] for one in told}])) for name in ("actor", "tenant")}
        since = data.draw(st.sampled_from([0.0, 3.0]))
        act = data.draw(st.sampled_from(["", "cancel"]))
        for look, wanted in (
            (lambda **more: history.audit(limit, act=act, **asked, since=since, **more),
             [{"id": name.removeprefix("audit."), **one} for name, one in others if act in ("", one["act"])]),
            (lambda **more: history.submitted(limit, **asked, since=since, **more), [act_of(task) for task in tasks]),
        ):  # fmt: skip
            found, before = [], None
            while page := look(before=before):
                found += page
                before = act_place(page[-1])
            assert found == sorted(
                (one for one in wanted if act_fits(one, **asked, since=since)), key=act_place, reverse=True
            )


def test_an_operator_is_told_of_in_the_batch_of_what_was_done() -> None:
    async def check() -> None:
        store = MemoryStore()
        tasks = Tasks(store, "acme", "token:ci")
        ADDRESS.set("192.0.2.7")
        task = await tasks.submit(Request("a@1", {}, (Resource("disk", "d"),)))
        assert task.address == "192.0.2.7"
        before = store.revision
        await tasks.cancel(task.id, "no longer needed")
        ((key, entry),) = [(key, one) for key, one in store.entries.items() if key.startswith("audit.")]
        assert store.revision == before + 2 == entry.revision
        assert entry.value == {
            "act": "cancel", "reason": "no longer needed", "at": pytest.approx(time.time(), abs=5), "actor": "token:ci",
            "tenant": "acme", "address": "192.0.2.7", "task": task.id, "routine": "a@1",
        }  # fmt: skip
        await tasks.cancel(task.id, "again")  # it is asked already: nothing was done
        assert [one for one in store.entries if one.startswith("audit.")] == [key]

    asyncio.run(check())


def test_a_list_of_every_tenants_tasks_is_in_one_order(tmp_path: Path) -> None:
    with History(tmp_path / "history.db") as history:
        tenants = ("acme", "b", "zeta")
        tasks = [
            made(number, {"at": float(number + 1), "actor": "", "tenant": tenants[number % 3]}) for number in range(30)
        ]
        history.add(tasks)
        assert history.list(EVERY, limit=12) == tasks[:-13:-1]
        assert history.list(EVERY, before=5.0) == tasks[3::-1]
        assert [task.tenant for task in history.list("b", limit=2)] == ["b", "b"]


def test_a_dispatcher_that_follows_forgets_what_the_leader_has_kept() -> None:
    dispatcher = Dispatcher(MemoryStore(), "second")
    dispatcher.learn(Entry("audit.1", {"act": "x", "at": 1.0}, 1))
    assert list(dispatcher.audits) == ["audit.1"]
    dispatcher.learn(Entry("audit.1", None, 2))
    assert not dispatcher.audits


def test_keys_of_the_audit_are_in_the_order_of_time() -> None:
    keys = []
    for _ in range(3):
        keys.append(audit_record("x", "", "")[0])
        time.sleep(0.002)
    assert keys == sorted(keys)
