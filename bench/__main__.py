"""Measure the figures side by side, interleaved, and print medians, ratios and what was promised.

Exit status 1 when a promise was missed or could not be measured and `--check` was given.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys

from bench.doors import show_doors
from bench.figures import Figure, figures
from bench.sides import Side, Unmeasurable, compile_programs, sides

Samples = dict[str, list[float]]
Reasons = dict[str, str]


def measure(figure: Figure, among: list[Side], rounds: int) -> tuple[Samples, Reasons]:
    """Measure every side once a round, in turns; return the samples, and why a side has none."""
    samples: Samples = {side.name: [] for side in among if side.name not in figure.without}
    reasons: Reasons = {}
    for turn in range(rounds):
        for side in among if turn % 2 == 0 else reversed(among):
            if side.name in reasons or side.name not in samples:
                continue
            try:
                samples[side.name].append(figure.measure(side))
            except (Unmeasurable, ValueError, IndexError) as error:
                reasons[side.name] = str(error)
    return {name: values for name, values in samples.items() if name not in reasons}, reasons


def judge(figure: Figure, samples: Samples) -> list[dict[str, object]]:
    """Return the promises of `figure` with what was found: the median of the rounds' own ratios."""
    verdicts: list[dict[str, object]] = []
    for promise in figure.promises:
        pairs = list(zip(samples.get(promise.side, []), samples.get(promise.against, []), strict=False))
        ratio = statistics.median(mine / theirs for mine, theirs in pairs) if pairs else None
        text = f"{promise.side} ≤ {promise.ratio:.3g} x {promise.against}"
        verdicts.append({"promise": text, "found": ratio, "kept": ratio is not None and ratio <= promise.ratio})
    for name, most in (figure.most or {}).items():
        found = statistics.median(samples[name]) if name in samples else None
        text = f"{name} ≤ {most:g} {figure.unit}"
        verdicts.append({"promise": text, "found": found, "kept": found is not None and found <= most})
    return verdicts


def show(figure: Figure, samples: Samples, verdicts: list[dict[str, object]], names: list[str]) -> None:
    """Print one line of the table."""
    cells = [f"{statistics.median(samples[name]):10.3f}" if name in samples else f"{'-':>10}" for name in names]
    notes = [
        f"{v['promise']}: {v['found']:.2f} {'kept' if v['kept'] else 'MISSED'}"
        for v in verdicts
        if v["found"] is not None
    ]
    print(f"{figure.name:32} {figure.unit:4}", *cells, " " + "; ".join(notes), flush=True)


def warn_when_busy() -> None:
    """Say so when other work runs on this computer: the ratios suffer."""
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"note: the load of this computer is {load:.1f}; figures of an idle one are steadier", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side (5)")
    parser.add_argument("--only", metavar="TEXT", help="figures whose name contains TEXT")
    parser.add_argument("--sides", metavar="NAMES", help="comma-separated: native,enisle,exit door,runsc")
    parser.add_argument("--json", metavar="FILE", help="write the results to FILE as well (- for standard output)")
    parser.add_argument("--check", action="store_true", help="fail when a promise is not kept")
    options = parser.parse_args()
    programs = compile_programs()
    try:
        chosen = options.sides.split(",") if options.sides else None
        among = [side for side in sides(programs) if chosen is None or side.name in chosen]
        results: list[dict[str, object]] = []
        names = [side.name for side in among]
        warn_when_busy()
        print(f"{'':37}", *(f"{name:>10}" for name in names))
        for figure in figures(programs):
            if options.only and options.only.lower() not in figure.name.lower():
                continue
            samples, reasons = measure(figure, among, options.rounds)
            verdicts = judge(figure, samples)
            show(figure, samples, verdicts, names)
            for name, reason in reasons.items():
                print(f"    {name}: {reason}")
            row = {"figure": figure.name, "unit": figure.unit, "samples": samples, "reasons": reasons}
            results.append({**row, "promises": verdicts})
        if not options.only:
            show_doors(programs, among)
    finally:
        shutil.rmtree(programs, ignore_errors=True)
    if options.json:
        host = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
        text = json.dumps({"host": host, "rounds": options.rounds, "figures": results}, indent=2, ensure_ascii=False)
        if options.json == "-":
            print(text)
        else:
            with open(options.json, "w", encoding="utf-8") as file:
                file.write(text + "\n")
    kept = all(verdict["kept"] for result in results for verdict in result["promises"])  # type: ignore[union-attr]
    return 1 if options.check and not kept else 0


if __name__ == "__main__":
    sys.exit(main())
