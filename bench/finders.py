"""Other ways to a kernel's internals on the same guests: drgn, and vmlinux-to-elf's finder of kallsyms.

    python -m bench.finders                    every pinned kernel
    python -m bench.finders --only 6.1-cloud   one; --debug fetches drgn's debug data for it, where they are pinned

Both tools are installed into an environment of their own (the extra `bench` of pyproject.toml), in the user's cache.
The finder is given the kernel's file, and then the image as it lies in memory; drgn memory, a VMCOREINFO from inside
the guest, and debug data. Columns: what was found (wrong), seconds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from pathlib import Path

from bench.kernel_guest import BOOT, TestGuest, differing_tasks, guests, running, wrong_facts
from enisle.errors import EnisleError, HostError
from enisle.introspect import Introspection

HERE = Path(__file__).resolve().parent
DEBUG = {"6.1-cloud": "6.1-cloud-debug"}
"""Debug data that is pinned: 268 MiB to fetch and 560 MiB to keep for a kernel, so for one."""
PATIENCE = 300.0
Row = dict[str, object]


def tools() -> Path:
    """Return the directory of the programs, installed if need be. Raises HostError."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    wanted: list[str] = project["optional-dependencies"]["bench"]
    place = guests.kernel_directory().parent / "finders"
    if not (place / "installed").exists() or (place / "installed").read_text() != "\n".join(wanted):
        print(f"installing {', '.join(wanted)} into {place}", file=sys.stderr)
        venv.create(place, with_pip=True, clear=True)
        done = subprocess.run(
            [place / "bin" / "python", "-m", "pip", "install", "-q", *wanted], capture_output=True, text=True
        )
        if done.returncode:
            raise HostError("cannot install the tools to compare with", done.stderr.strip()[-300:], "check the network")
        (place / "installed").write_text("\n".join(wanted))
    return place / "bin"


def ours(guest: TestGuest) -> tuple[Row, Introspection]:
    """Look with our own eyes."""
    began = time.perf_counter()
    session = Introspection.attach(guest.guest)
    cold = time.perf_counter() - began
    began = time.perf_counter()
    session.processes()
    listing = time.perf_counter() - began
    before, seen = guest.ask(), session.processes().processes
    known = [fact for fact in session.kernel.facts if fact.value is not None]
    return {
        "facts": len(known),
        "offsets": sum(fact.kind == "offset" for fact in known),
        "exports": len(session.kernel.exports.by_name),
        "wrong": len(wrong_facts(session, guest.oracle)),
        "differing": len(differing_tasks(session, before, guest.ask(), seen)),
        "cold_s": cold,
        "ps_ms": 1000 * listing,
    }, session


def finder(programs: Path, file: Path, symbols: dict[str, list[int]]) -> Row:
    """Let kallsyms-finder read a file; compare with the guest's own symbols, wherever it takes the image to lie."""
    began = time.perf_counter()
    try:
        done = subprocess.run([programs / "kallsyms-finder", file], capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {PATIENCE:g} s"}
    seconds = time.perf_counter() - began
    rows = [words for line in done.stdout.splitlines() if len(words := line.split()) == 3]
    base = next((int(words[0], 16) for words in rows if words[2] == "_text"), None)
    if done.returncode or base is None:
        return {"error": (done.stderr.strip().splitlines() or ["it found nothing"])[-1][:60], "seconds": seconds}
    slide = symbols["_text"][0] - base
    # Per-CPU symbols before 6.15 are offsets: the same in both (tools/relocs.c).
    right = sum(any(int(at, 16) + by in symbols.get(name, ()) for by in (slide, 0)) for at, _, name in rows)
    return {"symbols": len(rows), "wrong": len(rows) - right, "seconds": seconds}


def drgn(programs: Path, guest: TestGuest, debug: str) -> Row:
    """Let drgn list the threads; without debug data it says what it wants."""
    located = guest.run("cat /sys/kernel/vmcoreinfo").split()
    place = next((index for index, word in enumerate(located) if word.startswith("0x")), None)
    if place is None:
        return {"error": "the guest tells no VMCOREINFO"}
    note = guest.guest.memory.read(int(located[place], 16), int(located[place + 1], 16) * 4)
    size, length = (int.from_bytes(note[at : at + 4], "little") for at in (0, 4))
    start = 12 + (size + 3 & ~3)
    descriptor = guest.machine.open_ram()
    told = {
        "ram": f"/dev/fd/{descriptor}",
        "pieces": [[piece.gpa, piece.size, piece.offset] for piece in guest.machine.memory_map()],
        "vmcoreinfo": note[start : start + length].decode(errors="replace"),
        "debug": debug,
    }
    words = [programs / "python", HERE / "finders_drgn.py"]
    done = subprocess.run(
        words, input=json.dumps(told), capture_output=True, text=True, timeout=PATIENCE, pass_fds=[descriptor]
    )
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["?"])[-1][:60]}
    answer: Row = json.loads(done.stdout)
    if "threads" in answer:
        answer["differing"] = _differing(answer.pop("threads"), guest)  # type: ignore[arg-type]
    return answer


def _differing(found: list[list[object]], guest: TestGuest) -> int:
    """Return how many of the guest's lasting threads were told otherwise."""
    views = [{task.pid: (task.tgid, task.ppid) for task in guest.ask().tasks()} for _ in range(2)]
    told = {thread[0]: (thread[1], thread[2]) for thread in found}
    return sum(told.get(pid) != view for pid, view in views[0].items() if pid in views[1])


def one(programs: Path, name: str, debug: bool) -> Row:
    """Boot one kernel and let all look at it."""
    kernel = guests.get(name)
    part = DEBUG.get(name)
    data = guests.find_part(part) if part else None
    if part and debug:
        data = guests.get_part(part)
    with running(name, "PROCESSES=200 MODULES=12") as guest, tempfile.TemporaryDirectory() as directory:
        guest.run("true", BOOT)
        symbols = guest.dump().symbols()
        mine, session = ours(guest)
        image = Path(directory) / "image"
        image.write_bytes(session.kernel.image.content)
        row: Row = {"kernel": name, "ours": mine, "file": finder(programs, kernel.image, symbols)}
        row["memory"] = finder(programs, image, symbols)
        row["drgn"] = drgn(programs, guest, "")
        if data is not None:
            row["drgn_debug"] = drgn(programs, guest, str(data))
    return row


def show(row: Row) -> None:
    """Print one line of the table."""
    if "error" in row:
        print(f"{row['kernel']:20} {row['error']}", flush=True)
        return
    mine: Row = row["ours"]  # type: ignore[assignment]
    cells = [f"{row['kernel']:20}", f"{mine['exports']}+{mine['facts']} ({mine['wrong']}) {mine['cold_s']:.1f} s"]
    cells += [f"ps {mine['ps_ms']:.0f} ms ({mine['differing']})"]
    for key in ("file", "memory"):
        found: Row = row[key]  # type: ignore[assignment]
        told = found.get("error") or f"{found['symbols']} ({found['wrong']}) {found['seconds']:.1f} s"
        cells.append(f"{key}: {told}")
    for key in ("drgn", "drgn_debug"):
        found = row.get(key, {"error": "no debug data"})  # type: ignore[assignment]
        told = found.get("error") or f"{found['cold_s']:.1f} s, ps {found['ps_ms']:.0f} ms ({found['differing']})"
        cells.append(f"{key}: {told}")
    print(" | ".join(cells), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.finders", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="NAME", action="append", help="this kernel (may be given often)")
    parser.add_argument("--debug", action="store_true", help="fetch debug data for drgn where they are pinned")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE")
    options = parser.parse_args()
    programs, rows = tools(), []
    print("kernel | ours: exports+facts (wrong), cold, ps (differing) | kallsyms-finder on the file, in memory | drgn")
    for name in options.only or guests.read_manifest():
        try:
            rows.append(one(programs, name, options.debug))
        except (EnisleError, OSError, AssertionError) as error:
            rows.append({"kernel": name, "error": f"{type(error).__name__}: {error}"})
        show(rows[-1])
    good = [row for row in rows if "error" not in row]
    for key in ("ours", "file", "memory", "drgn", "drgn_debug"):
        count = sum(key in row and "error" not in row[key] for row in good)  # type: ignore[operator]
        print(f"{key}: served {count} of {len(rows)} kernels")
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
