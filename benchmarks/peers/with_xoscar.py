# SPDX-License-Identifier: Apache-2.0
"""xoscar: the actor in a sub-pool, which is a process of its own."""

from __future__ import annotations

import asyncio

import xoscar
from work import Work, touch
from xoscar.backends.allocate_strategy import ProcessIndex

import processes


class Echo(xoscar.Actor):
    def __init__(self) -> None:
        super().__init__()
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
    # By the module's own name, so that the other process can import the class.
    from with_xoscar import Echo

    work = Work("xoscar", "xoscar")
    pool = await xoscar.create_actor_pool("127.0.0.1:0", n_process=1)
    async with pool:
        ref = await xoscar.create_actor(
            Echo, address=pool.external_address, uid="echo", allocate_strategy=ProcessIndex(1)
        )
        await work.ask(ref.echo)
        await work.bulk(ref.sink)
        await work.window(ref.echo)
        await work.tell(ref.tick.tell, ref.ticked)
        await work.idle()


if __name__ == "__main__":
    processes.keep_descendants()
    asyncio.run(main())
