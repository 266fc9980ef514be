"""The console in Chromium: its first paint, its first list, and how long after an event a row is blocked and free.

The server is the one of the tests (its files as the platform serves them), on this machine; the browser is fresh for
every sample, its cache cold. Exit status 1 when a promise was missed and `--check` was given.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent / "tests")]

from playwright.sync_api import Browser, sync_playwright  # noqa: E402

from console_fake import Fake, island, task  # noqa: E402
from console_pages import appears, chromium, page_of, vanishes  # noqa: E402

ISLANDS = 100
OVERLAY = "[data-resource='island.i7'][role=row] > .overlay"
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
LISTED = "performance.now()"
PROMISES_MS = {"first paint": 300.0, "blocked, two browsers": 500.0, "free, two browsers": 500.0}


def paint(browser: Browser, fake: Fake) -> dict[str, float]:
    """Load the page once; return milliseconds since the navigation began."""
    with page_of(browser, fake.url) as page:
        page.wait_for_selector("[role=row][data-resource]")
        listed = float(page.evaluate(LISTED))
        return {"first paint": float(page.evaluate(PAINT)), "a hundred islands": listed}


def block(browser: Browser, fake: Fake, samples: int) -> dict[str, list[float]]:
    """Block a row and free it again; return milliseconds from the change to the later of two browsers' pages."""
    found: dict[str, list[float]] = {"blocked, two browsers": [], "free, two browsers": []}
    with page_of(browser, fake.url) as one, page_of(browser, fake.url) as two:
        for page in (one, two):
            page.wait_for_selector("[role=row][data-resource]")

        def timed(watch: Callable[..., Callable[[], float]], change: Callable[[], None]) -> float:
            watches = [watch(page, OVERLAY) for page in (one, two)]
            began = time.time()
            change()
            return 1000 * max(seen() - began for seen in watches)

        for number in range(samples):
            holder = task(f"t{number}", "island.stop@1", "island.i7")
            blocked = timed(appears, lambda holder=holder: fake.lock("island.i7", holder, 0.4, "ending"))
            found["blocked, two browsers"].append(blocked)
            free = timed(vanishes, lambda holder=holder: fake.end("island.i7", holder, "done"))
            found["free, two browsers"].append(free)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.console", description=__doc__)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    found: dict[str, list[float]] = {}
    with Fake() as fake, sync_playwright() as playwright, chromium(playwright) as browser:
        fake.put_all("island", {f"i{number}": island(f"i{number}") for number in range(ISLANDS)})
        for _ in range(asked.samples):
            for name, value in paint(browser, fake).items():
                found.setdefault(name, []).append(value)
        found |= block(browser, fake, asked.samples)
    missed = False
    for name, values in found.items():
        median, worst = statistics.median(values), max(values)
        promise = PROMISES_MS.get(name)
        missed |= promise is not None and median > promise
        verdict = f"promised ≤ {promise:.0f} ms: {'kept' if median <= promise else 'MISSED'}" if promise else ""
        print(f"{name:24} median {median:7.1f} ms  worst {worst:7.1f} ms  {verdict}")
    return 1 if missed and asked.check else 0


if __name__ == "__main__":
    sys.exit(main())
