#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The long forms of the tests under tests/stress, one line for each when it ends.

Builds below build/soak and makes an environment there. The seed is the time unless given, and is
printed: a failure comes again with the same one, as far as a kill can.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / "build" / "soak"
PROGRAMS = TREE / "tests" / "stress"


@dataclass(frozen=True)
class Soak:
    name: str
    command: list[str]
    env: dict[str, str] = field(default_factory=dict)


def built() -> None:
    configure = ["cmake", "-S", str(ROOT), "-B", str(TREE), "-G", "Ninja"]
    subprocess.run(
        [*configure, "-DCMAKE_BUILD_TYPE=Release"], check=True, stdout=subprocess.DEVNULL
    )
    command = ["cmake", "--build", str(TREE), "--target", "tests/stress/all"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def environment() -> str:
    command = [sys.executable, str(ROOT / "scripts" / "environment.py"), str(TREE / "venv")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return str(TREE / "venv" / "bin" / "python")


def soaks(options: argparse.Namespace) -> list[Soak]:
    seed = {"STRESS_SEED": str(options.seed)}
    hours = str(24 * 3600)
    found = [
        Soak(
            "soak",
            [str(PROGRAMS / "stress_soak_test")],
            seed | {"STRESS_KILLS": str(options.kills), "STRESS_SOAK_S": hours},
        ),
        Soak("quiet", [str(PROGRAMS / "stress_quiet_test")], seed | {"STRESS_QUIET_S": "60"}),
        Soak("fence", [str(PROGRAMS / "stress_fence_test")], {"STRESS_MEETINGS": "200000"}),
        Soak(
            "two_sided", [str(PROGRAMS / "stress_two_sided_test")], seed | {"STRESS_PAIRS": "5000"}
        ),
    ]
    found += [
        Soak(noun, [str(PROGRAMS / f"stress_{noun}_test")], seed)
        for noun in ("send", "receive", "reap", "forged", "restart")
    ]
    workers = str(ROOT / "tests" / "stress" / "soak_workers.py")
    if not options.only or "workers" in options.only:
        arguments = [f"--kills={options.worker_kills}", f"--seed={options.seed}"]
        found.append(Soak("workers", [environment(), workers, *arguments]))
    return [soak for soak in found if not options.only or soak.name in options.only]


def main() -> int:
    parser = argparse.ArgumentParser(description="the long tests")
    parser.add_argument("--kills", type=int, default=100_000, help="of processes that share rings")
    parser.add_argument("--worker-kills", type=int, default=10_000, help="of workers under calls")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("only", nargs="*", help="soak, quiet, two_sided, send ... or workers")
    options = parser.parse_args()
    built()
    print(f"seed {options.seed}", flush=True)
    failed = 0
    for soak in soaks(options):
        begin = time.monotonic()
        status = subprocess.run(soak.command, env={**os.environ, **soak.env}).returncode
        failed += status != 0
        verdict = "ok" if status == 0 else f"FAILED ({status})"
        print(f"{verdict} {soak.name} {time.monotonic() - begin:.1f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
