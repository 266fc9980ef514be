"""By what a kernel is known again, where it exports nothing."""

import struct

from enisle.introspect.cache import identity
from enisle.introspect.exports import Exports
from synthetic_kernel import READ_ONLY, START, TEXT, Builder

BANNER = b"Linux version 6.12.113 (root@somewhere) (gcc 13) #1 SMP Fri Jul 24 13:01:52 UTC 2026\n\0"


def _note(build: int) -> bytes:
    return struct.pack("<III", 4, 20, 3) + b"GNU\0" + bytes([build]) * 20


def _identity(content: bytes, slide: int = 0) -> str | None:
    builder = Builder()
    builder.place(START + slide, b"\x90" * 4096, TEXT)
    builder.place(START + slide + 4096, content, READ_ONLY)
    return identity(builder.image(START + slide, START + slide + 0x2000), Exports(), "recipes")


def test_banner_and_build_id_tell_a_kernel_from_others_wherever_it_lies() -> None:
    one = _identity(BANNER + _note(1))
    assert one is not None
    assert one == _identity(BANNER + _note(1), slide=0x200000)
    assert one != _identity(BANNER + _note(2))
    assert one != _identity(BANNER.replace(b"113", b"114") + _note(1))


def test_without_both_a_kernel_is_not_known_again() -> None:
    assert _identity(b"") is None
    assert _identity(BANNER) is None
    assert _identity(_note(1)) is None
