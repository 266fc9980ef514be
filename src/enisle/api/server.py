"""The process's HTTP server: uvicorn, with the connection in reach of those who must cut it, and ends that end.

Nothing but loopback is listened on without TLS unless it is asked for in so many words. SIGTERM ends streams at once,
lets requests finish for `GRACE_S`, and the process ends with 0.
"""

import asyncio
import contextlib
import ipaddress
import json
import signal
import socket
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from enisle.api.problems import MEDIA_TYPE, document
from enisle.api.services import Services
from enisle.errors import HostError, InvalidRequest

GRACE_S = 3
MAX_REQUESTS = 2048
MAX_HEADERS = 32 << 10


class Connection(H11Protocol):
    """A connection that tells the app its transport, and says what is wrong as everything else here does."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        app: Any = self.app

        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            scope["enisle.transport"] = transport
            await app(scope, receive, send)

        self.app = with_transport

    def send_400_response(self, msg: str) -> None:
        told = document(InvalidRequest("this is not an HTTP request", msg, "see /openapi.json"))
        headers = [("content-type", MEDIA_TYPE), ("connection", "close")]
        parts = [
            self.conn.send(h11.Response(status_code=400, headers=headers, reason=b"Bad Request")),
            self.conn.send(h11.Data(data=json.dumps(told).encode())),
            self.conn.send(h11.EndOfMessage()),
        ]
        self.transport.write(b"".join(part for part in parts if part))
        self.transport.close()


class Server(uvicorn.Server):
    """A server that ends with its app, or by a signal, with exit status 0."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self.services = services

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: its owner says when it ends
            for one in signals:
                loop.add_signal_handler(one, self.services.closing.set)
        try:
            yield
        finally:
            with contextlib.suppress(ValueError, RuntimeError):
                for one in signals:
                    loop.remove_signal_handler(one)

    async def main_loop(self) -> None:
        await self.services.closing.wait()
        self.should_exit = True


def bind(listen: str, port: int) -> socket.socket:
    """Return a listening socket. Raises HostError, InvalidRequest."""
    try:
        family, _, _, _, address = socket.getaddrinfo(listen, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise InvalidRequest(f"cannot listen on {listen!r}", error.strerror or "", "name an address") from None
    # By its full name: asyncio sends small answers at once (TCP_NODELAY) only on what says that it is TCP.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(256)
    except OSError as error:
        sock.close()
        hint = "another program has it; choose another with --port"
        raise HostError(f"cannot listen on {listen}:{port}", error.strerror or "", hint) from None
    sock.setblocking(False)
    return sock


def require_private(listen: str, tls: bool, insecure: bool) -> None:
    """Raises InvalidRequest when tokens would cross a network in the clear."""
    try:
        private = listen == "localhost" or ipaddress.ip_address(listen).is_loopback
    except ValueError:
        private = False
    if not (private or tls or insecure):
        raise InvalidRequest(
            f"will not listen on {listen} without TLS",
            "tokens would cross the network in the clear",
            "name --tls-certificate and --tls-key, or say --insecure",
        )


def url_of(sock: socket.socket, tls: bool) -> str:
    """Return the address of a listening socket; one that listens everywhere is reached on this host by loopback."""
    host, port = str(sock.getsockname()[0]), int(sock.getsockname()[1])
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host) or host
    return f"http{'s' * tls}://{f'[{host}]' if ':' in host else host}:{port}"


def make_server(app: ASGIApp, services: Services, certificate: Path | None = None, key: Path | None = None) -> Server:
    """Return a server for the app. Raises HostError when the TLS files cannot be used."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        limit_concurrency=MAX_REQUESTS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=MAX_HEADERS,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    try:
        config.load()
    except OSError as error:
        raise HostError("cannot use the TLS certificate", str(error), f"see {certificate} and {key}") from None
    return Server(config, services)


@contextlib.asynccontextmanager
async def serving(server: Server, sock: socket.socket) -> AsyncGenerator[None, None]:
    """Run a server beside what the caller does."""
    running = asyncio.create_task(server.serve([sock]))
    try:
        while not server.started:
            if running.done():
                running.result()
                raise HostError("the API does not start", "its server ended", "see its log")
            await asyncio.sleep(0.005)
        yield
    finally:
        server.services.closing.set()
        await asyncio.wait([running])
