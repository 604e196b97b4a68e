# SPDX-License-Identifier: Apache-2.0
"""The workloads, each beside its sides in alternating rounds."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable
from dataclasses import dataclass

import numpy as np

import processes
import pulsing
from measure import SIZES, Rows, Sample, alternate, awaited, payload, timed
from pulsing.actor import ActorDied, SystemConfig, as_actor, create_actor_system
from sides import WINDOW, ByHand, Native, Pipe, Zmq, bare_futures, opened, touch

PAUSE_MS = 20
CALLERS = 8


@as_actor
class Echo:
    def __init__(self) -> None:
        self.ticks = 0
        self.held = b""

    def echo(self, value):
        return value

    def sink(self, array: np.ndarray) -> int:
        return touch(array)

    def tick(self, value) -> None:
        self.ticks += 1

    def ticked(self) -> int:
        return self.ticks

    def pid(self) -> int:
        return os.getpid()

    def hold(self, size: int) -> None:
        self.held = b"x" * size

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class Bench:
    rows: Rows
    native: Native
    rounds: int
    scale: float

    def count(self, n: int) -> int:
        return max(3, int(n * self.scale))

    def add_all(self, workload: str, size: str, samples: dict[str, list[Sample]], **extra) -> None:
        for system, rounds in samples.items():
            self.rows.add(workload, size, system, rounds, **extra)


async def rings(bench: Bench) -> None:
    """The rings alone, from C, beside the least that the machine allows."""
    native = bench.native
    n = native.fitting(bench.count(50_000))
    wakes = bench.count(50)
    samples = await alternate(
        {
            "pulsing rings (C)": lambda: native.run("bench_ring", "ask", n),
            "floor: shared memory": lambda: native.run("bench_floor", "ask", n),
            "floor: pipe": lambda: native.run("bench_floor", "pipe", n),
        },
        bench.rounds,
    )
    bench.add_all("c_ask", "64B", samples)
    many = n * 20
    samples = await alternate(
        {"pulsing rings (C)": lambda: native.run("bench_ring", "batch", many)}, bench.rounds
    )
    bench.add_all("c_tell", "64B", samples)
    samples = await alternate(
        {
            "pulsing rings (C)": lambda: native.run("bench_ring", "wake", wakes, PAUSE_MS),
            "floor: eventfd": lambda: native.run("bench_floor", "wake", wakes, PAUSE_MS),
        },
        bench.rounds,
    )
    bench.add_all("c_wake", "64B", samples)


async def ask(bench: Bench) -> None:
    """A call to another process, both sides awake, then with both asleep before."""
    n, wakes = bench.count(3000), bench.count(60)
    with opened(Pipe(), Zmq()) as (pipe, zmq):
        async with await create_actor_system(SystemConfig.standalone()) as system:
            ref = await Echo.local(system)
            for size in ("64B", "4KB"):
                value = payload(size)
                samples = await alternate(
                    {
                        "pulsing": lambda v=value: awaited(lambda: ref.echo(v), n),
                        "mp.Pipe": lambda v=value: timed(lambda: pipe.echo(v), n),
                        "pyzmq": lambda v=value: timed(lambda: zmq.echo(v), n),
                    },
                    bench.rounds,
                )
                bench.add_all("ask_xproc", size, samples)
            value = payload("64B")
            pause_s = PAUSE_MS / 1000
            samples = await alternate(
                {
                    "pulsing": lambda: awaited(lambda: ref.echo(value), wakes, pause_s),
                    "mp.Pipe": lambda: timed(lambda: pipe.echo(value), wakes, pause_s),
                    "pyzmq": lambda: timed(lambda: zmq.echo(value), wakes, pause_s),
                },
                bench.rounds,
            )
            bench.add_all("wake", "64B", samples, pause_ms=PAUSE_MS)


def ask_blocking(bench: Bench) -> None:
    """The same from plain code, without an event loop."""
    n, value = bench.count(3000), payload("64B")
    with opened(Pipe()) as (pipe,), pulsing.connect() as system:
        ref = Echo.local(system)
        sides = {
            "pulsing": lambda: timed(lambda: ref.echo(value), n),
            "mp.Pipe": lambda: timed(lambda: pipe.echo(value), n),
        }
        samples = asyncio.run(alternate(sides, bench.rounds))
    bench.add_all("ask_blocking", "64B", samples)


async def ask_inproc(bench: Bench) -> None:
    """A call to an actor of the caller's own process, beside a queue and a future by hand."""
    n, value = bench.count(5000), payload("64B")
    queue: asyncio.Queue = asyncio.Queue()

    async def serve() -> None:
        while True:
            future, message = await queue.get()
            future.set_result(message)

    def by_hand() -> Awaitable:
        future = asyncio.get_running_loop().create_future()
        queue.put_nowait((future, value))
        return future

    server = asyncio.create_task(serve())
    async with await create_actor_system(SystemConfig.standalone()) as system:
        ref = await system.spawn(Echo(), "here")
        samples = await alternate(
            {
                "pulsing": lambda: awaited(lambda: ref.echo(value), n),
                "asyncio queue and future": lambda: awaited(by_hand, n),
            },
            bench.rounds,
        )
    server.cancel()
    bench.add_all("ask_inproc", "64B", samples)


async def tell(bench: Bench) -> None:
    """One way, as fast as it goes; over when all of them have been handled."""
    n, value = bench.count(100_000), payload("64B")

    async with await create_actor_system(SystemConfig.standalone()) as system:
        ref = await Echo.local(system)

        async def ours() -> Sample:
            before = await ref.ticked()
            begin = time.perf_counter()
            for _ in range(n):
                await ref.tick.tell(value)
            got = await ref.ticked() - before
            if got != n:
                raise RuntimeError(f"{got} of {n} tells were handled")
            return Sample.of_rate(n, time.perf_counter() - begin)

        with opened(Pipe(), Zmq()) as (pipe, zmq):
            samples = await alternate(
                {
                    "pulsing": ours,
                    "mp.Pipe": lambda: pipe.one_way(value, n),
                    "pyzmq": lambda: zmq.one_way(value, n),
                },
                bench.rounds,
            )
    bench.add_all("mailbox", "64B", samples)


async def ask_window(bench: Bench) -> None:
    """Calls with 1,000 outstanding, beside what an asyncio program pays for the futures alone."""
    n = bench.count(50_000)

    async with await create_actor_system(SystemConfig.standalone()) as system:
        ref = await Echo.local(system)

        async def ours() -> Sample:
            left = iter(range(n))

            async def caller(value: bytes) -> None:
                for _ in left:
                    if await ref.echo(value) != value:
                        raise RuntimeError("the answer to another call")

            begin = time.perf_counter()
            await asyncio.gather(*[caller(k.to_bytes(64, "little")) for k in range(WINDOW)])
            return Sample.of_rate(n, time.perf_counter() - begin)

        with opened(Pipe(), Zmq()) as (pipe, zmq):
            samples = await alternate(
                {
                    "pulsing": ours,
                    "futures alone": lambda: bare_futures(n),
                    "mp.Pipe": lambda: pipe.windowed(bytes(64), n),
                    "pyzmq": lambda: zmq.windowed(bytes(64), n),
                },
                bench.rounds,
            )
    bench.add_all("ask_async", "64B", samples, window=WINDOW)


async def bulk(bench: Bench) -> None:
    """An array handed to a worker that looks at both ends, beside one memcpy into warm memory and
    beside SharedMemory by hand."""
    async with await create_actor_system(SystemConfig.standalone()) as system:
        ref = await Echo.local(system)
        for size, count in (("1MB", 200), ("64MB", 10)):
            n = bench.count(count)
            array = np.ones(SIZES[size], np.uint8)
            warm = np.zeros(SIZES[size], np.uint8)
            with opened(ByHand(SIZES[size]), Zmq()) as (by_hand, zmq):
                samples = await alternate(
                    {
                        "pulsing": lambda a=array, n=n: awaited(lambda: ref.sink(a), n),
                        "memcpy": lambda a=array, w=warm, n=n: timed(lambda: np.copyto(w, a), n),
                        "mp.Pipe+shm": lambda a=array, n=n, h=by_hand: timed(lambda: h.sink(a), n),
                        "pyzmq": lambda a=array, n=n, z=zmq: timed(lambda: z.sink(a), n),
                    },
                    bench.rounds,
                )
            bench.add_all("bulk", size, samples)


async def kill(bench: Bench) -> None:
    """SIGKILL of a worker under eight calls: until every caller has its ActorDied."""
    deaths = 3 if bench.scale >= 1 else 1

    async with await create_actor_system(SystemConfig.standalone()) as system:

        async def death(resident: int) -> float:
            ref = await Echo.local(system, placement="dedicated")
            await ref.hold(resident)
            pid = await ref.pid()
            calls = [asyncio.ensure_future(ref.sleep(60)) for _ in range(CALLERS)]
            await asyncio.sleep(0.05)
            begin = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            ends = await asyncio.gather(*calls, return_exceptions=True)
            seconds = time.perf_counter() - begin
            if not all(isinstance(end, ActorDied) for end in ends):
                raise RuntimeError(f"calls ended in {ends}")
            return seconds

        async def several(resident: int) -> Sample:
            return Sample.of_times([await death(resident) for _ in range(deaths)])

        def end_of_file() -> Sample:
            times = []
            for _ in range(deaths):
                with opened(Pipe()) as (pipe,):
                    times.append(pipe.death())
            return Sample.of_times(times)

        sides = {
            "small": lambda: several(0),
            "1 GiB": lambda: several(1 << 30),
            "mp.Pipe": end_of_file,
        }
        samples = await alternate(sides, bench.rounds)
    bench.rows.add("kill", "-", "mp.Pipe", samples.pop("mp.Pipe"), resident="small")
    for resident, rounds in samples.items():
        bench.rows.add("kill", "-", "pulsing", rounds, resident=resident, callers=CALLERS)


async def idle(bench: Bench) -> None:
    """A system with four workers that nobody calls: CPU time and wake-ups; memory before that."""
    seconds = 5.0 if bench.scale >= 1 else 1.0
    me = os.getpid()
    before_mb = processes.pss_mb([me])
    config = SystemConfig.standalone().with_workers(4)
    async with await create_actor_system(config) as system:
        node = [pid for pid in processes.below(me) if processes.name_of(pid) == "pulsing-node"]
        if not node:
            raise RuntimeError("the node process was not found")
        grown_mb = processes.pss_mb([me]) - before_mb
        empty_mb = processes.pss_mb(node) + max(0.0, grown_mb)
        refs = [await Echo.local(system, placement=k) for k in range(4)]
        for ref in refs:
            await ref.echo(b"")
        await asyncio.sleep(1)
        pids = [me, *processes.below(me)]
        cpu_s, woken = processes.cpu_s(pids), processes.wake_ups(pids)
        await asyncio.sleep(seconds)
        cpu = (processes.cpu_s(pids) - cpu_s) / seconds * 100
        wakes = (processes.wake_ups(pids) - woken) / seconds / len(pids)
    bench.rows.value(
        "idle",
        "pulsing",
        cpu_percent=round(cpu, 2),
        wake_ups_per_s=round(wakes, 2),
        processes=len(pids),
        empty_mb=round(empty_mb, 1),
    )


async def actors(bench: Bench) -> None:
    """Many actors in one worker: how fast they are made, and what each costs all processes."""
    n = bench.count(10_000)
    me = os.getpid()
    rates, sizes = [], []
    for _ in range(bench.rounds):
        async with await create_actor_system(SystemConfig.standalone().with_workers(1)) as system:
            first = await Echo.local(system, placement=0)
            await first.echo(b"")
            before_mb = processes.pss_mb([me, *processes.below(me)])
            begin = time.perf_counter()
            refs = await asyncio.gather(*[Echo.local(system, placement=0) for _ in range(n)])
            rates.append(Sample.of_rate(n, time.perf_counter() - begin))
            grown_mb = processes.pss_mb([me, *processes.below(me)]) - before_mb
            sizes.append(grown_mb * 1000 / n)
            await refs[-1].echo(b"")
    kb = round(statistics.median(sizes), 2)
    bench.rows.add("spawn", "-", "pulsing", rates, kb_per_actor=kb)


START = """
import time; begin = time.perf_counter()
import asyncio, os
from pulsing.actor import SystemConfig, as_actor, create_actor_system
@as_actor
class Pid:
    def pid(self): return os.getpid()
async def main():
    system = await create_actor_system(SystemConfig.standalone())
    ref = await Pid.local(system); await ref.pid()
    first = time.perf_counter()
    more = await Pid.local(system, placement="dedicated"); await more.pid()
    second = time.perf_counter()
    await system.shutdown()
    print(first - begin, second - first, time.perf_counter() - second)
asyncio.run(main())
"""
START_PIPE = """
import time; begin = time.perf_counter()
import multiprocessing
def far(connection): connection.send(connection.recv())
if __name__ == "__main__":
    def ask():
        here, there = multiprocessing.Pipe()
        process = multiprocessing.Process(target=far, args=(there,)); process.start()
        here.send(1); here.recv(); return process
    one = ask(); first = time.perf_counter()
    two = ask(); second = time.perf_counter()
    one.join(); two.join()
    print(first - begin, second - first, time.perf_counter() - second)
"""


def startup(bench: Bench) -> None:
    """A fresh interpreter: import to the first answer, one more process, shutdown."""
    rounds = max(3, bench.rounds)
    times: dict[str, list[list[float]]] = {"pulsing": [], "multiprocessing fork": []}
    for _ in range(rounds):
        for system, program in (("pulsing", START), ("multiprocessing fork", START_PIPE)):
            command = [sys.executable, "-c", program]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            if done.returncode != 0:
                raise RuntimeError(done.stderr)
            times[system].append([float(word) for word in done.stdout.split()])
    for system, rows in times.items():
        first, more, down = (statistics.median(column) * 1e3 for column in zip(*rows, strict=True))
        bench.rows.value(
            "startup",
            system,
            first_answer_ms=round(first, 1),
            one_more_ms=round(more, 1),
            shutdown_ms=round(down, 1),
            rounds=rounds,
        )


ASYNC = {
    "rings": rings,
    "ask": ask,
    "ask_inproc": ask_inproc,
    "tell": tell,
    "ask_window": ask_window,
    "bulk": bulk,
    "kill": kill,
    "idle": idle,
    "actors": actors,
}
BLOCKING = {"ask_blocking": ask_blocking, "startup": startup}
