"""The pure parts of /proc: formats, averages, what of the host's mounts is told."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.abi.linux_mman import MAP_PRIVATE, PROT_EXEC, PROT_READ
from enisle.kernel.limits import ResourceLimits
from enisle.kernel.proc import host, memory, status, sysctl
from enisle.kernel.proc.system import LoadAverage, System
from enisle.kernel.vma import Vma

MOUNTS = b"""\
69 74 254:0 /secret/place /work ro,nosuid - ext4 /dev/vda rw,errors=remount-ro
74 43 0:40 /root / rw,nodev,relatime shared:1 - tmpfs enisle rw,size=1048576k
77 74 0:41 / /usr rw,relatime - overlay enisle rw,lowerdir=/usr,upperdir=/sys/upper/usr
80 74 0:5 / /proc rw - proc proc rw
"""


@given(st.sets(st.integers(0, 70)))
def test_a_mask_as_ranges_names_its_bits(bits: set[int]) -> None:
    text = status.ranges(sum(1 << bit for bit in bits))
    named: set[int] = set()
    for part in text.split(",") if text else []:
        first, _, last = part.partition("-")
        named |= set(range(int(first), int(last or first) + 1))
    assert named == bits


def test_maps_lines_have_their_name_in_the_same_column_as_linux() -> None:
    vma = Vma(0x7F00_0000_0000, 0x7F00_0000_2000, PROT_READ | PROT_EXEC, MAP_PRIVATE)
    assert memory.maps_line(vma, b"") == b"7f0000000000-7f0000002000 r-xp 00000000 00:00 0 \n"
    named = memory.maps_line(vma, b"[heap]")
    assert named.index(b"[heap]") == memory.NAME_COLUMN
    assert re.fullmatch(rb"[0-9a-f]+-[0-9a-f]+ r-xp 00000000 00:00 0 +\[heap\]\n", named)


def test_limits_are_a_table_of_fixed_columns() -> None:
    lines = status.limits(SimpleNamespace(limits=ResourceLimits())).splitlines()  # type: ignore[arg-type]
    assert len(lines) == 17
    assert lines[0] == b"Limit                     Soft Limit           Hard Limit           Units     "
    assert lines[4] == b"Max stack size            8388608              unlimited            bytes     "
    assert {len(line) for line in lines} == {len(lines[0])}


def test_loads_rise_while_processors_are_used_and_fall_after() -> None:
    load = LoadAverage()
    assert load.update(0.0, 0.0) == (0.0, 0.0, 0.0)
    busy = load.update(60.0, 120.0)  # two processors for a minute
    assert busy[0] == pytest.approx(2 * (1 - 0.36788), rel=1e-3)
    assert busy[0] > busy[1] > busy[2] > 0
    idle = load.update(120.0, 120.0)
    assert idle[0] == pytest.approx(busy[0] * 0.36788, rel=1e-3)


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 8)), max_size=20))
def test_loads_stay_between_nothing_and_all_processors(steps: list[tuple[float, float]]) -> None:
    load, now, used = LoadAverage(), 0.0, 0.0
    for elapsed, running in steps:
        now, used = now + elapsed, used + elapsed * running
        assert all(0 <= value <= 8 + 1e-6 for value in load.update(now, used))


def test_mounts_do_not_tell_where_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(_kernel: object, _path: str) -> bytes:
        return MOUNTS

    monkeypatch.setattr(host, "find", find)
    kernel: Any = None
    lines = host.mountinfo(kernel).splitlines()
    assert lines[0] == b"74 43 0:40 / / rw,nodev,relatime - tmpfs tmpfs rw"
    assert lines[-1] == b"78 74 0:20 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw"
    text = b"\n".join(lines) + host.mounts(kernel)
    assert not [word for word in (b"secret", b"vda", b"upper", b"lowerdir", b"enisle") if word in text]
    assert host.mounts(kernel).splitlines()[1] == b"none /work ext4 ro,nosuid 0 0"


def test_every_processor_has_its_own_number() -> None:
    block = "processor\t: 9\nsiblings\t: 64\ncore id\t\t: 7\ncpu cores\t: 32\nmodel name\t: A CPU: fast"
    text = b"".join(System._processor(block, number, 2) for number in range(2)).decode()
    assert [line for line in text.splitlines() if line.startswith("processor")] == ["processor\t: 0", "processor\t: 1"]
    assert text.count("siblings\t: 2\n") == 2
    assert text.count("model name\t: A CPU: fast\n") == 2


def test_every_setting_is_reached_by_its_path() -> None:
    kernel: Any = SimpleNamespace(hostname=b"here", domainname=b"(none)", config=SimpleNamespace(processes=512))
    root = sysctl.make_tree(kernel)
    thread: Any = SimpleNamespace(kernel=SimpleNamespace(synthetic={b"/proc/sys": root}))
    for path, text in [*sysctl.CONSTANTS.items(), ("kernel/hostname", "here"), ("kernel/threads-max", "512")]:
        node: Any = root
        for name in path.encode().split(b"/"):
            node = node.lookup(thread, name)
        assert node.render(thread).decode() == text + "\n"
        assert node.path(thread) == b"/proc/sys/" + path.encode()


def test_a_uuid_is_a_random_one() -> None:
    one, two = sysctl.uuid(), sysctl.uuid()
    assert one != two
    assert re.fullmatch(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", one)
