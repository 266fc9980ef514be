"""The greatest lower bound of processors, over 10,000 random sets of hosts."""

import random

import pytest

from enisle.abi.x86_features import REQUIRES, STANDARD_LAYOUT, XCR0_BITS, closed
from enisle.errors import InvalidRequest
from enisle.machine.blocking import levels
from enisle.machine.blocking.baseline import Host, baseline, consistent, host, meet
from enisle.machine.blocking.query import Queries
from unit.machine.blocking import making

SETS = 10_000
PLACES = [(832, 64), STANDARD_LAYOUT[5]]


def members(chance: random.Random, pool: list[Host]) -> list[Host]:
    return [chance.choice(pool) for _ in range(chance.randint(1, 4))]


def pool(chance: random.Random) -> list[Host]:
    """Return hosts, some inconsistent as a broken hypervisor shows them, some with registers saved elsewhere."""
    hosts: list[Host] = []
    for _ in range(60):
        features = making.features(chance)
        if chance.random() < 0.3:
            features -= frozenset(chance.sample(sorted(features), 3))
        layout = dict(STANDARD_LAYOUT) | {5: chance.choice(PLACES)}
        placed = frozenset((bit, *layout[bit]) for bit, name in XCR0_BITS.items() if bit >= 2 and name in features)
        hosts.append(Host("GenuineIntel", features, placed))
    return hosts


def test_a_baseline_is_a_greatest_lower_bound() -> None:
    chance = random.Random(6)
    hosts = pool(chance)
    for _ in range(SETS):
        chosen = members(chance, hosts)
        first = consistent(chosen[0])
        assert meet(first, first) == first
        common = first
        for member in chosen[1:]:
            common, before = meet(common, member), common
            assert meet(member, before) == common
        assert common.features <= frozenset.intersection(*(member.features for member in chosen))
        assert all(REQUIRES.get(name, frozenset()) <= common.features for name in common.features)
        shuffled = chance.sample(chosen, len(chosen))
        other = consistent(shuffled[-1])
        for member in reversed(shuffled[:-1]):
            other = meet(member, other)
        assert other == common, "whatever order and grouping"


def test_it_is_the_greatest_one() -> None:
    """Whatever is common, has all it needs, and is saved in one place everywhere, is in it."""
    chance = random.Random(7)
    hosts = pool(chance)
    for _ in range(300):
        chosen = members(chance, hosts)
        layouts = frozenset.intersection(*(member.layout for member in chosen))
        placed = {XCR0_BITS[bit] for bit, _, _ in layouts} | {"xcr0_x87", "xcr0_sse"}
        unplaced = frozenset(XCR0_BITS.values()) - placed
        common = consistent(chosen[0])
        for member in chosen[1:]:
            common = meet(common, member)
        assert common.features == closed(frozenset.intersection(*(m.features for m in chosen)) - unplaced)


def test_every_member_can_be_the_baseline_and_looks_the_same() -> None:
    chance = random.Random(8)
    for _ in range(20):
        tables = [making.processor(making.features(chance)) for _ in range(3)]
        value = baseline(map(host, tables))
        answers = {tuple(sorted(Queries(value, table).visible)) for table in tables}
        assert len(answers) == 1
        assert all(not Queries(value, table).missing for table in tables)


def test_vector_registers_saved_elsewhere_are_left_out() -> None:
    everything = closed(frozenset(levels.V4 | levels.STATE["x86-64-v4"] | levels.NEUTRAL))
    one = host(making.processor(everything))
    two = host(making.processor(everything, layout={5: (832, 64), 6: (896, 512), 7: (1408, 1024)}))
    assert "avx512f" in one.features
    common = meet(one, two).features
    assert "avx512f" not in common
    assert "avx2" in common


def test_two_vendors_have_none() -> None:
    hosts = [
        host(making.processor(making.features(random.Random(9)), vendor)) for vendor in ("GenuineIntel", "AuthenticAMD")
    ]
    with pytest.raises(InvalidRequest, match="AuthenticAMD"):
        baseline(hosts)
    with pytest.raises(InvalidRequest):
        baseline([])
