"""What a dispatcher decides at the edges of a task's life, one case each; time is a number."""

from dataclasses import replace

from enisle.tasks import FAIL, RETRYABLE, Dispatcher, Entry, Resource, State, Task, plan
from enisle.tasks.attempts import MAX_LOSSES
from enisle.tasks.records import FAILED, FINISHED, STOPPED, Failure, Retry
from memory_store import MemoryStore

ISLAND = Resource("island", "a")
LATER = 1050.0


class World:
    """A dispatcher that is told of everything at once; what it would send is made real by `settle`."""

    def __init__(self, *hosts: str) -> None:
        self.dispatcher = Dispatcher(MemoryStore(), "d")
        self.picture = self.dispatcher.picture
        self.revision = 0
        self.sent: list[dict[str, object]] = []
        for host in hosts:
            self.tell(f"host.{host}", {"host": host})

    def tell(self, key: str, value: dict | None) -> None:
        self.revision += 1
        self.dispatcher.learn(Entry(key, value, self.revision))

    def submit(self, name: str, **more: object) -> None:
        facts = {"resources": (ISLAND,), "submitted": 1000.0} | more
        self.tell(f"task.{name}", Task(name, "a@1", {}, digest="", **facts).to_value())  # pyright: ignore

    def settle(self, now: float = 1000.0) -> None:
        while batches := list(plan(self.picture, now)):
            for batch in batches:
                self.sent.append(dict(batch))
                for key, value in batch:
                    self.tell(key, value)

    def answer(self, name: str, status: str, **more: object) -> None:
        """Let the host say how its attempt ended."""
        order = self.picture.assignments[key := self.picture.order_of[name]]
        failure = Failure("it broke") if status == FAILED else None
        self.tell(key, replace(order, status=status, failure=failure, **more).to_value())  # pyright: ignore

    def task(self, name: str) -> Task:
        return self.picture.tasks[name]


def test_a_task_is_tried_as_often_as_it_may_be_and_no_more() -> None:
    world = World("h1")
    world.submit("t", retry=Retry(3, 1.0))
    now = 1000.0
    for attempt in (1, 2, 3):
        world.settle(now)
        assert (world.task("t").state, world.task("t").attempt) == (State.RUNNING, attempt)
        world.answer("t", FAILED, temporary=True)
        world.settle(now)
        assert not world.picture.locks
        if attempt < 3:
            assert world.task("t").state is State.QUEUED
            world.settle(now + 0.4)
            assert world.task("t").state is State.QUEUED, "no attempt before its time"
        now += 100
    assert world.task("t").state is State.FAILED


def test_a_failure_that_stays_is_not_tried_again() -> None:
    world = World("h1")
    world.submit("t", retry=Retry(3))
    world.settle()
    world.answer("t", FAILED, temporary=False)
    world.settle()
    assert (world.task("t").state, world.task("t").attempt) == (State.FAILED, 1)


def test_after_its_deadline_a_task_fails_with_what_broke_it() -> None:
    world = World("h1")
    world.submit("t", retry=Retry(3), deadline=LATER)
    world.settle()
    world.answer("t", FAILED, temporary=True)
    world.settle(LATER)
    failed = world.task("t")
    assert failed.failure
    assert (failed.state, failed.failure.message) == (State.FAILED, "it broke")


def test_a_lost_host_costs_no_attempt_of_the_tasks_own() -> None:
    world = World("h1", "h2")
    world.submit("t", retry=Retry(2, 1.0), host="h1")
    world.settle()
    world.picture.put_lost("h1")
    world.settle()
    assert (world.task("t").host, world.task("t").attempt, world.task("t").losses) == ("h2", 2, 1)
    world.answer("t", FAILED, temporary=True)
    world.settle()
    assert world.task("t").state is State.QUEUED, "it has failed once, and may fail twice"
    world.settle(1100.0)
    world.answer("t", FAILED, temporary=True)
    world.settle(1100.0)
    assert world.task("t").state is State.FAILED


def test_an_order_is_taken_from_a_silent_host_only_together_with_its_lease() -> None:
    """Else an agent that has just come back would go on with what another does."""
    world = World("h1", "h2")
    world.submit("t", host="h1")
    world.settle()
    world.picture.put_lost("h1")
    world.settle()
    (taken,) = [batch for batch in world.sent if batch.get("asg.h1.t", 1) is None]
    assert taken["host.h1"] is None
    assert "asg.h2.t" in taken
    assert list(taken)[-1] == "asg.h2.t", "the last key's revision is the fencing token"
    assert "lock.island.a" not in taken, "what it holds stays held"


def test_a_deadline_ends_what_runs_what_waits_and_what_lost_its_host() -> None:
    world = World("h1", "h2")
    world.submit("runs", deadline=LATER)
    world.submit("waits", deadline=LATER)
    world.submit("lost", resources=(), deadline=LATER, host="h2")
    world.submit("again", resources=(), deadline=LATER, retry=Retry(5, 1.0), host="h1")
    world.settle()
    assert not world.picture.stops
    world.settle(LATER - 0.1)
    assert not world.picture.stops
    assert world.task("waits").state is State.BLOCKED
    world.answer("again", FAILED, temporary=True)
    world.picture.put_lost("h2")
    for host in ("h1", "h2"):
        world.tell(f"host.{host}", None)
    world.settle(LATER)
    assert "stop.h1.runs" in world.picture.stops
    for name in ("waits", "lost", "again"):
        task = world.task(name)
        assert (task.state, task.finished) == (State.FAILED, LATER), name
    waits, lost = world.task("waits").failure, world.task("lost").failure
    assert waits
    assert lost
    assert "before it could start" in waits.message
    assert lost.why == "its deadline has passed"
    world.answer("runs", STOPPED)
    world.settle(LATER)
    ended = world.task("runs")
    assert ended.failure
    assert (ended.state, ended.failure.why) == (State.FAILED, "its deadline has passed")
    assert not world.picture.locks
    assert not world.picture.stops


def test_a_cancelled_task_whose_host_is_lost_is_over_and_not_given_to_another() -> None:
    world = World("h1", "h2")
    world.submit("t", host="h1")
    world.settle()
    world.tell("task.t", replace(world.task("t"), cancel="enough").to_value())
    world.settle()
    assert "stop.h1.t" in world.picture.stops
    world.picture.put_lost("h1")
    world.settle()
    assert world.task("t").state is State.CANCELLED
    assert not world.picture.assignments
    assert not world.picture.locks
    assert not world.picture.stops


def test_a_task_bound_by_what_it_holds_goes_where_that_is_when_it_is_tried_again() -> None:
    world = World("h1", "h2")
    world.tell("res.island.a", {"host": "h1"})
    world.submit("t", retry=Retry(2, 1.0))
    world.settle()
    assert (world.task("t").host, world.task("t").bound_by) == ("h1", "island/a")
    world.answer("t", FAILED, temporary=True, changes={"island.a": {"host": "h2"}})
    world.settle()
    assert (world.task("t").placement, world.task("t").bound_by) == (RETRYABLE, "")
    world.settle(1100.0)
    assert (world.task("t").state, world.task("t").host) == (State.RUNNING, "h2")


def test_who_will_not_wait_fails_with_the_holder_and_takes_nothing() -> None:
    world = World("h1")
    world.submit("first")
    world.submit("second", if_blocked=FAIL, resources=(ISLAND, Resource("island", "b")))
    world.submit("third", resources=(Resource("island", "b"),))
    world.settle()
    second = world.task("second")
    assert second.failure
    assert second.blocked
    assert (second.state, second.blocked.by, second.failure.why) == (State.FAILED, "first", "task first holds it")
    assert world.task("third").state is State.RUNNING
    world.answer("first", FINISHED)
    world.settle()
    assert world.task("first").state is State.DONE


def test_losing_too_many_hosts_frees_what_was_held() -> None:
    hosts = [f"h{number}" for number in range(MAX_LOSSES + 1)]
    world = World(*hosts)
    world.submit("t")
    world.submit("next")
    for lost in range(1, MAX_LOSSES + 1):
        world.settle()
        assert (world.task("t").state, world.task("t").losses) == (State.RUNNING, lost - 1)
        world.picture.put_lost(world.task("t").host)
    world.settle()
    assert world.task("t").state is State.FAILED
    assert world.task("next").state is State.RUNNING
