# SPDX-License-Identifier: Apache-2.0
"""CPU time as /proc counts it: of some processes, and of all that run on the CPUs that this
process may use. Unlike passages a second it does not depend on what else the machine does."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
# /proc/stat, after the CPU's name: user nice system idle iowait irq softirq steal
IDLE = (3, 4)
COUNTED = 8


def of_processes(pids: Iterable[int]) -> float:
    """Seconds that these processes have used; one that has ended counts no more."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def of_machine() -> float:
    """Seconds that anybody has used of the CPUs that this process may use."""
    usable = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *counts = line.split()
        if name in usable:
            ticks += sum(int(n) for i, n in enumerate(counts[:COUNTED]) if i not in IDLE)
    return ticks / TICKS
