"""Instructions that ask the processor, in software: what they answer comes from `Answers` (SDM 2).

CPUID, RDTSC, RDTSCP, RDPID, XGETBV, XSETBV, RDRAND, RDSEED and the instructions of FSGSBASE.
"""

from enisle.abi.x86 import Vector
from enisle.machine.software.context import Fault, general_protection
from enisle.machine.software.decode import DWORD, QWORD
from enisle.machine.software.flags import ALL, CF
from enisle.machine.software.operands import Step, is_canonical

A, C, D, B = 0, 1, 2, 3
"""Numbers of RAX, RCX, RDX and RBX in an instruction."""


def cpuid(step: Step) -> None:
    answer = step.answers.cpuid(step.gpr(A, DWORD), step.gpr(C, DWORD))
    for number, value in zip((A, B, C, D), answer, strict=True):
        step.set_gpr(number, DWORD, value)


def rdtsc(step: Step) -> None:
    _set_pair(step, step.answers.counter())


def rdtscp(step: Step) -> None:
    _set_pair(step, step.answers.counter())
    step.set_gpr(C, DWORD, step.answers.processor_id())


def rdpid(step: Step) -> None:
    step.set_gpr(step.it.rm, QWORD, step.answers.processor_id())


def xgetbv(step: Step) -> None:
    value = step.answers.xgetbv(step.gpr(C, DWORD))
    if value is None:
        raise general_protection()
    _set_pair(step, value)


def xsetbv(step: Step) -> None:
    raise general_protection()  # ring 3


def _set_pair(step: Step, value: int) -> None:
    step.set_gpr(A, DWORD, value)
    step.set_gpr(D, DWORD, value >> 32)


def random_number(step: Step) -> None:
    """RDRAND and RDSEED: there is always a number."""
    number = int.from_bytes(step.answers.random(step.size), "little")
    step.set_gpr(step.it.rm, step.size, number)
    step.set_flags(ALL, CF)


def read_fs_base(step: Step) -> None:
    step.set_gpr(step.it.rm, _base_size(step), step.context.fs_base)


def read_gs_base(step: Step) -> None:
    step.set_gpr(step.it.rm, _base_size(step), step.context.gs_base)


def write_fs_base(step: Step) -> None:
    base, context = _new_base(step), step.context
    step.then(lambda: setattr(context, "fs_base", base))


def write_gs_base(step: Step) -> None:
    base, context = _new_base(step), step.context
    step.then(lambda: setattr(context, "gs_base", base))


def _base_size(step: Step) -> int:
    return QWORD if step.it.w else DWORD


def _new_base(step: Step) -> int:
    base = step.gpr(step.it.rm, _base_size(step))
    if not is_canonical(base):
        raise Fault(Vector.GP, 0)
    return base


HANDLERS = {
    "np 0F A2": cpuid,
    "np 0F 31": rdtsc,
    "np 0F 01 F9": rdtscp,
    "np 0F 01 D0": xgetbv,
    "np 0F 01 D1": xsetbv,
    "F3 0F C7 /7 reg": rdpid,
    "np 0F C7 /6 reg": random_number,
    "66 0F C7 /6 reg": random_number,
    "np 0F C7 /7 reg": random_number,
    "66 0F C7 /7 reg": random_number,
    "F3 0F AE /0": read_fs_base,
    "F3 0F AE /1": read_gs_base,
    "F3 0F AE /2": write_fs_base,
    "F3 0F AE /3": write_gs_base,
}
