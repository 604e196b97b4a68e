# SPDX-License-Identifier: Apache-2.0
"""What is measured of each peer; its script gives the calls."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import processes
from measure import SIZES, Rows, Sample, awaited, payload

ROUNDS = 5
WINDOW = 1000
# A round of a slow peer has fewer operations, so that it takes no longer than this.
ROUND_S = 2.0
HANDLED_S_MAX = 60.0


def touch(array: np.ndarray) -> int:
    return int(array[0]) + int(array[-1]) + array.nbytes


class Work:
    """The rows of one peer. A workload that fails gives a row that says why; the next runs."""

    def __init__(self, system: str, distribution: str) -> None:
        self.system = system
        self.version = importlib.metadata.version(distribution)
        self.scale = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
        self.rows = Rows()

    def count(self, n: int) -> int:
        return max(3, int(n * self.scale))

    async def fitting(self, n: int, call: Callable[[], Awaitable]) -> int:
        """Of n calls one after the other, as many as fit into a round."""
        await call()
        tried, begin = 0, time.perf_counter()
        while tried < 3 and time.perf_counter() - begin < ROUND_S / 4:
            await call()
            tried += 1
        each = (time.perf_counter() - begin) / tried
        return max(1, min(self.count(n), int(ROUND_S / each)))

    @contextmanager
    def guard(self, workload: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.rows.skip(workload, self.system, f"error: {type(error).__name__}: {error}"[:300])

    def add(self, workload: str, size: str, samples: list[Sample], **extra: object) -> None:
        self.rows.add(workload, size, self.system, samples, version=self.version, **extra)

    async def ask(self, echo: Callable[[object], Awaitable]) -> None:
        with self.guard("ask_xproc"):
            for size in ("64B", "4KB"):
                value = payload(size)
                n = await self.fitting(1000, lambda v=value: echo(v))
                samples = [await awaited(lambda v=value: echo(v), n) for _ in range(ROUNDS)]
                self.add("ask_xproc", size, samples)
        with self.guard("wake"):
            value = payload("64B")
            n = self.count(30)
            samples = [await awaited(lambda: echo(value), n, 0.02) for _ in range(ROUNDS)]
            self.add("wake", "64B", samples, pause_ms=20)

    async def bulk(self, sink: Callable[[np.ndarray], Awaitable[int]]) -> None:
        with self.guard("bulk"):
            for size, count in (("1MB", 100), ("64MB", 5)):
                array = np.ones(SIZES[size], np.uint8)
                if await sink(array) != touch(array):
                    raise RuntimeError("the peer saw another array")
                n = await self.fitting(count, lambda a=array: sink(a))
                samples = [await awaited(lambda a=array: sink(a), n) for _ in range(ROUNDS)]
                self.add("bulk", size, samples)

    async def window(self, echo: Callable[[object], Awaitable], window: int = WINDOW) -> None:
        with self.guard("ask_async"):
            value = payload("64B")
            n = 4 * await self.fitting(2500, lambda: echo(value))

            async def once() -> Sample:
                left = iter(range(n))

                async def caller() -> None:
                    for _ in left:
                        await echo(value)

                begin = time.perf_counter()
                await asyncio.gather(*[caller() for _ in range(window)])
                return Sample.of_rate(n, time.perf_counter() - begin)

            samples = [await once() for _ in range(ROUNDS)]
            self.add("ask_async", "64B", samples, window=window)

    async def tell(
        self, tell: Callable[[object], Awaitable], handled: Callable[[], Awaitable[int]]
    ) -> None:
        with self.guard("mailbox"):
            value = payload("64B")
            n = 4 * await self.fitting(5000, handled)

            async def once() -> Sample:
                before = await handled()
                begin = time.perf_counter()
                for _ in range(n):
                    await tell(value)
                until = begin + HANDLED_S_MAX
                while (got := await handled() - before) < n:
                    if time.perf_counter() > until:
                        raise RuntimeError(f"{got} of {n} messages were handled")
                    await asyncio.sleep(0.002)
                return Sample.of_rate(n, time.perf_counter() - begin)

            self.add("mailbox", "64B", [await once() for _ in range(ROUNDS)])

    async def idle(self) -> None:
        with self.guard("idle"):
            seconds = 5.0 if self.scale >= 1 else 1.0
            await asyncio.sleep(1)
            pids = [os.getpid(), *processes.below(os.getpid())]
            before, woken = processes.cpu_s(pids), processes.wake_ups(pids)
            await asyncio.sleep(seconds)
            self.rows.value(
                "idle",
                self.system,
                cpu_percent=round((processes.cpu_s(pids) - before) / seconds * 100, 2),
                wake_ups_per_s=round((processes.wake_ups(pids) - woken) / seconds / len(pids), 2),
                processes=len(pids),
                version=self.version,
            )


def importable() -> str:
    """The folders whose modules a peer's own processes must find."""
    here = Path(__file__).resolve().parent
    return os.pathsep.join([str(here.parent), str(here)])
