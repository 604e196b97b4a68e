#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures Pulsing beside what users would pick instead: one command.

    benchmarks/run.py [NAME...]       all workloads, or those named (--list)
    benchmarks/run.py --peers         and xoscar, Ray, Dask and the registry's other "pulsing",
                                      each in an environment of its own below build/venv

Makes an environment and the C programs below build/, then prints one line of JSON per workload and
system, a table of the figures that the project has set itself, and writes a picture.
Figures of different runs do not compare: the machine does other things, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "build" / "benchmarks"


def prepare() -> str:
    """The interpreter that has Pulsing and the packages; the C programs are built on the way."""
    folder = str(ROOT / "build" / "venv" / "benchmarks")
    command = [
        sys.executable,
        str(ROOT / "scripts" / "environment.py"),
        folder,
        "--extras",
        "benchmarks",
    ]
    python = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DPLS_TESTS=OFF", "-DPLS_BENCHMARKS=ON"]
    for step in (
        ["cmake", "-S", str(ROOT), "-B", str(PROGRAMS), "-G", "Ninja", *options],
        ["cmake", "--build", str(PROGRAMS), "--target", "bench_floor", "bench_ring"],
    ):
        done = subprocess.run(step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(done.stdout)
    return python


def main() -> None:
    arguments = sys.argv[1:]
    if {"-h", "--help", "--list"} & set(arguments):
        print(__doc__)
    python = prepare()
    suite = str(Path(__file__).resolve().parent / "suite.py")
    os.execv(python, [python, suite, *arguments])


if __name__ == "__main__":
    main()
