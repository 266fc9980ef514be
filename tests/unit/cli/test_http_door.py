"""The door over HTTP, against a server of this test: what is asked, what refusals become, what breaks off."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from certificates_of_tests import certificate
from enisle.cli.http_door import HttpDoor
from enisle.cli.reach import Unreachable
from enisle.errors import EnisleError, HostError, InvalidRequest, NotFound, StateError

Json = dict[str, Any]
Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, dict[str, str], bytes]]
    answers: list[Answer]

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.answers.pop(0)(self, body)

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        pass


def telling(value: Any, status: int = 200, media: str = "application/json") -> Answer:
    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", media)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def hanging_up(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(*answers: Answer, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, type[Handler]]]:
    """Serve answers in their order; yield the address and what was seen."""
    kind = type("Handler", (Handler,), {"seen": [], "answers": list(answers)})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        server.daemon_threads = True
        server.handle_error = lambda request, client: None  # type: ignore[method-assign]
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http{'s' * bool(tls)}://127.0.0.1:{server.server_port}", kind
        finally:
            server.shutdown()


def test_a_question_carries_the_token_the_key_and_its_words() -> None:
    with serving(telling({"id": "t"}), telling([1])) as (url, told), HttpDoor(url + "/", "secret") as door:
        assert door.ask("POST", "/v1/tasks", {"a": "x y&z", "n": 2}, {"b": [1]}, "k1") == {"id": "t"}
        assert door.ask("GET", "/v1/a b") == [1]
    (method, path, headers, body), (_, second, more, none) = told.seen
    assert (method, path, json.loads(body)) == ("POST", "/v1/tasks?a=x+y%26z&n=2", {"b": [1]})
    assert headers["authorization"] == "Bearer secret"
    assert headers["idempotency-key"] == "k1"
    assert headers["content-type"] == "application/json"
    assert (second, none) == ("/v1/a%20b", b"")
    assert "idempotency-key" not in more


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, "invalid-request", InvalidRequest),
        (401, "unauthorized", EnisleError),
        (403, "forbidden", EnisleError),
        (404, "not-found", NotFound),
        (409, "state-error", StateError),
        (422, "key-taken", InvalidRequest),
        (429, "too-many", StateError),
        (503, "host-error", HostError),
        (500, "internal", EnisleError),
    ],
)
def test_a_problem_is_raised_as_what_it_is(status: int, kind: str, expected: type[EnisleError]) -> None:
    problem = {"detail": "what", "why": "because", "hint": "`enisle x`", "kind": kind, "status": status}
    with serving(telling(problem, status, "application/problem+json")) as (url, _), HttpDoor(url) as door:
        with pytest.raises(EnisleError) as caught:
            door.ask("GET", "/v1/x")
    assert type(caught.value) is expected
    assert str(caught.value) == "what\n  because\n  hint: `enisle x`"


def test_a_tenant_is_named_where_things_are_tenants() -> None:
    answers = [telling({}) for _ in range(4)]
    with serving(*answers) as (url, told), HttpDoor(url, tenant="*") as door:
        door.ask("GET", "/v1/islands", {"host": "h1"})
        door.upload("/v1/islands/web/files", {"path": "/x"}, b"", "k")
        door.ask("GET", "/v1/hosts")
        door.ask("GET", "/v1/audit")
    assert [path for _, path, _, _ in told.seen] == [
        "/v1/islands?host=h1&tenant=%2A",
        "/v1/islands/web/files?path=%2Fx&tenant=%2A",
        "/v1/hosts",
        "/v1/audit?tenant=%2A",
    ]


@pytest.mark.parametrize("content", [b"<html>no</html>", b"", b"[]", b'{"detail": 7}', b"\xff"])
def test_what_is_no_platform_is_told_so(content: bytes) -> None:
    with serving(telling(content, 502, "text/html")) as (url, _), HttpDoor(url) as door:
        with pytest.raises(EnisleError) as caught:
            door.ask("GET", "/v1/x")
    assert caught.value.message


def test_an_answer_that_is_no_json_is_no_bug_of_ours() -> None:
    with serving(telling(b"<html>", 200, "text/html")) as (url, _), HttpDoor(url) as door:
        with pytest.raises(HostError) as caught:
            door.ask("GET", "/v1/x")
    assert "no platform" in caught.value.why


def test_a_kept_connection_that_broke_is_made_again_for_what_may_be_asked_twice() -> None:
    one = telling({"n": 1})
    with serving(one, hanging_up, one, hanging_up, one, hanging_up) as (url, told), HttpDoor(url) as door:
        door.ask("GET", "/a")
        assert door.ask("GET", "/b") == {"n": 1}
        assert door.ask("POST", "/c", {}, {}, "key") == {"n": 1}
        with pytest.raises(Unreachable):
            door.ask("POST", "/d", {}, {})
    assert [path for _, path, _, _ in told.seen] == ["/a", "/b", "/b", "/c", "/c", "/d"]


def test_nobody_there_is_unreachable_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with HttpDoor(f"http://127.0.0.1:{port}") as door, pytest.raises(Unreachable) as caught:
        door.ask("GET", "/v1/x")
    assert "refused" in caught.value.why


def certified(directory: Path, name: str) -> tuple[str, ssl.SSLContext]:
    """Return the file of a new certificate for a name, and a server's side of it."""
    file, key = certificate(directory, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    return file, context


def test_a_certificate_is_believed_when_it_is_named_and_fits(tmp_path: Path) -> None:
    ca, context = certified(tmp_path, "127.0.0.1")
    with serving(telling({}), telling({}), tls=context) as (url, told):
        with HttpDoor(url, "secret", ca) as door:
            assert door.ask("GET", "/v1/x") == {}
        with HttpDoor(url, "secret") as door, pytest.raises(HostError) as caught:
            door.ask("GET", "/v1/x")
        assert not isinstance(caught.value, Unreachable)
        assert "not to be trusted" in caught.value.message
    assert len(told.seen) == 1  # the token went nowhere else


def test_a_certificate_of_another_name_is_not_believed(tmp_path: Path) -> None:
    ca, context = certified(tmp_path, "elsewhere.example")
    with serving(tls=context) as (url, told), HttpDoor(url, "secret", ca) as door:
        with pytest.raises(HostError) as caught:
            door.ask("GET", "/v1/x")
    assert "not to be trusted" in caught.value.message
    assert not told.seen


def test_tls_with_a_server_that_speaks_none_is_told_as_such() -> None:
    with serving(hanging_up) as (url, _), HttpDoor(url.replace("http:", "https:")) as door:
        with pytest.raises(HostError) as caught:
            door.ask("GET", "/v1/x")
    assert len(str(caught.value).splitlines()) == 3


def test_a_file_that_holds_no_certificates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("nothing")
    for ca in (tmp_path / "ca", tmp_path / "missing"):
        with HttpDoor("https://127.0.0.1:9", "", str(ca)) as door, pytest.raises(InvalidRequest):
            door.ask("GET", "/v1/x")


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:80", "ftp://x", "http://", "http://x:99999", "http://x:y", "http://x?a"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        HttpDoor(url)


def test_events_are_read_as_they_come_and_their_end_is_unreachable() -> None:
    text = (
        b': hello\n\nid: e-1\nevent: task\ndata: {"id": "t", "value": {"state": "done"}}\n\n'
        b"event: current\ndata: {}\n\n: still here\n\nevent: lock\r\n"
        b'data: {"id": "a.b",\r\ndata: "value": null}\r\n\r\n'
    )
    with serving(telling(text, media="text/event-stream")) as (url, _), HttpDoor(url) as door:
        with pytest.raises(Unreachable):
            list(door.events())
    with serving(telling(text, media="text/event-stream")) as (url, _), HttpDoor(url) as door:
        events = door.events()
        assert [next(events) for _ in range(3)] == [
            ("task", "t", {"state": "done"}),
            ("current", "", None),
            ("lock", "a.b", None),
        ]


def test_a_file_is_downloaded_in_parts_and_uploaded_as_it_is() -> None:
    content = bytes(range(256)) * 4096
    with serving(telling(content, media="application/octet-stream"), telling({"id": "t"})) as (url, told):
        with HttpDoor(url) as door:
            parts = list(door.download("/v1/islands/web/files", {"path": "/x"}))
            assert door.upload("/v1/islands/web/files", {"path": "/y", "mode": "644"}, content, "k") == {"id": "t"}
    assert b"".join(parts) == content
    assert len(parts) > 1
    assert told.seen[1][3] == content
    assert told.seen[1][1] == "/v1/islands/web/files?path=%2Fy&mode=644"
