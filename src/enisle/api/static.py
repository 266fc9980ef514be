"""The console's files: read once, served from memory, known by their hash.

Only what is in the directory when the process starts is served, by exact name: no path of a request is ever joined to
one of the host. Every answer carries a policy under which a page loads and talks to nothing but us.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from enisle.errors import NotFound

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
SECURITY = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is sent."""

    content: bytes
    media_type: str
    tag: str


class Static:
    """The files of one directory."""

    def __init__(self, directory: Path | None) -> None:
        self._files: dict[str, File] = {}
        for path in sorted(directory.rglob("*")) if directory and directory.is_dir() else ():
            if path.suffix in TYPES and path.is_file():
                content = path.read_bytes()
                tag = hashlib.sha256(content).hexdigest()[:20]
                name = path.relative_to(directory).as_posix() if directory else ""
                self._files[name] = File(content, TYPES[path.suffix], tag)

    def answer(self, request: Request, name: str) -> Response:
        """Send a file, or that the reader has it already. Raises NotFound."""
        file = self._files.get(name)
        if file is None:
            raise NotFound("there is no such page", "", "the console is at /")
        # Revalidated each time (a page is one small answer), for ever when asked for by its hash.
        lasting = request.query_params.get("v") == file.tag
        headers = {
            **SECURITY,
            "ETag": f'"{file.tag}"',
            "Cache-Control": "public, max-age=31536000, immutable" if lasting else "no-cache",
        }
        known = {
            tag.strip().removeprefix("W/").strip('"') for tag in request.headers.get("if-none-match", "").split(",")
        }
        if file.tag in known:
            return Response(status_code=304, headers=headers)
        return Response(file.content, 200, {**headers, "Content-Type": file.media_type})
