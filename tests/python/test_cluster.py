# SPDX-License-Identifier: Apache-2.0
"""Several nodes: membership over real sockets, each node a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

import pulsing
from pulsing.actor import (
    ActorNotFound,
    NodeUnreachable,
    SystemConfig,
    as_actor,
    create_actor_system,
)

LOOPBACK = "127.0.0.1:0"
SEEN_S = 0.3  # until two nodes see each other
BOUND_S = 10.0


def config(*seeds, **fields):
    return SystemConfig(addr=LOOPBACK, seeds=tuple(seeds), workers=0, **fields)


async def until(condition, limit=BOUND_S):
    """Waits until the condition holds; returns how long that took."""
    begun = time.monotonic()
    while not await condition():
        assert time.monotonic() - begun < limit, "it does not come about"
        await asyncio.sleep(0.002)
    return time.monotonic() - begun


def status_of(system, other):
    async def look():
        rows = {row["node_id"]: row["status"] for row in await system.members()}
        return rows.get(str(other.node_id))

    return look


def sees(system, other, status="Alive"):
    look = status_of(system, other)

    async def condition():
        return await look() == status

    return condition


@pytest.mark.asyncio
async def test_two_nodes_see_each_other(capsys):
    async with await create_actor_system(config()) as one:
        begun = time.monotonic()
        async with await create_actor_system(config(one.addr)) as two:
            await two.joined(BOUND_S)
            await until(sees(one, two))
            await until(sees(two, one))
            took = time.monotonic() - begun
            with capsys.disabled():
                print(f"\nseen {took * 1000:.0f} ms after the second began to start")
            assert took < SEEN_S * 10
            addresses = {row["addr"] for row in await one.members()}
            assert addresses == {one.addr, two.addr}


@pytest.mark.asyncio
async def test_the_address_is_the_real_one():
    async with await create_actor_system(config()) as one:
        host, _, port = one.addr.rpartition(":")
        assert host == "127.0.0.1" and int(port) > 0
    async with await create_actor_system(SystemConfig(workers=0)) as alone:
        assert alone.addr is None


@pytest.mark.asyncio
async def test_the_port_is_free_when_shutdown_returns():
    one = await create_actor_system(config())
    addr = one.addr
    two = await create_actor_system(config(addr))
    await two.joined(BOUND_S)
    await one.shutdown()
    async with await create_actor_system(SystemConfig(addr=addr, workers=0)) as again:
        assert again.addr == addr
    await two.shutdown()


@pytest.mark.asyncio
async def test_a_killed_node_leaves_the_members():
    async with await create_actor_system(config()) as one:
        two = await create_actor_system(config(one.addr))
        await two.joined(BOUND_S)
        await until(sees(one, two))
        os.kill(two._rt.node_pid, signal.SIGKILL)
        took = await until(sees(one, two, "Dead"))
        print(f"dead after {took:.2f} s")
        await two.shutdown()


@pytest.mark.asyncio
async def test_a_node_that_leaves_has_left_and_is_not_dead():
    async with await create_actor_system(config()) as one:
        events = one.events()
        async with await create_actor_system(config(one.addr)) as two:
            await two.joined(BOUND_S)
            node = str(two.node_id)
        assert await until(sees(one, two, "Left")) < 1.0
        seen = []
        while not seen or seen[-1] != "left":
            event = await asyncio.wait_for(anext(events), BOUND_S)
            if event["node_id"] == node:
                seen.append(event["event"])
        assert seen == ["joined", "left"]


@pytest.mark.asyncio
async def test_joined_says_what_the_seeds_answered():
    async with await create_actor_system(config("127.0.0.1:1")) as one:
        with pytest.raises(NodeUnreachable, match=r"127\.0\.0\.1:1"):
            await one.joined(0.5)


@pytest.mark.asyncio
async def test_a_seed_that_comes_later_is_found():
    first = await create_actor_system(config())
    addr = first.addr
    await first.shutdown()
    async with await create_actor_system(config(addr, "127.0.0.1:1")) as early:
        await asyncio.sleep(0.5)
        async with await create_actor_system(SystemConfig(addr=addr, workers=0)) as late:
            await early.joined(BOUND_S)
            await until(sees(late, early))


@pytest.mark.asyncio
async def test_without_seeds_joined_returns_at_once():
    async with await create_actor_system(config()) as one:
        await one.joined(0)
    async with await create_actor_system(SystemConfig(workers=0)) as alone:
        await alone.joined(0)
        rows = await alone.members()
        assert [row["status"] for row in rows] == ["Alive"]
        assert rows[0]["node_id"] == str(alone.node_id)


@as_actor
class Quiet:
    def nothing(self):
        pass


@pytest.mark.asyncio
async def test_what_does_not_go_between_nodes_yet_is_said():
    async with await create_actor_system(config()) as one:
        ref = await one.spawn(Quiet(), "quiet", public=True)
        async with await create_actor_system(config(one.addr)) as two:
            await two.joined(BOUND_S)
            assert await two.find("quiet") is None
            for place in ("remote", one.node_id):
                with pytest.raises(ActorNotFound, match="cannot be made on other nodes yet"):
                    await Quiet.local(two, placement=place)
            with pytest.raises(ActorNotFound, match="another node, which cannot be called yet"):
                await two.actor_ref(ref.actor_id)


BAD_SECONDS = ["5", True, -1, float("nan")]


@pytest.mark.asyncio
async def test_a_time_that_is_none_is_refused_by_name():
    async with await create_actor_system(SystemConfig(workers=0)) as system:
        for bad in BAD_SECONDS:
            with pytest.raises(ValueError, match="timeout: expected seconds, got"):
                await system.joined(bad)
            with pytest.raises(ValueError, match="timeout: expected seconds, got"):
                await system.find("name", timeout=bad)


def test_the_blocking_form_joins_too():
    with pulsing.connect(config()) as one, pulsing.connect(config(one.addr)) as two:
        for bad in BAD_SECONDS:
            with pytest.raises(ValueError, match="timeout: expected seconds, got"):
                two.joined(bad)
        two.joined(BOUND_S)
        assert {row["addr"] for row in two.members()} == {one.addr, two.addr}
        assert not two.isolated()
        other = next(event for event in two.events() if event["addr"] == one.addr)
        assert other["event"] == "joined"
    with pulsing.connect(config("127.0.0.1:1")) as alone:
        with pytest.raises(NodeUnreachable, match=r"127\.0\.0\.1:1"):
            alone.joined(0.3)
