"""Places where a Linux kernel changes its own code for good reasons, and whether a change is one of them.

Jump labels and static calls have tables of their places (include/linux/jump_label.h, static_call_types.h), found here
by what they hold; function tracing turns a five-byte NOP at a function's start into a call. Pure.
"""

import struct
from collections.abc import Callable

from enisle.introspect.image import Image

NOP5, NOP2 = b"\x0f\x1f\x44\x00\x00", b"\x66\x90"
NOPS = (NOP5, b"\x66\x66\x66\x66\x90", b"\x3e\x8d\x74\x26\x00", b"\x2e\x2e\x2e\x31\xc0")
TRAMPOLINE_MARK = b"\x0f\xb9\xcc"
"""UD1 behind the jump of a static call's trampoline (arch/x86/kernel/static_call.c)."""
TRACING_SPAN = 0x1000
"""Behind `__fentry__` lie the callers whose calls tracing turns to its own functions (arch/x86/kernel/ftrace_64.S)."""
FEWEST = 64
PROBE = 512
_JUMP = struct.Struct("<iiq")
_SITE = struct.Struct("<ii")


class PatchSites:
    """The places of one image that may change, and how. `original` is the image the changes are told against,
    `tracing` the address of `__fentry__`."""

    def __init__(self, original: Image, tracing: int = 0) -> None:
        self._image = original
        self._tracing = tracing
        self.jumps = self._jump_labels()
        self.calls = self._static_calls()

    def explain(self, at: int, old: bytes, new: bytes, is_trampoline: Callable[[int], bool]) -> str | None:
        """Return why the code at `at` may have changed, None when nothing known allows it.

        `at` is where the bytes begin to differ; `old` and `new` begin eight bytes earlier and have 24.
        """
        for back in range(6):
            site, before, after = at - back, old[8 - back :], new[8 - back :]
            if site in self.jumps and self._is_label(site, after):
                return "jump label"
            if site in self.calls and self._is_branch(site, after):
                return "static call"
            if before[5:8] == TRAMPOLINE_MARK == after[5:8] and self._is_branch(site, after):
                return "static call trampoline"
            if self._tracing <= site < self._tracing + TRACING_SPAN and before[:1] == after[:1] == b"\xe8":
                target = site + 5 + struct.unpack_from("<i", after, 1)[0]
                if self._image.is_text(target) or is_trampoline(target):
                    return "function tracing"
            traced = before[:5] in NOPS and after[:1] == b"\xe8"
            untraced = before[:1] == b"\xe8" and after[:5] in NOPS
            target = site + 5 + struct.unpack_from("<i", after, 1)[0]
            if untraced or (traced and (self._image.is_text(target) or is_trampoline(target))):
                return "function tracing"
        return None

    def _is_label(self, site: int, code: bytes) -> bool:
        """Return whether the code is a NOP or the jump the table tells."""
        if code[:5] in NOPS or code[:2] == NOP2:
            return True
        if code[:1] == b"\xe9":
            return site + 5 + struct.unpack_from("<i", code, 1)[0] == self.jumps[site]
        return code[:1] == b"\xeb" and site + 2 + struct.unpack_from("<b", code, 1)[0] == self.jumps[site]

    def _is_branch(self, site: int, code: bytes) -> bool:
        """Return whether the code is a NOP, a return, or a branch to code of the kernel."""
        if code[:5] in NOPS or code[:1] == b"\xc3":
            return True
        if code[:1] not in (b"\xe8", b"\xe9"):
            return False
        return self._image.is_text(site + 5 + struct.unpack_from("<i", code, 1)[0])

    def _jump_labels(self) -> dict[int, int]:
        """Return {place: target} of the longest table of jump labels."""

        def read(at: int) -> tuple[int, int] | None:
            code, target, key = _JUMP.unpack_from(content, at - start)
            place, goal, owner = at + code, at + 4 + target, at + 8 + (key & ~3)
            # Places in initialisation code stay in the table when that code is gone.
            inside = code and target and place in self._image and goal in self._image
            return (place, goal) if inside and not owner & 7 and self._image.is_data(owner) else None

        content, start = self._image.content, self._image.start
        return dict(self._longest(read, 16))

    def _static_calls(self) -> dict[int, int]:
        """Return {place: key} of the longest table of static call sites."""

        def read(at: int) -> tuple[int, int] | None:
            code, key = _SITE.unpack_from(content, at - start)
            place, goal = at + code, at + 4 + (key & ~3)
            return (
                (place, goal) if code and place in self._image and not goal & 7 and self._image.is_data(goal) else None
            )

        content, start = self._image.content, self._image.start
        return dict(self._longest(read, 8))

    def _begins(self, read: Callable[[int], tuple[int, int] | None], at: int, stride: int) -> bool:
        entries = [read(at + number * stride) for number in range(4)]
        return all(entries) and any(self._image.is_text(entry[0]) for entry in entries if entry)

    def _mostly_code(self, run: list[tuple[int, int]]) -> bool:
        """Return whether most places hold an instruction that may be patched."""
        good = sum(
            self._image.is_text(place)
            and self._image.read(place, 1) in (b"\xe8", b"\xe9", b"\xeb", b"\x0f", b"\x66", b"\x2e")
            for place, _ in run
        )
        return good * 2 > len(run)

    def _longest(self, read: Callable[[int], tuple[int, int] | None], stride: int) -> list[tuple[int, int]]:
        """Return the entries of the longest run that `read` accepts in data."""
        best: list[tuple[int, int]] = []
        for start, end in self._image.runs(executable=False, writable=False):  # both are read-only after boot
            at = start
            while at < end - 8 * stride:
                phase = next((p for p in range(0, stride, 4) if self._begins(read, at + p, stride)), None)
                if phase is None:
                    at += PROBE
                    continue
                run = _run(read, at + phase, stride, start, end)
                if len(run) >= max(FEWEST, len(best) + 1) and self._mostly_code(run):
                    best = run
                at = max(at + PROBE, at + phase + len(run) * stride)
        return best


def _run(
    read: Callable[[int], tuple[int, int] | None], at: int, stride: int, start: int, end: int
) -> list[tuple[int, int]]:
    """Return the entries around `at` that are accepted without a gap."""
    first = at
    while first - stride >= start and read(first - stride):
        first -= stride
    entries: list[tuple[int, int]] = []
    while first <= end - stride and (entry := read(first)):
        entries.append(entry)
        first += stride
    return entries
