"""multiprocessing by fork and by spawn: pools, queues, shared values, locks, managers, shared memory."""

import multiprocessing as mp
import sys
from multiprocessing import shared_memory


def square(n: int) -> int:
    return n * n


def add(total, lock, times: int) -> None:
    for _ in range(times):
        with lock:
            total.value += 1


def answer(inbox, outbox) -> None:
    for item in iter(inbox.get, None):
        outbox.put(item + 1)


def fill(name: str) -> None:
    block = shared_memory.SharedMemory(name)
    block.buf[:5] = b"hello"
    block.close()


def main(method: str) -> None:
    context = mp.get_context(method)
    with context.Pool(3) as pool:
        print(method, "pool", sum(pool.map(square, range(200))), pool.apply(square, (12,)))
        print(method, "unordered", sorted(pool.imap_unordered(square, range(10))))
    total, lock = context.Value("i", 0, lock=False), context.Lock()
    adders = [context.Process(target=add, args=(total, lock, 200)) for _ in range(3)]
    for process in adders:
        process.start()
    for process in adders:
        process.join(60)
    print(method, "value", total.value, [process.exitcode for process in adders])
    inbox, outbox = context.Queue(), context.Queue()
    process = context.Process(target=answer, args=(inbox, outbox))
    process.start()
    for n in range(50):
        inbox.put(n)
    inbox.put(None)
    print(method, "queue", sum(outbox.get(timeout=60) for _ in range(50)))
    process.join(60)
    here, there = context.Pipe()
    process = context.Process(target=there.send, args=(["through", 1],))
    process.start()
    print(method, "pipe", here.recv())
    process.join(60)
    block = shared_memory.SharedMemory(create=True, size=1 << 16)
    process = context.Process(target=fill, args=(block.name,))
    process.start()
    process.join(60)
    print(method, "shared memory", bytes(block.buf[:5]))
    block.close()
    block.unlink()
    process = context.Process(target=sys.exit, args=(3,))
    process.start()
    process.join(60)
    print(method, "exit", process.exitcode)
    process = context.Process(target=__import__("time").sleep, args=(60,))
    process.start()
    process.terminate()
    process.join(60)
    print(method, "terminated", process.exitcode)


if __name__ == "__main__":
    main(sys.argv[1])
