"""`enisle doctor`: check this host by doing what an island does, and say what to type where it fails."""

from enisle.cli.options import Options
from enisle.cli.output import say
from enisle.island import Check, run_checks

NEEDED = ("kernel", "namespaces", "network", "root", "confinement")
"""Without these there is no island; without one of kvm and emulated neither."""
FAILED = 5


def doctor(options: Options) -> int:
    """Print the findings; return 0 when islands can run here, 5 when not."""
    checks: list[Check] = []
    for check in run_checks():
        checks.append(check)
        if not options.json:
            _print(check)
    good = {check.name for check in checks if check.good}
    able = good.issuperset(NEEDED) and bool(good & {"kvm", "emulated"})
    if options.json:
        import json

        record = {"able": able, "checks": [check._asdict() for check in checks]}
        say(json.dumps(record) + "\n")
    else:
        say(f"islands can{'' if able else 'not'} run on this host\n")
    return 0 if able else FAILED


def _print(check: Check) -> None:
    mark = "ok  " if check.good else "FAIL"
    say(f"{mark} {check.name:<12} {check.finding}  ({check.milliseconds:.1f} ms)\n")
    if check.remedy:
        say(f"     {'':<12} hint: {check.remedy}\n")
