# SPDX-License-Identifier: Apache-2.0
"""The benchmark of batching at its smallest: its rows are there, and batches are faster."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="the extra `examples` is not installed")

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "batching.py"


def test_batches_are_faster_than_single_calls() -> None:
    command = [sys.executable, str(PROGRAM), "--rounds", "2", "--seconds", "0.3"]
    done = subprocess.run(
        [*command, "--passages", "300"], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    *rows, gain = map(json.loads, done.stdout.splitlines())
    assert {row["workload"] for row in rows} == {
        f"embed_{name}" for name in ("single", "batched", "model_1", "model_64")
    }
    assert all(row["ops_per_s"] > 0 for row in rows)
    assert gain["gain"] > 1.5, gain
