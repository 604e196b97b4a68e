# SPDX-License-Identifier: Apache-2.0
"""Names that earlier programs use, and pools, groups, topics and batches."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import pytest
from testactors import Calculator, Streams, Worker

import pulsing
from pulsing.actor import (
    Actor,
    ActorId,
    Message,
    NodeId,
    StreamMessage,
    as_actor,
)


class Json(Actor):
    def __init__(self):
        self.told = []

    async def receive(self, msg):
        if msg.is_stream:
            message, writer = StreamMessage.create(msg.msg_type)
            for i in range(int(msg.payload)):
                writer.write_json({"i": i})
            writer.close()
            return message
        self.told.append(msg.to_json() if msg.payload else None)
        return Message.from_json("answer", {"told": self.told})


async def test_json_and_send(system):
    ref = await system.spawn(Json(), "json")
    assert await ref.ask_json("x", {"a": 1}) == {"told": [{"a": 1}]}
    await ref.tell_json("x", [2])
    await ref.send(Message.empty())
    assert await ref.ask_json("x", 3) == {"told": [{"a": 1}, [2], None, 3]}
    answer = await pulsing.ask_with_timeout(ref, Message.from_json("x", 4), 20)
    assert answer.to_json()["told"][-1] == 4


async def test_ask_stream_is_awaitable_and_iterable(system):
    ref = await system.spawn(Json())
    items = [b'{"i": 0}', b'{"i": 1}']
    assert [x async for x in await ref.ask_stream(Message.stream("s", b"2"))] == items
    assert [x async for x in ref.ask_stream(Message.stream("s", b"2"))] == items


async def test_a_cancelled_reader_ends_and_closes_the_generator(system, eventually):
    streams = await Streams.local(system)
    reader = (await streams.plain(10**9)).stream_reader()
    assert await reader.__anext__() == 0
    reader.cancel()
    with contextlib.suppress(pulsing.StreamClosed):
        assert len([x async for x in reader]) < 10_000

    async def closed():
        return (await streams.read())[-1] == ("closed", "plain")

    await eventually(closed, "the generator's finally")


async def test_ids(system):
    ref = await Calculator.local(system, name="calc")
    assert isinstance(ref.actor_id, ActorId) and isinstance(system.node_id, NodeId)
    assert ref.actor_id.name == "calc"
    assert str(ref.actor_id) and hash(ref.actor_id) == hash((await system.find("calc")).actor_id)
    assert ref.actor_id == (await system.find("calc")).actor_id
    assert ref.actor_id.node_id == system.node_id


async def test_members_are_dictionaries_with_this_node_among_them(system):
    (me,) = await system.members()
    assert me["node_id"] == str(system.node_id) and me["status"] == "Alive" and "addr" in me
    await system.joined()


async def test_local_actor_names(system):
    await system.spawn(Json(), "one")
    await system.spawn(Json(), "two", public=True)
    assert {"one", "two"} <= set(system.local_actor_names())


def test_remote_is_another_name_of_as_actor():
    assert pulsing.remote is as_actor


async def test_the_global_system():
    with pytest.raises(pulsing.SystemClosed, match="init"):
        await Calculator.spawn()
    await pulsing.init()
    try:
        with pytest.raises(RuntimeError, match="shutdown"):
            await pulsing.init()
        calc = await Calculator.spawn(5, name="calc")
        assert await calc.add(1) == 6
        assert await (await Calculator.resolve("calc")).add(1) == 7
    finally:
        await pulsing.shutdown()
    await pulsing.shutdown()


async def test_messages_know_their_kind():
    assert Message("t") == Message.single("t", b"")
    assert Message.from_json("t", {"a": [1]}).to_json() == {"a": [1]}
    assert not Message.empty().is_stream and Message.stream("t", b"").is_stream
    for bad in (lambda: Message(3), lambda: Message("t", "text"), lambda: Message.single("t", 5)):
        with pytest.raises(ValueError, match=r"msg_type|payload"):
            bad()


async def test_a_pool_calls_one_member_and_replaces_the_dead(system, eventually):
    pool = await pulsing.Pool.create(
        system, Worker, size=2, policy="round_robin", placement="dedicated"
    )
    pids = [await pool.pid() for _ in range(4)]
    assert pids[0] == pids[2] != pids[1] == pids[3]
    os.kill(pids[0], signal.SIGKILL)
    await eventually(lambda: pool.replaced == 1, "the replacement")
    again = {await pool.pid() for _ in range(4)}
    assert len(again) == 2 and pids[0] not in again and pids[1] in again
    await pool.resize(3)
    assert len(pool) == 3 and len({await pool.pid() for _ in range(6)}) == 3
    await pool.close()
    with pytest.raises(ValueError, match="policy"):
        await pulsing.Pool.create(system, Worker, size=1, policy="best")


async def test_a_hash_pool_keeps_a_key_at_its_member(system):
    async with await pulsing.Pool.create(system, Worker, size=3, policy="hash") as pool:
        for key in ("a", "b", "c"):
            assert len({await pool.pid.options(key=key)() for _ in range(3)}) == 1


async def test_a_batch_takes_single_calls_and_answers_each(system):
    @as_actor
    class Batched:
        def __init__(self):
            self.sizes = []

        @pulsing.batch(max_size=8, max_wait=0.05)
        def square(self, items):
            self.sizes.append(len(items))
            return [ValueError(f"no {x}") if x == 13 else x * x for x in items]

        def read(self):
            return self.sizes

    ref = await Batched.local(system)
    ends = await asyncio.gather(*[ref.square(i) for i in range(20)], return_exceptions=True)
    assert [e for i, e in enumerate(ends) if i != 13] == [i * i for i in range(20) if i != 13]
    assert isinstance(ends[13], ValueError)
    sizes = await ref.read()
    assert sum(sizes) == 20 and max(sizes) <= 8 and len(sizes) < 20


async def test_a_topic_tells_every_subscriber(system, eventually):
    topic = await pulsing.Topic.open(system, "news")
    logs = [Calculator(), Calculator()]
    for log in logs:
        await topic.subscribe(await system.spawn(log), "add")
    assert await topic.publish(5) == 2
    await eventually(lambda: [log.value for log in logs] == [5, 5], "the news")


async def test_a_pool_over_actors_of_others_neither_makes_nor_stops_one(system):
    refs = [await Worker.local(system, placement=i) for i in (0, 1)]
    pool = pulsing.Pool.over(system, refs, policy="round_robin")
    assert {await pool.worker() for _ in range(4)} == {0, 1}
    with pytest.raises(ValueError, match="others"):
        await pool.resize(3)
    await pool.close()
    assert [await ref.worker() for ref in refs] == [0, 1]
    with pytest.raises(ValueError, match="at least one"):
        pulsing.Pool.over(system, [])


def test_the_blocking_form_has_what_the_awaited_one_has():
    from pulsing._blocking import BlockingSystem

    awaited = {name for name in dir(pulsing.ActorSystem) if not name.startswith("_")}
    assert awaited - {"create"} <= set(dir(BlockingSystem))
