"""Find init_task, the field all walks over processes begin with, and what runs on each processor."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from enisle.introspect.facts import Witness
from enisle.introspect.image import Image
from enisle.introspect.lists import is_kernel_pointer
from enisle.introspect.memory import KERNEL_GS_BASE, ProcessorState, Unmapped
from enisle.introspect.structures import SPAN

if TYPE_CHECKING:
    from enisle.introspect.discover import Kernel

MOST_ANCESTORS = 1000


def find_init_task(
    kernel: "Kernel", processors: Sequence[ProcessorState], current: int | None, real_parent: int | None
) -> int:
    """Return init_task: exported, or the ancestor of what runs that is its own parent. 0: not found."""
    exported = kernel.exports.by_name.get("init_task")
    if exported is not None:
        return exported
    if current is None or real_parent is None:
        return 0
    for processor in processors:
        task = running_task(kernel, processor, current)
        try:
            for _ in range(MOST_ANCESTORS):
                parent = kernel.space.u64(task + real_parent) if task else 0
                if parent == task or not is_kernel_pointer(parent):
                    break
                task = parent
            else:
                continue
        except Unmapped:
            continue
        if task in kernel.image:
            return task
    return 0


def per_cpu_bases(kernel: "Kernel", processor: ProcessorState) -> list[int]:
    """Return what the per-CPU area of a processor may be based on, the surest first."""
    bases: list[int] = []
    table = kernel.exports.by_name.get("__per_cpu_offset")
    if table is not None:
        try:
            bases.append(kernel.space.u64(table + 8 * processor.number))
        except Unmapped:
            pass
    # In user mode GS is the program's, and the kernel's waits in the MSR that SWAPGS exchanges (SDM 3A 5.8.8).
    bases.append(processor.gs_base if processor.cpl == 0 else processor.msrs.get(KERNEL_GS_BASE, 0))
    return bases


def running_task(kernel: "Kernel", processor: ProcessorState, current: int) -> int:
    """Return the task that runs on a processor; 0 when that cannot be told."""
    for base in per_cpu_bases(kernel, processor):
        try:
            task = kernel.space.u64(base + current & (1 << 64) - 1)
        except Unmapped:
            continue
        if is_kernel_pointer(task):
            return task
    return 0


_LOADS = re.compile(rb"[\x48\x4c]\x8b[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]")


def tasks_by_text(image: Image, init_task: int) -> Witness | None:
    """Return the field of init_task that code loads most: where every walk over all processes begins."""
    counts: Counter[int] = Counter()
    content = image.content
    for start, end in image.runs(executable=True):
        for match in _LOADS.finditer(content, start - image.start, end - image.start - 7):
            at = match.end()
            target = image.start + at + 4 + int.from_bytes(content[at : at + 4], "little", signed=True)
            if 0 <= target - init_task < SPAN and not target & 7:
                counts[target - init_task] += 1
    common = counts.most_common(2)
    if not common or common[0][1] < 8 or (len(common) > 1 and common[1][1] * 3 > common[0][1]):
        return None
    trace = f"{common[0][1]} instructions load init_task+{common[0][0]:#x}, the next most {common[1:] or 'none'}"
    return Witness(common[0][0], "text", "P4", 0, trace)
