"""What the policy promises, for any tasks, hosts, deaths and orders of events; time is a number."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.tasks import ENDED, EXCLUSIVE, FAIL, PINNED, RETRYABLE, SHARED, WAIT, Picture, Resource, State, Task, plan
from enisle.tasks.attempts import Batch
from enisle.tasks.records import FAILED, FINISHED, STOPPED, Assignment, Failure, Lock, Retry
from enisle.tasks.states import HOLDING, LIFE, Event, after
from enisle.tasks.store import Value

HOSTS = ("h1", "h2", "h3")


class World:
    """A store, hosts and agents without time or network: batches are applied whole."""

    def __init__(self, seed: int) -> None:
        self.random, self.picture, self.now = random.Random(seed), Picture(live=set(HOSTS)), 1000.0
        self.forbidden: set[str] = set()
        self.revision = self.made = 0
        self.first_started: list[str] = []

    def submit(self, resources: tuple[Resource, ...], **more: object) -> None:
        self.made += 1
        self.revision += 1
        task = Task(f"t{self.made}", "a@1", {}, resources, "", self.now, order=self.revision, **more)  # pyright: ignore
        self.picture.put_task(task.id, task)

    def apply(self, batch: Batch) -> None:
        assert len({key for key, _ in batch}) == len(batch), batch
        self.check_records(batch)
        for key, value in batch:
            kind, _, rest = key.partition(".")
            if kind == "task":
                assert value
                task = Task.from_value(value)
                if task.attempt == 1 and self.picture.tasks[rest].attempt == 0:
                    self.first_started.append(rest)
                self.picture.put_task(rest, task)
            elif kind == "lock":
                self.picture.put_lock(key, Lock.from_value(value) if value else None)
            elif kind == "asg":
                order = Assignment.from_value(value) if value else None
                if order and order.host in self.picture.drained:
                    assert order.context["placement"] == PINNED, "a drained host was given new work"
                self.picture.put_order(key, order)
            elif kind == "res":
                self.picture.put_record(rest, value)
            elif kind == "member":
                self.picture.put_member(rest, value)
            elif kind == "dead":
                self.picture.put_dead(rest, value["why"] if value else None)
            elif kind == "host":
                assert rest in self.picture.lost, "a host's orders are taken from it while it has its lease"
                self.picture.put_host(rest, False)
            else:
                assert kind == "stop"
                self.picture.put_stop(key, value is not None)

    def check_records(self, batch: Batch) -> None:
        """A record changes by who holds it alone, in the batch that ends the attempt and lets it go."""
        changed = {key.removeprefix("res.") for key, _ in batch if key.startswith("res.")}
        if changed:
            _, value = batch[-1]
            assert value
            task = Task.from_value(value)
            assert task.state in ENDED or task.state is State.QUEUED
            for name in changed:
                assert self.picture.locks[f"lock.{name}"] == Lock((task.id,), EXCLUSIVE)
                assert (f"lock.{name}", None) in batch

    def decide(self) -> None:
        busy = {task.key for task in self.picture.tasks.values() if self.random.random() < 0.1}  # still on their way
        batches = list(plan(self.picture, self.now, busy))
        assert not busy & {key for batch in batches for key, _ in batch}
        touched = [key for batch in batches for key, _ in batch]
        assert len(touched) == len(set(touched)), "two batches of a plan touch one key"
        self.random.shuffle(batches)
        for batch in batches:
            if self.random.random() < 0.9:  # another dispatcher may be slower, or refused
                self.apply(batch)
            self.check()

    def check(self) -> None:
        """What holds between any two changes."""
        held: dict[str, set[str]] = {}
        for task in self.picture.tasks.values():
            for resource in task.resources:
                if task.state in HOLDING:
                    held.setdefault(resource.key, set()).add(task.id)
        assert {key: set(lock.holders) for key, lock in self.picture.locks.items()} == held
        for lock in self.picture.locks.values():
            assert len(lock.holders) == 1 or lock.mode == SHARED
        orders = [order.task for order in self.picture.assignments.values()]
        assert len(orders) == len(set(orders))
        for task in self.picture.tasks.values():
            assert (task.state in HOLDING) == (task.id in orders)

    def happen(self) -> None:
        """Let something happen to a host or a task."""
        picture, what = self.picture, self.random.random()
        orders = sorted(picture.assignments)
        if what < 0.45 and orders:
            order = picture.assignments[key := self.random.choice(orders)]
            if order.host in picture.live and order.status == "assigned":
                status = self.random.choice(
                    (FINISHED, FINISHED, FAILED, STOPPED) if self.stopped(order) else (FINISHED, FAILED)
                )
                failure = Failure("broke") if status == FAILED else None
                changes = self.changes(picture.tasks[order.task])
                done = replace(order, status=status, failure=failure, temporary=status == FAILED, changes=changes)
                picture.put_order(key, done)
        elif what < 0.55:
            host = self.random.choice(HOSTS)
            if host in picture.live and len(picture.live) > 1:
                picture.put_lost(host)
            else:
                picture.put_host(host, True)
        elif what < 0.57 and picture.lost:
            picture.put_dead(self.random.choice(sorted(picture.lost)), "burnt")
        elif what < 0.65:
            self.now += self.random.choice((0.5, 5.0, 50.0))
        elif what < 0.7 and picture.tasks:
            task = self.random.choice(list(picture.tasks.values()))
            if task.state not in ENDED:
                picture.put_task(task.id, replace(task, cancel="enough"))
        elif what < 0.75:
            host = self.random.choice(HOSTS)
            picture.put_member(host, {"state": "live"} | ({} if host in picture.drained else {"drained": {"why": "x"}}))

    def changes(self, task: Task) -> dict[str, Value | None]:
        """Return what a routine may want to change: what it holds, at times what it does not."""
        names = [resource.name for resource in task.resources if self.random.random() < 0.5]
        if self.random.random() < 0.05:
            names.append("island.z")
        if {*names} - {resource.name for resource in task.resources if resource.mode == EXCLUSIVE}:
            self.forbidden.add(task.id)
        return {name: self.random.choice((None, {"host": self.random.choice(HOSTS)}, {"n": 1})) for name in names}

    def end_everything(self) -> None:
        for key, order in list(self.picture.assignments.items()):
            if order.status == "assigned":
                self.picture.put_order(key, replace(order, status=FINISHED))

    def stopped(self, order: Assignment) -> bool:
        return f"stop.{order.host}.{order.task}" in self.picture.stops


resources = st.lists(
    st.builds(Resource, st.just("island"), st.sampled_from("abcd"), st.sampled_from((EXCLUSIVE, EXCLUSIVE, SHARED))),
    max_size=3,
    unique_by=lambda resource: resource.id,
).map(tuple)
asked = st.fixed_dictionaries(
    {"resources": resources},
    optional={
        "retry": st.builds(Retry, st.integers(1, 3)),
        "deadline": st.sampled_from((1001.0, 1050.0)),
        "if_blocked": st.sampled_from((WAIT, FAIL)),
    },
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.lists(asked, min_size=1, max_size=12), st.lists(st.booleans(), max_size=12))
def test_locks_and_tasks_agree_always_and_everything_ends(seed: int, wishes: list[dict], pins: list[bool]) -> None:
    world = World(seed)
    for number, wish in enumerate(wishes):
        pinned = number < len(pins) and pins[number]
        place = {"placement": PINNED, "host": world.random.choice(HOSTS)} if pinned else {"placement": RETRYABLE}
        world.submit(**wish, **place)
        world.decide()
        world.happen()
    for _ in range(400):
        world.happen()
        world.decide()
    for host in HOSTS:
        world.picture.put_host(host, True)
        world.picture.put_member(host, None)
    for _ in range(200):
        world.now += 100
        world.decide()
        world.end_everything()
    for task in world.picture.tasks.values():
        assert task.state is not State.DONE or task.id not in world.forbidden or task.attempt > 1
    assert {task.state for task in world.picture.tasks.values()} <= ENDED
    assert not world.picture.locks
    assert not world.picture.assignments
    assert not world.picture.stops


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.lists(resources, min_size=2, max_size=12))
def test_nobody_overtakes_on_a_resource(seed: int, wishes: list[tuple[Resource, ...]]) -> None:
    world = World(seed)
    for wish in wishes:
        world.submit(wish)
    for _ in range(400):
        world.decide()
        for key, order in list(world.picture.assignments.items()):
            if world.random.random() < 0.3:
                world.picture.put_order(key, replace(order, status=FINISHED))
    assert len(world.first_started) == len(wishes)
    for letter in "abcd":
        on_it = [
            f"t{n}" for n, wish in enumerate(wishes, 1) for one in wish if one.id == letter and one.mode == EXCLUSIVE
        ]
        assert [task for task in world.first_started if task in on_it] == on_it


def test_a_second_task_is_told_who_holds_it_up_and_where_it_stands() -> None:
    world = World(0)
    island = (Resource("island", "a"),)
    for _ in range(3):
        world.submit(island)
    for _ in range(20):
        world.decide()
    second, third = world.picture.tasks["t2"], world.picture.tasks["t3"]
    assert (second.state, second.blocked and second.blocked.by, second.blocked and second.blocked.position) == (
        State.BLOCKED,
        "t1",
        1,
    )
    assert third.blocked
    assert third.blocked.position == 2


def test_the_life_table_knows_every_state_and_only_holding_states_lead_to_a_result() -> None:
    assert set(LIFE) == set(State)
    for state, events in LIFE.items():
        assert Event.FINISH not in events or state in HOLDING
        assert not events or state not in ENDED
    assert after(State.QUEUED, Event.START) is State.RUNNING


def test_a_host_that_comes_back_with_its_work_done_ends_the_task() -> None:
    world = World(0)
    world.submit((Resource("island", "a"),), placement=PINNED, host="h1")
    while world.picture.tasks["t1"].state is not State.RUNNING:
        world.decide()
    world.picture.put_lost("h1")
    while world.picture.tasks["t1"].state is not State.INTERRUPTED:
        world.decide()
    (key,) = world.picture.assignments
    world.picture.put_order(key, replace(world.picture.assignments[key], status=FINISHED))
    world.picture.put_host("h1", True)
    while world.picture.assignments:
        world.decide()
    assert world.picture.tasks["t1"].state is State.DONE
    assert not world.picture.locks


def test_an_order_whose_task_is_not_known_to_have_started_waits_for_that_news() -> None:
    world = World(0)
    world.submit((Resource("island", "a"),))
    before = world.picture.tasks["t1"]
    while world.picture.tasks["t1"].state is not State.RUNNING:
        world.decide()
    started = world.picture.tasks["t1"]
    (key,) = world.picture.assignments
    for told_first in (before, before.on(Event.BLOCK)):  # a refusal told of the order before the watch told of the task
        world.picture.put_task("t1", told_first)
        world.picture.put_order(key, replace(world.picture.assignments[key], status=FINISHED))
        assert all(key not in dict(batch) for batch in plan(world.picture, world.now) if len(batch) == 1)
    world.picture.put_task("t1", started)
    while world.picture.assignments:
        world.decide()
    assert world.picture.tasks["t1"].state is State.DONE


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.lists(asked, min_size=1, max_size=12))
def test_what_is_marked_is_all_there_is_to_do(seed: int, wishes: list[dict]) -> None:
    """Looking at everything anew finds nothing that looking at what had changed did not."""
    world = World(seed)
    for wish in wishes:
        world.submit(**wish)
        world.happen()
        world.decide()
    for _ in range(30):
        world.happen()
        while batches := list(plan(world.picture, world.now)):
            for batch in batches:
                world.apply(batch)
        world.picture.mark_everything()
        world.picture.refreshed = world.now
        assert not list(plan(world.picture, world.now))


def settled(world: World) -> World:
    while batches := list(plan(world.picture, world.now)):
        for batch in batches:
            world.apply(batch)
            world.check()
    return world


ISLAND = Resource("island", "a")


def test_a_task_runs_where_what_it_holds_is_and_says_so_while_that_host_is_missing() -> None:
    world = World(0)
    world.picture.put_record("island.a", {"host": "h2"})
    world.picture.put_record("island.b", {"host": "h3"})
    world.submit((ISLAND,))
    world.submit((replace(ISLAND, id="b"),))
    world.submit((replace(ISLAND, id="a", mode=SHARED), Resource("island", "b", SHARED)))
    world.picture.put_host("h3", False)
    first, second, third = settled(world).picture.tasks.values()
    assert (first.state, first.host, first.placement, first.bound_by) == (State.RUNNING, "h2", PINNED, "island/a")
    assert world.picture.assignments["asg.h2.t1"].records == {"island.a": {"host": "h2"}}
    assert second.blocked
    assert (second.state, second.blocked.resource, second.blocked.by) == (State.QUEUED, "host/h3", "")
    assert third.blocked
    assert third.blocked.by == "t1"
    world.end_everything()
    world.picture.put_host("h3", True)
    settled(world).end_everything()
    _, second, third = settled(world).picture.tasks.values()
    assert (second.state, second.host) == (State.DONE, "h3")
    assert third.failure
    assert "island/a is on h2 and island/b is on h3" in third.failure.why


def test_without_any_host_a_task_says_that_it_waits_for_one_and_one_that_will_not_wait_fails() -> None:
    world = World(0)
    for host in HOSTS:
        world.picture.put_host(host, False)
    world.submit(())
    world.submit((), if_blocked=FAIL)
    first, second = settled(world).picture.tasks.values()
    assert first.blocked
    assert (first.state, first.blocked.resource) == (State.QUEUED, "host/any")
    assert second.failure
    assert (second.state, second.failure.why) == (State.FAILED, "host/any is not there")
    world.picture.put_host("h1", True)
    assert settled(world).picture.tasks["t1"].state is State.RUNNING


def test_records_and_the_end_are_one_change_and_the_next_holder_sees_them() -> None:
    world = World(0)
    world.submit((ISLAND,))
    world.submit((ISLAND,))
    settled(world)
    order = world.picture.assignments[key := world.picture.order_of["t1"]]
    world.picture.put_order(
        key, replace(order, status=FAILED, failure=Failure("broke"), changes={"island.a": {"n": 2}})
    )
    settled(world)
    assert world.picture.records == {"island.a": {"n": 2}}
    assert world.picture.assignments[world.picture.order_of["t2"]].records == {"island.a": {"n": 2}}


def test_a_task_that_loses_host_after_host_is_not_given_another() -> None:
    world = World(0)
    world.submit((ISLAND,))
    for _ in range(3):
        settled(world).picture.put_lost(host := world.picture.tasks["t1"].host)
        settled(world).picture.put_host(host, True)
    failed = settled(world).picture.tasks["t1"]
    assert failed.failure
    assert (failed.state, failed.failure.why) == (State.FAILED, "3 hosts were lost while they ran it")
    assert not world.picture.locks


def test_the_word_that_a_host_is_dead_ends_what_only_it_could_do_and_frees_what_was_there() -> None:
    world = World(0)
    world.picture.put_record("island.a", {"host": "h1"})
    world.submit((ISLAND,))
    world.submit((ISLAND,))
    settled(world).picture.put_lost("h1")
    assert settled(world).picture.tasks["t1"].state is State.INTERRUPTED
    world.picture.put_dead("h1", "burnt")
    first, second = settled(world).picture.tasks.values()
    assert first.failure
    assert (first.state, first.failure.why) == (State.FAILED, "burnt")
    assert second.state is State.RUNNING
    assert second.host != "h1"
    world.picture.put_host("h1", True)
    assert not settled(world).picture.dead


@given(st.integers(1, 100), st.text(max_size=8))
def test_delays_double_to_a_minute_and_differ_from_task_to_task(attempt: int, task: str) -> None:
    whole = min(60.0, 2.0 ** (attempt - 1)) if attempt < 10 else 60.0
    assert whole / 2 <= Retry(100).delay_s(attempt, task) <= whole


def test_a_thousand_waiting_tasks_cost_a_change_no_more_than_ten() -> None:
    """What is looked at is what has changed: heads of rows, never all who wait."""
    world = World(0)
    for _ in range(1000):
        world.submit((ISLAND,))
    settled(world)
    world.end_everything()
    world.apply(next(plan(world.picture, world.now)))
    assert len(world.picture.marked_tasks) + len(world.picture.marked_orders) < 10


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
GOOD = Assignment("t1", "h1", 1, {}, status=FINISHED).to_value()


@given(st.dictionaries(st.sampled_from([*GOOD, "more"]), json_values, max_size=4), st.booleans())
def test_a_host_that_writes_nonsense_fails_its_task_and_breaks_nothing_else(nonsense: dict, whole: bool) -> None:
    world = World(0)
    world.submit((ISLAND,), host="h1")
    key = settled(world).picture.order_of["t1"]
    left = Assignment.from_host(key, nonsense if whole else GOOD | nonsense)
    assert (left.host, left.task) == ("h1", "t1")
    world.picture.put_order(key, left)
    settled(world)
    if left.status != "assigned":
        assert world.picture.tasks["t1"].state in (State.DONE, State.FAILED, State.QUEUED)
        assert not world.picture.locks


def test_what_waits_for_a_host_starts_when_one_is_no_longer_drained_and_what_is_there_goes_on() -> None:
    world = World(0)
    for host in HOSTS:
        world.picture.put_member(host, {"state": "gone", "drained": {"why": "a new disk"}})
    world.picture.put_record("island.a", {"host": "h2"})
    world.submit((ISLAND,))
    world.submit((), host="h1")
    world.submit((), host="h3", placement=PINNED)
    tasks = settled(world).picture.tasks
    assert [(tasks[one].state, tasks[one].host) for one in ("t1", "t3")] == [
        (State.RUNNING, "h2"),
        (State.RUNNING, "h3"),
    ]
    assert tasks["t2"].blocked
    assert tasks["t2"].blocked.resource == "host/any"
    world.picture.put_member("h2", {"state": "gone"})
    assert settled(world).picture.tasks["t2"].host == "h2"
