# SPDX-License-Identifier: Apache-2.0
"""What is under way between two nodes when something ends: credit comes back, every call ends, and
who waits learns what is known. Real sockets on the loopback, real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import numpy
import pytest
from faractors import Far, Narrow, Phoenix, Wide
from nodes import BOUND_S, config, sees, status_of, until
from test_gateway import far, limited, outcome, pair, program

from pulsing import ActorDied, CodecError, NodeUnreachable
from pulsing.actor import StreamMessage, create_actor_system

__all__ = ["pair", "program"]

pytestmark = pytest.mark.between_nodes

# So long that the other nodes are sure that it is dead.
DEAD_S = 9.0


async def unseen(system, node_id):
    """Waits until a node is taken for dead."""

    async def condition():
        status = await status_of(system, node_id)
        return status not in ("Alive", "Suspect")

    await until(condition)


# -- what is known of a message --------------------------------------------------------------------


async def test_what_never_left_is_told_from_what_was_sent(program):
    async with await create_actor_system(config()) as here:
        other = program(here.addr)
        await until(sees(here, other.node.hex()))
        ref = other.ref(here, other.wide)
        assert await limited(ref.take(b"")) == 0
        os.kill(other.node_pid, signal.SIGSTOP)
        # Four times what may be under way to a node; the rest stays in the queue to it.
        load = numpy.zeros(100_000, dtype=numpy.uint8)
        pending = [asyncio.ensure_future(outcome(ref.take(load))) for _ in range(160)]
        await asyncio.sleep(0.3)
        os.kill(other.node_pid, signal.SIGKILL)
        texts = [str(error) for error in await asyncio.gather(*pending)]
        assert all("not sent" in text or "unanswered" in text for text in texts)
        assert "unanswered" in texts[0]
        assert "not sent" in texts[-1]


async def test_answers_on_their_way_to_a_node_that_dies_do_no_harm(program):
    async with await create_actor_system(config()) as here:
        home = await here.spawn(Far())
        for _ in range(3):
            other = program(here.addr)
            await until(sees(here, other.node.hex()))
            ref = other.ref(here, other.far)
            await limited(ref.keep(home))
            asking = [asyncio.ensure_future(outcome(ref.ask_kept_late(0.5, 100_000)))]
            asking += [
                asyncio.ensure_future(outcome(ref.ask_kept_late(0.5, 10))) for _ in range(50)
            ]
            await asyncio.sleep(0.3)
            os.kill(other.node_pid, signal.SIGSTOP)
            # The answers are queued to a node that does not take them.
            await asyncio.sleep(0.6)
            os.kill(other.node_pid, signal.SIGKILL)
            for error in await asyncio.gather(*asking):
                assert type(error) is NodeUnreachable, error
        await asyncio.sleep(0.3)
        assert os.path.exists(f"/proc/{here._node[0]}")
        assert await limited(home.add(1)) == 2


# -- credit ----------------------------------------------------------------------------------------


async def test_tells_to_a_killed_node_wait_for_nobody(program):
    async with await create_actor_system(config()) as here:
        other = program(here.addr)
        await until(sees(here, other.node.hex()))
        ref = here._rt.ref(other.far, 9, False, None, "Far", other.node)
        assert await limited(ref.add(1)) == 2
        os.kill(other.node_pid, signal.SIGKILL)
        await unseen(here, other.node.hex())
        for i in range(100):
            await limited(ref.note.tell(i), 5)
        assert type(await outcome(ref.add(1))) is NodeUnreachable


async def test_tells_that_died_with_a_worker_give_their_credit_back(pair, eventually):
    here, there = pair
    actor = await Phoenix.local(there)
    ref = await far(here, actor, window=9)
    for _ in range(3):
        pid = await answer(ref)
        # They wait in the mailbox, or for its window, when it dies.
        tells = [asyncio.ensure_future(told(ref.stay, 60)) for _ in range(9)]
        await asyncio.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        await limited(asyncio.gather(*tells))
        assert await answer(ref) != pid
    # Nine may be under way; if the lost ones still counted, nothing would be left.
    await limited(asyncio.gather(*[told(ref.note, i) for i in range(50)]))
    assert await limited(ref.notes()) == list(range(50))


async def answer(ref):
    """The pid of an actor that may be about to be rebuilt."""
    end = time.monotonic() + BOUND_S
    while True:
        pid = await outcome(ref.pid())
        if isinstance(pid, int):
            return pid
        assert time.monotonic() < end, pid
        await asyncio.sleep(0.05)


async def told(endpoint, *args):
    await endpoint.tell(*args)


async def test_tells_that_a_spent_budget_refused_give_their_credit_back():
    async with await create_actor_system(config()) as here:
        async with await create_actor_system(config(here.addr, memory_bytes=64 << 20)) as there:
            await until(sees(here, str(there.node_id)))
            narrow = Narrow()
            ref = await far(here, await there.spawn(narrow), window=8)
            load = numpy.ones(24 << 20, dtype=numpy.uint8)
            # Two have room over there, while the first is held by its handler; the rest has none.
            for _ in range(7):
                await limited(told(ref.note, load))
            await asyncio.sleep(1)
            narrow.gate.set()
            for i in range(50):
                await limited(told(ref.note, i))
            notes = await limited(ref.count())
            assert 51 <= notes < 57


async def test_a_found_actor_takes_any_number_of_tells(pair):
    here, there = pair
    # It gives credit back in far larger bundles to those who know how large its mailbox is.
    await there.spawn(Wide(), "wide", public=True)
    ref = await limited(here.resolve("wide", timeout=BOUND_S))
    for _ in range(3000):
        await limited(told(ref.take, b""), 5)
    assert await limited(ref.take(b"x")) == 1


async def test_actors_that_end_owe_nothing(pair):
    here, there = pair
    actor = await there.spawn(Narrow())
    ref = await far(here, actor, window=9)
    await limited(ref.open())
    for i in range(3):
        await limited(told(ref.note, i))
    await limited(ref.notes())
    await there.stop(actor)
    for i in range(50):
        await limited(told(ref.note, i), 5)
    assert type(await outcome(ref.notes())) is ActorDied


# -- nodes that come back --------------------------------------------------------------------------


async def test_asks_end_whose_node_was_taken_for_dead_meanwhile(program):
    async with await create_actor_system(config()) as here:
        other = program(here.addr)
        await until(sees(here, other.node.hex()))
        ref = other.ref(here, other.far)
        pending = [asyncio.ensure_future(outcome(ref.slow(60))) for _ in range(5)]
        await asyncio.sleep(0.3)
        os.kill(here._node[0], signal.SIGSTOP)
        try:
            # The other node cancels what a dead one had started.
            await asyncio.sleep(DEAD_S)
        finally:
            os.kill(here._node[0], signal.SIGCONT)
        for error in await limited(asyncio.gather(*pending)):
            assert type(error) is NodeUnreachable and "unanswered" in str(error), error
        await until(sees(here, other.node.hex()))
        assert (await limited(ref.counts()))[0] == 1
        assert await limited(ref.add(1)) == 2


async def test_credit_and_streams_outlive_a_node_that_stood_still(program, eventually):
    async with await create_actor_system(config()) as here:
        other = program(here.addr)
        await until(sees(here, other.node.hex()))
        ref = other.ref(here, other.far)
        narrow = here._rt.ref(other.narrow, 9, False, None, "Narrow", other.node)
        await limited(narrow.open())
        stream = await limited(ref.count(1_000_000))
        reader = stream.stream_reader()
        assert await limited(reader.__anext__()) == 0
        os.kill(other.node_pid, signal.SIGSTOP)
        try:
            tells = [asyncio.ensure_future(told(narrow.note, i)) for i in range(9)]
            await unseen(here, other.node.hex())
        finally:
            os.kill(other.node_pid, signal.SIGCONT)
        await limited(asyncio.gather(*tells))
        await until(sees(here, other.node.hex()))
        for i in range(100):
            await limited(told(narrow.note, i))
        assert (await limited(narrow.notes()))[-100:] == list(range(100))

        async def closed():
            return (await ref.counts())[1] == 0

        # Its reader is gone, and it learns that too.
        await eventually(closed)


# -- trust -----------------------------------------------------------------------------------------


class Unknown:
    """A class that plain values cannot carry."""


async def test_without_a_key_a_stream_carries_plain_items_only(pair):
    here, there = pair
    ref = await far(here, await there.spawn(Far()))
    message, writer = StreamMessage.create("odd", buffer_size=4)
    eating = asyncio.ensure_future(outcome(ref.eat(message)))
    for i in range(20):
        await limited(writer.write(i))
    # The reader is known by now, and so is where it is.
    with pytest.raises(CodecError):
        await limited(writer.write(Unknown()))
    await limited(writer.write(20))
    await limited(writer.close())
    assert await eating == list(range(21))
