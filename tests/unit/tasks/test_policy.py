"""What the policy promises, for any tasks, hosts, deaths and orders of events; time is a number."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.tasks import ENDED, EXCLUSIVE, FAIL, PINNED, RETRYABLE, SHARED, WAIT, Picture, Resource, State, Task, plan
from enisle.tasks.policy import Batch
from enisle.tasks.records import FAILED, FINISHED, STOPPED, Assignment, Failure, Lock, Retry
from enisle.tasks.states import HOLDING, LIFE, Event, after

HOSTS = ("h1", "h2", "h3")


class World:
    """A store, hosts and agents without time or network: batches are applied whole."""

    def __init__(self, seed: int) -> None:
        self.random, self.picture, self.now = random.Random(seed), Picture(live=set(HOSTS)), 1000.0
        self.revision = self.made = 0
        self.first_started: list[str] = []

    def submit(self, resources: tuple[Resource, ...], **more: object) -> None:
        self.made += 1
        self.revision += 1
        task = Task(f"t{self.made}", "a@1", {}, resources, "", self.now, order=self.revision, **more)  # pyright: ignore
        self.picture.tasks[task.id] = task

    def apply(self, batch: Batch) -> None:
        assert len({key for key, _ in batch}) == len(batch), batch
        for key, value in batch:
            kind, _, rest = key.partition(".")
            if kind == "task":
                assert value
                task = Task.from_value(value)
                if task.attempt == 1 and self.picture.tasks[rest].attempt == 0:
                    self.first_started.append(rest)
                self.picture.tasks[rest] = task
            elif kind == "lock":
                put(self.picture.locks, key, Lock.from_value(value) if value else None)
            elif kind == "asg":
                put(self.picture.assignments, key, Assignment.from_value(value) if value else None)
            else:
                (self.picture.stops.add if value else self.picture.stops.discard)(key)

    def decide(self) -> None:
        batches = list(plan(self.picture, self.now))
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
                picture.assignments[key] = replace(order, status=status, failure=failure, temporary=status == FAILED)
        elif what < 0.55:
            host = self.random.choice(HOSTS)
            if host in picture.live and len(picture.live) > 1:
                picture.live.discard(host)
                picture.lost.add(host)
            else:
                picture.live.add(host)
                picture.lost.discard(host)
        elif what < 0.65:
            self.now += self.random.choice((0.5, 5.0, 50.0))
        elif what < 0.7 and picture.tasks:
            task = self.random.choice(list(picture.tasks.values()))
            if task.state not in ENDED:
                picture.tasks[task.id] = replace(task, cancel="enough")

    def stopped(self, order: Assignment) -> bool:
        return f"stop.{order.host}.{order.task}" in self.picture.stops


def put(where: dict, key: str, value: object) -> None:
    if value is None:
        where.pop(key, None)
    else:
        where[key] = value


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
    world.picture.live, world.picture.lost = set(HOSTS), set()
    for _ in range(200):
        world.now += 100
        world.decide()
        for key, order in list(world.picture.assignments.items()):
            if order.status == "assigned":
                world.picture.assignments[key] = replace(order, status=FINISHED)
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
                world.picture.assignments[key] = replace(order, status=FINISHED)
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
    world.picture.live.discard("h1")
    world.picture.lost.add("h1")
    while world.picture.tasks["t1"].state is not State.INTERRUPTED:
        world.decide()
    (key,) = world.picture.assignments
    world.picture.assignments[key] = replace(world.picture.assignments[key], status=FINISHED)
    world.picture.live.add("h1")
    world.picture.lost.discard("h1")
    while world.picture.assignments:
        world.decide()
    assert world.picture.tasks["t1"].state is State.DONE
    assert not world.picture.locks
