# SPDX-License-Identifier: Apache-2.0
"""Dask: an actor on a worker process of a local cluster."""

from __future__ import annotations

import asyncio

from distributed import Client, LocalCluster
from work import Work, touch

import processes


class Echo:
    def __init__(self) -> None:
        self.ticks = 0

    def echo(self, value):
        return value

    def sink(self, array):
        return touch(array)

    def tick(self, value) -> None:
        self.ticks += 1

    def ticked(self) -> int:
        return self.ticks


async def main() -> None:
    from with_dask import Echo

    work = Work("dask", "distributed")
    async with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, asynchronous=True, dashboard_address=None
    ) as cluster:
        async with Client(cluster, asynchronous=True) as client:
            actor = await client.submit(Echo, actor=True)

            async def call(method, *arguments):
                return await getattr(actor, method)(*arguments)

            await work.ask(lambda value: call("echo", value))
            await work.bulk(lambda array: call("sink", array))
            await work.window(lambda value: call("echo", value))

            async def tell(value):
                actor.tick(value)

            await work.tell(tell, lambda: call("ticked"))
            await work.idle()


if __name__ == "__main__":
    processes.keep_descendants()
    asyncio.run(main())
