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

from bench.figures import Figure, figures
from bench.sides import Side, Unmeasurable, compile_programs, sides

Row = dict[str, float | str]


def measure(figure: Figure, among: list[Side], rounds: int) -> Row:
    """Return the median of each side, or the reason there is none."""
    samples: dict[str, list[float]] = {side.name: [] for side in among}
    reasons: Row = {}
    for turn in range(rounds):
        for side in among if turn % 2 == 0 else reversed(among):
            if side.name in reasons or side.name in figure.without:
                continue
            try:
                samples[side.name].append(figure.measure(side))
            except (Unmeasurable, ValueError, IndexError) as error:
                reasons[side.name] = str(error)
    return {name: statistics.median(values) for name, values in samples.items() if values} | reasons


def judge(figure: Figure, row: Row) -> list[dict[str, object]]:
    """Return the promises of `figure` with what was found."""
    verdicts: list[dict[str, object]] = []
    for promise in figure.promises:
        mine, theirs = row.get(promise.side), row.get(promise.against)
        ratio = mine / theirs if isinstance(mine, float) and isinstance(theirs, float) else None
        text = f"{promise.side} ≤ {promise.ratio:.3g} x {promise.against}"
        verdicts.append({"promise": text, "found": ratio, "kept": ratio is not None and ratio <= promise.ratio})
    for name, most in (figure.most or {}).items():
        mine = row.get(name)
        found = mine if isinstance(mine, float) else None
        text = f"{name} ≤ {most:g} {figure.unit}"
        verdicts.append({"promise": text, "found": found, "kept": found is not None and found <= most})
    return verdicts


def show(figure: Figure, row: Row, verdicts: list[dict[str, object]], names: list[str]) -> None:
    """Print one line of the table."""
    cells = [f"{value:10.3f}" if isinstance(value := row.get(name), float) else f"{'-':>10}" for name in names]
    notes = [
        f"{v['promise']}: {v['found']:.2f} {'kept' if v['kept'] else 'MISSED'}"
        for v in verdicts
        if v["found"] is not None
    ]
    print(f"{figure.name:32} {figure.unit:4}", *cells, " " + "; ".join(notes), flush=True)


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
        print(f"{'':37}", *(f"{name:>10}" for name in names))
        for figure in figures(programs):
            if options.only and options.only.lower() not in figure.name.lower():
                continue
            row = measure(figure, among, options.rounds)
            verdicts = judge(figure, row)
            show(figure, row, verdicts, names)
            for name, reason in row.items():
                if isinstance(reason, str):
                    print(f"    {name}: {reason}")
            results.append({"figure": figure.name, "unit": figure.unit, "sides": row, "promises": verdicts})
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
