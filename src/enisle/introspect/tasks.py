"""Find init_task and what runs on each processor."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from enisle.introspect.lists import is_kernel_pointer
from enisle.introspect.memory import KERNEL_GS_BASE, ProcessorState, Unmapped

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
