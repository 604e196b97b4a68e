# SPDX-License-Identifier: Apache-2.0
"""Links between actors of two nodes: the end of one, in whatever way, ends the other."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import nodes
import pytest
from nodes import BOUND_S, joined, until

import pulsing
from pulsing import ActorDied, AskCancelled, CodecError
from pulsing.actor import as_actor, create_actor_system

pytestmark = pytest.mark.between_nodes

KEY = "5a" * 32


@as_actor
class Member:
    def __init__(self, load=b""):
        self.load = load

    def pid(self):
        return os.getpid()

    async def nap(self, seconds):
        await asyncio.sleep(seconds)


@as_actor(restart="on_failure", min_backoff=0.05)
class Lasting(Member):
    pass


def config(*seeds, workers=2, key=KEY):
    return nodes.config(*seeds, workers=workers, cluster_key=key)


async def alive(ref):
    try:
        return await asyncio.wait_for(ref.pid(), BOUND_S)
    except ActorDied:
        return None


async def ends(ref):
    async def condition():
        return await alive(ref) is None

    await until(condition)


async def rises(ref, pid):
    """Waits until the actor lives in another process."""

    async def condition():
        return await alive(ref) not in (None, pid)

    await until(condition)


async def stays(ref, seconds=0.5):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert await alive(ref) is not None
        await asyncio.sleep(0.02)


@pytest.fixture
async def pair():
    """Two nodes with a key that know each other, each with two workers."""
    async with await create_actor_system(config()) as here:
        async with await create_actor_system(config(here.addr)) as there:
            await joined(here, there)
            yield here, there


async def members(here, there, kinds=(Member, Member), places=(0, 0)):
    """An actor of each node, and for each a ref that the other node has."""
    one = await kinds[0].local(here, placement=places[0])
    two = await kinds[1].local(there, placement=places[1])
    return one, two, await there.actor_ref(one.actor_id), await here.actor_ref(two.actor_id)


@pytest.mark.both_loops
@pytest.mark.parametrize("places", [(0, 0), ("here", 0), (1, "here"), ("here", "here")])
@pytest.mark.parametrize("first", [0, 1])
async def test_the_stop_of_one_ends_the_other(pair, places, first):
    here, there = pair
    one, two, _, far_two = await members(here, there, places=places)
    beside = await Member.local(here, placement=places[0])
    await here.link(one, far_two)
    await here.link(one, far_two)  # twice is once
    await stays(one, 0.1)
    await stays(two, 0.1)
    left = (one, two)[1 - first]
    watching = asyncio.ensure_future((here, there)[1 - first].watch(left))
    await asyncio.sleep(0.05)
    await (here, there)[first].stop((one, two)[first])
    assert "linked" in await asyncio.wait_for(watching, BOUND_S)
    await ends(left)
    assert await alive(beside) is not None


async def test_actors_of_two_nodes_with_the_same_number_are_two(pair):
    here, there = pair
    near, one = [await Member.local(here, placement="here") for _ in range(2)]
    far = await Member.local(there, placement="here")
    assert far.actor_id.number == near.actor_id.number
    await here.link(one, near)
    await here.link(one, await here.actor_ref(far.actor_id))
    await stays(one, 0.1)
    await there.stop(far)
    await ends(one)
    await ends(near)


@pytest.mark.parametrize("first", [0, 1])
async def test_the_death_of_one_ends_the_other_and_who_waits_for_it_is_told(pair, first):
    here, there = pair
    both = await members(here, there, places=("dedicated", "dedicated"))
    one, two, _, far_two = both
    await here.link(far_two, one)
    pids = [await one.pid(), await two.pid()]
    waiting = asyncio.ensure_future((one, far_two)[1 - first].nap(60))
    await asyncio.sleep(0.1)
    os.kill(pids[first], signal.SIGKILL)
    done, _ = await asyncio.wait([waiting], timeout=BOUND_S)
    assert done and isinstance(waiting.exception(), (ActorDied, AskCancelled))
    await ends((one, two)[1 - first])


async def test_the_loss_of_a_node_ends_what_was_linked_to_its_actors(pair):
    here, _ = pair
    lost = await create_actor_system(config(here.addr))
    await joined(here, lost)
    one, _, _, far_two = await members(here, lost)
    await here.link(one, far_two)
    apart = await Member.local(here)
    await stays(one, 0.1)
    watching = asyncio.ensure_future(here.watch(one))
    await asyncio.sleep(0.05)
    os.kill(lost._rt.node_pid, signal.SIGKILL)
    assert lost.addr in await asyncio.wait_for(watching, BOUND_S)
    await ends(one)
    assert await alive(apart) is not None
    # One that is gone already: the link ends the other at once.
    await here.link(apart, far_two)
    await ends(apart)
    await lost.shutdown()


async def test_a_node_links_actors_of_two_others(pair):
    here, there = pair
    async with await create_actor_system(config(here.addr, workers=0)) as third:
        await joined(here, third)
        one, two, _, _ = await members(here, there)

        async def known():
            rows = {row["node_id"] for row in await third.members() if row["status"] == "Alive"}
            return {str(here.node_id), str(there.node_id)} <= rows

        await until(known)
        await third.link(*[await third.actor_ref(ref.actor_id) for ref in (one, two)])
    await stays(one, 0.3)
    await there.stop(two)
    await ends(one)


@pytest.mark.parametrize("load", [0, 500_000])
async def test_a_link_outlives_the_rebuilding_of_either_actor(pair, load):
    here, there = pair
    for first in (0, 1):
        one = await Lasting.local(here, b"x" * load, placement=0)
        two = await Lasting.local(there, b"x" * load, placement=0)
        await here.link(one, await here.actor_ref(two.actor_id))
        for actor, other in ((one, two), (two, one)):
            pid = await actor.pid()
            os.kill(pid, signal.SIGKILL)
            await rises(actor, pid)
            await stays(other)
        await asyncio.sleep(1 if load else 0)  # a survivor looks for it at most twice a second
        await (here, there)[first].stop((one, two)[first])
        await ends((one, two)[1 - first])


async def test_without_a_key_nobody_links_and_nothing_is_half_linked():
    async with await create_actor_system(config(key=None, workers=1)) as here:
        async with await create_actor_system(config(here.addr, key=None, workers=1)) as there:
            await joined(here, there)
            one, two, _, far_two = await members(here, there)
            for halves in ((one, far_two), (far_two, one)):
                with pytest.raises(CodecError, match="key"):
                    await here.link(*halves)
            await there.stop(two)
            await stays(one)


def test_the_blocking_form_links_too():
    with pulsing.connect(config()) as here, pulsing.connect(config(here.addr)) as there:
        there.joined(BOUND_S)
        for first in (0, 1):
            one = Member.local(here, placement=0, name="one")
            two = Member.local(there, placement=0)
            there.link(there.resolve("one", timeout=BOUND_S), two)
            (here, there)[first].stop((one, two)[first])
            left = (here, there)[1 - first].watch((one, two)[1 - first])
            assert "linked" in left or "stopped" in left
            with pytest.raises(ActorDied):
                (one, two)[1 - first].pid()
            while here.has_actor("one") or there.has_actor("one"):
                time.sleep(0.01)
