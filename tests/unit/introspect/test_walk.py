"""Following functions: what registers hold at calls, fields touched, what is not known stays unknown."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.introspect import patterns
from enisle.introspect.decode import Decoder
from enisle.introspect.events import Access, Call, Return, Walked
from enisle.introspect.recipes import OffsetRecipe
from enisle.introspect.switch import RETURNS, Switch
from enisle.introspect.walk import Walker
from synthetic_kernel import DATA, START, TEXT, Builder

LOCK, OTHER, GLOBAL = START + 0x800, START + 0x900, START + 0x2000
NAMES = {LOCK: "mutex_lock"}


def _walker(code: bytes) -> Walker:
    builder = Builder()
    builder.place(START, code.ljust(0x1000, b"\xcc"), TEXT)
    builder.place(GLOBAL, bytes(0x1000), DATA)
    image = builder.image(START, START + 0x10_0000)
    return Walker(Decoder(image), image.is_text, NAMES.__contains__)


def _walk(*parts: bytes) -> Walked:
    return _walker(b"".join(parts)).walk(START)


def _call(at: int, target: int) -> bytes:
    return b"\xe8" + struct.pack("<i", target - (START + at + 5))


def _argument(walked: Walked, position: int = 0) -> object:
    return next(event for event in walked.events if isinstance(event, Call)).arguments[position]


RET = b"\xc3"
MOV_RDI_GLOBAL = b"\x48\xc7\xc7" + struct.pack("<i", GLOBAL - (1 << 64))


def test_a_constant_argument_is_the_global() -> None:
    walked = _walk(MOV_RDI_GLOBAL, _call(7, LOCK), RET)
    assert _argument(walked) == ("const", GLOBAL)
    witness = patterns.internal_argument(walked, "f", frozenset(["mutex_lock"]), NAMES.get, lambda a: a >= GLOBAL)
    assert witness is not None
    assert (witness.value, witness.site, witness.callee) == (GLOBAL, START + 7, "mutex_lock")


def test_a_rip_relative_address_is_the_global() -> None:
    lea = b"\x48\x8d\x3d" + struct.pack("<i", GLOBAL - (START + 7))
    assert _argument(_walk(lea, _call(7, LOCK), RET)) == ("const", GLOBAL)


def test_two_globals_tell_nothing() -> None:
    second = b"\x48\xc7\xc7" + struct.pack("<i", GLOBAL + 64 - (1 << 64))
    walked = _walk(MOV_RDI_GLOBAL, _call(7, LOCK), second, _call(19, LOCK), RET)
    assert patterns.internal_argument(walked, "f", frozenset(["mutex_lock"]), NAMES.get, lambda a: True) is None


def test_values_survive_copies_the_stack_and_sums() -> None:
    code = (
        b"\x48\x89\xfb"  # mov rbx, rdi
        b"\x53"  # push rbx
        b"\x31\xdb"  # xor ebx, ebx
        b"\x5a"  # pop rdx
        b"\x48\x8d\x7a\x10"  # lea rdi, [rdx+0x10]
        b"\x48\x83\xc7\x08"  # add rdi, 8
    )
    assert _argument(_walk(code, _call(len(code), LOCK), RET)) == ("add", ("arg", 0), 0x18)


def test_a_call_forgets_what_it_does_not_keep() -> None:
    walked = _walk(MOV_RDI_GLOBAL, _call(7, OTHER), _call(12, LOCK), RET)
    calls = [event for event in walked.events if isinstance(event, Call)]
    assert calls[1].arguments[0] is None


def test_a_partial_write_makes_a_register_unknown() -> None:
    walked = _walk(MOV_RDI_GLOBAL, b"\x40\xb7\x01", _call(10, LOCK), RET)  # mov dil, 1
    assert _argument(walked) is None


def test_instructions_not_modelled_make_their_results_unknown() -> None:
    for code in (b"\x48\x0f\xaf\xfe", b"\x48\x0f\x44\xfe", b"\x48\x87\xfe"):  # imul, cmove, xchg of rdi and rsi
        walked = _walk(MOV_RDI_GLOBAL, code, _call(7 + len(code), LOCK), RET)
        assert _argument(walked) is None, code.hex()


def test_a_field_of_current_is_found() -> None:
    code = b"\x65\x48\x8b\x04\x25\x80\xfb\x01\x00"  # mov rax, gs:[0x1fb80]
    code += b"\x48\x8b\x80\x90\x0b\x00\x00"  # mov rax, [rax+0xb90]
    walked = _walk(code, RET)
    current = patterns.current_task(walked, "f")
    assert current is not None
    assert current.value == 0x1FB80
    recipe = OffsetRecipe(name="t.cred", of="current", roots=("f",), size=8)
    base = patterns.base_of(recipe, current.value, None)
    witness = patterns.field(walked, "f", recipe, base, frozenset(), NAMES.get)
    assert witness is not None
    assert (witness.value, witness.pattern) == (0xB90, "P3")


def test_a_store_of_a_constant_is_told() -> None:
    code = b"\xc7\x47\x18\x02\x01\x00\x00"  # mov dword [rdi+0x18], 0x102
    (access,) = [event for event in _walk(code, RET).events if isinstance(event, Access)]
    assert (access.address, access.write, access.stored, access.size) == (
        ("add", ("arg", 0), 0x18),
        True,
        ("const", 0x102),
        4,
    )


def test_both_sides_of_a_branch_are_followed() -> None:
    code = b"\x85\xf6\x74\x06" + _call(4, LOCK) + RET + _call(10, OTHER) + RET  # test esi; je
    targets = [event.target for event in _walk(code).events if isinstance(event, Call)]
    assert sorted(target[1] for target in targets if target) == [LOCK, OTHER]


def test_a_jump_to_another_function_is_a_call() -> None:
    jump = b"\xe9" + struct.pack("<i", LOCK - (START + 7 + 5))
    (call,) = [event for event in _walk(MOV_RDI_GLOBAL, jump).events if isinstance(event, Call)]
    assert (call.tail, call.arguments[0]) == (True, ("const", GLOBAL))


def test_a_return_thunk_returns() -> None:
    code = bytearray(b"\x31\xc0\xe9" + struct.pack("<i", 0x900 - 7)).ljust(0x900, b"\xcc") + b"\xc3"
    events = _walker(bytes(code)).walk(START, span=64).events
    assert [event.result for event in events if isinstance(event, Return)] == [("const", 0)]


@given(st.binary(min_size=1, max_size=400))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_walked_to_an_end(code: bytes) -> None:
    walked = _walk(code)
    assert walked.instructions <= 1500


def test_a_switch_of_compares_and_its_defaults() -> None:
    targets = [START + 0x200, START + 0x300]
    code = b"\x48\x83\xfe\x00\x0f\x84" + struct.pack("<i", 0x8200 - 10)  # cmp rsi, 0; je far
    code += b"\x48\x83\xfe\x01\x75\x05\xe9" + struct.pack("<i", 0x8300 - 21) + RET
    builder = Builder()
    builder.place(START, code.ljust(0x9000, b"\xcc"), TEXT)
    image = builder.image(START, START + 0x10_0000)
    switch = Switch(image, Walker(Decoder(image), image.is_text), START)
    assert [switch.target(number) for number in (0, 1, 2)] == [targets[0] + 0x8000, targets[1] + 0x8000, RETURNS]


@given(st.binary(min_size=1, max_size=300), st.integers(0, 500))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_a_switch_that_ends(code: bytes, number: int) -> None:
    walker = _walker(code)
    builder = Builder()
    builder.place(START, code, TEXT)
    Switch(builder.image(START, START + 0x1000), walker, START).target(number)
