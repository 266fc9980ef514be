"""When copies of page tables pay, decided from what was seen; time is an argument."""

import pytest

from enisle.machine.replication_policy import SURE_AFTER, TLB_ENTRIES, Judge, Prices, Seen, gain, price

QUIET = Seen(0.4, 0.0, 0.01, 0.0, 0, 0, 3)
GUPS = QUIET._replace(touched=20_000.0, remote_share=0.75)
CHURN = QUIET._replace(entries=400_000, calls=4_000, touched=600.0, remote_share=0.75)


def look(judge: Judge, seen: Seen, times: int = SURE_AFTER) -> bool:
    for _ in range(times - 1):
        judge.look(seen)
    return judge.look(seen)


def test_remote_walks_bring_copies_after_two_looks() -> None:
    judge = Judge()
    assert [judge.look(GUPS) for _ in range(3)] == [False, True, True]


def test_churn_takes_them_away() -> None:
    judge = Judge()
    assert look(judge, GUPS)
    assert not look(judge, CHURN)


@pytest.mark.parametrize(
    "seen",
    [
        QUIET,
        CHURN,
        GUPS._replace(remote_share=0.0),
        GUPS._replace(touched=float(TLB_ENTRIES)),
        GUPS._replace(entries=40_000_000, calls=400_000),
    ],
    ids=["quiet", "churn", "all at home", "within the TLB", "walks and much more churn"],
)
def test_nothing_else_does(seen: Seen) -> None:
    judge = Judge()
    assert not look(judge, seen, 20)


def test_one_look_changes_nothing() -> None:
    judge = Judge()
    for _ in range(20):
        assert not judge.look(GUPS)
        assert not judge.look(QUIET)


def modelled_cost(seen: Seen, on: bool, prices: Prices) -> float:
    """Return the seconds lost per second: by walks without copies, by writes with them."""
    return price(seen, prices) if on else gain(seen, prices)


@pytest.mark.parametrize("period", [1, 2, 3, 5, 8, 13, 40])
def test_it_is_never_much_worse_than_off(period: int) -> None:
    """Workloads that change every `period` looks, the worst for whoever learns from the past."""
    prices, judge = Prices(), Judge()
    with_judge = off = 0.0
    for turn in range(400):
        seen = (GUPS, CHURN)[turn // period % 2]
        with_judge += modelled_cost(seen, judge.on, prices) * seen.seconds
        off += modelled_cost(seen, False, prices) * seen.seconds
        judge.look(seen)
    whole = 400 * GUPS.seconds
    assert with_judge <= off + 0.03 * whole


def test_prices_are_parameters() -> None:
    near = Prices(local_ns=100.0, remote_ns=101.0)
    assert gain(GUPS, near) < gain(GUPS, Prices())
    assert not look(Judge(near), GUPS._replace(touched=5_000.0), 5)
