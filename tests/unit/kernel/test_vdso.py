"""The vDSO's code is what its text says, its ELF file is what C libraries look for, and it tells the time."""

import ctypes
import mmap
import os
import platform
import re
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import capstone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.abi import tsc
from enisle.abi.types import PAGE
from enisle.kernel import vdso, vdso_code, vvar
from enisle.kernel.clock import Clock, HostTsc

NAMES = ["__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time", "__vdso_getcpu", "__vdso_clock_getres"]
COMPUTED = (0, 1, 4, 5, 6, 7, 11)

native = pytest.mark.skipif(platform.machine() != "x86_64", reason="calls machine code of x86-64")
counting = pytest.mark.skipif(not tsc.is_invariant(), reason="this host's time-stamp counter is not relied on")


# ---- the code ------------------------------------------------------------------------------------------------------


def disassembled(code: bytes, at: int) -> list[tuple[int, str]]:
    machine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    return [(line.address, f"{line.mnemonic} {line.op_str}".strip()) for line in machine.disasm(code, at)]


def written(function: str, row: vdso_code.Row, at: int, labels: dict[str, int]) -> str:
    """Return a row's text as a disassembler shows it at address `at`."""
    text, encoding = row
    if "@" not in text:
        return text
    place = labels[vdso_code.local(function, vdso_code.target(text))]
    if "rip" in text:
        place -= at + len(bytes.fromhex(encoding)) + 4
        return re.sub(r"\+ @\w+", f"{'-' if place < 0 else '+'} {abs(place):#x}", text)
    return re.sub(r"@[.\w]+", f"{place:#x}", text)


def test_every_line_disassembles_to_its_own_text() -> None:
    code, labels = vdso_code.assemble(vdso_code.FUNCTIONS, {"vvar": -0x1440})
    for function, rows in vdso_code.FUNCTIONS.items():
        begin, end = labels[function], labels[function + ".end"]
        shown = disassembled(code[begin:end], begin)
        lines = [row for row in rows if not row[0].endswith(":")]
        for (at, text), row in zip(shown, lines, strict=True):
            assert text == written(function, row, at, labels)


def test_no_function_uses_the_stack_or_a_register_that_belongs_to_the_caller() -> None:
    for rows in vdso_code.FUNCTIONS.values():
        for text, _ in rows:
            assert not re.search(r"\b(push|pop|call|[er]sp|[er]?b[xpl]|r1[2-5][dwb]?)\b", text), text


def test_padding_between_functions_is_never_run() -> None:
    code, labels = vdso_code.assemble(vdso_code.FUNCTIONS, {"vvar": 0})
    for function in vdso_code.FUNCTIONS:
        assert labels[function] % vdso_code.ALIGNMENT == 0
        assert code[labels[function + ".end"] - 1] == 0xC3


@given(st.integers(0, (1 << 63) - 1))
def test_the_reciprocals_divide_exactly(nanoseconds: int) -> None:
    seconds = ((nanoseconds >> 9) * 0x44B82FA09B5A53 >> 64) >> 11
    rest = nanoseconds - seconds * 10**9
    assert (seconds, rest) == divmod(nanoseconds, 10**9)
    assert rest * 0x10624DD3 >> 38 == rest // 1000


@given(st.integers(0, 9_223_372_035), st.sampled_from((0, 1, 511, 512, 999_999_488, 999_999_999)))
def test_the_reciprocals_divide_exactly_at_the_edges_of_seconds(seconds: int, rest: int) -> None:
    nanoseconds = seconds * 10**9 + rest
    assert ((nanoseconds >> 9) * 0x44B82FA09B5A53 >> 64) >> 11 == seconds


# ---- the file ------------------------------------------------------------------------------------------------------


def dynamic_entries(image: bytes) -> dict[int, int]:
    count = struct.unpack_from("<H", image, 56)[0]
    for index in range(count):
        kind, _, offset, _, _, size, _, _ = struct.unpack_from("<IIQQQQQQ", image, 64 + 56 * index)
        if kind == vdso.PT_DYNAMIC:
            return dict(struct.iter_unpack("<qQ", image[offset : offset + size]))
    raise AssertionError("no PT_DYNAMIC")


def string_at(image: bytes, offset: int) -> str:
    return image[offset : image.index(0, offset)].decode()


def find_symbol(image: bytes, version: str, name: str) -> int:
    """Look a function up as musl does (src/internal/vdso.c)."""
    dynamic = dynamic_entries(image)
    strings, symbols = dynamic[vdso.DT_STRTAB], dynamic[vdso.DT_SYMTAB]
    for index in range(struct.unpack_from("<I", image, dynamic[vdso.DT_HASH] + 4)[0]):
        offset, kind, _, section, value, _ = vdso.SYMBOL.unpack_from(image, symbols + 24 * index)
        if kind & 15 not in (0, 1, 2, 5) or kind >> 4 not in (1, 2, 10) or not section:
            continue
        number = struct.unpack_from("<H", image, dynamic[vdso.DT_VERSYM] + 2 * index)[0] & 0x7FFF
        if string_at(image, strings + offset) == name and version_name(image, dynamic, number) == version:
            return value
    return 0


def version_name(image: bytes, dynamic: dict[int, int], number: int) -> str:
    at = dynamic[vdso.DT_VERDEF]
    while True:
        _, flags, index, _, hashed, auxiliary, following = struct.unpack_from("<4H3I", image, at)
        if not flags & vdso.VER_FLG_BASE and index & 0x7FFF == number:
            name = string_at(image, dynamic[vdso.DT_STRTAB] + struct.unpack_from("<I", image, at + auxiliary)[0])
            assert hashed == vdso.elf_hash(name)
            return name
        assert following, f"no version {number}"
        at += following


def test_every_function_is_found_as_musl_finds_it() -> None:
    for name in NAMES:
        assert find_symbol(vdso.image(), "LINUX_2.6", name)
        assert find_symbol(vdso.image(), "LINUX_2.6", name.removeprefix("__vdso_"))
    assert not find_symbol(vdso.image(), "LINUX_2.6", "__vdso_getrandom")
    assert vdso.elf_hash("LINUX_2.6") == 61765110  # as glibc's dl-vdso.h has it


def test_glibc_finds_every_function_by_hash_and_version(tmp_path: Path) -> None:
    path = tmp_path / "vdso.so"
    path.write_bytes(vdso.image())
    try:
        library = ctypes.CDLL(str(path))
        lookup = ctypes.CDLL(None).dlvsym
    except (OSError, AttributeError) as error:
        pytest.skip(f"no dlvsym(3) here: {error}")
    lookup.restype, lookup.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p)
    for name in NAMES:
        assert lookup(library._handle, name.encode(), b"LINUX_2.6")
        assert not lookup(library._handle, name.encode(), b"LINUX_2.7")


def test_the_image_is_one_page_with_one_read_only_segment() -> None:
    image = vdso.image()
    assert len(image) == PAGE
    loads = [struct.unpack_from("<IIQQQQQQ", image, 64 + 56 * index) for index in range(vdso.SEGMENTS)]
    assert [segment[1:4] for segment in loads if segment[0] == 1] == [(5, 0, 0)]


def test_readelf_finds_nothing_wrong(tmp_path: Path) -> None:
    if not shutil.which("readelf"):
        pytest.skip("binutils is not installed")
    path = tmp_path / "vdso.so"
    path.write_bytes(vdso.image())
    told = subprocess.run(["readelf", "-aW", "-wf", path], capture_output=True, text=True, check=True)
    assert told.stderr == ""
    assert "clock_gettime@@LINUX_2.6" in told.stdout
    assert re.search(r"FDE cie=00000000 pc=[0-9a-f]+\.\.[0-9a-f]+\n", told.stdout)


# ---- the functions, called by this process -------------------------------------------------------------------------


class Mapped:
    """The page and the image in this process's memory, and the functions in it."""

    def __init__(self) -> None:
        protection = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        self.memory = mmap.mmap(-1, vdso.VVAR_SIZE + len(vdso.image()), prot=protection)
        self.memory[vdso.VVAR_SIZE :] = vdso.image()
        self.anchor = ctypes.c_char.from_buffer(self.memory)
        self.address = ctypes.addressof(self.anchor)
        self.words = (ctypes.c_uint64 * 2)()

    def function(self, name: str, *arguments: type) -> Callable[..., int]:
        value = find_symbol(vdso.image(), "LINUX_2.6", "__vdso_" + name)
        return ctypes.PYFUNCTYPE(ctypes.c_int64, *arguments)(self.address + vdso.VVAR_SIZE + value)

    def store(self, offset: int, content: bytes) -> None:
        ctypes.memmove(self.address + offset, content, len(content))

    def gettime(self, clock_id: int) -> int:
        call = self.function("clock_gettime", ctypes.c_int, ctypes.c_void_p)
        assert call(clock_id, ctypes.addressof(self.words)) == 0
        assert self.words[1] < 10**9
        return self.words[0] * 10**9 + self.words[1]

    def close(self) -> None:
        del self.anchor
        self.memory.close()


@pytest.fixture
def mapped() -> Iterator[Mapped]:
    mapping = Mapped()
    yield mapping
    mapping.close()


def between(clock_id: int, read: Callable[[], int], slack: int) -> None:
    """Assert that `read` answers with the clock's time, at one of several tries."""
    for _ in range(50):
        before = time.clock_gettime_ns(clock_id)
        value = read()
        if before - slack <= value <= time.clock_gettime_ns(clock_id) + slack:
            return
    raise AssertionError(f"{clock_id=}: {value - before} ns after the host's clock")


@native
@counting
@pytest.mark.parametrize("clock_id", COMPUTED)
def test_the_code_agrees_with_the_hosts_clock(mapped: Mapped, clock_id: int) -> None:
    clock = Clock(HostTsc())
    time.sleep(0.02)
    clock.attach(vvar.Page(mapped.store, 1))
    assert mapped.memory[vvar.VALID : vvar.VALID + 8] != bytes(8)
    host = {5: 0, 6: 1}.get(clock_id, clock_id)
    between(host, lambda: mapped.gettime(clock_id), 2000)


@native
@pytest.mark.parametrize("clock_id", [*COMPUTED, 2, 3])
def test_an_empty_page_and_other_clocks_ask_the_kernel(mapped: Mapped, clock_id: int) -> None:
    between(clock_id, lambda: mapped.gettime(clock_id), 0)


@native
def test_what_the_kernel_refuses_is_refused(mapped: Mapped) -> None:
    call = mapped.function("clock_gettime", ctypes.c_int, ctypes.c_void_p)
    resolution = mapped.function("clock_getres", ctypes.c_int, ctypes.c_void_p)
    for clock_id in (12, 1000, -100_001 * 8):
        assert call(clock_id, ctypes.addressof(mapped.words)) & 0xFFFF_FFFF == 2**32 - 22
        assert resolution(clock_id, ctypes.addressof(mapped.words)) & 0xFFFF_FFFF == 2**32 - 22
    assert call(0, 8) & 0xFFFF_FFFF == 2**32 - 14


@native
@counting
@pytest.mark.parametrize("counted", [True, False])
def test_gettimeofday_and_time_agree_with_the_host(mapped: Mapped, counted: bool) -> None:
    if counted:
        clock = Clock(HostTsc())
        time.sleep(0.02)
        clock.attach(vvar.Page(mapped.store, 1))
    of_day = mapped.function("gettimeofday", ctypes.c_void_p, ctypes.c_void_p)
    seconds = mapped.function("time", ctypes.c_void_p)
    zone = (ctypes.c_uint32 * 2)(7, 7)

    def now() -> int:
        assert of_day(ctypes.addressof(mapped.words), ctypes.addressof(zone)) == 0
        assert list(zone) == [0, 0]
        return (mapped.words[0] * 10**6 + mapped.words[1]) * 1000

    between(time.CLOCK_REALTIME, now, 3000)
    assert of_day(ctypes.addressof(mapped.words), None) == of_day(None, None) == 0
    assert seconds(None) in range(int(time.time()) - 1, int(time.time()) + 2)
    assert seconds(ctypes.addressof(mapped.words)) == mapped.words[0]


@native
def test_resolutions_are_the_hosts(mapped: Mapped) -> None:
    call = mapped.function("clock_getres", ctypes.c_int, ctypes.c_void_p)
    for clock_id in range(12):
        try:
            expected = round(time.clock_getres(clock_id) * 1e9)
        except OSError:
            continue  # a clock of hardware that this host lacks
        assert call(clock_id, ctypes.addressof(mapped.words)) == call(clock_id, None) == 0
        assert mapped.words[0] * 10**9 + mapped.words[1] == expected


@native
def test_the_only_processor_has_number_0_and_others_are_asked_for(mapped: Mapped) -> None:
    call = mapped.function("getcpu", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    numbers = (ctypes.c_uint32 * 2)(77, 77)
    vvar.Page(mapped.store, 2)
    assert call(ctypes.addressof(numbers), ctypes.addressof(numbers) + 4, None) == call(None, None, None) == 0
    assert numbers[0] < (os.cpu_count() or 1)
    assert numbers[1] != 77
    vvar.Page(mapped.store, 1)
    numbers[0] = numbers[1] = 77
    assert call(ctypes.addressof(numbers), ctypes.addressof(numbers) + 4, None) == call(None, None, None) == 0
    assert list(numbers) == [0, 0]


@native
@counting
def test_a_closed_page_asks_the_kernel_after_a_short_wait(mapped: Mapped) -> None:
    clock = Clock(HostTsc())
    time.sleep(0.02)
    page = vvar.Page(mapped.store, 1)
    clock.attach(page)
    page.close()
    mapped.store(vvar.CLOCKS, bytes(vvar.CLOCK_COUNT * vvar.STRIDE))
    between(1, lambda: mapped.gettime(1), 0)


# void read_many(clock_gettime, clock, count, out): out[2] counts the readings that were earlier than the one before.
READ_MANY = bytes.fromhex(
    "53 55 41 54 41 55 41 56"  # push rbx; push rbp; push r12; push r13; push r14
    "48 89 fb"  # mov rbx, rdi
    "89 f5"  # mov ebp, esi
    "49 89 d4"  # mov r12, rdx
    "49 89 cd"  # mov r13, rcx
    "45 31 f6"  # xor r14d, r14d
    "89 ef"  # again: mov edi, ebp
    "4c 89 ee"  # mov rsi, r13
    "ff d3"  # call rbx
    "49 69 45 00 00 ca 9a 3b"  # imul rax, qword ptr [r13], 0x3b9aca00
    "49 03 45 08"  # add rax, qword ptr [r13 + 8]
    "4c 39 f0"  # cmp rax, r14
    "73 04"  # jae later
    "49 ff 45 10"  # inc qword ptr [r13 + 0x10]
    "49 89 c6"  # later: mov r14, rax
    "49 ff cc"  # dec r12
    "75 dc"  # jne again
    "41 5e 41 5d 41 5c 5d 5b"  # pop r14; pop r13; pop r12; pop rbp; pop rbx
    "c3"  # ret
)


@pytest.fixture
def renewing(mapped: Mapped) -> Iterator[Clock]:
    """A clock whose page is renewed all the time by another thread."""
    clock = Clock(HostTsc())
    time.sleep(0.02)
    clock.attach(vvar.Page(mapped.store, 1))
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(0.0002):
            clock.refresh()

    writer = threading.Thread(target=renew)
    writer.start()
    yield clock
    stop.set()
    writer.join()


@native
@counting
@pytest.mark.parametrize("clock_id", [0, 1, 4, 7])
def test_readings_never_go_back_while_parameters_change(mapped: Mapped, renewing: Clock, clock_id: int) -> None:
    mapped.memory[0x800 : 0x800 + len(READ_MANY)] = READ_MANY  # an unused part of the page of parameters
    arguments = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_void_p)
    read_many = ctypes.CFUNCTYPE(None, *arguments)(mapped.address + 0x800)  # lets other threads run meanwhile
    function = mapped.address + vdso.VVAR_SIZE + find_symbol(vdso.image(), "LINUX_2.6", "__vdso_clock_gettime")
    out = (ctypes.c_uint64 * 3)()
    begun = mapped.memory[0:4]
    for _ in range(10):
        read_many(function, clock_id, 100_000, ctypes.addressof(out))
    assert out[2] == 0
    assert mapped.memory[0:4] != begun


@native
@counting
@pytest.mark.parametrize("clock_id", [0, 1, 7])
def test_the_system_call_and_the_code_can_be_mixed(mapped: Mapped, renewing: Clock, clock_id: int) -> None:
    call = mapped.function("clock_gettime", ctypes.c_int, ctypes.c_void_p)
    words, at, last = mapped.words, ctypes.addressof(mapped.words), 0
    for index in range(20_000):
        if index % 3:
            call(clock_id, at)
            now = words[0] * 10**9 + words[1]
        else:
            now = renewing.now_ns(clock_id)
        assert last <= now, f"{index=}: {last - now} ns back"
        last = now
