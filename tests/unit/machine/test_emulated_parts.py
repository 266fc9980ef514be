"""What the emulated backend is made of, without running a guest: constants, code marks, turns."""

import threading
import time
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.abi.types import FRAMES_PER_HUGE, PAGE, PAGE_SHIFT, Gva
from enisle.abi.x86 import PTE_ADDRESS, Pte
from enisle.errors import HostError
from enisle.machine import emulated_bus, emulated_code, emulated_engine, emulated_fpu
from enisle.machine.emulated_code import CodeWatch, WatchedPageTables
from enisle.machine.emulated_turns import Runner, Turns
from enisle.machine.memory import FRAMES_PER_EXTENT, GuestMemory
from enisle.machine.pagetables import AddressSpace, leaf_flags

READ_WRITE, READ_EXECUTE = leaf_flags(True, True, False), leaf_flags(True, False, True)
ALL, NO_RIGHTS = leaf_flags(True, True, True), leaf_flags(False, False, False)


# ---- the library -----------------------------------------------------------------------------------------------------


def test_our_numbers_are_unicorns() -> None:
    const = pytest.importorskip("unicorn.unicorn_const")
    x86 = pytest.importorskip("unicorn.x86_const")
    ours = emulated_engine
    assert (ours.ARCH_X86, ours.MODE_64, ours.PROT_ALL) == (const.UC_ARCH_X86, const.UC_MODE_64, const.UC_PROT_ALL)
    assert (ours.HOOK_INTR, ours.HOOK_INSN) == (const.UC_HOOK_INTR, const.UC_HOOK_INSN)
    assert ours.ERR_INSN_INVALID == const.UC_ERR_INSN_INVALID
    assert ours.CPU_HASWELL == x86.UC_CPU_X86_HASWELL
    controls = {
        "UC_USE_EXITS": ours.CTL_USE_EXITS,
        "CPU_MODEL": ours.CTL_CPU_MODEL,
        "TB_REMOVE_CACHE": ours.CTL_REMOVE_CODE,
        "TB_FLUSH": ours.CTL_FLUSH_CODE,
        "TLB_FLUSH": ours.CTL_FLUSH_TLB,
        "TCG_BUFFER_SIZE": ours.CTL_BUFFER_SIZE,
        "CONTEXT_MODE": ours.CTL_CONTEXT_MODE,
        "CONTEXT_CPU": ours.CONTEXT_CPU,
        "CONTEXT_MEMORY": ours.CONTEXT_MEMORY,
    }
    assert controls == {name: getattr(const, f"UC_CTL_{name}") for name in controls}
    for name in ("IN", "OUT", "SYSCALL", "SYSENTER"):
        assert getattr(ours, f"INSN_{name}") == getattr(x86, f"UC_X86_INS_{name}")
    general = ("RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RSP", "RBP")
    general += (*(f"R{number}" for number in range(8, 16)), "RIP", "RFLAGS")
    assert tuple(getattr(x86, f"UC_X86_REG_{name}") for name in general) == ours.REG_GPR
    for module, names in (
        (ours, ("CR0", "CR2", "CR3", "CR4", "DR0", "GDTR", "MSR", "FS_BASE", "GS_BASE")),
        (emulated_fpu, ("FPSW", "FPCW", "FPTAG", "MXCSR", "FIP", "FDP", "FOP", "ST0", "XMM0")),
    ):
        for name in names:
            assert getattr(module, f"REG_{name}") == getattr(x86, f"UC_X86_REG_{name}"), name


def test_without_unicorn_the_error_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulated_engine, "find_spec", lambda _name: None)
    with pytest.raises(HostError) as caught:
        emulated_engine.load_library()
    assert "pip install" in caught.value.hint


def test_a_broken_library_is_the_hosts_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    class Spec:
        submodule_search_locations = [str(tmp_path)]

    monkeypatch.setattr(emulated_engine, "find_spec", lambda _name: Spec)
    with pytest.raises(HostError, match="cannot be loaded"):
        emulated_engine.load_library()


# ---- code marks ------------------------------------------------------------------------------------------------------


def watch() -> CodeWatch:
    return CodeWatch(lambda: None)


def test_frames_that_never_held_code_are_not_logged() -> None:
    code = watch()
    code.mapped(10, 5, True, False)
    code.written(10, 5)
    code.freed(10, 5)
    assert code.log == []


def test_code_that_only_runs_is_not_logged_however_often_it_is_mapped() -> None:
    code = watch()
    for _ in range(3):
        code.mapped(10, 5, False, True)  # fork
    assert code.log == []


def test_code_that_could_be_written_is_logged_when_it_may_run_again() -> None:
    code = watch()
    code.mapped(10, 5, False, True)
    code.mapped(12, 1, True, False)
    assert code.log == []
    code.mapped(12, 1, False, True)
    assert code.since(0) == [(12, 1)]
    code.mapped(12, 1, False, True)
    assert code.since(1) == []


def test_the_hosts_writes_and_freed_frames_are_logged_by_extent() -> None:
    code = watch()
    first = FRAMES_PER_EXTENT - 2
    code.mapped(first, 4, False, True)
    code.written(first + 1, 1)
    code.freed(first, 4)
    assert code.log == [(first + 1, 1), (first, 2), (FRAMES_PER_EXTENT, 2)]
    code.freed(first, 4)
    assert len(code.log) == 3


def test_pages_writable_and_executable_at_once_are_volatile_until_they_are_freed() -> None:
    code = watch()
    code.mapped(10, 3, True, True)
    assert code.volatile == {10, 11, 12}
    code.freed(11, 1)
    assert code.volatile == {10, 12}


def test_a_reader_that_is_too_late_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulated_code, "LOG_LIMIT", 4)
    code = watch()
    code.mapped(1, 1, False, True)
    for _ in range(6):
        code.written(1, 1)
    assert code.position == 6
    assert code.since(0) is None
    assert code.since(5) == [(1, 1)]


ENTRIES = st.lists(
    st.one_of(
        st.just(0),
        st.tuples(
            st.integers(1, 6), st.sampled_from([READ_WRITE, READ_EXECUTE, ALL, leaf_flags(False, False, False)])
        ).map(lambda pair: pair[0] << PAGE_SHIFT | pair[1]),
    ),
    min_size=1,
    max_size=12,
)


@given(ENTRIES, st.booleans())
def test_runs_with_rights_are_the_present_entries(entries: list[int], regular: bool) -> None:
    if regular:
        entries = [entries[0] + index * PAGE for index in range(len(entries))]
    found = [
        (frame + index, writable, executable)
        for frame, count, writable, executable in emulated_code._runs_with_rights(array("Q", entries))
        for index in range(count)
    ]
    assert found == [
        ((entry & PTE_ADDRESS) >> PAGE_SHIFT, bool(entry & Pte.WRITABLE), not entry >> 63)
        for entry in entries
        if entry & 1
    ]


def test_watched_tables_see_pages_of_both_sizes() -> None:
    memory = GuestMemory(32 << 20)
    code = watch()
    space = AddressSpace(memory, WatchedPageTables(memory, code))
    ((gpa, frames),) = memory.allocate_chunks(1)
    space.map(Gva(0x4000_0000), gpa, frames, ALL)
    assert len(code.volatile) == FRAMES_PER_HUGE
    space.map(Gva(0x1000), memory.allocate_frame(), 1, ALL)
    assert len(code.volatile) == FRAMES_PER_HUGE + 1
    space.close()
    memory.close()


# ---- turns -----------------------------------------------------------------------------------------------------------


class Worker(Runner):
    """Computes in short steps until somebody halts it."""

    def __init__(self, turns: Turns, inside: list[int]) -> None:
        super().__init__()
        self.turns, self.inside = turns, inside
        self.halted = threading.Event()
        self.steps = 0

    def halt(self) -> None:
        self.halted.set()

    def work(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.turns.take(self)
            self.inside[0] += 1
            assert self.inside[0] == 1, "two at once"
            self.halted.wait(0.05)
            self.halted.clear()
            self.steps += 1
            self.inside[0] -= 1
            self.turns.leave(self)


def test_one_at_a_time_and_everybody_in_turn() -> None:
    turns, inside = Turns(), [0]
    workers = [Worker(turns, inside) for _ in range(4)]
    threads = [threading.Thread(target=worker.work, args=(0.4,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert turns.owner is None
    assert min(worker.steps for worker in workers) >= 2


def test_a_waiter_can_be_woken_and_a_kick_before_the_wait_is_seen() -> None:
    turns, inside = Turns(), [0]
    owner, waiter = Worker(turns, inside), Worker(turns, inside)
    assert turns.take(owner)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(turns.take(waiter)))
    thread.start()
    time.sleep(0.01)
    turns.wake(waiter)
    thread.join(5)
    assert answers == [False]
    waiter.kicked = True
    assert not turns.take(waiter)
    turns.leave(owner)
    assert turns.owner is None


def test_the_one_that_was_served_least_is_next() -> None:
    turns, inside = Turns(), [0]
    owner, greedy, modest = (Worker(turns, inside) for _ in range(3))
    greedy._served = 1.0
    turns._floor = 1.0
    assert turns.take(owner)
    order: list[str] = []

    def contend(worker: Worker, name: str) -> None:
        turns.take(worker)
        order.append(name)
        turns.leave(worker)

    threads = [threading.Thread(target=contend, args=pair) for pair in ((greedy, "greedy"), (modest, "modest"))]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    turns.leave(owner)
    for thread in threads:
        thread.join(5)
    assert order == ["modest", "greedy"]


# ---- SIGBUS ----------------------------------------------------------------------------------------------------------


def test_a_covered_page_is_zero_and_uncovering_brings_the_mapping_back() -> None:
    memory = GuestMemory(16 << 20)
    gpa = memory.allocate_frame()
    memory.write(gpa, b"content")
    aside = emulated_bus.cover(memory.base + gpa)
    assert memory.read(gpa, 7) == bytes(7)
    emulated_bus.uncover(memory.base + gpa, aside)
    assert memory.read(gpa, 7) == b"content"
    memory.close()
