# SPDX-License-Identifier: Apache-2.0
"""Rounds, medians and rows.

A side does the same work as the others of its workload and returns a Sample a round; the rounds of
all sides alternate, each time in the other order, so that what the machine does besides hits all
alike. A row is one line of JSON: p50_us, p99_us and ops_per_s are medians over the rounds, and
best_* is the best round. Payloads of a few KiB are `bytes`, larger ones arrays of uint8.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np

SIZES = {"-": 0, "64B": 64, "4KB": 4096, "1MB": 1 << 20, "64MB": 64 << 20}


@dataclass
class Sample:
    """One round: median and 99th percentile of single operations, where they were timed, and the
    rate."""

    n: int
    ops_per_s: float
    p50_us: float | None = None
    p99_us: float | None = None

    @classmethod
    def of_times(cls, seconds: Sequence[float]) -> Sample:
        order = sorted(seconds)
        p99 = order[min(len(order) - 1, int(0.99 * len(order)))]
        rate = len(order) / sum(order)
        return cls(len(order), rate, statistics.median(order) * 1e6, p99 * 1e6)

    @classmethod
    def of_rate(cls, n: int, seconds: float) -> Sample:
        return cls(n, n / seconds)


Round = Callable[[], "Sample | Awaitable[Sample]"]


def payload(size: str) -> bytes | np.ndarray:
    count = SIZES[size]
    return bytes(count) if count <= 4096 else np.ones(count, dtype=np.uint8)


def timed(call: Callable[[], object], n: int, pause_s: float = 0.0) -> Sample:
    """`n` calls one after the other, each timed."""
    clock = time.perf_counter
    times = []
    for _ in range(n):
        if pause_s:
            time.sleep(pause_s)
        begin = clock()
        call()
        times.append(clock() - begin)
    return Sample.of_times(times)


async def awaited(call: Callable[[], Awaitable], n: int, pause_s: float = 0.0) -> Sample:
    clock = time.perf_counter
    times = []
    for _ in range(n):
        if pause_s:
            await asyncio.sleep(pause_s)
        begin = clock()
        await call()
        times.append(clock() - begin)
    return Sample.of_times(times)


@dataclass
class Rows:
    """Where results go: standard output or a file, one line of JSON each."""

    out: TextIO = sys.stdout
    loop: str = "asyncio"
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, workload: str, size: str, system: str, samples: Sequence[Sample], **extra: Any
    ) -> dict[str, Any]:
        def middle(values: list[float | None], digits: int = 2) -> float | None:
            known = [value for value in values if value is not None]
            return round(statistics.median(known), digits) if known else None

        p50s = [sample.p50_us for sample in samples]
        rates = [sample.ops_per_s for sample in samples]
        row = {
            "system": system,
            "workload": workload,
            "payload": size,
            "n": sum(sample.n for sample in samples),
            "p50_us": middle(p50s, 3),
            "p99_us": middle([sample.p99_us for sample in samples], 3),
            "ops_per_s": middle(list(rates), 1),
            "gbps": None,
            "best_p50_us": round(min(p for p in p50s if p is not None), 3) if p50s[0] else None,
            "best_ops_per_s": round(max(rates), 1),
            "rounds": len(samples),
        }
        if SIZES[size] > 4096:
            # One payload each way that an operation says it moves; these sinks move one.
            row["gbps"] = round(SIZES[size] * statistics.median(rates) / 1e9, 4)
        return self.emit(row, **extra)

    def value(self, workload: str, system: str, **extra: Any) -> dict[str, Any]:
        """A row of figures that are no operations: memory, CPU time, start-up."""
        row = dict.fromkeys(("p50_us", "p99_us", "ops_per_s", "gbps"))
        return self.emit(
            {"system": system, "workload": workload, "payload": "-", "n": 1, **row}, **extra
        )

    def skip(self, workload: str, system: str, why: str) -> None:
        self.value(workload, system, skipped=why)

    def emit(self, row: dict[str, Any], **extra: Any) -> dict[str, Any]:
        row.update(extra)
        row.setdefault("loop", self.loop)
        row["python"] = platform.python_version()
        row["cpus"] = len(os.sched_getaffinity(0))
        self.rows.append(row)
        print(json.dumps(row), file=self.out, flush=True)
        return row


async def alternate(sides: dict[str, Round], rounds: int) -> dict[str, list[Sample]]:
    """Every side once to warm up, then the rounds."""
    samples: dict[str, list[Sample]] = {name: [] for name in sides}

    async def turn(name: str) -> Sample:
        result = sides[name]()
        return await result if inspect.isawaitable(result) else result

    order = list(sides)
    for name in order:
        await turn(name)
    for _ in range(rounds):
        for name in order:
            samples[name].append(await turn(name))
        order.reverse()
    return samples
