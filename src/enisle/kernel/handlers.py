"""Which module serves which system call, so that a call's module is imported when the call first comes.

Most programs use a few dozen calls. A test holds this table against the modules' own `@syscall` lines.
"""

from importlib import import_module

from enisle.kernel.table import TABLE, Entry

NUMBERS = {
    "calls.process": (39, 56, 57, 58, 60, 110, 186, 218, 231, 334, 435),
    "calls.exec": (59, 322),
    "calls.group": (109, 111, 112, 121, 124),
    "calls.memory": (9, 10, 11, 12, 25, 26, 27, 28, 149, 150, 151, 152, 216, 325, 329, 330, 331),
    "calls.wait": (61, 247),
    "calls.signal": (13, 14, 15, 34, 127, 128, 130, 131, 219),
    "calls.kill": (62, 129, 200, 234, 297),
    "signalfd": (282, 289),
    "pidfd": (424, 434),
    "calls.open": (2, 3, 32, 33, 85, 257, 292, 436, 437),
    "calls.io": (0, 1, 8, 17, 18, 19, 20, 295, 296, 327, 328),
    "pipes": (22, 293),
    "calls.stat": (4, 5, 6, 21, 89, 137, 138, 262, 267, 269, 332, 439),
    "calls.dirs": (78, 79, 80, 81, 82, 83, 84, 86, 87, 88, 133, 161, 217, 258, 259, 263, 264, 265, 266, 316),
    "calls.futex": (202, 273, 274, 449),
    "calls.time": (35, 96, 98, 100, 159, 164, 201, 227, 228, 229, 230, 305),
    "calls.timers": (36, 37, 38, 222, 223, 224, 225, 226),
    "calls.timerfd": (283, 286, 287),
    "calls.identity": (102, 104, 105, 106, 107, 108, 113, 114, 115, 116, 117, 118, 119, 120, 122, 123, 125, 126),
    "calls.limits": (97, 160, 302),
    "calls.prctl": (135, 157, 158),
    "calls.sched": (24, 140, 141, 142, 143, 144, 145, 146, 147, 148, 203, 204, 251, 252, 309, 314, 315),
    "calls.numa": (237, 238, 239, 256, 279),
    "calls.system": (63, 99, 170, 171, 318, 324),
    "calls.attributes": (90, 91, 92, 93, 94, 95, 132, 235, 260, 261, 268, 280, 452),
    "calls.xattr": (188, 189, 190, 191, 192, 193, 194, 195, 196, 197, 198, 199),
    "calls.fcntl": (16, 72, 73),
    "calls.copy": (40, 275, 276, 278, 326),
    "calls.extent": (74, 75, 76, 77, 162, 187, 221, 277, 285, 306),
    "calls.special": (179, 253, 254, 255, 284, 290, 294, 300, 301, 303, 304, 319),
    "calls.socket": (41, 42, 43, 48, 49, 50, 51, 52, 53, 54, 55, 288),
    "calls.socket_messages": (44, 45, 46, 47, 299, 307),
    "calls.poll": (7, 23, 270, 271),
    "calls.epoll": (213, 232, 233, 281, 291, 441),
}
"""The calls of each module; every other number is `calls.absent`'s or unknown."""
_OWNERS = {number: name for name, numbers in NUMBERS.items() for number in numbers}


def find(number: int) -> Entry | None:
    """Return the entry of a system call, None for one that is unknown."""
    if number >= len(TABLE):
        return None
    return TABLE[number] or _load(number)


def _load(number: int) -> Entry | None:
    import_module(f"{__package__}.{_OWNERS.get(number, 'calls.absent')}")
    return TABLE[number]


def load_handlers() -> None:
    """Import every handler module, for those who want to see the whole table."""
    for name in (*NUMBERS, "calls.absent"):
        import_module(f"{__package__}.{name}")
