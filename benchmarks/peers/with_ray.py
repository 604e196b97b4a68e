# SPDX-License-Identifier: Apache-2.0
"""Ray: every actor is a process; calls by `ray.get`, which is its quickest way to wait."""

from __future__ import annotations

import asyncio
import os

import ray
from work import Work, importable, touch

import processes


@ray.remote(num_cpus=0)
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
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = importable()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    work = Work("ray", "ray")
    actor = Echo.remote()

    async def echo(value):
        return ray.get(actor.echo.remote(value))

    async def overlapping(value):
        return await actor.echo.remote(value)

    async def sink(array):
        return ray.get(actor.sink.remote(array))

    async def tell(value):
        actor.tick.remote(value)

    async def ticked():
        return ray.get(actor.ticked.remote())

    await work.ask(echo)
    await work.bulk(sink)
    await work.window(overlapping)
    await work.tell(tell, ticked)
    await work.idle()
    ray.shutdown()


if __name__ == "__main__":
    processes.keep_descendants()
    asyncio.run(main())
