"""Guest memory against a model: references, charge, contents, windows; on both kinds."""

import ctypes
import os
import tempfile

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from enisle.abi.types import FRAMES_PER_HUGE, HUGE, PAGE, Gpa
from enisle.machine.memory import GuestMemory, OutOfMemory

LIMIT = 16 << 20
KINDS = ["anonymous", "shared"]
FILE_PAGES = 6

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


def resident(memory: GuestMemory, gpa: int, pages: int) -> int:
    """Return how many pages of the run the host has allocated."""
    flags = (ctypes.c_ubyte * pages)()
    assert _libc.mincore(memory.base + gpa, pages * PAGE, flags) == 0
    return sum(flag & 1 for flag in flags)


def file_page(index: int) -> bytes:
    return bytes((index + 1,)) * 16


class MemoryMachine(RuleBasedStateMachine):
    """The model: references and the first bytes of each frame."""

    @initialize(kind=st.sampled_from(KINDS))
    def start(self, kind: str) -> None:
        self.memory = GuestMemory(LIMIT, kind)
        self.references: dict[int, int] = {}
        self.content: dict[int, bytes] = {}
        self.windows: set[int] = set()

    def teardown(self) -> None:
        if hasattr(self, "memory"):
            self.memory.close()

    def _add(self, runs: list[tuple[Gpa, int]], count: int) -> None:
        assert sum(frames for _, frames in runs) == count
        for gpa, frames in runs:
            for page in range(gpa, gpa + frames * PAGE, PAGE):
                assert page not in self.references, "a frame was handed out twice"
                self.references[page], self.content[page] = 1, bytes(16)
                assert self.memory.read(Gpa(page), 16) == bytes(16), "fresh memory is not zero"

    def _room(self) -> int:
        return LIMIT // PAGE - len(self.references.keys() - self.windows)

    @rule(count=st.integers(1, 600))
    def allocate(self, count: int) -> None:
        if count > self._room():
            with pytest.raises(OutOfMemory):
                self.memory.allocate(count)
            return
        self._add(self.memory.allocate(count), count)

    @rule(count=st.integers(1, 3))
    def allocate_chunks(self, count: int) -> None:
        try:
            runs = self.memory.allocate_chunks(count)
        except OutOfMemory:
            broken = {page // HUGE for page in self.references}
            assert count * FRAMES_PER_HUGE > self._room() or broken
            return
        assert all(not gpa % HUGE and not frames % FRAMES_PER_HUGE for gpa, frames in runs)
        self._add(runs, count * FRAMES_PER_HUGE)

    @rule(offset=st.integers(0, 2), count=st.integers(1, 4), shared=st.booleans())
    def place_file(self, offset: int, count: int, shared: bool) -> None:
        with tempfile.TemporaryFile() as file:
            file.write(b"".join(file_page(index).ljust(PAGE, b"\0") for index in range(FILE_PAGES)))
            file.flush()
            gpa = self.memory.place_file(file.fileno(), offset * PAGE, count, shared, writable=True)
        assert self.memory.is_window(gpa)
        for index in range(count):
            page = gpa + index * PAGE
            assert page not in self.references
            self.references[page], self.content[page] = 1, file_page(offset + index)
            self.windows.add(page)

    @precondition(lambda self: self.references)
    @rule(choice=st.integers(0, 1 << 16), count=st.integers(1, 64))
    def share(self, choice: int, count: int) -> None:
        start, here = self._run(choice, count)
        self.memory.share(Gpa(start), here)
        for page in range(start, start + here * PAGE, PAGE):
            self.references[page] += 1

    @precondition(lambda self: self.references)
    @rule(choice=st.integers(0, 1 << 16), count=st.integers(1, 700))
    def release(self, choice: int, count: int) -> None:
        start, here = self._run(choice, count)
        self.memory.release(Gpa(start), here)
        for page in range(start, start + here * PAGE, PAGE):
            self.references[page] -= 1
            if not self.references[page]:
                del self.references[page], self.content[page]
                self.windows.discard(page)

    @precondition(lambda self: self.references)
    @rule(choice=st.integers(0, 1 << 16), content=st.binary(min_size=16, max_size=16))
    def write(self, choice: int, content: bytes) -> None:
        page, _ = self._run(choice, 1)
        self.memory.write(Gpa(page), content)
        self.content[page] = content

    @precondition(lambda self: self.references)
    @rule(choice=st.integers(0, 1 << 16), count=st.integers(1, 64))
    def flush(self, choice: int, count: int) -> None:
        start, here = self._run(choice, count)
        self.memory.flush(Gpa(start), here)

    def _run(self, choice: int, count: int) -> tuple[int, int]:
        """Return a run of live frames that does not cross from memory to window."""
        pages = sorted(self.references)
        start = pages[choice % len(pages)]
        here = 1
        while here < count and start + here * PAGE in self.references:
            here += 1
        return start, here

    @invariant()
    def the_model_agrees(self) -> None:
        if not hasattr(self, "memory"):
            return
        assert self.memory.used_frames == len(self.references.keys() - self.windows)
        assert self.memory.window_frames == len(self.windows)
        for page in list(self.references)[:: max(1, len(self.references) // 20)]:
            assert self.memory.references(Gpa(page)) == self.references[page]
            assert self.memory.read(Gpa(page), 16) == self.content[page]


TestMemory = MemoryMachine.TestCase
TestMemory.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, phases=set(Phase) - {Phase.explain}
)


@pytest.fixture(params=KINDS)
def memory(request: pytest.FixtureRequest):
    memory = GuestMemory(LIMIT, request.param)
    yield memory
    memory.close()


@pytest.mark.parametrize("chunks", [True, False])
def test_freed_memory_goes_back_to_the_host_and_comes_back_empty(memory: GuestMemory, chunks: bool) -> None:
    runs = memory.allocate_chunks(2) if chunks else memory.allocate(2 * FRAMES_PER_HUGE)
    for gpa, frames in runs:
        memory.write(gpa, b"x" * (frames * PAGE))
        assert resident(memory, gpa, frames) == frames
        memory.release(gpa, frames)
        assert resident(memory, gpa, frames) == 0
    if memory.memfd >= 0:
        assert os.fstat(memory.memfd).st_blocks == 0
    runs = memory.allocate_chunks(2) if chunks else memory.allocate(2 * FRAMES_PER_HUGE)
    assert all(memory.read(gpa, frames * PAGE) == bytes(frames * PAGE) for gpa, frames in runs)


def test_allocating_costs_the_host_nothing_before_the_first_touch(memory: GuestMemory) -> None:
    for gpa, frames in memory.allocate(2000) + memory.allocate_chunks(2):
        assert resident(memory, gpa, frames) == 0


def test_the_limit_is_hard_and_a_refusal_costs_nothing(memory: GuestMemory) -> None:
    runs = memory.allocate(LIMIT // PAGE)
    for attempt in (lambda: memory.allocate(1), lambda: memory.allocate_chunks(1)):
        with pytest.raises(OutOfMemory):
            attempt()
    gpa, frames = runs[0]
    memory.release(gpa, 1)
    assert memory.allocate(1) == [(gpa, 1)]
    memory.release(gpa, frames)
    assert memory.used_frames == LIMIT // PAGE - frames


def test_a_chunk_is_free_again_only_when_all_its_frames_are(memory: GuestMemory) -> None:
    for _ in range(3):
        ((gpa, frames),) = memory.allocate_chunks(LIMIT // HUGE)
        assert frames == LIMIT // PAGE
        memory.release(gpa, FRAMES_PER_HUGE - 1)
        with pytest.raises(OutOfMemory):
            memory.allocate_chunks(1)
        memory.release(Gpa(gpa + HUGE - PAGE), 1)
        ((again, _),) = memory.allocate_chunks(1)
        assert again == gpa
        memory.release(gpa, frames)
        assert memory.used_frames == 0


def test_a_frame_released_too_often_is_our_bug(memory: GuestMemory) -> None:
    gpa = memory.allocate_frame()
    memory.share(gpa, 1)
    memory.release(gpa, 1)
    memory.release(gpa, 1)
    with pytest.raises(AssertionError, match="released too often"):
        memory.release(gpa, 1)


def test_extents_are_announced_before_their_memory_is_handed_out() -> None:
    known: list[tuple[int, int]] = []
    memory = GuestMemory(512 << 20, add_extent=lambda gpa, _hva, size: known.append((gpa, gpa + size)))
    for gpa, frames in memory.allocate_chunks(100) + memory.allocate(60_000):
        for page in (gpa, gpa + frames * PAGE - 1):
            assert any(start <= page < end for start, end in known)
    assert len(known) == len(set(known))
    memory.close()


@pytest.fixture
def file() -> object:
    with tempfile.TemporaryFile() as file:
        file.write(b"a" * PAGE + b"b" * PAGE)
        file.flush()
        yield file


def test_a_shared_window_is_the_file_and_a_private_one_is_not(memory: GuestMemory, file) -> None:
    for shared in (True, False):
        gpa = memory.place_file(file.fileno(), 0, 2, shared, writable=True)
        memory.write(gpa, b"new")
        memory.flush(gpa, 2)
        assert memory.read(gpa, 4) == b"newa"
        assert os.pread(file.fileno(), 4, 0) == (b"newa" if shared else b"aaaa")
        os.pwrite(file.fileno(), b"a" * 4, 0)
        memory.release(gpa, 2)
    assert memory.window_frames == 0
    assert memory.read(gpa, PAGE) == bytes(PAGE)


def test_a_window_open_for_reading_only_is_flushed_with_its_neighbours_and_stays_as_it_is(
    memory: GuestMemory, file
) -> None:
    """Neighbours may be flushed in one go: no one may lose or win a right by it."""
    reader = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)
    private = memory.place_file(file.fileno(), 0, 1, shared=False, writable=True)
    read_only = memory.place_file(reader, 0, 1, shared=True, writable=False)
    writable = memory.place_file(file.fileno(), 0, 2, shared=True, writable=True)
    assert read_only == private + PAGE
    assert writable == read_only + PAGE
    memory.write(private, b"mine")
    memory.flush(private, 4)
    protections = mappings(memory.base + private, 4)
    assert [protection[:2] for protection in protections] == ["rw", "r-", "rw", "rw"]
    assert memory.read(private, 5) == b"minea"
    memory.write(Gpa(writable + PAGE), b"B")
    assert os.pread(file.fileno(), 2, PAGE) == b"Bb"
    os.close(reader)


def mappings(address: int, pages: int) -> list[str]:
    """Return the protection of each host page."""
    found: dict[int, str] = {}
    with open("/proc/self/maps") as maps:
        for line in maps:
            bounds, protection = line.split()[:2]
            start, end = (int(bound, 16) for bound in bounds.split("-"))
            for page in range(address, address + pages * PAGE, PAGE):
                if start <= page < end:
                    found[page] = protection
    return [found[page] for page in sorted(found)]


def test_reading_beyond_the_end_of_a_file_is_an_error_not_the_end_of_us(memory: GuestMemory, file) -> None:
    gpa = memory.place_file(file.fileno(), 0, 4, shared=True, writable=True)
    for call in (lambda: memory.read(Gpa(gpa + 2 * PAGE), 8), lambda: memory.write(Gpa(gpa + 3 * PAGE), b"x")):
        with pytest.raises(OSError, match=r"Input/output|Bad address"):
            call()
    assert memory.read(Gpa(gpa + PAGE), 2) == b"bb"


def test_a_flush_never_gets_in_the_way_of_a_store(memory: GuestMemory) -> None:
    """Another thread of ours may be writing there: no moment without the right to, or the process dies."""
    import threading

    gpa, stop = memory.allocate(1)[0][0], threading.Event()

    def flush() -> None:
        while not stop.is_set():
            memory.flush(gpa, 1)

    thread = threading.Thread(target=flush)
    thread.start()
    for value in range(20_000):
        memory.words[gpa >> 3] = value
    stop.set()
    thread.join()
    assert memory.words[gpa >> 3] == 19_999


def test_a_pinned_view_is_the_memory(memory: GuestMemory) -> None:
    gpa = memory.allocate_frame()
    reader, writer = os.pipe()
    os.write(writer, b"through the pipe")
    view = memory.pin(gpa, 16)
    assert os.readv(reader, [view]) == 16
    view.release()
    assert memory.read(gpa, 16) == b"through the pipe"
    os.close(reader)
    os.close(writer)
