"""Control flow in software against the condition codes of the manual."""

from itertools import product

import pytest

from enisle.abi.x86 import Rflags
from enisle.machine.enforcement.control import condition

CF, PF, ZF, SF, OF = Rflags.CF, Rflags.PF, Rflags.ZF, Rflags.SF, Rflags.OF
BITS = (CF, PF, ZF, SF, OF)


@pytest.mark.parametrize("code", range(16))
def test_conditions_hold_as_the_manual_says(code: int) -> None:
    """SDM 1 appendix B: O B Z BE S P L LE, and their opposites."""
    for chosen in product((0, 1), repeat=5):
        c, p, z, s, o = chosen
        flags = sum(bit for bit, is_set in zip(BITS, chosen, strict=True) if is_set)
        expected = (o, c, z, c | z, s, p, s ^ o, z | (s ^ o))[code >> 1] ^ (code & 1)
        assert condition(code, flags) == bool(expected), (code, chosen)
