"""Credentials as a state machine: nobody gains a right that Linux would not give."""

from errno import EPERM
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.abi import linux_capability as c
from enisle.errors import LinuxError
from enisle.kernel.calls import identity as calls
from enisle.kernel.credentials import ISLAND_CAPABILITIES, Credentials

IDS = st.sampled_from([0, 1, 2, 3, 0xFFFF_FFFF])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just(calls.sys_setuid), st.tuples(IDS)),
        st.tuples(st.just(calls.sys_setreuid), st.tuples(IDS, IDS)),
        st.tuples(st.just(calls.sys_setresuid), st.tuples(IDS, IDS, IDS)),
        st.tuples(st.just(calls.sys_setfsuid), st.tuples(IDS)),
        st.tuples(st.just(calls.sys_setgid), st.tuples(IDS)),
        st.tuples(st.just(calls.sys_setregid), st.tuples(IDS, IDS)),
        st.tuples(st.just(calls.sys_setresgid), st.tuples(IDS, IDS, IDS)),
        st.tuples(st.just("exec"), st.just(())),
    ),
    max_size=12,
)


def apply(who: Credentials, call: Any, arguments: tuple[int, ...]) -> None:
    if call == "exec":
        who.exec()
        return
    thread: Any = SimpleNamespace(process=SimpleNamespace(credentials=who))
    try:
        call(thread, *arguments)
    except LinuxError:
        pass


@given(STEPS)
def test_sets_stay_within_each_other(steps: list[tuple[Any, tuple[int, ...]]]) -> None:
    who = Credentials(0, 0)
    for call, arguments in steps:
        apply(who, call, arguments)
        assert not who.effective & ~who.permitted
        assert not who.permitted & ~who.bounding
        assert 0xFFFF_FFFF not in (*who.uids, *who.gids, who.fsuid, who.fsgid)


@given(STEPS)
def test_who_has_dropped_root_never_gets_it_back(steps: list[tuple[Any, tuple[int, ...]]]) -> None:
    who = Credentials(0, 0)
    calls.sys_setresuid(SimpleNamespace(process=SimpleNamespace(credentials=who)), 1, 2, 3)  # type: ignore[arg-type]
    gids = set(who.gids)
    for call, arguments in steps:
        apply(who, call, arguments)
        assert set(who.uids) <= {1, 2, 3}
        assert set(who.gids) <= gids
        assert (who.effective, who.permitted) == (0, 0)


def test_root_that_only_changes_its_effective_id_comes_back() -> None:
    who = Credentials(0, 0)
    apply(who, calls.sys_setresuid, (0xFFFF_FFFF, 1, 0xFFFF_FFFF))
    assert (who.effective, who.permitted) == (0, ISLAND_CAPABILITIES)
    apply(who, calls.sys_setuid, (0,))
    assert who.effective == ISLAND_CAPABILITIES


def test_capset_cannot_add_what_is_not_permitted() -> None:
    who = Credentials(0, 0)
    calls.set_capabilities(who, 0, c.mask_of(c.CAP_KILL), 0)
    for effective, permitted in ((c.mask_of(c.CAP_CHOWN), 0), (0, c.mask_of(c.CAP_CHOWN))):
        with pytest.raises(LinuxError) as caught:
            calls.set_capabilities(who, effective, permitted, 0)
        assert caught.value.errno == EPERM
