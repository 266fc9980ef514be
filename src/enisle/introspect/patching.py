"""Places where a Linux kernel changes its own code for good reasons, and whether a change is one of them.

Jump labels and static calls have tables of their places (include/linux/jump_label.h, static_call_types.h), found here
by what they hold; a static call leads where its key, a variable of the kernel, says and nowhere else. Function tracing
turns a five-byte NOP at a function's start into a call of its own entry. Pure.
"""

import struct
from collections.abc import Callable, Iterator

from enisle.introspect.image import Image
from enisle.introspect.memory import Unmapped

NOP5, NOP2 = b"\x0f\x1f\x44\x00\x00", b"\x66\x90"
NOPS = (NOP5, b"\x66\x66\x66\x66\x90", b"\x3e\x8d\x74\x26\x00", b"\x2e\x2e\x2e\x31\xc0")
TRAMPOLINE_ENDS = (b"\x0f\xb9\xcc", b"\x0f\x1f\x00", b"\xcc\xcc\xcc")
"""What stands behind the jump of a static call's trampoline: UD1 (arch/x86/kernel/static_call.c), or filling (5.10)."""
TRACING_SPAN = 0x1000
"""Behind `__fentry__` lie the callers whose calls tracing turns to its own functions (arch/x86/kernel/ftrace_64.S)."""
WINDOW = 1 << 18
FEWEST = 64
PROBE = 512
_JUMP = struct.Struct("<iiq")
_SITE = struct.Struct("<ii")


class PatchSites:
    """The places of one image that may change, and how. `original` is the image the changes are told against, `now`
    the image as it is, `tracing` the address of `__fentry__` (0: unknown)."""

    def __init__(self, original: Image, now: Image, tracing: int = 0) -> None:
        self._image, self._now = original, now
        self._tracing = tracing
        self.jumps = self._jump_labels()
        self._trampolines: dict[int, int] = {}
        self._windows: dict[int, dict[int, list[int]]] = {}
        self.calls = self._static_calls()
        self._quiet: set[int] = set()
        """Where calls of nothing lead: the return thunk of this kernel and processor."""
        self._inline: set[tuple[bytes, int]] = set()
        """(instruction, function): functions so small that their code stands in place of the call."""
        for site, key in self.calls.items():
            self._learn(self._image.read(site, 6), site, _word(original, key))

    def explain(self, at: int, old: bytes, new: bytes, is_trampoline: Callable[[int], bool]) -> str | None:
        """Return why the code at `at` may have changed, None when nothing known allows it.

        `at` is where the bytes begin to differ; `old` and `new` begin eight bytes earlier and have 24.
        """
        for back in range(6):
            site, before, after = at - back, old[8 - back :], new[8 - back :]
            if site in self.jumps and self._is_label(site, after):
                return "jump label"
            if site in self.calls and self._is_call(after, site, _word(self._now, self.calls[site])):
                return "static call"
            if self._is_turned(site, before, after):
                return "static call trampoline"
            if self._is_tracing(site, before, after, is_trampoline):
                return "function tracing"
        return None

    def _is_label(self, site: int, code: bytes) -> bool:
        """Return whether the code is a NOP or the jump the table tells."""
        if code[:5] in NOPS or code[:2] == NOP2:
            return True
        if code[:1] == b"\xe9":
            return site + 5 + struct.unpack_from("<i", code, 1)[0] == self.jumps[site]
        return code[:1] == b"\xeb" and site + 2 + struct.unpack_from("<b", code, 1)[0] == self.jumps[site]

    # -- static calls

    def _learn(self, code: bytes, site: int, function: int | None) -> None:
        """Note what stands at a place in the original for a function, where that is no branch to it."""
        target = _branch(code, site)
        if function == 0 and target is not None:
            self._quiet.add(target)
        elif function and target is None and self._image.is_text(site):
            self._inline.add((code[:5], function))

    def _is_call(self, code: bytes, site: int, function: int | None) -> bool:
        """Return whether the code does what a static call of that function does (__static_call_transform)."""
        target = _branch(code, site)
        if not function:
            nothing = code[:5] in NOPS or code[:1] == b"\xc3" or target in self._quiet
            return nothing and function is not None
        return self._image.is_text(function) and (target == function or (code[:5], function) in self._inline)

    def _is_turned(self, site: int, before: bytes, after: bytes) -> bool:
        """Return whether a trampoline leads where its key says now."""
        if site & 7 or before[5:8] != after[5:8] or before[5:8] not in TRAMPOLINE_ENDS:
            return False
        if before[:1] not in (b"\xe9", b"\xc3") or after[:1] not in (b"\xe9", b"\xc3"):
            return False
        keys = [*self._keys_of(site)]
        if keys:
            return any(self._is_call(after, site, _word(self._now, key)) for key in keys)
        # Nothing tells its key (pmu, apic): some key that has calls must lead there.
        target = _branch(after, site)
        functions = (_word(self._now, key) for key in set(self.calls.values()))
        return target is not None and self._image.is_text(target) and target in functions

    def _keys_of(self, trampoline: int) -> Iterator[int]:
        """Yield the keys that may be a trampoline's: from the table for modules, and by its tracepoint, which tells
        key and trampoline side by side (struct tracepoint, include/linux/tracepoint-defs.h)."""
        if trampoline in self._trampolines:
            yield self._trampolines[trampoline]
        for at in self._holders(trampoline):
            key = _word(self._now, at - 8)
            if key and not key & 7 and self._image.is_data(key):
                yield key

    def _holders(self, address: int) -> list[int]:
        """Return where data holds an address. Trampolines lie together: one look serves all of a window."""
        low = address & -WINDOW
        if low not in self._windows:
            found = self._windows[low] = {}
            for start, end in self._now.runs(executable=False):
                words = memoryview(self._now.content)[start - self._now.start : end - self._now.start].cast("Q")
                for index, word in enumerate(words):
                    if low <= word < low + WINDOW:
                        found.setdefault(word, []).append(start + 8 * index)
        return self._windows[low].get(address, [])

    # -- tracing

    def _is_tracing(self, site: int, before: bytes, after: bytes, is_trampoline: Callable[[int], bool]) -> bool:
        """Return whether tracing was switched on or off here, or turns a call of its own."""

        def traces(code: bytes) -> bool:
            target = _branch(code, site)
            if target is None or code[:1] != b"\xe8":
                return False
            own = self._is_own(target) if self._tracing else self._image.is_text(target)
            return own or is_trampoline(target)

        if self._is_own(site) and before[:1] == after[:1] == b"\xe8":
            target = _branch(after, site) or 0
            return self._image.is_text(target) or is_trampoline(target)
        if self._is_own(site) and before[:1] == after[:1] == b"\xe9":  # ftrace_graph_call, before 5.12
            return self._is_own(_branch(after, site) or 0)
        if before[:5] in NOPS:
            return traces(after)
        return before[:1] == b"\xe8" and traces(before) and (after[:5] in NOPS or traces(after))

    def _is_own(self, address: int) -> bool:
        """Return whether an address lies in the code of tracing itself."""
        return self._tracing <= address < self._tracing + TRACING_SPAN

    # -- the tables

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
        found = self._longest(read, 8)
        # The kernel sorts it by key (static_call_sort_entries). Behind it lies a table of trampolines for modules,
        # which looks alike, and then what is neither.
        end = next((n for n in range(1, len(found)) if found[n][1] < found[n - 1][1]), len(found))
        for place, key in found[end:]:
            if self._image.read(place + 5, 3) not in TRAMPOLINE_ENDS:
                break
            self._trampolines[place] = key
        return dict(found[:end])

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


def _branch(code: bytes, site: int) -> int | None:
    """Return where a CALL, JMP or Jcc with four bytes of displacement leads; None for other code."""
    if code[:1] in (b"\xe8", b"\xe9"):
        return site + 5 + struct.unpack_from("<i", code, 1)[0]
    if code[:1] == b"\x0f" and code[1] & 0xF0 == 0x80:
        return site + 6 + struct.unpack_from("<i", code, 2)[0]
    return None


def _word(image: Image, address: int) -> int | None:
    try:
        return image.u64(address) if address in image else None
    except Unmapped:
        return None
