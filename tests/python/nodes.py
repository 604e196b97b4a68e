# SPDX-License-Identifier: Apache-2.0
"""What the tests of several nodes share: nodes on the loopback, and waiting until they see each
other."""

from __future__ import annotations

import asyncio
import time

from pulsing.actor import SystemConfig

BOUND_S = 30.0


def config(*seeds, **fields):
    """A node without workers at any port, unless the fields say otherwise."""
    return SystemConfig(**{"addr": "127.0.0.1:0", "seeds": seeds, "workers": 0, **fields})


async def until(condition, limit=BOUND_S):
    """Waits until the condition holds; returns how long that took."""
    begun = time.monotonic()
    while not await condition():
        assert time.monotonic() - begun < limit, "it does not come about"
        await asyncio.sleep(0.002)
    return time.monotonic() - begun


async def status_of(system, node_id):
    """What a node is to a system; None: no member."""
    rows = {row["node_id"]: row["status"] for row in await system.members()}
    return rows.get(str(node_id))


def sees(system, node_id, status="Alive"):
    """A condition: whether a node is that to a system."""

    async def condition():
        return await status_of(system, node_id) == status

    return condition


async def joined(here, there):
    """Waits until two systems see each other."""
    await there.joined(BOUND_S)
    await until(sees(here, there.node_id))
