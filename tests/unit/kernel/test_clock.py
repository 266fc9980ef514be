"""The island's clocks never go back, stay close to the host's, and follow the host's own steps."""

import struct
import time
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.abi import linux_time as t
from enisle.kernel import clock, vvar
from enisle.kernel.clock import Bounds, Clock, Sample

KHZ = 2_596_123
MS, SECOND = 10**6, 10**9
RISING = (t.CLOCK_MONOTONIC, t.CLOCK_MONOTONIC_RAW, t.CLOCK_BOOTTIME, t.CLOCK_REALTIME)


class Host:
    """A host of a virtual clock; its counter ticks off its nominal rate, and reading a clock takes a while."""

    def __init__(self, ppm: float = 0, width_ns: Callable[[], int] = lambda: 40) -> None:
        self.rate = KHZ * (1 + ppm / 1e6) / 1e6
        self.width_ns = width_ns
        self.passed = 0
        """True nanoseconds since the counter was 0."""
        self.asleep, self.slew = 0, 0.0
        self.ticks_lost = 0
        self.boot = {t.CLOCK_REALTIME: 1_700_000_000 * SECOND, t.CLOCK_BOOTTIME: 0, t.CLOCK_TAI: 1_700_000_037 * SECOND}

    def monotonic(self) -> int:
        return 5 * SECOND + int((self.passed - self.asleep) * (1 + self.slew))

    def raw(self) -> int:
        return 4 * SECOND + self.passed - self.asleep

    def now(self, clock_id: int) -> int:
        return self.raw() if clock_id == t.CLOCK_MONOTONIC_RAW else self.monotonic() + self.boot.get(clock_id, 0)

    def read(self) -> int:
        return int(self.passed * self.rate) - self.ticks_lost

    def sample(self) -> Sample:
        def step() -> None:
            self.passed += self.width_ns()

        tsc = self.read()
        step()
        monotonic = self.monotonic()
        bounds: list[Bounds] = []
        for clock_id in clock.AHEAD_CLOCKS:
            before = self.monotonic()
            step()
            value = self.now(clock_id)
            step()
            bounds.append(Bounds(value - self.monotonic(), value - before))
        raw_tsc = self.read()
        step()
        return Sample(tsc, monotonic, raw_tsc, self.raw(), tuple(bounds))

    def sleep(self, nanoseconds: int, ticking: bool = True) -> None:
        """Suspend the host: BOOTTIME and REALTIME go on, MONOTONIC does not, the counter may."""
        if not ticking:
            self.ticks_lost = int((self.passed + nanoseconds) * self.rate)
        self.passed += nanoseconds
        self.asleep += nanoseconds
        self.boot = {clock_id: ahead + nanoseconds for clock_id, ahead in self.boot.items()}


class Island:
    """A clock, and a guest that reads its page as the vDSO does."""

    def __init__(self, host: Host, khz: int = KHZ) -> None:
        self.host, self.page = host, bytearray(vvar.SIZE)
        self.clock = Clock(host, khz)
        self.clock.attach(vvar.Page(self.store, 1))
        self.asked = 0

    def store(self, offset: int, content: bytes) -> None:
        self.page[offset : offset + len(content)] = content

    def gettime(self, clock_id: int) -> int:
        sequence, _, base, valid = struct.unpack_from("<IIQQ", self.page)
        ns, multiplier = struct.unpack_from("<QQ", self.page, vvar.CLOCKS + vvar.STRIDE * clock_id)
        elapsed = self.host.read() - base & (1 << 64) - 1
        if sequence & 1 or elapsed >= valid or not multiplier:
            self.asked += 1
            return self.clock.now_ns(clock_id)
        return ns + (elapsed * multiplier >> vvar.SHIFT)

    def error(self, clock_id: int = t.CLOCK_MONOTONIC) -> int:
        return self.gettime(clock_id) - self.host.now(clock_id)


pauses = st.lists(st.one_of(st.integers(100, 100_000), st.integers(MS, 3 * SECOND)), min_size=2, max_size=40)
drifts = st.floats(-100, 100)


@given(drifts, st.randoms(use_true_random=False), pauses, st.booleans())
def test_no_clock_ever_goes_back(ppm: float, random: Random, steps: list[int], known: bool) -> None:
    host = Host(ppm, lambda: random.choice((20, 40, 60, 500)))
    island = Island(host, KHZ if known else 0)
    last = dict.fromkeys(RISING, 0)
    for step in steps:
        host.passed += step
        if random.random() < 0.3:
            island.clock.refresh()
        for clock_id in RISING:
            now = island.clock.now_ns(clock_id) if random.random() < 0.3 else island.gettime(clock_id)
            assert last[clock_id] <= now
            last[clock_id] = now
            host.passed += 1000  # a renewal keeps readers out for longer than this


@settings(max_examples=50)
@given(drifts, st.randoms(use_true_random=False), st.lists(st.integers(MS, 400 * MS), min_size=5, max_size=40))
def test_the_error_stays_below_2_microseconds(ppm: float, random: Random, steps: list[int]) -> None:
    host = Host(ppm, lambda: random.randint(20, 60))
    island = Island(host)
    for step in steps:
        host.passed += step
        for clock_id in (*RISING, t.CLOCK_TAI):
            assert abs(island.error(clock_id)) < 2000, clock_id


@settings(max_examples=30)
@given(drifts, st.sampled_from((-500e-6, -50e-6, 50e-6, 500e-6)))
def test_a_change_of_the_hosts_rate_is_followed(ppm: float, slew: float) -> None:
    """The error is at most what the change makes of the time the parameters hold; then it is gone."""
    host = Host(ppm)
    island = Island(host)
    errors: list[int] = []
    for index in range(200):
        host.passed += 10 * MS
        errors.append(abs(island.error()))
        if index == 100:
            before = host.monotonic()
            host.slew = slew
            host.asleep = host.passed - round((before - 5 * SECOND) / (1 + slew))
    assert max(errors[:100]) < 2000
    assert max(errors) < 2 * clock.HORIZON_NS * abs(slew) * 1.5 + 2000
    assert max(errors[170:]) < 2000


@settings(max_examples=30)
@given(st.booleans(), st.integers(SECOND, 86_400 * SECOND), drifts)
def test_a_host_that_slept_is_followed(ticking: bool, length: int, ppm: float) -> None:
    """A guest may have read all that was valid: so far it may be ahead, and waits by going slower."""
    host = Host(ppm)
    island = Island(host)
    for _ in range(30):
        host.passed += 20 * MS
        island.gettime(t.CLOCK_MONOTONIC)
    last = island.gettime(t.CLOCK_MONOTONIC)
    host.sleep(length, ticking)
    for index in range(60):
        host.passed += 20 * MS
        for clock_id in (t.CLOCK_MONOTONIC, t.CLOCK_BOOTTIME, t.CLOCK_REALTIME):
            assert abs(island.error(clock_id)) < (2 * clock.HORIZON_NS if index < 40 else 2000)
        now = island.gettime(t.CLOCK_MONOTONIC)
        assert last <= now
        last = now


@given(st.integers(-(10**6), 10**6))
def test_a_step_of_the_hosts_wall_clock_is_followed(seconds: int) -> None:
    host = Host()
    island = Island(host)
    host.passed += 50 * MS
    island.gettime(t.CLOCK_REALTIME)
    host.boot[t.CLOCK_REALTIME] += seconds * SECOND
    host.passed += 2 * clock.HORIZON_NS
    assert abs(island.error(t.CLOCK_REALTIME)) < 2000
    assert abs(island.error(t.CLOCK_MONOTONIC)) < 2000


def test_an_idle_island_renews_nothing_and_a_busy_one_rarely() -> None:
    host = Host()
    island = Island(host)
    for _ in range(10_000):
        host.passed += MS
        island.gettime(t.CLOCK_MONOTONIC)
    assert island.asked <= 10 * SECOND // (2 * clock.HORIZON_NS) + 3


def test_without_a_known_rate_the_page_stays_shut_until_one_is_measured() -> None:
    host = Host()
    island = Island(host, khz=0)
    host.passed += MS
    island.gettime(t.CLOCK_MONOTONIC)
    assert struct.unpack_from("<Q", island.page, vvar.VALID) == (0,)
    host.passed += clock.MIN_AGE_NS
    assert island.asked == 1
    assert abs(island.error()) < 2000
    assert island.asked == 2
    host.passed += MS
    assert abs(island.error()) < 2000
    assert island.asked == 2


def test_coarse_clocks_are_the_others_and_processor_clocks_are_the_kernels() -> None:
    island = Island(Host())
    assert island.gettime(t.CLOCK_MONOTONIC_COARSE) == island.gettime(t.CLOCK_MONOTONIC)
    assert island.gettime(t.CLOCK_REALTIME_COARSE) == island.gettime(t.CLOCK_REALTIME)
    for clock_id in (t.CLOCK_PROCESS_CPUTIME_ID, t.CLOCK_THREAD_CPUTIME_ID, t.CLOCK_REALTIME_ALARM):
        assert not any(island.page[vvar.CLOCKS + vvar.STRIDE * clock_id :][: vvar.STRIDE])


def test_the_page_is_odd_while_it_changes_and_the_base_is_read_then() -> None:
    host = Host()
    numbers: list[int] = []
    page = bytearray(vvar.SIZE)

    def store(offset: int, content: bytes) -> None:
        page[offset : offset + len(content)] = content
        numbers.append(struct.unpack_from("<I", page)[0])

    class Watched(Host):
        def read(self) -> int:
            numbers.append(struct.unpack_from("<I", page)[0] | 1 << 40)
            return super().read()

    watched = Watched()
    subject = Clock(watched, KHZ)
    subject.attach(vvar.Page(store, 3))
    host.passed += MS
    numbers.clear()
    subject.refresh()
    plain = [number for number in numbers if number < 1 << 40]
    assert plain == [3, 3, 4]
    assert numbers[-3] == 3 | 1 << 40
    assert struct.unpack_from("<I", page, vvar.ONE_PROCESSOR) == (0,)


def test_the_sequence_wraps() -> None:
    written = bytearray(vvar.SIZE)
    page = vvar.Page(lambda at, content: written.__setitem__(slice(at, at + len(content)), content), 1)
    page._sequence = 0xFFFF_FFFE
    page.close()
    page.open(-1, 5, [(1, 2)] * vvar.CLOCK_COUNT)
    assert struct.unpack_from("<IIQQ", written) == (0, 1, (1 << 64) - 1, 5)


def test_without_a_counter_every_reading_is_the_hosts() -> None:
    plain = Clock()
    plain.refresh()
    for clock_id in (t.CLOCK_REALTIME, t.CLOCK_MONOTONIC, t.CLOCK_BOOTTIME, t.CLOCK_MONOTONIC_COARSE):
        before = time.clock_gettime_ns(clock_id)
        assert before <= plain.now_ns(clock_id) <= time.clock_gettime_ns(clock_id)
    with pytest.raises(OSError, match="Invalid argument"):
        plain.now_ns(1000)
