# SPDX-License-Identifier: Apache-2.0
"""Measures what the membership protocol reaches and prints it beside its limits and anchors.

Usage: run.py [--out FOLDER] [--jobs N] [--only NAME...] [--table]

Builds pulsing-sim in release mode, runs every measurement in virtual time, draws the convergence
curves and prints one table. --only measures some again and keeps the other values of the last run;
--table prints its table again. The whole takes about half an hour of two cores.
"""

import argparse
import concurrent.futures
import json
import pathlib
import subprocess
import sys
import time

from figures import AT_MOST, FIGURES

ROOT = pathlib.Path(__file__).resolve().parents[2]

# The longest first, so that the processes end together.
SCENARIOS = [
    "grids",
    "grids_network",
    "grids_parts",
    "split_day",
    "split",
    "detection",
    "loss",
    "idle",
    "names_million",
    "speed",
    "overload",
    "mass_kill",
    "churn",
    "mass_join",
    "restart_all",
    "names",
    "names_reach",
    "detection_published",
    "detection_refused",
    "one_way",
    "split_repeated",
    "restart",
    "restart_moved",
    "join_leave",
    "dead_seeds",
    "leave_early",
    "evict",
    "pause",
    "clock",
    "disorder",
    "garbage",
    "names_unique",
]
CAMPAIGN = ["campaign", "--seeds", "4096", "--ticks", "5000", "--jobs", "2"]


def build(folder):
    subprocess.run(
        ["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    subprocess.run(
        ["cmake", "--build", folder, "--target", "pulsing-sim"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return folder / "tests" / "sim" / "pulsing-sim"


def measure(simulator, name, arguments, out):
    """Runs one command; its output goes to a file, its values come back."""
    start = time.monotonic()
    result = subprocess.run(
        [simulator, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    (out / f"{name}.txt").write_text(result.stdout)
    values = {}
    for line in result.stdout.splitlines():
        if line.startswith("value "):
            _, value_name, number, *_ = line.split()
            values[value_name] = float(number)
    failures = [line for line in result.stdout.splitlines() if line.startswith("FAILED")]
    return name, values, failures, result.returncode, time.monotonic() - start


def print_table(values):
    missed = 0
    unknown = 0
    print(f"{'figure':62} {'measured':>11} {'limit':>9}       anchor")
    for text, name, limit, anchor in FIGURES:
        if name not in values:
            unknown += 1
            print(f"{text:62} {'-':>11} {'':>9}       {anchor}")
            continue
        verdict = ""
        bound = ""
        if limit is not None:
            comparison, number = limit
            value = values[name]
            holds = value <= number if comparison == AT_MOST else value >= number
            verdict = "ok" if holds else "MISS"
            missed += not holds
            bound = f"{comparison}{number:g}"
        print(f"{text:62} {values[name]:11.3f} {bound:>9} {verdict:5} {anchor}")
    print(f"{missed} missed, {unknown} not measured")
    return missed == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "gossip-figures")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=None, metavar="NAME")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    store = options.out / "values.json"
    kept = options.table or options.only
    values = json.loads(store.read_text()) if kept and store.exists() else {}
    if options.table:
        return 0 if print_table(values) else 1
    simulator = build(options.out / "build")
    names = options.only or [*SCENARIOS, "campaign"]
    failures = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        tasks = []
        for name in names:
            curves = options.out / "curves" / name
            curves.mkdir(parents=True, exist_ok=True)
            for old in curves.glob("*.csv"):
                old.unlink()
            arguments = ["scenario", name, "--whole", "--curves", str(curves)]
            if name == "campaign":
                arguments = [*CAMPAIGN, "--traces", str(options.out)]
            tasks.append(pool.submit(measure, simulator, name, arguments, options.out))
        for task in concurrent.futures.as_completed(tasks):
            name, found, failed, status, seconds = task.result()
            values.update(found)
            store.write_text(json.dumps(values, indent=1, sort_keys=True))
            failures += [f"{name}: {line}" for line in failed]
            print(f"# {name}: {'ok' if status == 0 else 'FAILED'} in {seconds:.0f} s", flush=True)
    curves = sorted((options.out / "curves").glob("*/*.csv"))
    if curves:
        subprocess.run(
            [
                sys.executable,
                pathlib.Path(__file__).with_name("draw.py"),
                *curves,
                "--out",
                options.out,
            ],
            check=False,
        )
    for line in failures:
        print(line)
    return 0 if print_table(values) and not failures else 1


if __name__ == "__main__":
    sys.exit(main())
