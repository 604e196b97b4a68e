# SPDX-License-Identifier: Apache-2.0
"""Actors that are called from other nodes, and a program that is a node with some of them:

python faractors.py SEED    prints a line: address, node's pid, node,
                            and the numbers of Far, Wide and Narrow
"""

from __future__ import annotations

import asyncio
import os
import sys

from pulsing.actor import SystemConfig, as_actor, create_actor_system


class Custom(Exception):
    """An exception that another node does not know."""


@as_actor
class Far:
    """What a caller on another node can want."""

    def __init__(self):
        self.seen = []
        self.cancelled = 0
        self.next = 0
        self.out_of_order = 0
        self.generators = 0

    def add(self, a, b=1):
        return a + b

    def echo(self, x):
        return x

    def pid(self):
        return os.getpid()

    def note(self, x):
        self.seen.append(x)

    def notes(self):
        return self.seen

    def count_up(self, i, _load):
        self.out_of_order += i != self.next
        self.next += 1

    def counted(self):
        return self.next, self.out_of_order

    def divide(self, a, b):
        return a / b

    def custom(self):
        raise Custom("not known elsewhere")

    async def slow(self, seconds):
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "done"

    def counts(self):
        return self.cancelled, self.generators

    async def count(self, n, size=0):
        self.generators += 1
        try:
            for i in range(n):
                yield i if size == 0 else bytes([i % 256]) * size
        finally:
            self.generators -= 1

    async def eat(self, stream):
        return [item async for item in stream.stream_reader()]

    async def call(self, ref, x):
        return await ref.echo(x)

    def keep(self, ref):
        self.kept = ref

    async def ask_kept(self, x):
        return await self.kept.echo(x)

    async def wait_for_kept(self, seconds):
        return await self.kept.slow(seconds)

    async def late(self, seconds, size):
        await asyncio.sleep(seconds)
        return b"x" * size

    async def ask_kept_late(self, seconds, size):
        return len(await self.kept.late(seconds, size))


@as_actor(max_concurrency=100000, mailbox=100000)
class Wide:
    """Handles many at a time."""

    async def slow(self, seconds):
        await asyncio.sleep(seconds)

    async def take(self, load):
        return len(load)


@as_actor(mailbox=8, restart="on_failure", max_restarts=20, min_backoff=0.01, max_backoff=0.1)
class Phoenix:
    """Is rebuilt when its process dies."""

    def __init__(self):
        self.seen = []

    def pid(self):
        return os.getpid()

    async def stay(self, seconds):
        await asyncio.sleep(seconds)

    def note(self, x):
        self.seen.append(x)

    def notes(self):
        return self.seen


@as_actor(mailbox=8)
class Narrow:
    """Handles one message at a time, slowly, and has little room."""

    def __init__(self):
        self.seen = []
        self.gate = asyncio.Event()

    async def note(self, x):
        await self.gate.wait()
        self.seen.append(x)

    def notes(self):
        return self.seen

    def count(self):
        return len(self.seen)

    def open(self):
        self.gate.set()


async def main(seed):
    async with await create_actor_system(
        SystemConfig(addr="127.0.0.1:0", seeds=(seed,), workers=0)
    ) as system:
        far = await system.spawn(Far(), "far", public=True)
        wide = await system.spawn(Wide())
        narrow = await system.spawn(Narrow())
        node = system._rt.node_id.hex()
        actors = (actor._id for actor in (far, wide, narrow))
        print(system.addr, system._node[0], node, *actors, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
