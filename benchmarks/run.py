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


def interpreter() -> str:
    """The one that has Pulsing and the packages."""
    folder = str(ROOT / "build" / "venv" / "benchmarks")
    script = str(ROOT / "scripts" / "environment.py")
    command = [sys.executable, script, folder, "--extras", "benchmarks"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def build_programs() -> None:
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DPLS_TESTS=OFF", "-DPLS_BENCHMARKS=ON"]
    for step in (
        ["cmake", "-S", str(ROOT), "-B", str(PROGRAMS), "-G", "Ninja", *options],
        ["cmake", "--build", str(PROGRAMS), "--target", "bench_floor", "bench_ring"],
    ):
        done = subprocess.run(step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(done.stdout)


def main() -> None:
    arguments = sys.argv[1:]
    if {"-h", "--help", "--list"} & set(arguments):
        print(__doc__)
    python = interpreter()
    build_programs()
    os.execv(python, [python, str(ROOT / "benchmarks"), *arguments])


if __name__ == "__main__":
    main()
