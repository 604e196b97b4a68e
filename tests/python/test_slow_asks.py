# SPDX-License-Identifier: Apache-2.0
"""A call that waits for long is logged, once, with whom it waits for."""

from __future__ import annotations

import asyncio
import logging
import os

import pytest

import pulsing
from pulsing.actor import SystemConfig, as_actor, create_actor_system

CONFIG = SystemConfig.standalone().with_workers(1).with_slow_ask(1.0)


@as_actor
class Sleeper:
    def pid(self):
        return os.getpid()

    async def nap(self, seconds):
        await asyncio.sleep(seconds)
        return "slept"

    async def ask_other(self, other, seconds):
        return await other.nap(seconds)


def slow(caplog):
    """What was logged of the actors; a worker may take its time to start."""
    lines = [r.getMessage() for r in caplog.records if "not been answered" in r.getMessage()]
    return [line for line in lines if "of the system" not in line]


@pytest.mark.both_loops
async def test_a_call_that_waits_is_logged_once_with_whom_it_waits_for(caplog):
    caplog.set_level(logging.WARNING, "pulsing")
    async with await create_actor_system(CONFIG) as system:
        sleeper = await Sleeper.local(system, name="sleeper")
        pid = await sleeper.pid()
        assert await sleeper.nap(0.2) == "slept"
        assert slow(caplog) == []
        assert await sleeper.nap(3.0) == "slept"
        (line,) = slow(caplog)
        assert "nap()" in line and "Sleeper 'sleeper'" in line
        assert f"worker 0 (pid {pid})" in line
        here = await system.spawn(Sleeper())
        assert await here.nap(2.0) == "slept"
        assert len(slow(caplog)) == 2 and "this process" in slow(caplog)[1]


async def test_a_call_made_by_an_actor_is_logged_where_it_was_made(capfd, eventually):
    async with await create_actor_system(CONFIG) as system:
        sleeper = await Sleeper.local(system, name="sleeper")
        here = await system.spawn(Sleeper(), "here")
        asking = asyncio.ensure_future(sleeper.ask_other(here, 4.0))
        seen = []

        def told():
            seen.append(capfd.readouterr().err)
            return "nap() of actor Sleeper 'here'" in "".join(seen)

        await eventually(told, "the worker's log line")
        assert await asking == "slept"


async def test_the_log_can_be_turned_off(caplog):
    caplog.set_level(logging.WARNING, "pulsing")
    async with await create_actor_system(CONFIG.with_slow_ask(None)) as system:
        sleeper = await Sleeper.local(system)
        assert await sleeper.nap(2.0) == "slept"
    assert slow(caplog) == []


def test_a_blocking_call_is_logged_too(caplog):
    caplog.set_level(logging.WARNING, "pulsing")
    with pulsing.connect(CONFIG) as system:
        sleeper = Sleeper.local(system, name="sleeper")
        assert sleeper.nap(3.0) == "slept"
    (line,) = slow(caplog)
    assert "Sleeper 'sleeper'" in line


@pytest.mark.parametrize("value", [0, -1, "soon", True])
def test_a_bad_time_is_refused_by_name(value):
    with pytest.raises(ValueError, match="slow_ask"):
        SystemConfig.standalone().with_slow_ask(value)


def test_the_default_is_half_a_minute():
    assert SystemConfig.standalone().slow_ask == 30.0
