# SPDX-License-Identifier: Apache-2.0
"""Public names on several nodes: found, waited for, gone with their owner."""

from __future__ import annotations

import ast
import asyncio
import os
import pathlib
import re
import signal
import time

import pytest
from nodes import BOUND_S, config, joined, until
from testactors import Calculator

import pulsing
from pulsing import ActorExists, ActorNotFound
from pulsing.actor import SystemConfig, as_actor, create_actor_system

pytestmark = pytest.mark.between_nodes


def knows(system, name, yes=True):
    async def condition():
        return await system.has_actor(name) is yes

    return condition


@pytest.fixture
async def pair():
    """Two nodes that know each other."""
    async with await create_actor_system(config()) as one:
        async with await create_actor_system(config(one.addr)) as two:
            await joined(one, two)
            yield one, two


@pytest.mark.asyncio
async def test_a_public_name_is_found_on_the_other_node_and_goes_with_its_actor(pair, capsys):
    one, two = pair
    await one.spawn(Calculator(), "counter", public=True)
    appeared = await until(knows(two, "counter"))
    ref = await two.resolve("counter")
    assert ref.actor_id.node_id == one.node_id and not ref.is_local()
    assert await ref.add(2) == 2
    await one.stop("counter")
    gone = await until(knows(two, "counter", False))
    with capsys.disabled():
        print(f"\nfound after {appeared * 1000:.0f} ms, gone after {gone * 1000:.0f} ms")
    assert appeared < 1.0
    assert await two.find("counter") is None
    with pytest.raises(ActorNotFound):
        await two.resolve("counter")


@pytest.mark.asyncio
async def test_who_waits_for_a_name_is_woken_by_it(pair):
    one, two = pair
    waiting = [asyncio.create_task(two.find("late", timeout=BOUND_S)) for _ in range(3)]
    given_up = asyncio.create_task(two.find("late", timeout=BOUND_S))
    await asyncio.sleep(0.1)
    given_up.cancel()
    assert not any(task.done() for task in waiting)
    await one.spawn(Calculator(), "late", public=True)
    begun = time.monotonic()
    refs = await asyncio.gather(*waiting)
    assert time.monotonic() - begun < 1.0
    assert {str(ref.actor_id.node_id) for ref in refs} == {str(one.node_id)}
    assert await two.find("never", timeout=0.1) is None


@pytest.mark.asyncio
async def test_a_private_actor_is_seen_by_no_other_node(pair):
    one, two = pair
    await one.spawn(Calculator(), "secret", public=False)
    await one.spawn(Calculator(), "open", public=True)
    await until(knows(two, "open"))
    assert not await two.has_actor("secret")
    assert await two.find("secret") is None and await two.find_all("secret") == []
    assert await one.has_actor("secret") and await one.find("secret") is None


@pytest.mark.asyncio
async def test_a_private_name_hides_no_public_one_of_another_node(pair):
    one, two = pair
    await one.spawn(Calculator(), "both", public=False)
    waiting = asyncio.create_task(one.find("both", timeout=BOUND_S))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await two.spawn(Calculator(), "both", public=True)
    ref = await waiting
    assert ref.actor_id.node_id == two.node_id


@pytest.mark.asyncio
async def test_the_names_of_a_killed_node_vanish(pair):
    one, two = pair
    three = await create_actor_system(config(one.addr))
    await three.spawn(Calculator(), "doomed", public=True)
    await until(knows(one, "doomed"))
    await until(knows(two, "doomed"))
    os.kill(three._rt.node_pid, signal.SIGKILL)
    for system in (one, two):
        await until(knows(system, "doomed", False))
    await three.shutdown()


@pytest.mark.asyncio
async def test_the_names_of_a_killed_worker_vanish_at_once():
    async with await create_actor_system(config(workers=1)) as one:
        async with await create_actor_system(config(one.addr)) as two:
            await two.joined(BOUND_S)
            await Calculator.local(one, name="worked", public=True)
            await until(knows(two, "worked"))
            os.kill(one.workers()[0]["pid"], signal.SIGKILL)
            assert await until(knows(two, "worked", False)) < 1.0


@pytest.mark.asyncio
async def test_one_name_on_several_nodes_has_replicas(pair):
    one, two = pair
    third = config(one.addr)
    async with await create_actor_system(third) as three:
        for system in (one, two):
            await system.spawn(Calculator(), "service", public=True)

        async def all_know_both():
            found = [len(await system.find_all("service")) for system in (one, two, three)]
            return found == [2, 2, 2]

        await until(all_know_both)
        homes = {str(one.node_id), str(two.node_id)}

        async def taken(system, count, **options):
            refs = [await system.find("service", **options) for _ in range(count)]
            return [str(ref.actor_id.node_id) for ref in refs]

        assert set(await taken(one, 4)) == {str(one.node_id)}
        assert set(await taken(three, 4)) == homes
        turns = await taken(three, 6, policy="round_robin")
        assert turns == turns[:2] * 3 and set(turns) == homes
        assert set(await taken(three, 64, policy="random")) == homes
        assert len(set(await taken(three, 8, policy="hash", key="user-7"))) == 1
        keys = [(await taken(three, 1, policy="hash", key=k))[0] for k in range(64)]
        assert set(keys) == homes
        # The same key leads to the same replica from every node.
        assert keys == [(await taken(one, 1, policy="hash", key=k))[0] for k in range(64)]
        for wrong in ({"policy": "best"}, {"policy": "hash"}, {"key": 1}):
            with pytest.raises(ValueError, match="policy"):
                await three.find("service", **wrong)


@pytest.mark.asyncio
async def test_a_unique_name_is_refused_while_another_node_has_it(pair):
    one, two = pair
    await one.spawn(Calculator(), "leader", public="unique")
    await until(knows(two, "leader"))
    with pytest.raises(ActorExists, match="in the cluster"):
        await two.spawn(Calculator(), "leader", public="unique")
    with pytest.raises(ActorExists, match="in the cluster"):
        await two.spawn(Calculator(), "leader", public=True)
    await one.stop("leader")
    await until(knows(two, "leader", False))
    await two.spawn(Calculator(), "leader", public="unique")


@pytest.mark.asyncio
async def test_two_that_took_a_unique_name_apart_keep_one_winner_and_the_loser_is_told():
    first = await create_actor_system(config())
    addr = first.addr
    await first.shutdown()
    async with await create_actor_system(config(addr)) as one:
        async with await create_actor_system(config(addr=addr)) as two:
            await asyncio.gather(
                one.spawn(Calculator(), "leader", public="unique"),
                two.spawn(Calculator(), "leader", public="unique"),
            )
            readers = {system: system.events() for system in (one, two)}
            await one.joined(BOUND_S)

            async def settled():
                homes = [await s.find("leader") for s in (one, two)]
                ids = {str(ref.actor_id) for ref in homes if ref is not None}
                return None not in homes and len(ids) == 1

            await until(settled)
            winner = one if (await one.find("leader")).is_local() else two
            loser = two if winner is one else one
            while True:
                event = await asyncio.wait_for(anext(readers[loser]), BOUND_S)
                if event["event"] == "name_lost":
                    break
            assert event["name"] == "leader" and event["node_id"] == str(winner.node_id)


@pytest.mark.asyncio
async def test_a_late_node_learns_ten_thousand_names(pair, capsys):
    one, two = pair
    names = [f"n{i}" for i in range(10_000)]
    for name in names:
        await one.spawn(Calculator(), name, public=True)
    begun = time.monotonic()
    async with await create_actor_system(config(one.addr)) as three:
        took = {}
        for system, label in ((two, "a member"), (three, "a newcomer")):
            missing = list(names)
            while missing:
                assert time.monotonic() - begun < BOUND_S
                batch = missing[-1000:]  # a process may have that many requests under way
                there = await asyncio.gather(*[system.has_actor(name) for name in batch])
                unknown = [n for n, known in zip(batch, there, strict=True) if not known]
                missing[-1000:] = unknown
            took[label] = time.monotonic() - begun
        with capsys.disabled():
            print(f"\n10,000 names: {', '.join(f'{k} {v:.2f} s' for k, v in took.items())}")


@pytest.mark.asyncio
async def test_the_page_about_clusters_runs_as_it_stands():
    root = pathlib.Path(__file__).resolve().parents[2]
    text = (root / "docs" / "cluster.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    space = {"__name__": __name__}
    for block in blocks:
        code = compile(block, "cluster.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if (coroutine := eval(code, space)) is not None:
            await coroutine


@as_actor
class Gate:
    def __init__(self):
        self.opened = asyncio.Event()

    async def wait(self):
        await self.opened.wait()

    def hold(self, seconds: float):
        time.sleep(seconds)


@pytest.mark.asyncio
@pytest.mark.parametrize("blocking", [False, True])
async def test_the_least_loaded_replica_has_the_fewest_messages(blocking):
    async with await create_actor_system(config(name="least-one")) as one:
        async with await create_actor_system(config(one.addr)) as two:
            await two.joined(BOUND_S)
            await least_loaded(one, two, blocking)


async def least_loaded(one, two, blocking):
    gates = [Gate(), Gate()]
    refs = [
        await one.spawn(gates[0], "gate", public=True),
        await two.spawn(gates[1], "gate", public=True),
    ]

    async def both():
        return len(await one.find_all("gate")) == 2

    await until(both)
    attached = pulsing.connect(SystemConfig.attach("least-one")) if blocking else None

    async def chosen():
        options = {"policy": "least_loaded"}
        if attached is not None:
            return (await asyncio.to_thread(attached.find, "gate", **options)).actor_id
        return (await one.find("gate", **options)).actor_id

    for loaded, free in ((0, 1), (1, 0)):
        calls = [asyncio.ensure_future(refs[loaded].wait()) for _ in range(3)]
        calls += [asyncio.ensure_future(refs[free].wait()) for _ in range(2)]
        await asyncio.sleep(0.1)
        for _ in range(4):
            assert await chosen() == refs[free].actor_id
        for gate in gates:
            gate.opened.set()
        await asyncio.gather(*calls)
        for gate in gates:
            gate.opened.clear()
    both_free = {await chosen() for _ in range(40)}
    assert both_free == {ref.actor_id for ref in refs}
    if attached is not None:
        await asyncio.to_thread(attached.shutdown)


@pytest.mark.asyncio
async def test_a_replica_that_does_not_say_its_load_is_taken_last(pair):
    one, two = pair
    async with await create_actor_system(config(one.addr, workers=1)) as three:
        await three.joined(BOUND_S)
        held = await Gate.local(three, name="gate", public=True)
        idle = await two.spawn(Gate(), "gate", public=True)

        async def both():
            return len(await one.find_all("gate")) == 2

        await until(both)
        holding = asyncio.ensure_future(held.hold(4.0))
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        looks = (one.find("gate", policy="least_loaded") for _ in range(12))
        assert {found.actor_id for found in await asyncio.gather(*looks)} == {idle.actor_id}
        assert time.monotonic() - begun < 3.0
        await holding
