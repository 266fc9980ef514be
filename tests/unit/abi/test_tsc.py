"""Our few instructions around RDTSC are what their comments say, and read the counter and the clocks together."""

import inspect
import platform
import re
import time

import capstone
import pytest

from enisle.abi import tsc

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the time-stamp counter is x86's")


@pytest.mark.parametrize("name", ["CPUID", "READ", "SAMPLE"])
def test_every_line_disassembles_to_its_comment(name: str) -> None:
    source = inspect.getsource(tsc)
    block = source[source.index(f"{name} = bytes.fromhex(") :]
    comments = re.findall(r'^    "[0-9a-f ]+"  # ([^:\n]+)', block[: block.index("\n)")], re.MULTILINE)
    lines = list(capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm(getattr(tsc, name), 0))
    shown = [f"{line.mnemonic} {line.op_str}".strip() for line in lines]
    fence = next((line.address for line in lines if line.mnemonic == "lfence"), 0)
    assert shown == [comment.replace("to the first lfence", f"{fence:#x}") for comment in comments]


def test_the_counter_only_grows() -> None:
    read = tsc.reader()
    values = [read() for _ in range(1000)]
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_clocks_are_read_between_their_counters() -> None:
    sample = tsc.sampler([time.CLOCK_MONOTONIC, time.CLOCK_REALTIME, time.CLOCK_MONOTONIC])
    before = time.monotonic_ns(), time.time_ns(), tsc.reader()()
    ticks, times = sample()
    after = time.monotonic_ns(), time.time_ns(), tsc.reader()()
    assert len(ticks) == 4
    assert before[2] <= ticks[0] < ticks[1] < ticks[2] < ticks[3] <= after[2]
    assert before[0] <= times[0] <= times[2] <= after[0]
    assert before[1] <= times[1] <= after[1]
