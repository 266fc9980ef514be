"""What the decoder makes of an instruction."""

from enisle.machine.software.opcodes import LEGACY, NO_PREFIX, Features
from enisle.machine.software.shapes import NEXT, QWORD, RELATIVE


class Instruction:
    """One instruction. Register numbers have their REX, VEX or EVEX bits in them; sizes and offsets are bytes."""

    __slots__ = (
        "address", "address_size", "base", "broadcast", "code", "displacement", "displacement_offset",
        "displacement_size", "encoding", "features", "group", "has_modrm", "immediate", "immediate2",
        "immediate_offset", "immediate_size", "index", "kind", "l", "length", "lock", "map", "mask", "mod", "modrm",
        "modrm_offset", "opcode", "opcode_offset", "operand_size_prefix", "pp", "prefixes", "reg", "repeat", "rex",
        "rip_relative", "rm", "scale", "segment", "vvvv", "w", "zeroing",
    )  # fmt: skip

    def __init__(self, code: bytes, address: int) -> None:
        self.code, self.address = code, address
        self.length = 0
        self.prefixes = b""
        """Legacy prefixes as they stand."""
        self.operand_size_prefix = self.lock = False
        self.repeat = self.segment = 0
        """The last of F2 and F3; the last segment prefix; 0 when there is none."""
        self.address_size = QWORD
        self.rex = 0
        self.encoding = LEGACY
        self.map = self.opcode = self.opcode_offset = 0
        """Opcode maps: 0 one byte, 1 0F, 2 0F38, 3 0F3A, 5 and 6 of EVEX, 8-10 of XOP."""
        self.pp, self.w, self.l, self.vvvv = NO_PREFIX, 0, 0, 0
        """As in VEX; `pp` of a legacy instruction is what its prefixes would be there."""
        self.mask, self.zeroing, self.broadcast = 0, False, False
        """EVEX.aaa, z and b."""
        self.has_modrm = False
        self.modrm = self.modrm_offset = self.mod = self.group = 0
        """`group` is ModRM.reg without extension."""
        self.reg = self.rm = 0
        self.base: int | None = None
        self.index: int | None = None
        self.scale = 1
        self.rip_relative = False
        self.displacement = self.displacement_offset = self.displacement_size = 0
        """Signed, but as it stands: EVEX scales its byte."""
        self.immediate = self.immediate2 = self.immediate_offset = self.immediate_size = 0
        """Signed; `immediate2` is the second byte of ENTER, EXTRQ and INSERTQ and not in `immediate_size`."""
        self.kind = NEXT
        self.features: Features = ()

    @property
    def is_memory(self) -> bool:
        """Whether ModRM names memory."""
        return self.has_modrm and self.mod != 3

    @property
    def next_address(self) -> int:
        return self.address + self.length & 0xFFFF_FFFF_FFFF_FFFF

    @property
    def target(self) -> int | None:
        """Where a relative branch goes."""
        if self.kind not in RELATIVE:
            return None
        return self.next_address + self.immediate & 0xFFFF_FFFF_FFFF_FFFF

    @property
    def bytes(self) -> bytes:
        return self.code[: self.length]

    def __repr__(self) -> str:
        return f"Instruction({self.bytes.hex()} at {self.address:#x}, {self.encoding} {self.map} {self.opcode:#04x})"
