"""What a program sees of an island's nodes: run on an island with four; every line is checked by the test."""

import ctypes
import errno
import glob
import mmap
import os
import threading

libc = ctypes.CDLL(None, use_errno=True)
MBIND, SET, GET, MIGRATE, MOVE, GETCPU = 237, 238, 239, 256, 279, 309
DEFAULT, PREFERRED, BIND, INTERLEAVE, LOCAL = range(5)
PAGE = 4096


def call(number, *arguments):
    words = [ctypes.c_void_p(word) if isinstance(word, int) else word for word in arguments]
    result = libc.syscall(ctypes.c_long(number), *words)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else result


def mask(*nodes):
    return ctypes.byref(ctypes.c_ulong(sum(1 << node for node in nodes)))


def where():
    processor, node = ctypes.c_uint(), ctypes.c_uint()
    call(GETCPU, ctypes.byref(processor), ctypes.byref(node), 0)
    return processor.value, node.value


def policy(flags=0, address=0):
    mode, nodes = ctypes.c_int(), ctypes.c_ulong()
    result = call(GET, ctypes.byref(mode), ctypes.byref(nodes), 65, address, flags)
    return result if result else (mode.value, nodes.value)


def nodes_of(address, count, pid=0):
    pages = (ctypes.c_void_p * count)(*(address + PAGE * index for index in range(count)))
    status = (ctypes.c_int * count)()
    result = call(MOVE, pid, count, pages, 0, status, 0)
    return result or list(status)


def move(address, node):
    pages, nodes, status = (ctypes.c_void_p * 1)(address), (ctypes.c_int * 1)(node), (ctypes.c_int * 1)()
    result = call(MOVE, 0, 1, pages, nodes, status, 2)
    return result or status[0]


def files():
    top = "/sys/devices/system/node"
    for name in sorted(glob.glob(f"{top}/*") + glob.glob(f"{top}/node3/*")):
        if os.path.isfile(name) and not name.endswith("meminfo"):
            print(name.removeprefix(top), open(name).read().strip())
    print("links", os.path.isdir(f"{top}/node2/cpu2"), os.path.isdir("/sys/devices/system/cpu/cpu1/node1"))


def threads():
    seen = []
    barrier = threading.Barrier(4)

    def work():
        barrier.wait()
        seen.append(where())

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print("threads", sorted(seen))
    for processor in (2, 0, 3):
        os.sched_setaffinity(0, {processor})
        print("affinity", processor, where())
    os.sched_setaffinity(0, range(4))


def policies():
    print("default", policy(), "allowed", policy(flags=4))
    print("bind", call(SET, BIND, mask(1, 2), 65), policy())
    print("interleave", call(SET, INTERLEAVE, mask(0, 3), 65), policy(), policy(flags=1))
    print("preferred", call(SET, PREFERRED, mask(2), 65), policy())
    print("wrong", call(SET, 17, mask(1), 65), call(SET, BIND, mask(), 65), call(SET, BIND, mask(9), 65))
    print(
        "wrong",
        call(SET, DEFAULT, mask(1), 65),
        call(GET, 0, mask(), 2, 0, 0),
        call(MBIND, 123, PAGE, BIND, mask(0), 65, 0),
    )
    print("again", call(SET, DEFAULT, 0, 0), policy())


def memory():
    os.sched_setaffinity(0, {0})
    area = mmap.mmap(-1, 16 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    view = (ctypes.c_char * len(area)).from_buffer(area)
    start = ctypes.addressof(view)
    for page in range(16):
        area[PAGE * page] = page
    print("first touch", nodes_of(start, 3))
    print("moved", move(start, 3), move(start + PAGE, 2), nodes_of(start, 3), move(start, 9))
    print("bound", call(MBIND, start, 8 * PAGE, BIND, mask(1), 65, 2), nodes_of(start, 9))
    print("policy there", policy(flags=2, address=start), policy(flags=3, address=start))
    print("turns", call(MBIND, start, 16 * PAGE, INTERLEAVE, mask(0, 1, 2, 3), 65, 2))
    print("balanced", sorted(nodes_of(start, 16)))
    print("contents", bytes(area[PAGE * page] for page in range(16)) == bytes(range(16)))
    print("migrated", call(MIGRATE, 0, 65, mask(0, 1, 2), mask(3)), set(nodes_of(start, 16)))
    print("contents", bytes(area[PAGE * page] for page in range(16)) == bytes(range(16)))
    fresh = mmap.mmap(-1, 4 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    place = ctypes.addressof((ctypes.c_char * len(fresh)).from_buffer(fresh))
    print("before touch", call(MBIND, place, 4 << 20, BIND, mask(2), 65, 0))
    fresh[0] = fresh[3 << 20] = 1
    print("touched", nodes_of(place, 1), nodes_of(place + (3 << 20), 1))
    print("nowhere", nodes_of(0x1000, 1), move(0x1000, 1))
    child = os.fork()
    if not child:
        area[0] = 200
        os._exit(area[0] + area[PAGE])
    print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), area[0])


files()
threads()
policies()
memory()
