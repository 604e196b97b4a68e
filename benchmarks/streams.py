# SPDX-License-Identifier: Apache-2.0
"""Streams and broadcasts: from a generator in a worker to this process, and to four workers."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import numpy as np

import processes
from measure import SIZES, Sample, alternate, awaited, payload, timed
from pulsing import Group
from pulsing.actor import SystemConfig, as_actor, create_actor_system
from sides import Pipe, opened, touch
from workloads import Bench

MB = 1 << 20
GAP_S = 0.005
STREAMS = 32
MEMBERS = 4
SAMPLE_S = 0.02
WAITING_S = 0.01


@as_actor
class Source:
    async def stamps(self, count: int):
        """Each item is the time at which it was written, while its reader waits."""
        for _ in range(count):
            await asyncio.sleep(WAITING_S)
            yield time.perf_counter()

    def numbers(self, count: int):
        yield from range(count)

    def arrays(self, count: int, size: int):
        for index in range(count):
            yield np.full(size, index % 251, np.uint8)

    async def paced(self, count: int):
        due = time.perf_counter()
        for index in range(count):
            yield index
            due += GAP_S
            await asyncio.sleep(max(0.0, due - time.perf_counter()))

    def sink(self, array: np.ndarray) -> int:
        return touch(array)


class Peak:
    """The most memory that this process and those below it had meanwhile, in MB."""

    def __init__(self, pids: list[int]) -> None:
        self.pids = pids
        self.before_mb = processes.pss_mb(pids)
        self.most_mb = self.before_mb
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self) -> None:
        while not self.over.wait(SAMPLE_S):
            self.most_mb = max(self.most_mb, processes.pss_mb(self.pids))

    def __enter__(self) -> Peak:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join()

    def grown_mb(self) -> float:
        return self.most_mb - self.before_mb


async def stream(bench: Bench) -> None:
    """A chunk that a waiting reader gets, then items as fast as they go."""
    chunks, n = bench.count(50), bench.count(100_000)
    async with await create_actor_system(SystemConfig.standalone()) as system:
        ref = await Source.local(system)

        async def waited() -> Sample:
            times = [time.perf_counter() - at async for at in ref.stamps(chunks)]
            return Sample.of_times(times)

        bench.add_all("stream_first", "-", await alternate({"pulsing": waited}, bench.rounds))

        async def items() -> Sample:
            expected = 0
            begin = time.perf_counter()
            async for item in ref.numbers(n):
                if item != expected:
                    raise RuntimeError(f"item {item} in the place of {expected}")
                expected += 1
            if expected != n:
                raise RuntimeError(f"{expected} of {n} items came")
            return Sample.of_rate(n, time.perf_counter() - begin)

        with opened(Pipe()) as (pipe,):
            sides = {"pulsing": items, "mp.Pipe": lambda: pipe.given(n)}
            bench.add_all("stream", "-", await alternate(sides, bench.rounds))


async def stream_bulk(bench: Bench) -> None:
    """A gigabyte in arrays of 1 MB, and the memory that it takes on the way."""
    count = bench.count(1024)
    async with await create_actor_system(SystemConfig.standalone()) as system:
        ref = await Source.local(system)
        pids = [os.getpid(), *processes.below(os.getpid())]
        grown: list[float] = []

        async def arrays() -> Sample:
            got = 0
            with Peak(pids) as peak:
                begin = time.perf_counter()
                async for array in ref.arrays(count, MB):
                    if array[0] != got % 251 or array[-1] != got % 251:
                        raise RuntimeError(f"array {got} is another")
                    got += 1
                seconds = time.perf_counter() - begin
            if got != count:
                raise RuntimeError(f"{got} of {count} arrays came")
            grown.append(peak.grown_mb())
            return Sample.of_rate(got, seconds)

        samples = await alternate({"pulsing": arrays}, bench.rounds)
    bench.add_all("stream_bulk", "1MB", samples, grown_mb=round(max(grown), 1))


async def stream_paced(bench: Bench) -> None:
    """32 streams at the same time, an item every 5 ms each: the gaps that their readers see."""
    n = bench.count(200)
    async with await create_actor_system(SystemConfig.standalone()) as system:
        ref = await Source.local(system)

        async def once() -> Sample:
            gaps: list[float] = []

            async def read() -> None:
                last = None
                async for _ in ref.paced(n):
                    now = time.perf_counter()
                    if last is not None:
                        gaps.append(now - last)
                    last = now

            await asyncio.gather(*[read() for _ in range(STREAMS)])
            return Sample.of_times(gaps)

        samples = await alternate({"pulsing": once}, bench.rounds)
    bench.add_all("stream32", "-", samples, streams=STREAMS, gap_ms=GAP_S * 1000)


async def broadcast(bench: Bench) -> None:
    """The same array to four workers: written once by a group, and once for each by four calls."""
    array, warm = payload("1MB"), np.zeros(SIZES["1MB"], np.uint8)
    n = bench.count(100)
    config = SystemConfig.standalone().with_workers(MEMBERS)
    async with await create_actor_system(config) as system:
        members = [await Source.local(system, placement=index) for index in range(MEMBERS)]
        group = Group(members)
        expected = [touch(array)] * MEMBERS

        async def together() -> None:
            if await group.sink(array) != expected:
                raise RuntimeError("a member saw another array")

        async def one_by_one() -> None:
            if await asyncio.gather(*[member.sink(array) for member in members]) != expected:
                raise RuntimeError("a member saw another array")

        sides = {
            "pulsing": lambda: awaited(together, n),
            "pulsing, four calls": lambda: awaited(one_by_one, n),
            "pulsing, one call": lambda: awaited(lambda: members[0].sink(array), n),
            "memcpy": lambda: timed(lambda: np.copyto(warm, array), n),
        }
        samples = await alternate(sides, bench.rounds)
    bench.add_all("broadcast", "1MB", samples, members=MEMBERS)


ASYNC = {
    "stream": stream,
    "stream_bulk": stream_bulk,
    "stream_paced": stream_paced,
    "broadcast": broadcast,
}
