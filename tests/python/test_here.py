# SPDX-License-Identifier: Apache-2.0
"""Calls to actors of the caller's own process: what a loop pays for them, and what a caller that
stops waiting leaves behind."""

from __future__ import annotations

import asyncio

import pytest
from testactors import Calculator, Worker

from pulsing.actor import AskTimeout, as_actor


@pytest.mark.both_loops
async def test_a_call_of_a_plain_method_takes_one_turn_of_the_loop(system):
    calc = await system.spawn(Calculator(0))
    loop = asyncio.get_running_loop()
    turns = 0

    def count():
        nonlocal turns, handle
        turns += 1
        handle = loop.call_soon(count)

    handle = loop.call_soon(count)
    for expected in range(1, 201):
        assert await calc.add(1) == expected
    handle.cancel()
    assert 200 <= turns <= 220


@pytest.mark.both_loops
async def test_a_coroutine_of_an_actor_here_is_awaited(system):
    calc = await system.spawn(Calculator(0))
    assert await calc.async_echo("at once") == "at once"
    calls = [calc.async_echo(i, 0.001 * (i % 7)) for i in range(50)]
    assert await asyncio.gather(*calls) == list(range(50))
    with pytest.raises(AskTimeout):
        await calc.async_echo.options(timeout=0.05)("late", 5)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(calc.async_echo("late", 5), 0.05)
    assert await calc.add(3) == 3


@pytest.mark.both_loops
async def test_a_task_that_is_cancelled_before_the_answer_leaves_the_actor_in_order(system):
    calc = await system.spawn(Calculator(0))

    async def add():
        return await calc.add(1)

    tasks = [asyncio.ensure_future(add()) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends[::2])
    assert all(isinstance(end, int) for end in ends[1::2])
    assert 10 <= await calc.get() <= 20


@pytest.mark.both_loops
async def test_actors_of_one_process_call_each_other_in_turn(system):
    @as_actor
    class Relay:
        def __init__(self, behind):
            self.behind = behind

        async def echo(self, x):
            return x if self.behind is None else await self.behind.echo(x)

    for place in ("here", 0):
        first = None
        for _ in range(5):
            first = await Relay.local(system, first, placement=place)
        assert await asyncio.gather(*[first.echo(i) for i in range(100)]) == list(range(100))


async def test_an_index_places_every_actor_in_that_worker(system):
    pids = [await (await Worker.local(system, placement=1)).pid()]
    pids += [await (await Worker.local(system, placement=0)).pid()]
    for index in (0, 0, 0, 1, 0, 1, 0):
        ref = await Worker.local(system, placement=index)
        assert await ref.pid() == pids[1 - index]
