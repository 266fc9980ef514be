"""Eight threads with locks, queues, events, conditions, barriers and pools."""

import collections
import concurrent.futures
import queue
import threading
import time

counter = 0
lock = threading.Lock()


def count() -> None:
    global counter
    for _ in range(2000):
        with lock:
            counter += 1


threads = [threading.Thread(target=count) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("locked counter", counter)

jobs: queue.Queue = queue.Queue(maxsize=10)
done: queue.Queue = queue.Queue()


def work() -> None:
    while (job := jobs.get()) is not None:
        done.put(job * job)
    done.put(None)


workers = [threading.Thread(target=work) for _ in range(8)]
for worker in workers:
    worker.start()
for job in range(1000):
    jobs.put(job)
for _ in workers:
    jobs.put(None)
total = ends = 0
while ends < 8:
    result = done.get(timeout=30)
    if result is None:
        ends += 1
    else:
        total += result
print("queue", total)

barrier = threading.Barrier(8)
order: list[str] = []


def meet(n: int) -> None:
    for step in range(20):
        barrier.wait(30)
        with lock:
            order.append(str(step))


threads = [threading.Thread(target=meet, args=(n,)) for n in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("barrier", collections.Counter(order) == {str(n): 8 for n in range(20)}, order == sorted(order, key=int))

event, semaphore = threading.Event(), threading.Semaphore(3)
start = time.monotonic()
print("event times out", event.wait(0.05), 0.04 < time.monotonic() - start < 5)
threading.Timer(0.05, event.set).start()
print("event set", event.wait(20))
print("lock times out", lock.acquire() and not lock.acquire(timeout=0.05))
lock.release()
condition, items = threading.Condition(), []


def consume() -> None:
    with condition:
        while not items:
            condition.wait(20)
        items.pop()


consumers = [threading.Thread(target=consume) for _ in range(8)]
[consumer.start() for consumer in consumers]
for n in range(8):
    with condition:
        items.append(n)
        condition.notify()
[consumer.join(30) for consumer in consumers]
print("condition", items, [consumer.is_alive() for consumer in consumers].count(True))
local = threading.local()
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    print("pool", sum(pool.map(lambda n: n * 3, range(500))))


def deep(n: int) -> int:
    return 0 if n == 0 else 1 + deep(n - 1)


threading.stack_size(16 << 20)
thread = threading.Thread(target=lambda: print("deep", deep(900)))
thread.start()
thread.join()
print("native ids differ", threading.get_native_id() > 0, threading.main_thread() is threading.current_thread())
