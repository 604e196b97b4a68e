# SPDX-License-Identifier: Apache-2.0
"""What /proc says about this process and those below it: CPU time, wake-ups, memory."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
TICKS = os.sysconf("SC_CLK_TCK")


def keep_descendants() -> None:
    """From now on processes below this one stay below it, whoever of their parents ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def fields(pid: int) -> list[str]:
    """/proc/PID/stat from the state on; nothing for a process that has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def below(root: int) -> list[int]:
    """Living processes below `root`."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := fields(int(name))) and stat[0] not in "ZX":
            children.setdefault(int(stat[1]), []).append(int(name))
    found: list[int] = []
    todo = [root]
    while todo:
        inner = children.get(todo.pop(), [])
        found += inner
        todo += inner
    return found


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def cpu_s(pids: list[int]) -> float:
    return sum(int(stat[11]) + int(stat[12]) for stat in map(fields, pids) if stat) / TICKS


def wake_ups(pids: list[int]) -> int:
    """How often their threads have gone to sleep and been woken."""
    total = 0
    for pid in pids:
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            for line in status.read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    total += int(line.split()[1])
    return total


def pss_mb(pids: list[int]) -> float:
    """Resident memory, pages that several share counted in parts."""
    total_kb = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total_kb += sum(int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:")
    return total_kb / 1000
