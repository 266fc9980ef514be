"""BPF type format, as much as tells where a member lies (Documentation/bpf/btf.rst)."""

import struct

STRUCT, UNION = 4, 5
TYPEDEF, VOLATILE, CONST, RESTRICT, TAG = 8, 9, 10, 11, 18
MODIFIERS = (TYPEDEF, VOLATILE, CONST, RESTRICT, TAG)
_TRAILING = {1: 4, 3: 12, 14: 4, 17: 4}
_PER_MEMBER = {STRUCT: 12, UNION: 12, 6: 8, 13: 8, 15: 12, 19: 12}


class Btf:
    """The types of one kernel."""

    def __init__(self, raw: bytes) -> None:
        magic, _, _, head, types_at, types_size, strings_at, strings_size = struct.unpack_from("<HBBIIIII", raw)
        assert magic == 0xEB9F, f"{magic=:#x}"
        self._strings = raw[head + strings_at : head + strings_at + strings_size]
        self._types: list[tuple[int, int, list[tuple[int, int, int]], bool]] = [(0, 0, [], False)]
        self._by_name: dict[str, int] = {}
        at, end = head + types_at, head + types_at + types_size
        while at < end:
            name, info, target = struct.unpack_from("<III", raw, at)
            kind, count = info >> 24 & 31, info & 0xFFFF
            at += 12
            members: list[tuple[int, int, int]] = []
            if kind in (STRUCT, UNION):
                members = [struct.unpack_from("<III", raw, at + 12 * index) for index in range(count)]
                self._by_name.setdefault(self._string(name), len(self._types))
            at += _TRAILING.get(kind, 0) + _PER_MEMBER.get(kind, 0) * count
            self._types.append((kind, target, members, bool(info >> 31)))

    def _string(self, at: int) -> str:
        return self._strings[at : self._strings.index(b"\0", at)].decode()

    def offset(self, structure: str, member: str) -> int | None:
        """Return the byte offset of a member, also one of an anonymous part; None when there is none."""
        index = self._by_name.get(structure)
        return None if index is None else self._find(index, member)

    def _find(self, index: int, member: str) -> int | None:
        kind, target, members, bits = self._types[index]
        while kind in MODIFIERS:
            kind, target, members, bits = self._types[target]
        for name, its_type, place in members:
            offset = (place & 0xFFFFFF if bits else place) // 8
            if self._string(name) == member:
                return offset
            if not self._string(name) and (inner := self._find(its_type, member)) is not None:
                return offset + inner
        return None
