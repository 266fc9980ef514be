"""Check a busy guest again and again; nobody tampers with it, so nothing may be found.

    python -m bench.quiet --minutes 30 --kernel 6.1-cloud

The guest forks without end, loads and unloads a module, and switches function tracing on and off. Exit status 1 when a
check found something.
"""

import argparse
import sys
import time
from collections import Counter

from bench.kernel_guest import TestGuest, running
from enisle.introspect import Introspection

WORK = (
    "insmod /mod/dummy.ko",
    "rmmod dummy",
    "echo function > /sys/kernel/tracing/current_tracer",
    "for i in 1 2 3 4 5; do cat /proc/self/status > /tmp/status; done",
    "echo nop > /sys/kernel/tracing/current_tracer",
    "echo 1 > /sys/kernel/tracing/events/sched/enable",
    "echo 0 > /sys/kernel/tracing/events/sched/enable",
    "echo function_graph > /sys/kernel/tracing/current_tracer",
    "echo nop > /sys/kernel/tracing/current_tracer",
    "echo 1 > /sys/kernel/tracing/events/enable",
    "echo 0 > /sys/kernel/tracing/events/enable",
)
"""What the guest is told to do between two checks, in turns."""


def look(guest: TestGuest, minutes: float) -> int:
    """Check until the time is over; return how many checks found something."""
    session = Introspection.attach(guest.guest)
    baseline = session.baseline()
    end, checks, alarms = time.monotonic() + 60 * minutes, 0, 0
    notes: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    while time.monotonic() < end:
        guest.run(WORK[checks % len(WORK)] + " 2>/dev/null", 120)
        report = session.check(baseline)
        checks += 1
        notes.update(" ".join(note.split()[1:]) if note[:1].isdigit() else note for note in report.notes)
        for finding in report.findings:
            seen[finding.kind] += 1
            if seen[finding.kind] < 5:
                print(f"FALSE ALARM {finding.kind}: {finding.subject}: {finding.message}", flush=True)
        alarms += not report.clean
    pauses = sorted(pause.seconds for pause in session.pauses)
    print(f"{checks} checks, {alarms} with false alarms; pauses p95 {1000 * pauses[int(0.95 * len(pauses))]:.0f} ms")
    for note, count in notes.most_common(10):
        print(f"  noted {count} times: {note}")
    return alarms


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.quiet", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--kernel", default="6.1-cloud")
    options = parser.parse_args()
    with running(options.kernel, "PROCESSES=100 MODULES=10 CHURN=1") as guest:
        return 1 if look(guest, options.minutes) else 0


if __name__ == "__main__":
    sys.exit(main())
