"""The API's process: `python -m enisle.api STATE [--listen --port …]`; started by the supervisor, not for typing."""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from enisle.errors import EnisleError


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m enisle.api", description="Serve the API and the console.")
    parser.add_argument("state", type=Path, help="the platform's state directory")
    parser.add_argument("--listen", default="127.0.0.1", help="the address it listens on (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="its port; 0: a free one")
    parser.add_argument("--name", action="append", default=[], help="a name it answers to, besides its addresses")
    parser.add_argument("--tls-certificate", type=Path)
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--insecure", action="store_true", help="leave loopback without TLS")
    return parser.parse_args(words)


async def serve(asked: argparse.Namespace) -> int:
    """Serve until a signal comes, or the store can no longer be followed. Raises EnisleError."""
    from enisle.api.app import make_app
    from enisle.api.assemble import assembled
    from enisle.api.server import bind, make_server, require_private, url_of
    from enisle.control import Places

    tls = asked.tls_certificate is not None
    require_private(asked.listen, tls, asked.insecure)
    sock = bind(asked.listen, asked.port)
    places = Places(asked.state)
    async with assembled(places, tuple(asked.name)) as services:
        server = make_server(make_app(services), services, asked.tls_certificate, asked.tls_key)
        logging.getLogger("enisle.api").info("serving %s", url_of(sock, tls))
        await server.serve([sock])
    return 1 if services.lost else 0


def main(words: list[str]) -> int:
    logging.basicConfig(format="%(asctime)s api %(levelname)s: %(message)s", level=logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    try:
        return asyncio.run(serve(parse(words)))
    except EnisleError as error:
        print(f"enisle: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
