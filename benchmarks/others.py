# SPDX-License-Identifier: Apache-2.0
"""The other actor systems: an environment for each, and its script of peers/ run in it.

The registry's "pulsing" is the Rust program of our import name; that alone is a reason for an
environment of its own. What cannot be installed or does not run gives a row that says why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

from measure import Rows

HERE = Path(__file__).resolve().parent
VENVS = HERE.parent / "build" / "venv"
LIMIT_S = 900
COMMON = ["numpy>=1.24"]
PEERS = {
    "xoscar": ["xoscar"],
    "ray": ["ray[default]"],
    "dask": ["dask[distributed]"],
    "pulsing_rs": ["pulsing==0.1.2"],
}


def environment(name: str, packages: list[str]) -> str:
    folder = VENVS / f"peer-{name}"
    python = folder / "bin" / "python"
    stamp = folder / ".packages"
    wanted = "\n".join(packages)
    if not (stamp.is_file() and stamp.read_text() == wanted):
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "-q", *packages]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError("not installed: " + done.stderr.strip().splitlines()[-1])
        stamp.write_text(wanted)
    return str(python)


def measure(rows: Rows, scale: float) -> None:
    for name, packages in PEERS.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            python = environment(name, [*packages, *COMMON])
        except (RuntimeError, subprocess.CalledProcessError) as error:
            rows.skip("all", name, str(error)[:300])
            continue
        script = HERE / "peers" / f"with_{name}.py"
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE / "peers")])}
        try:
            done = subprocess.run(
                [python, str(script), str(scale)],
                env=env,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            rows.skip("all", name, f"not over after {LIMIT_S} s")
            continue
        take(rows, done.stdout)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            rows.skip("all", name, f"status {done.returncode}: {last}"[:300])


def take(rows: Rows, output: str) -> None:
    """The peer's own rows, as it printed them."""
    for line in output.splitlines():
        if line.startswith('{"system"'):
            rows.rows.append(json.loads(line))
            print(line, flush=True)
