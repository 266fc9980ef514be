"""The guest's clock never steps back, stays close to the host's, and follows the host's own steps."""

import struct
import time
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from enisle.kernel import clock, vvar
from enisle.kernel.clock import Sample

GHZ = 2_596_000_000


class Host:
    """A host whose counter ticks `ppm` faster than its nominal rate says."""

    def __init__(self, ppm: float) -> None:
        self.rate = GHZ * (1 + ppm / 1e6)
        self.now_ns = 5_000_000_000
        self.wall_ns = 1_700_000_000_000_000_000

    def sample(self) -> Sample:
        return Sample(int(self.now_ns * self.rate / 1e9), self.now_ns, self.wall_ns + self.now_ns, self.now_ns + 7)

    def tsc(self) -> int:
        return self.sample().tsc


def run(ppm: float, jitter: list[int]) -> list[tuple[int, int]]:
    """Refresh at jittered times; return (host's time, guest's time) read around each refresh."""
    host = Host(ppm)
    origin = host.sample()
    parameters = clock.first(origin, GHZ // 1000)
    readings = []
    interval = 30_000_000
    for late in jitter:
        host.now_ns += interval + late
        readings.append((host.now_ns, parameters.read(1, host.tsc())))
        interval = min(interval * 4, 1_000_000_000)
        parameters = clock.slewed(parameters, origin, host.sample(), interval)
        readings.append((host.now_ns, parameters.read(1, host.tsc())))
    return readings


@given(st.floats(-200, 200), st.lists(st.integers(0, 20_000_000), min_size=3, max_size=12))
def test_time_never_goes_back_over_a_refresh(ppm: float, jitter: list[int]) -> None:
    readings = run(ppm, jitter)
    assert all(before[1] <= after[1] + 1 for before, after in pairwise(readings))


@given(st.floats(-100, 100))
def test_the_guests_clock_meets_the_hosts(ppm: float) -> None:
    host_ns, guest_ns = run(ppm, [0] * 12)[-1]
    assert abs(host_ns - guest_ns) < 2000


def test_a_step_of_the_hosts_wall_clock_is_followed() -> None:
    host = Host(0)
    origin = host.sample()
    parameters = clock.first(origin, GHZ // 1000)
    host.now_ns += 1_000_000
    host.wall_ns += 3600 * 10**9
    parameters = clock.slewed(parameters, origin, host.sample(), 10**9)
    assert abs(parameters.read(0, host.tsc()) - (host.wall_ns + host.now_ns)) < 2000


def test_a_reader_sees_an_odd_number_while_parameters_change() -> None:
    page = bytearray(4096)
    seen: list[int] = []

    def write(offset: int, content: bytes) -> None:
        seen.append(struct.unpack_from("<I", page)[0])
        page[offset : offset + len(content)] = content

    writer = vvar.Page(write, 3)
    seen.clear()
    writer.close()
    writer.open(vvar.Parameters(1, 2, 3, 4, 5))
    assert all(number % 2 for number in seen[1:])
    assert struct.unpack_from("<III", page) == (2, 1, 3)


def test_readings_agree_with_the_host() -> None:
    plain = clock.Clock()
    assert abs(plain.now_ns(time.CLOCK_MONOTONIC) - time.monotonic_ns()) < 10**9
