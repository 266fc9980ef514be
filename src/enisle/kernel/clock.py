"""The island's clocks: the host's, read through the time-stamp counter so that the guest's vDSO can do the same.

The vDSO and the system call compute from the same parameters, so mixing both never goes backwards. A refresh slews:
it changes the rate so that the guest's clock meets the host's at the next one; it never steps (but for the host's own
steps of the wall clock). Decisions are pure; the kernel's housekeeping calls `refresh`.
"""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from enisle.kernel import vvar
from enisle.kernel.vvar import SHIFT, Parameters

NS = 1_000_000_000
MAX_SLEW = 500e-6
"""The most by which the rate is bent to catch up, as NTP's."""
STEP_NS = 10_000_000
"""A lag that is not worth slewing: the host was suspended or the counter was wrong."""


class Sample(NamedTuple):
    """One moment in all clocks."""

    tsc: int
    monotonic: int
    realtime: int
    boottime: int


def first(sample: Sample, frequency_khz: int) -> Parameters:
    """Return parameters that begin at `sample` with the nominal rate."""
    multiplier = (10**6 << SHIFT) // frequency_khz
    return Parameters(sample.tsc, multiplier, sample.monotonic, sample.realtime, sample.boottime)


def slewed(old: Parameters, origin: Sample, now: Sample, interval_ns: int) -> Parameters:
    """Return parameters that go on from `old` without a jump and meet the host's clock after `interval_ns`.

    The true rate is measured since `origin`.
    """
    guest = old.monotonic + old.elapsed(now.tsc)
    lag = now.monotonic - guest
    ticks = max(now.tsc - origin.tsc, 1)
    rate = (now.monotonic - origin.monotonic << SHIFT) / ticks
    if lag > STEP_NS:
        guest, lag = now.monotonic, 0
    bend = max(-MAX_SLEW, min(MAX_SLEW, lag / interval_ns))
    multiplier = max(1, round(rate * (1 + bend)))
    behind = guest - now.monotonic
    return Parameters(now.tsc, multiplier, guest, now.realtime + behind, now.boottime + behind)


def take_sample(tsc: Callable[[], int]) -> Sample:
    """Read all clocks as close together as can be: the narrowest of a few tries."""
    best: tuple[int, Sample] | None = None
    for _ in range(4):
        before = tsc()
        monotonic = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        after = tsc()
        realtime, boottime = time.clock_gettime_ns(time.CLOCK_REALTIME), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        again = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        width = after - before
        if best is None or width < best[0]:
            middle = (monotonic + again) // 2
            sample = Sample(
                (before + after) // 2, monotonic, realtime + monotonic - middle, boottime + monotonic - middle
            )
            best = width, sample
    assert best
    return best[1]


class Clock:
    """Answers what time it is, and keeps the vDSO's page in step.

    `tsc` reads the counter as the guest sees it, `khz` is its nominal rate; without a counter to rely on every
    reading asks the host.
    """

    def __init__(self, tsc: Callable[[], int] | None = None, khz: int = 0) -> None:
        self._lock = threading.Lock()
        self._page: vvar.Page | None = None
        self._tsc = tsc if khz else None
        self._parameters: Parameters | None = None
        if self._tsc:
            self._origin = take_sample(self._tsc)
            self._parameters = first(self._origin, khz)

    @property
    def uses_counter(self) -> bool:
        return self._parameters is not None

    def attach(self, page: vvar.Page) -> None:
        """Publish the parameters in `page` from now on."""
        self._page = page
        page.close()
        page.open(self._parameters)

    def refresh(self, interval_ns: int) -> None:
        """Bring the parameters up to date; the next refresh comes after about `interval_ns`."""
        if not self._tsc or not self._parameters:
            return
        with self._lock:
            if self._page:
                self._page.close()
            self._parameters = slewed(self._parameters, self._origin, take_sample(self._tsc), interval_ns)
            if self._page:
                self._page.open(self._parameters)

    def now_ns(self, clock_id: int) -> int:
        """Return nanoseconds of a clock of clock_gettime(2). Raises OSError for one the host does not know."""
        if self._tsc and self._parameters and 0 <= clock_id < vvar.CLOCK_COUNT and clock_id not in (2, 3):
            with self._lock:
                return self._parameters.read(clock_id, self._tsc())
        return time.clock_gettime_ns(clock_id)
