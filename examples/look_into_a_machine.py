"""Run a full Linux machine, hold it still and look into it: `python examples/look_into_a_machine.py KERNEL`.

`make kernels KERNELS=6.1-cloud` prints a directory that has one.
"""

import sys
import time

from enisle.linuxvm import VirtualMachine, VmConfig

LSTAR = 0xC0000082
"""The model-specific register that says where the kernel serves system calls."""

with VirtualMachine.start(VmConfig(kernel=sys.argv[1], append="console=ttyS0 panic=0", processors=2)) as machine:
    print(f"{machine.name} runs on {machine.accelerator}")
    machine.wait_for_console("Linux version")
    time.sleep(2)
    with machine.paused():
        for processor, msrs in zip(machine.registers(), machine.msrs(), strict=True):
            print(
                f"processor {processor.number}: rip {processor.rip:#x}, cr3 {processor.control['cr3']:#x}, "
                f"ring {processor.cpl}, system calls enter at {msrs[LSTAR]:#x}"
            )
        for piece in machine.memory_map():
            print(f"memory at {piece.gpa:#x}: {piece.size >> 20} MiB")
    print("its last words so far:", machine.console_log.read_text(errors="replace").splitlines()[-1])
