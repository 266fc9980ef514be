"""The room that makes what is wanted real: the controller's operations, the host agent and the keepers of islands.

The only assembler of rooms: imports `tasks`, `linuxvm`, `introspect`, `island` and below. Promises: whatever changes
something is a task; an island outlives the agent that started it.
"""
