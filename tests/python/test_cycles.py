# SPDX-License-Identifier: Apache-2.0
"""Asks that wait for each other, though no one chain of asks closes on itself: independent calls
that cross. One of them fails within a second; what only looks like a circle goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from pulsing import ActorDied, DeadlockError
from pulsing.actor import as_actor

PLACES = [("here", "here", "here"), (0, 0, 0), (0, 1, "here"), (0, 1, 0)]


@as_actor
class Node:
    """Asks the next one after a while, so that others are busy by then."""

    def tie(self, other):
        self.other = other

    def pid(self):
        return os.getpid()

    def quick(self):
        return "quick"

    async def nap(self, seconds):
        await asyncio.sleep(seconds)
        return "slept"

    async def cross(self, how="plain", seconds=0.1):
        await asyncio.sleep(seconds)
        if how == "gather":
            return (await asyncio.gather(asyncio.sleep(0), self.other.quick()))[1]
        if how == "wait_for":
            return await asyncio.wait_for(self.other.quick(), 60)
        if how == "task":
            return await asyncio.create_task(self._through(self.other.quick()))
        if how == "shield":
            return await asyncio.shield(self._through(self.other.quick()))
        if how == "wait":
            done, _ = await asyncio.wait([asyncio.ensure_future(self._through(self.other.quick()))])
            return done.pop().result()
        return await self.other.quick()

    async def _through(self, call):
        return await call

    async def beside(self, seconds):
        """Asks in a task of its own and waits for something else."""
        self.task = asyncio.ensure_future(self._through(self.other.quick()))
        await asyncio.sleep(seconds)
        return "beside"

    async def first_of_two(self, seconds):
        """Waits for whichever comes first."""
        call = asyncio.ensure_future(self._through(self.other.quick()))
        nap = asyncio.ensure_future(asyncio.sleep(seconds, "nap"))
        done, _ = await asyncio.wait([call, nap], return_when=asyncio.FIRST_COMPLETED)
        return [one.result() for one in done]

    async def limited(self, seconds):
        await asyncio.sleep(0.1)
        try:
            return await asyncio.wait_for(self.other.nap(seconds * 3), seconds)
        except asyncio.TimeoutError:
            return "limited"


@as_actor(max_concurrency=2)
class Wide(Node):
    pass


async def circle(system, places, cls=Node):
    nodes = []
    for i, place in enumerate(places):
        nodes.append(await cls.local(system, name=f"member-{i}", placement=place))
    for i, node in enumerate(nodes):
        await node.tie(nodes[(i + 1) % len(nodes)])
    return nodes


async def ends(calls, limit):
    tasks = [asyncio.ensure_future(call) for call in calls]
    begin = time.monotonic()
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
    took = time.monotonic() - begin
    assert took < limit, took
    return results


@pytest.mark.both_loops
@pytest.mark.parametrize("places", [p[:n] for p in PLACES for n in (2, 3)])
async def test_one_of_the_asks_that_cross_fails_and_names_the_circle(system, places):
    nodes = await circle(system, places)
    results = await ends([node.cross() for node in nodes], 1.1 + 0.3)
    failed = [r for r in results if r != "quick"]
    assert len(failed) == 1, results
    assert isinstance(failed[0], DeadlockError)
    for i in range(len(nodes)):
        assert f"member-{i}" in str(failed[0])
    assert [await node.quick() for node in nodes] == ["quick"] * len(nodes)


@pytest.mark.both_loops
@pytest.mark.parametrize("how", ["gather", "wait_for", "task", "shield", "wait"])
async def test_a_handler_waits_through_what_asyncio_builds_of_futures(system, how):
    nodes = await circle(system, (0, 1))
    results = await ends([node.cross(how) for node in nodes], 1.4)
    assert [type(r) for r in results].count(DeadlockError) == 1, results


async def test_actors_without_a_name_are_called_by_class_and_id(system):
    a = await Node.local(system, placement=0)
    b = await Node.local(system, placement=1)
    await a.tie(b)
    await b.tie(a)
    results = await ends([a.cross(), b.cross()], 1.4)
    (error,) = [r for r in results if isinstance(r, DeadlockError)]
    for ref in (a, b):
        assert f"Node {ref._id:x}" in str(error)


@pytest.mark.both_loops
@pytest.mark.parametrize("places", [("here", "here"), (0, 1)])
async def test_an_ask_beside_the_handler_is_no_circle(system, places):
    a, b = await circle(system, places)
    results = await ends([a.beside(1.5), b.beside(1.5)], 5)
    assert results == ["beside", "beside"]
    results = await ends([a.first_of_two(1.5), b.first_of_two(1.5)], 5)
    assert all(set(result) <= {"nap", "quick"} for result in results), results


async def test_an_actor_with_a_free_place_is_no_circle(system):
    nodes = await circle(system, (0, 1), Wide)
    assert await ends([node.cross() for node in nodes], 5) == ["quick", "quick"]


async def test_a_long_wait_for_a_busy_actor_is_no_circle(system):
    a, b = await circle(system, (0, 1))
    await b.tie(a)
    nap = asyncio.ensure_future(b.nap(2))
    await asyncio.sleep(0.05)
    assert await a.cross(seconds=0) == "quick"
    assert await nap == "slept"


async def test_an_ask_that_gives_up_in_time_is_no_circle(system):
    a, b = await circle(system, (0, 1))
    assert await ends([a.limited(0.2), b.limited(0.2)], 1) == ["limited", "limited"]


async def test_those_who_wait_for_a_circle_wait_on(system):
    """A caller from outside, an actor too, gets its answer once the circle is broken."""
    a, b = await circle(system, (0, 1))
    outside = await Node.local(system, placement="here")
    await outside.tie(a)
    results = await ends([a.cross(), b.cross(), outside.cross(seconds=0.2)], 1.6)
    assert [type(r) for r in results].count(DeadlockError) == 1, results
    assert results[2] == "quick"


async def test_two_circles_at_once_lose_one_ask_each(system):
    first = await circle(system, (0, 1))
    second = [
        await Node.local(system, placement=0),
        await Node.local(system, placement=1),
        await Node.local(system, placement="here"),
    ]
    for i, node in enumerate(second):
        await node.tie(second[(i + 1) % 3])
    results = await ends([node.cross() for node in first + second], 1.6)
    assert [type(r) for r in results[:2]].count(DeadlockError) == 1, results
    assert [type(r) for r in results[2:]].count(DeadlockError) == 1, results


@pytest.mark.parametrize("after", [0.2, 0.35, 0.5])
async def test_a_member_that_is_killed_while_probes_are_under_way(system, after):
    """Every call ends, by the death or by the circle."""
    nodes = await circle(system, ("here", "dedicated", "dedicated"))
    pid = await nodes[1].pid()
    tasks = [asyncio.ensure_future(node.cross()) for node in nodes]
    await asyncio.sleep(after)
    os.kill(pid, signal.SIGKILL)
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert all(r == "quick" or isinstance(r, (ActorDied, DeadlockError)) for r in results), results
    assert isinstance(results[1], ActorDied)
    assert await nodes[0].quick() == await nodes[2].quick() == "quick"


@as_actor
class Chain:
    def tie(self, other):
        self.other = other

    async def pull(self):
        return await self.other.pull()


@pytest.mark.both_loops
@pytest.mark.parametrize("places", [("here", "here"), (0, 0), (0, 1)])
async def test_one_chain_that_closes_on_itself_fails_at_once(system, places):
    """By the chain that the request carries, and not by a probe, whose error reads otherwise. Many
    times, since a handler that awaits a call may be looking for its answer, may have given the loop
    a turn, or may sleep."""
    nodes = await circle(system, places, Chain)
    for _ in range(500):
        with pytest.raises(DeadlockError, match="an ask would wait for itself"):
            await asyncio.wait_for(nodes[0].pull(), 20)
