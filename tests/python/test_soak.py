# SPDX-License-Identifier: Apache-2.0
"""A short form of the soak with real workers; scripts/soak runs the long one."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

SOAK = pathlib.Path(__file__).parents[1] / "stress" / "soak_workers.py"
KILLS = 100
SECONDS = 20


def test_killed_workers_leave_no_ask_open_and_nothing_is_handled_twice():
    command = [sys.executable, str(SOAK), f"--kills={KILLS}", f"--seconds={SECONDS}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["wrong"] == []
    assert figures["kills"] >= 10
    assert figures["answered"] > figures["kills"]
