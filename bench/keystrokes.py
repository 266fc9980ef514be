"""How long a typed character takes to be seen: into a shell's terminal on an island and back, over the API on loopback.

    python -m bench.keystrokes [--count 200]

Types one character at a time at `cat` (the host's line discipline echoes) and at bash (readline does), each after the
echo of the last; output comes by long polls on a connection of its own, as `enisle island exec -it` does it. Prints
p50, p95 and the longest in milliseconds. Makes a platform of its own in a temporary directory.
"""

import argparse
import base64
import http.client
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ENISLE = [sys.executable, "-m", "enisle"]
BUDGET_MS = 50.0


class Api:
    """One connection to the platform."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}"}

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        media = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        self._connection.request(
            method, path, raw, self._headers | ({"Content-Type": media} if raw is not None else {})
        )
        answer = self._connection.getresponse()
        content = answer.read()
        assert answer.status < 300, content
        return json.loads(content) if content else None


def follow(api: Api, task: str, seen: "queue.Queue[tuple[float, bytes]]") -> None:
    after, ended = 0, False
    while not ended:
        told = api.ask("GET", f"/v1/tasks/{task}/output?after={after}&wait=20")
        for chunk in told["chunks"]:
            seen.put((time.perf_counter(), base64.b64decode(chunk["data"])))
        after, ended = told["next"], told["ended"] and not told["chunks"]


def measure(url: str, token: str, island: str, argv: list[str], count: int) -> list[float]:
    api, seen = Api(url, token), queue.Queue[tuple[float, bytes]]()
    body = {"argv": argv, "tty": True, "input": "open", "env": {"PS1": "> ", "TERM": "dumb"}}
    task = api.ask("POST", f"/v1/islands/{island}/exec", body)["id"]
    following = threading.Thread(target=follow, args=(Api(url, token), task, seen))
    following.start()
    while api.ask("GET", f"/v1/tasks/{task}")["state"] != "running":
        time.sleep(0.01)
    took: list[float] = []
    offset = 0

    def type_in(text: bytes) -> float:
        nonlocal offset
        begin = time.perf_counter()
        while (told := api.ask("POST", f"/v1/tasks/{task}/input?offset={offset}", text))["later"]:
            text, offset = text[told["next"] - offset :], told["next"]
        offset = told["next"]
        return begin

    type_in(b"\r")
    time.sleep(1.0)
    while not seen.empty():
        seen.get()
    for number in range(count):
        letter = b"abcdefghij"[number % 10 : number % 10 + 1]
        begin = type_in(letter)
        while True:
            when, text = seen.get(timeout=20)
            if letter in text:
                break
        took.append((when - begin) * 1000)
    api.ask("POST", f"/v1/tasks/{task}/cancel", {})
    following.join()
    return took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200)
    count: int = parser.parse_args().count
    with tempfile.TemporaryDirectory() as directory:
        environment = {
            **os.environ,
            "ENISLE_STATE": f"{directory}/state",
            "HOME": directory,
            "XDG_CONFIG_HOME": directory,
        }
        try:
            subprocess.run([*ENISLE, "up", "-q"], env=environment, check=True, stdout=subprocess.DEVNULL)
            url = json.loads(Path(directory, "state/platform.json").read_text())["url"]
            token = Path(directory, "state/token").read_text().strip()
            subprocess.run([*ENISLE, "island", "create", "-q", "keys"], env=environment, check=True)
            for name, argv in (("cat", ["cat"]), ("bash", ["bash", "--norc"])):
                took = measure(url, token, "keys", argv, count)
                p50, p95 = statistics.median(took), statistics.quantiles(took, n=20)[-1]
                kept = "kept" if p50 < BUDGET_MS else "missed"
                told = f"p50 {p50:6.1f} ms  p95 {p95:6.1f} ms  longest {max(took):6.1f} ms"
                print(f"{name:<5} {told}  promised ≤ {BUDGET_MS:g} ms: {kept}")
        finally:
            subprocess.run([*ENISLE, "down", "--islands"], env=environment, check=False, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
