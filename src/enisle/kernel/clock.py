"""The island's clocks: the host's, computed from the time-stamp counter so that the vDSO can do the same.

System call and vDSO compute from one set of parameters, so mixing both never goes backwards. Parameters hold for a
while (`valid`): a reading after that comes here, which renews them first, so nobody has to refresh in time, and an idle
island does nothing. A renewal slews: the rate is bent so that the island's clock meets the host's later. It steps
forward when the host was asleep, and REALTIME follows every step of the host. Decisions are pure; any thread may call.
"""

import threading
import time
from typing import Protocol

from enisle.abi import linux_time as t
from enisle.abi import tsc as host_tsc
from enisle.kernel import vvar
from enisle.kernel.vvar import SHIFT
from enisle.records import Record

HORIZON_NS = 100_000_000
"""A bent clock meets the host's this long after a renewal; its parameters hold for twice as long."""
UNSURE_HORIZON_NS = 5_000_000
"""The same while the rate is not measured yet, or was measured too long ago."""
TRUST = 4
"""A rate is trusted for this many times as long as it was measured."""
MIN_AGE_NS, MAX_AGE_NS = 5_000_000, 2_000_000_000
"""A rate is measured over at least and at most this time: errors of reading, changes of the host's own rate."""
STEP_NS = 1_000_000
"""A lag not worth slewing: the host's clock was stepped or stood still."""
LARGEST_CHANGE = 1000
"""A rate that differs by more than its 1000th part is believed when it was measured twice."""


class Bounds(Record):
    """A number that does not change, as far as known. `low` stands for it: it can only rise."""

    low: int
    high: int

    def narrowed(self, seen: "Bounds") -> "Bounds":
        """Return what is known after one more look; a look that contradicts is a change of the number."""
        low, high = max(self.low, seen.low), min(self.high, seen.high)
        return Bounds(low, high) if low <= high else seen


class Sample(Record):
    """The host's clocks at one moment: two of them with the counter right before, the others relative to the first."""

    tsc: int
    monotonic: int
    raw_tsc: int
    raw: int
    ahead: tuple[Bounds, ...]
    """How far REALTIME, BOOTTIME and TAI are ahead of MONOTONIC."""


class TscSource(Protocol):
    """The time-stamp counter as the guest reads it."""

    def read(self) -> int: ...

    def sample(self) -> Sample: ...


class Track(Record):
    """One clock as a straight line over the counter; multipliers are nanoseconds per tick times 2**SHIFT."""

    ns: int
    multiplier: int
    rate: int
    """The multiplier of the host's clock."""

    def at(self, ticks: int) -> int:
        return self.ns + (ticks * self.multiplier >> SHIFT)


class Parameters(Record):
    """What turns a counter from `base` to `base + valid` into times; `origin` is where rates are measured from."""

    base: int
    valid: int
    monotonic: Track
    raw: Track
    ahead: tuple[Bounds, ...]
    origin: Sample
    measured: int
    """The last measured rate of MONOTONIC, believed or not."""

    def read(self, clock_id: int, ticks: int) -> int:
        """Return the time of a served clock, exactly as the vDSO computes it."""
        if clock_id == t.CLOCK_MONOTONIC_RAW:
            return self.raw.at(ticks)
        place = SERVED[clock_id]
        return self.monotonic.at(ticks) + (0 if place is None else self.ahead[place].low)

    def clocks(self) -> list[tuple[int, int]]:
        """Return (nanoseconds, multiplier) of every clock for the vDSO's page; zeros for those it does not serve."""
        return [
            (self.read(clock_id, 0), (self.raw if clock_id == t.CLOCK_MONOTONIC_RAW else self.monotonic).multiplier)
            if clock_id in SERVED
            else (0, 0)
            for clock_id in range(vvar.CLOCK_COUNT)
        ]


SERVED: dict[int, int | None] = {
    t.CLOCK_REALTIME: 0,
    t.CLOCK_REALTIME_COARSE: 0,  # as precise as the other: a coarser one is no faster, and behind the host's files
    t.CLOCK_MONOTONIC: None,
    t.CLOCK_MONOTONIC_COARSE: None,
    t.CLOCK_MONOTONIC_RAW: None,
    t.CLOCK_BOOTTIME: 1,
    t.CLOCK_TAI: 2,
}
"""Clocks computed from the counter, and their place in `ahead`."""
AHEAD_CLOCKS = (t.CLOCK_REALTIME, t.CLOCK_BOOTTIME, t.CLOCK_TAI)


# ---- decisions -----------------------------------------------------------------------------------------------------


def begin(sample: Sample, khz: int) -> Parameters:
    """Return the first parameters. With an unknown rate (0) they hold for no time at all."""
    rate = (10**6 << SHIFT) // khz if khz else 0
    valid = 2 * UNSURE_HORIZON_NS * khz // 10**6
    monotonic, raw = Track(sample.monotonic, rate, rate), Track(sample.raw, rate, rate)
    return Parameters(sample.tsc, valid, monotonic, raw, sample.ahead, sample, rate)


def renewed(old: Parameters, sample: Sample, now: int) -> Parameters:
    """Return parameters that go on from `old` at counter `now`, a moment after `sample`."""
    measured = _measure(old, sample)
    believed = measured if measured and _is_believable(old, measured[0]) else None
    rate, raw_rate = believed or (old.monotonic.rate, old.raw.rate)
    age_ns = sample.monotonic - old.origin.monotonic
    horizon_ns = min(HORIZON_NS, TRUST * age_ns) if believed else UNSURE_HORIZON_NS
    horizon = (horizon_ns << SHIFT) // rate if rate else 0
    elapsed = now - old.base
    in_time = 0 <= elapsed < old.valid
    shown = elapsed if in_time else old.valid  # nobody can have read more of `old`
    limit = STEP_NS if in_time else 0
    return Parameters(
        now,
        2 * horizon,
        _bend(
            old.monotonic.at(shown), Track(sample.monotonic, rate, rate).at(now - sample.tsc), rate, (horizon, limit)
        ),
        _bend(
            old.raw.at(shown),
            Track(sample.raw, raw_rate, raw_rate).at(now - sample.raw_tsc),
            raw_rate,
            (horizon, limit),
        ),
        tuple(known.narrowed(seen) for known, seen in zip(old.ahead, sample.ahead, strict=True)),
        sample if age_ns >= MIN_AGE_NS else old.origin,
        measured[0] if measured else old.measured,
    )


def _bend(shown: int, host: int, rate: int, terms: tuple[int, int]) -> Track:
    """Return a track from `shown` that meets the host's clock after `terms[0]` ticks; a lag over `terms[1]` is cut."""
    horizon, limit = terms
    if host - shown > limit:
        shown = host
    bent = rate + ((host - shown << SHIFT) // horizon if horizon else 0)
    return Track(shown, min(max(bent, rate // 2), rate * 3 // 2), rate)


def _measure(old: Parameters, sample: Sample) -> tuple[int, int] | None:
    """Return the host's rates since `origin`; None when that is too short or too long ago."""
    origin = old.origin
    ticks, raw_ticks = sample.tsc - origin.tsc, sample.raw_tsc - origin.raw_tsc
    if min(ticks, raw_ticks) <= 0 or not MIN_AGE_NS <= sample.monotonic - origin.monotonic <= MAX_AGE_NS:
        return None
    return (sample.monotonic - origin.monotonic << SHIFT) // ticks, (sample.raw - origin.raw << SHIFT) // raw_ticks


def _is_believable(old: Parameters, rate: int) -> bool:
    """A sleep of the host, in which the counter goes on and its clock does not, looks like another rate."""
    known = (old.monotonic.rate, old.measured)
    return not any(known) or any(abs(rate - other) * LARGEST_CHANGE <= other for other in known)


# ---- the clock -----------------------------------------------------------------------------------------------------

READ_ORDER = (
    *(t.CLOCK_MONOTONIC, t.CLOCK_REALTIME, t.CLOCK_MONOTONIC, t.CLOCK_BOOTTIME),
    *(t.CLOCK_MONOTONIC, t.CLOCK_TAI, t.CLOCK_MONOTONIC, t.CLOCK_MONOTONIC_RAW),
)
"""Every clock between two readings of MONOTONIC, but for the last."""
TRIES = 3


class HostTsc:
    """The host's counter, and the guest's `offset` from it. Raises OSError where our code cannot be mapped."""

    def __init__(self, offset: int = 0) -> None:
        self._offset = offset
        self._read, self._sample = host_tsc.reader(), host_tsc.sampler(READ_ORDER)

    def read(self) -> int:
        return self._read() + self._offset

    def sample(self) -> Sample:
        """Return the quickest of a few readings: the others were interrupted."""
        ticks, times = min((self._sample() for _ in range(TRIES)), key=lambda seen: seen[0][-1] - seen[0][0])
        ahead = tuple(Bounds(times[i] - times[i + 1], times[i] - times[i - 1]) for i in (1, 3, 5))
        return Sample(ticks[0] + self._offset, times[0], ticks[7] + self._offset, times[7], ahead)


class Clock:
    """Answers what time it is, and keeps the vDSO's page in step.

    `khz` is the counter's rate if known, else 0: then every reading asks the host for the first few milliseconds.
    Without a counter to rely on every reading asks the host, and the page stays empty.
    """

    def __init__(self, tsc: TscSource | None = None, khz: int = 0) -> None:
        self._tsc = tsc
        self._lock = threading.Lock()
        self._page: vvar.Page | None = None
        self._parameters = begin(tsc.sample(), khz) if tsc else None

    def attach(self, page: vvar.Page) -> None:
        """Publish the parameters in `page` from now on."""
        with self._lock:
            self._page = page
        self.refresh()

    def refresh(self) -> None:
        """Renew the parameters before they are due; not needed for right answers."""
        if self._tsc:
            with self._lock:
                self._renew(self._tsc)

    def now_ns(self, clock_id: int) -> int:
        """Return nanoseconds of a clock of clock_gettime(2). Raises OSError for one the host does not know."""
        tsc = self._tsc
        if tsc is None or clock_id not in SERVED:
            return time.clock_gettime_ns(clock_id)
        with self._lock:
            parameters = self._parameters
            assert parameters
            elapsed = tsc.read() - parameters.base
            if not 0 <= elapsed < parameters.valid:
                parameters = self._renew(tsc)
                elapsed = min(max(tsc.read() - parameters.base, 0), parameters.valid)
            return parameters.read(clock_id, elapsed)

    def _renew(self, tsc: TscSource) -> Parameters:
        """Requires: lock. The page is closed before the counter at which the tracks bend is read: see `vvar.Page`."""
        old, page, sample = self._parameters, self._page, tsc.sample()
        assert old
        if page:
            page.close()
        new = self._parameters = renewed(old, sample, tsc.read())
        if page:
            page.open(new.base, new.valid, new.clocks())
        return new
