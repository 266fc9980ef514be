"""What a register may hold, followed symbolically: constants, arguments, loads, sums. Pure.

A value is a small tuple, its kind first; None stands for "not known". Two equal tuples mean the same computation.

    ("const", n)           a number or address          ("add", base, n)      base + n, base not a constant
    ("arg", i)             argument i at entry          ("load", where, size) what memory held at `where`
    ("percpu", n)          address n in GS              ("index", n, scale, value)  address n + scale * value
    ("result", callee)     what a call returned         ("stack", n)          the stack pointer at entry plus n
"""

from typing import Any

Value = tuple[Any, ...] | None
MASK = (1 << 64) - 1


def const(number: int) -> tuple[Any, ...]:
    return ("const", number & MASK)


def add(value: Value, number: int) -> Value:
    """Return value + number."""
    if value is None or number == 0:
        return value
    match value[0]:
        case "const" | "percpu":
            return (value[0], (value[1] + number) & MASK)
        case "stack":
            return ("stack", value[1] + number)
        case "index":
            return ("index", (value[1] + number) & MASK, value[2], value[3])
        case "add":
            total = value[2] + number
            return ("add", value[1], total) if total else value[1]
        case _:
            return ("add", value, number)


def constant(value: Value) -> int | None:
    """Return the number a value is, if it is one."""
    return value[1] if value is not None and value[0] == "const" else None


def split(value: Value) -> tuple[Value, int]:
    """Return (base, offset) of an address."""
    if value is not None and value[0] == "add":
        return value[1], value[2]
    return value, 0


def offset_from(value: Value, base: Value) -> int | None:
    """Return how far an address lies from `base`, None when it is not built on it."""
    found, offset = split(value)
    return offset if found == base else None


def loaded_from(value: Value) -> Value:
    """Return the address a value was loaded from, through sums."""
    base, _ = split(value)
    return base[1] if base is not None and base[0] == "load" else None


def depth(value: Value) -> int:
    """Return how many steps a value is made of; long chains tell nothing and are cut."""
    count = 0
    while value is not None and value[0] in ("add", "load", "index"):
        count, value = count + 1, value[3] if value[0] == "index" else value[1]
    return count


def show(value: Value) -> str:
    """Return a value as a reader of the trace wants it."""
    if value is None:
        return "?"
    match value[0]:
        case "const":
            return f"{value[1]:#x}"
        case "arg":
            return f"arg{value[1]}"
        case "percpu":
            return f"gs:{value[1]:#x}"
        case "load":
            return f"[{show(value[1])}]"
        case "add":
            return f"{show(value[1])}{'+' if value[2] >= 0 else '-'}{abs(value[2]):#x}"
        case "index":
            return f"{value[1]:#x}+{value[2]}*{show(value[3])}"
        case "result":
            return f"result of {value[1]:#x}"
        case "stack":
            return f"stack{value[1]:+#x}"
        case kind:
            return str(kind)
