"""One sandbox is one process: root file system, limits, jail, life cycle; and the SDK that starts such processes.

May import kernel, machine, abi, errors. Promises: whatever ends an island, its process is the only thing that dies,
and nothing of it stays on the host. Its names are loaded when first used, so the room is cheap to enter.
"""
