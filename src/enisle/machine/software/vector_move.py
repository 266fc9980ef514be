"""AVX and AVX2 moves in software: loads, stores, broadcasts, conversions of width, masked moves, gathers (SDM 2)."""

from enisle.abi.x86 import RDI, Vector
from enisle.machine.software.context import LANE, Fault, general_protection
from enisle.machine.software.decode import FS, GS
from enisle.machine.software.lanes import Handler, elements, pack
from enisle.machine.software.operands import MASKS, U64, Step

MXCSR_BITS = 0xFFFF
XMM_ZEROS = bytes(LANE)


def _load(aligned: bool) -> Handler:
    def handler(step: Step) -> None:
        step.set_vector(step.it.reg, step.source(step.width, step.width if aligned else 1))

    return handler


def _store(aligned: bool) -> Handler:
    def handler(step: Step) -> None:
        value = step.vector(step.it.reg, step.width)
        if step.it.is_memory:
            step.store(value, step.width if aligned else 1)
        else:
            step.set_vector(step.it.rm, value)

    return handler


def _scalar_load(size: int) -> Handler:
    """Return VMOVSS or VMOVSD to a register: merged with vvvv from a register, alone from memory."""

    def handler(step: Step) -> None:
        rest = XMM_ZEROS if step.it.is_memory else step.vector(step.it.vvvv, LANE)
        step.set_vector(step.it.reg, step.source(size) + rest[size:])

    return handler


def _scalar_store(size: int) -> Handler:
    def handler(step: Step) -> None:
        value = step.vector(step.it.reg, size)
        if step.it.is_memory:
            step.store(value)
        else:
            step.set_vector(step.it.rm, value + step.vector(step.it.vvvv, LANE)[size:])

    return handler


def _load_low(step: Step) -> None:
    """VMOVLPS, VMOVLPD, VMOVHLPS."""
    low = step.load(8) if step.it.is_memory else step.vector(step.it.rm, LANE)[8:]
    step.set_vector(step.it.reg, low + step.vector(step.it.vvvv, LANE)[8:])


def _load_high(step: Step) -> None:
    """VMOVHPS, VMOVHPD, VMOVLHPS."""
    step.set_vector(step.it.reg, step.vector(step.it.vvvv, 8) + step.source(8))


def _store_low(step: Step) -> None:
    step.store(step.vector(step.it.reg, 8))


def _store_high(step: Step) -> None:
    step.store(step.vector(step.it.reg, LANE)[8:])


def _from_general(step: Step) -> None:
    size = 8 if step.it.w else 4
    step.set_vector(step.it.reg, step.rm(size).to_bytes(LANE, "little"))


def _to_general(step: Step) -> None:
    _set_rm(step, step.vector(step.it.reg, 8 if step.it.w else 4))


def _set_rm(step: Step, value: bytes) -> None:
    """Write a general register, zero-extended, or memory."""
    if step.it.is_memory:
        step.store(value)
    else:
        step.set_gpr(step.it.rm, 8, int.from_bytes(value, "little"))


def _quadword_load(step: Step) -> None:
    step.set_vector(step.it.reg, step.source(8))


def _quadword_store(step: Step) -> None:
    step.set_target(step.vector(step.it.reg, 8))


def _broadcast(size: int) -> Handler:
    def handler(step: Step) -> None:
        step.set_vector(step.it.reg, step.source(size) * (step.width // size))

    return handler


def _extend(size: int, to: int, signed: bool) -> Handler:
    def handler(step: Step) -> None:
        narrow = step.source(step.width * size // to)
        step.set_vector(step.it.reg, pack(elements(narrow, size, signed), to))

    return handler


# ---- one element -----------------------------------------------------------------------------------------------------


def _insert(size: int) -> Handler:
    """Return VPINSR; `size` 0 is a doubleword or, with W, a quadword."""

    def handler(step: Step) -> None:
        width = size or (8 if step.it.w else 4)
        value = list(elements(step.vector(step.it.vvvv, LANE), width))
        source = step.rm(width) if step.it.is_memory else step.gpr(step.it.rm, 8) & MASKS[width]
        value[step.it.immediate & (LANE // width - 1)] = source
        step.set_vector(step.it.reg, pack(value, width))

    return handler


def _extract(size: int) -> Handler:
    def handler(step: Step) -> None:
        width = size or (8 if step.it.w else 4)
        at = (step.it.immediate & (LANE // width - 1)) * width
        _set_rm(step, step.vector(step.it.reg, LANE)[at : at + width])

    return handler


def _extract_word(step: Step) -> None:
    """VPEXTRW of AVX's first map: the destination is ModRM.reg."""
    step.set_gpr(step.it.reg, 8, elements(step.vector(step.it.rm, LANE), 2)[step.it.immediate & 7])


def _insert_single(step: Step) -> None:
    immediate = step.it.immediate
    if step.it.is_memory:
        source = int.from_bytes(step.load(4), "little")
    else:
        source = elements(step.vector(step.it.rm, LANE), 4)[immediate >> 6 & 3]
    value = list(elements(step.vector(step.it.vvvv, LANE), 4))
    value[immediate >> 4 & 3] = source
    step.set_vector(step.it.reg, pack((0 if immediate >> i & 1 else item for i, item in enumerate(value)), 4))


# ---- masked moves and gathers ----------------------------------------------------------------------------------------


def _masked_load(size: int) -> Handler:
    """Return VMASKMOV or VPMASKMOV; memory of a masked element is not touched. `size` 0: by W."""

    def handler(step: Step) -> None:
        width = size or (8 if step.it.w else 4)
        masks, address = elements(step.first(), width, True), step.address()
        parts = (
            step.load_at(address + index * width & U64, width) if mask < 0 else bytes(width)
            for index, mask in enumerate(masks)
        )
        step.set_vector(step.it.reg, b"".join(parts))

    return handler


def _masked_store(size: int) -> Handler:
    def handler(step: Step) -> None:
        width = size or (8 if step.it.w else 4)
        masks, address = elements(step.first(), width, True), step.address()
        value = step.vector(step.it.reg, step.width)
        for index, mask in enumerate(masks):
            if mask < 0:
                at = index * width
                step.store_at(address + at & U64, value[at : at + width])

    return handler


def _masked_bytes(step: Step) -> None:
    """VMASKMOVDQU: to the address in RDI."""
    context = step.context
    segment = {FS: context.fs_base, GS: context.gs_base}.get(step.it.segment, 0)
    address = (context.gpr[RDI] & MASKS[step.it.address_size]) + segment
    value = step.vector(step.it.reg, LANE)
    for index, mask in enumerate(step.vector(step.it.rm, LANE)):
        if mask & 0x80:
            step.store_at(address + index & U64, value[index : index + 1])


def _gather(index_size: int) -> Handler:
    """Return VPGATHER with indices of `index_size` bytes; elements are doublewords or, with W, quadwords."""

    def handler(step: Step) -> None:
        it = step.it
        number = it.index
        if number is None or len({it.reg, it.vvvv, number}) < 3:
            raise Fault(Vector.UD, 0)  # SDM 2C, VPGATHERDD: the three registers must be distinct
        size = 8 if it.w else 4
        count = step.width // max(size, index_size)
        indices = elements(step.vector(number, max(LANE, count * index_size)), index_size, True)[:count]
        masks = elements(step.vector(it.vvvv, max(LANE, count * size)), size, True)
        old = step.vector(it.reg, max(LANE, count * size))
        parts = [
            step.load_at(step.address(index), size) if masks[place] < 0 else old[place * size : (place + 1) * size]
            for place, index in enumerate(indices)
        ]
        step.set_vector(it.reg, b"".join(parts))
        step.set_vector(it.vvvv, XMM_ZEROS)

    return handler


# ---- all registers ---------------------------------------------------------------------------------------------------


def _zero(step: Step) -> None:
    """VZEROUPPER, and with L VZEROALL; registers 0-15."""
    vectors = step.context.vectors
    if step.it.l:
        for number in range(16):
            step.set_vector(number, XMM_ZEROS)
    step.then(vectors.zero_upper)


def _load_mxcsr(step: Step) -> None:
    content, vectors = step.load(4), step.context.vectors
    if int.from_bytes(content, "little") & ~MXCSR_BITS:
        raise general_protection()
    step.then(lambda: vectors.set_control(content))


def _store_mxcsr(step: Step) -> None:
    step.store(step.context.vectors.control())


HANDLERS: dict[str, Handler] = {
    **{f"VEX {code} 10": _load(aligned=False) for code in ("np 0F", "66 0F")},
    **{f"VEX {code} 11": _store(aligned=False) for code in ("np 0F", "66 0F")},
    **{f"VEX {code} 28": _load(aligned=True) for code in ("np 0F", "66 0F")},
    **{f"VEX {code} 29": _store(aligned=True) for code in ("np 0F", "66 0F")},
    **{f"VEX {code} 2B": _store(aligned=True) for code in ("np 0F", "66 0F")},
    "VEX 66 0F 6F": _load(aligned=True),
    "VEX F3 0F 6F": _load(aligned=False),
    "VEX 66 0F 7F": _store(aligned=True),
    "VEX F3 0F 7F": _store(aligned=False),
    "VEX 66 0F E7": _store(aligned=True),
    "VEX 66 0F38 2A": _load(aligned=True),
    "VEX F2 0F F0": _load(aligned=False),
    "VEX F3 0F 10": _scalar_load(4),
    "VEX F2 0F 10": _scalar_load(8),
    "VEX F3 0F 11": _scalar_store(4),
    "VEX F2 0F 11": _scalar_store(8),
    **{f"VEX {code} 12": _load_low for code in ("np 0F", "66 0F")},
    **{f"VEX {code} 13": _store_low for code in ("np 0F", "66 0F")},
    **{f"VEX {code} 16": _load_high for code in ("np 0F", "66 0F")},
    **{f"VEX {code} 17": _store_high for code in ("np 0F", "66 0F")},
    "VEX 66 0F 6E": _from_general,
    "VEX 66 0F 7E": _to_general,
    "VEX F3 0F 7E": _quadword_load,
    "VEX 66 0F D6": _quadword_store,
    "VEX 66 0F38 18": _broadcast(4),
    "VEX 66 0F38 19": _broadcast(8),
    "VEX 66 0F38 1A": _broadcast(LANE),
    "VEX 66 0F38 58": _broadcast(4),
    "VEX 66 0F38 59": _broadcast(8),
    "VEX 66 0F38 5A": _broadcast(LANE),
    "VEX 66 0F38 78": _broadcast(1),
    "VEX 66 0F38 79": _broadcast(2),
    **{
        f"VEX 66 0F38 {base | low:02X}": _extend(size, to, base == 0x20)
        for base in (0x20, 0x30)
        for low, (size, to) in enumerate(((1, 2), (1, 4), (1, 8), (2, 4), (2, 8), (4, 8)))
    },
    "VEX 66 0F3A 20": _insert(1),
    "VEX 66 0F C4": _insert(2),
    "VEX 66 0F3A 22": _insert(0),
    "VEX 66 0F3A 14": _extract(1),
    "VEX 66 0F3A 15": _extract(2),
    "VEX 66 0F3A 16": _extract(0),
    "VEX 66 0F3A 17": _extract(4),
    "VEX 66 0F C5": _extract_word,
    "VEX 66 0F3A 21": _insert_single,
    "VEX 66 0F38 2C": _masked_load(4),
    "VEX 66 0F38 2D": _masked_load(8),
    "VEX 66 0F38 2E": _masked_store(4),
    "VEX 66 0F38 2F": _masked_store(8),
    "VEX 66 0F38 8C": _masked_load(0),
    "VEX 66 0F38 8E": _masked_store(0),
    "VEX 66 0F F7": _masked_bytes,
    "VEX 66 0F38 90": _gather(4),
    "VEX 66 0F38 91": _gather(8),
    "VEX 66 0F38 92": _gather(4),
    "VEX 66 0F38 93": _gather(8),
    "VEX np 0F 77": _zero,
    "VEX np 0F AE /2": _load_mxcsr,
    "VEX np 0F AE /3": _store_mxcsr,
}
