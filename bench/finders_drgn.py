"""List a guest's threads with drgn; run by a Python that has it, told on standard input where memory lies.

{"ram": path, "pieces": [[gpa, size, offset]…], "vmcoreinfo": text, "debug": path or ""} → {"cold_s", "ps_ms",
"threads"} or {"error"}, as JSON.
"""

import json
import os
import sys
import time
from typing import Any


def look(told: dict[str, Any]) -> dict[str, object]:
    """Attach and list twice: the first reads debug data, the second is what a list costs."""
    import drgn  # pyright: ignore[reportMissingImports]
    from drgn.helpers.linux.pid import for_each_task  # pyright: ignore[reportMissingImports]

    began = time.perf_counter()
    ram = os.open(told["ram"], os.O_RDONLY)
    program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    for gpa, size, offset in told["pieces"]:

        def read(address: int, count: int, at: int, physical: bool, offset: int = offset) -> bytes:
            return os.pread(ram, count, offset + at)

        program.add_memory_segment(gpa, size, read, True)
    program.set_linux_kernel_custom(told["vmcoreinfo"], True)
    try:
        if told["debug"]:
            program.load_debug_info([told["debug"]])
        else:
            program.load_default_debug_info()
    except drgn.MissingDebugInfoError:
        pass  # then names are looked for in vain

    def threads() -> list[list[object]]:
        return [
            [task.pid.value_(), task.tgid.value_(), task.real_parent.tgid.value_(), task.comm.string_().decode()]
            for task in for_each_task(program)
        ]

    try:
        found = threads()
    except (LookupError, drgn.FaultError) as error:
        return {"error": str(error)}
    cold = time.perf_counter() - began
    began = time.perf_counter()
    found = threads()
    return {"cold_s": cold, "ps_ms": 1000 * (time.perf_counter() - began), "threads": found}


if __name__ == "__main__":
    print(json.dumps(look(json.load(sys.stdin))))
