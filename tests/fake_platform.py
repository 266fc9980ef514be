"""A platform for the command line's unit tests: answers are queued by method and path, what was asked is kept."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from enisle.errors import NotFound

Json = dict[str, Any]


def task(**changes: Any) -> Json:
    """Return a task as the API tells it."""
    told: Json = {
        "id": "0123456789abcdef01234567",
        "routine": "island.exec@1",
        "arguments": {},
        "resources": [{"kind": "island", "id": "web", "mode": "shared"}],
        "state": "running",
        "host": "h1",
        "placement": "retryable",
        "attempt": 1,
        "attempts": 1,
        "submitted": 1000.0,
        "started": 1000.1,
        "finished": None,
        "deadline": None,
        "blocked": None,
        "cancel": "",
        "result": None,
        "failure": None,
        "progress": None,
        "actor": "token:admin",
        "tenant": "default",
        "trace": "",
    }
    return told | changes


def ended(state: str = "done", **changes: Any) -> Json:
    return task(state=state, finished=1002.0, **changes)


class FakeDoor:
    """Answers as it was told to; the last answer of a path is given again and again."""

    url = "http://fake"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, Any], Any]] = []
        self.keys: list[str] = []
        self._answers: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
        self.event_runs: list[list[Any]] = []

    def tell(self, method: str, path: str, *answers: Any) -> None:
        """Queue answers; an exception is raised, a function is called with the query."""
        self._answers[method, path] += answers

    def ask(self, method: str, path: str, query: Any = None, body: Any = None, key: str = "") -> Any:
        self.asked.append((method, path, dict(query or {}), body))
        self.keys.append(key)
        answers = self._answers[method, path]
        if not answers:
            raise NotFound(f"there is no {path}", "nothing was queued", "tell()")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer(dict(query or {})) if isinstance(answer, Callable) else answer  # type: ignore[arg-type]

    def download(self, path: str, query: Any) -> Iterator[bytes]:
        yield self.ask("GET", path, query)

    def upload(self, path: str, query: Any, content: bytes, key: str) -> Any:
        return self.ask("PUT", path, query, content, key)

    def events(self) -> Iterator[tuple[str, str, Any]]:
        for event in self.event_runs.pop(0):
            if isinstance(event, BaseException):
                raise event
            yield event
