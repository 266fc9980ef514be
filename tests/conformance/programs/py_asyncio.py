"""asyncio: sleeping, queues, streams over TCP and Unix sockets, subprocesses, threads, signals, datagrams."""

import asyncio
import os
import signal
import socket
import time


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()


async def talk(opened) -> list[bytes]:
    reader, writer = await opened
    answers = []
    for word in (b"one\n", b"two\n", b"x" * 60000 + b"\n"):
        writer.write(word)
        await writer.drain()
        answers.append((await reader.readline())[:4])
    writer.close()
    await writer.wait_closed()
    return answers


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: asyncio.Queue = asyncio.Queue()

    def datagram_received(self, data: bytes, address) -> None:
        self.received.put_nowait(data)


async def main() -> None:
    start = time.monotonic()
    await asyncio.gather(*(asyncio.sleep(0.1) for _ in range(200)))
    print("slept together", 0.09 < time.monotonic() - start < 5)
    try:
        await asyncio.wait_for(asyncio.sleep(20), 0.05)
    except TimeoutError:
        print("timed out")
    server = await asyncio.start_server(echo, "127.0.0.1", 0, limit=1 << 20)
    port = server.sockets[0].getsockname()[1]
    print(await talk(asyncio.open_connection("127.0.0.1", port, limit=1 << 20)))
    many = [talk(asyncio.open_connection("127.0.0.1", port, limit=1 << 20)) for _ in range(20)]
    print(len(await asyncio.gather(*many)))
    server.close()
    server = await asyncio.start_unix_server(echo, "socket", limit=1 << 20)
    print(await talk(asyncio.open_unix_connection("socket", limit=1 << 20)))
    server.close()
    server = await asyncio.start_server(echo, "::1", 0)
    print(await talk(asyncio.open_connection("::1", server.sockets[0].getsockname()[1])))
    server.close()
    process = await asyncio.create_subprocess_exec("tr", "a-z", "A-Z", stdin=-1, stdout=-1)
    print(await process.communicate(b"shout"), process.returncode)
    children = [await asyncio.create_subprocess_shell(f"sleep 0.0{n}; exit {n}") for n in range(5)]
    print([await child.wait() for child in children])
    loop = asyncio.get_running_loop()
    print(await asyncio.to_thread(sum, range(100)), await loop.run_in_executor(None, os.getpid) == os.getpid())
    got = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, got.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.wait_for(got.wait(), 20)
    print("signal")
    transport, protocol = await loop.create_datagram_endpoint(Datagrams, ("127.0.0.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"datagram", transport.get_extra_info("sockname"))
    print(await asyncio.wait_for(protocol.received.get(), 20))
    transport.close()
    queue: asyncio.Queue = asyncio.Queue(3)

    async def produce() -> None:
        for n in range(100):
            await queue.put(n)

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        print(sum([await queue.get() for _ in range(100)]))


asyncio.run(main())
