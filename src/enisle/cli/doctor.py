"""`enisle doctor`: check this host by doing what an island does, and say what to type where it fails."""

import time
from collections.abc import Iterator

from enisle.cli.grammar import Options
from enisle.cli.output import say
from enisle.errors import EnisleError
from enisle.island import Check, run_checks

NEEDED = ("kernel", "namespaces", "network", "root", "confinement")
"""Without these there is no island; without one of kvm and emulated neither."""
FAILED = 5


def doctor(options: Options) -> int:
    """Print the findings; return 0 when islands can run here, 5 when not."""
    checks: list[Check] = []
    for check in _checks():
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


def _checks() -> Iterator[Check]:
    yield from run_checks()
    yield _check_machines()


def _check_machines() -> Check:
    """Whether full machines run here, and on what; islands do without."""
    from enisle.linuxvm import examine, find_qemu, version

    begin = time.perf_counter()
    try:
        program = find_qemu()
        number = ".".join(map(str, version(program)))
        found = examine(program, lambda words: None)
        finding, remedy = f"QEMU {number} on {'KVM' if found.able else f'its translator: {found.why}'}", ""
    except EnisleError as error:
        finding, remedy = error.message, error.hint
    return Check("machines", not remedy, finding, remedy, (time.perf_counter() - begin) * 1000)


def _print(check: Check) -> None:
    mark = "ok  " if check.good else "FAIL"
    say(f"{mark} {check.name:<12} {check.finding}  ({check.milliseconds:.1f} ms)\n")
    if check.remedy:
        say(f"     {'':<12} hint: {check.remedy}\n")
