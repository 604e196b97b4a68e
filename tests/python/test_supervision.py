# SPDX-License-Identifier: Apache-2.0
"""Who ends with whom, and who is told of what nobody handled."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
import signal
import threading

import pytest

import pulsing
from pulsing import ActorDied, AskCancelled, SystemClosed
from pulsing.actor import SystemConfig, as_actor, create_actor_system, current_context

CASES = [("here", 0), (0, "here"), (0, 0), (0, 1), ("dedicated", "dedicated")]


@as_actor
class Member:
    def __init__(self, path=None):
        self.path = path

    def pid(self):
        return os.getpid()

    def fail(self, text):
        raise RuntimeError(text)

    async def nap(self, seconds):
        await asyncio.sleep(seconds)

    def on_stop(self):
        if self.path is not None:
            with open(self.path, "a") as f:
                f.write(f"{os.getpid()}\n")


@as_actor
class Parent:
    def __init__(self):
        self.children = []

    def pid(self):
        return os.getpid()

    async def make(self, place, detached=False, path=None):
        system = current_context().system
        child = await Member.local(system, path, placement=place, detached=detached)
        self.children.append(child)
        return child

    async def drop(self, child):
        await current_context().system.stop(child)

    def count(self):
        return len(current_context()._children)


@as_actor(restart="on_failure", min_backoff=0.001)
class Rising(Parent):
    pass


async def gone(ref):
    """Why calls of it fail, or None while they do not."""
    try:
        await ref.pid()
    except ActorDied as error:
        return str(error)
    return None


async def stays(ref, seconds=0.3):
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        assert await gone(ref) is None
        await asyncio.sleep(0.02)
    return True


# -- links -----------------------------------------------------------------------------------------


@pytest.mark.both_loops
@pytest.mark.parametrize("places", CASES)
async def test_the_stop_of_one_ends_the_other(system, places, eventually, tmp_path):
    for first in (0, 1):
        path = tmp_path / f"stopped-{first}"
        pair = [await Member.local(system, str(path), placement=place) for place in places]
        pids = [await member.pid() for member in pair]
        await system.link(*pair)
        assert await stays(pair[1], 0.05)
        watching = asyncio.ensure_future(system.watch(pair[1 - first]))
        await asyncio.sleep(0.1)
        await system.stop(pair[first])
        assert "linked" in await asyncio.wait_for(watching, 20)
        assert await gone(pair[1 - first])
        expected = sorted(map(str, pids))

        def stopped(path=path, expected=expected):
            return path.exists() and sorted(path.read_text().split()) == expected

        await eventually(stopped, "on_stop of both, once")


@pytest.mark.both_loops
@pytest.mark.parametrize("first", [0, 1])
async def test_the_death_of_one_ends_the_other(system, first, eventually):
    pair = [await Member.local(system, placement="dedicated") for _ in range(2)]
    bystander = await Member.local(system, placement=0)
    pid = await pair[first].pid()
    await system.link(*pair)
    waiting = asyncio.ensure_future(pair[1 - first].nap(60))
    await asyncio.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    done, _ = await asyncio.wait([waiting], timeout=20)
    assert done and isinstance(waiting.exception(), (ActorDied, AskCancelled))
    await eventually(lambda: gone(pair[1 - first]), "the end of the other")
    assert await gone(bystander) is None


async def test_a_link_to_what_is_gone_ends_at_once(system, eventually):
    dead, alive = [await Member.local(system) for _ in range(2)]
    await system.stop(dead)
    await system.link(dead, alive)
    await eventually(lambda: gone(alive), "the end of the living one", seconds=4)
    dead, alive = await Member.local(system, placement="dedicated"), await Member.local(system)
    os.kill(await dead.pid(), signal.SIGKILL)
    await eventually(lambda: gone(dead), "the death")
    await system.link(alive, dead)
    await eventually(lambda: gone(alive), "the end of the living one", seconds=4)


async def test_links_make_a_group(system, eventually):
    group = [await Member.local(system) for _ in range(5)]
    for left, right in itertools.pairwise(group):
        await system.link(left, right)
    await system.stop(group[2])
    for member in group:
        await eventually(lambda member=member: gone(member), "the end of the group")


@as_actor(restart="on_failure", min_backoff=0.05)
class Lasting(Member):
    pass


@pytest.mark.both_loops
@pytest.mark.parametrize(
    "kinds, places",
    [
        ((Lasting, Member), ("dedicated", 0)),
        ((Lasting, Lasting), (0, 1)),
        ((Lasting, Lasting), (0, 0)),
        ((Lasting, Member), ("dedicated", "here")),
    ],
)
async def test_a_link_outlives_the_rebuilding_of_an_actor(system, kinds, places, eventually):
    for ends in (0, 1):
        pair = [
            await kind.local(system, placement=place)
            for kind, place in zip(kinds, places, strict=True)
        ]
        await system.link(*pair)
        await system.link(*pair)  # twice is once
        for _ in range(2):
            pid = await pair[0].pid()
            os.kill(pid, signal.SIGKILL)
            await eventually(functools.partial(lives_elsewhere, pair[0], pid), "the rebuilt actor")
            assert await stays(pair[1])
            assert await stays(pair[0], 0.05)
        await system.stop(pair[ends])
        await eventually(functools.partial(gone, pair[1 - ends]), "the end of the other")


async def lives_elsewhere(ref, pid):
    try:
        return await ref.pid() != pid
    except ActorDied:
        return False


async def test_a_linked_actor_with_large_arguments_is_linked_again_by_the_other(system, eventually):
    pair = [
        await Lasting.local(system, "x" * 500_000, placement="dedicated"),
        await Member.local(system, placement=0),
    ]
    await system.link(*pair)
    pid = await pair[0].pid()
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: lives_elsewhere(pair[0], pid), "the rebuilt actor")
    await asyncio.sleep(1)  # the other one looks for it at most twice a second
    await system.stop(pair[1])
    await eventually(lambda: gone(pair[0]), "the end of the rebuilt one")


@pytest.mark.both_loops
async def test_an_actor_that_is_not_built_again_ends_what_is_linked_to_it(system, eventually):
    @as_actor(restart="on_failure", max_restarts=1, min_backoff=0.01)
    class Once(Member):
        pass

    pair = [await Once.local(system, placement="dedicated"), await Member.local(system)]
    await system.link(*pair)
    pid = await pair[0].pid()
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: lives_elsewhere(pair[0], pid), "the rebuilt actor")
    os.kill(await pair[0].pid(), signal.SIGKILL)
    await eventually(lambda: gone(pair[1]), "the end of the other")
    assert await gone(pair[0])


# -- parents and children --------------------------------------------------------------------------


@pytest.mark.both_loops
@pytest.mark.parametrize("places", CASES)
async def test_what_an_actor_made_stops_with_it_unless_detached(system, places, tmp_path):
    path = tmp_path / "stopped"
    parent = await Parent.local(system, placement=places[0])
    own = await parent.make(places[1], False, str(path))
    other = await parent.make(places[1], True)
    await system.stop(parent)
    assert path.exists(), "the child's on_stop ran before stop() returned"
    assert await gone(own)
    assert await stays(other)


@pytest.mark.parametrize("place", [0, "dedicated"])
async def test_what_an_actor_made_ends_when_its_process_dies(system, place, eventually):
    parent = await Parent.local(system, placement="dedicated")
    own = await parent.make(place)
    other = await parent.make(place, True)
    os.kill(await parent.pid(), signal.SIGKILL)
    await eventually(lambda: gone(own), "the child's end")
    assert await stays(other)


async def test_grandchildren_go_too(system, eventually):
    @as_actor
    class Grand(Parent):
        async def make_parent(self, place):
            self.parent = await Parent.local(current_context().system, placement=place)
            return self.parent

    grand = await Grand.local(system, placement="dedicated")
    parent = await grand.make_parent(0)
    child = await parent.make(1)
    os.kill(await grand.pid(), signal.SIGKILL)
    await eventually(lambda: gone(child), "the grandchild's end")
    assert await gone(parent)


async def test_a_rebuilt_parent_does_not_keep_what_the_lost_one_made(system, eventually):
    parent = await Rising.local(system, placement="dedicated")
    child = await parent.make(0)
    pid = await parent.pid()
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: gone(child), "the child's end")
    assert await asyncio.wait_for(parent.pid(), 20) != pid


async def test_a_parent_forgets_a_child_that_ended(system, eventually):
    parent = await Parent.local(system, placement=0)
    for place in ("here", 0, 1):
        child = await parent.make(place)
        assert await parent.count() == 1
        await system.stop(child)

        async def forgotten():
            return await parent.count() == 0

        await eventually(forgotten, "the parent's list")


# -- what nobody handled ---------------------------------------------------------------------------


async def _next(events, kind):
    while True:
        event = await asyncio.wait_for(anext(events), 20)
        if event["event"] == kind:
            return event


@pytest.mark.both_loops
@pytest.mark.parametrize("place", ["here", 0])
async def test_a_failure_that_nobody_awaits_is_an_event_once(system, place):
    events = system.events()
    member = await Member.local(system, name="member", placement=place)
    await member.fail.tell("spilled milk")
    event = await _next(events, "actor_failed")
    assert event["actor"] == "member" and event["error"] == "RuntimeError: spilled milk"
    assert "in fail" in event["traceback"]
    with pytest.raises(RuntimeError, match="seen"):
        await member.fail("seen by its caller")
    await asyncio.sleep(0.3)
    assert not any(e["event"] == "actor_failed" for e in events._queue)


async def test_a_failure_that_nobody_awaits_is_printed_once_with_its_traceback(capfd, eventually):
    seen = []

    def printed():
        seen.append(capfd.readouterr().err)
        return "RuntimeError: spilled milk" in "".join(seen)

    async with await create_actor_system(SystemConfig.standalone().with_workers(1)) as system:
        member = await Member.local(system, name="member", placement=0)
        await member.fail.tell("spilled milk")
        await eventually(printed, "the traceback")
    printed()
    text = "".join(seen)
    assert text.count("RuntimeError: spilled milk") == 1
    assert "a message to member failed" in text and "in fail" in text


async def test_an_exception_that_nobody_takes_is_logged_once(system, caplog):
    caplog.set_level(logging.ERROR, "pulsing")
    member = await Member.local(system, name="member", placement=0)
    call = member.fail("left alone")
    await member.pid()
    await asyncio.sleep(0.05)
    del call
    lines = [r.getMessage() for r in caplog.records if "left alone" in r.getMessage()]
    assert len(lines) == 1
    assert "fail() of actor Member 'member'" in lines[0] and "in fail" in lines[0]
    taken = asyncio.ensure_future(member.fail("taken"))
    await asyncio.wait([taken])
    assert isinstance(taken.exception(), RuntimeError)
    del taken
    assert not any("taken" in r.getMessage() for r in caplog.records)


@pytest.mark.both_loops
@pytest.mark.parametrize("place", ["here", 0])
async def test_dead_letters_are_events_with_their_reason(system, place):
    events = system.events()
    member = await Member.local(system, placement=place)
    await system.stop(member)
    for _ in range(5):
        await member.pid.tell()
    count = 0
    while count < 5:
        event = await _next(events, "dead_letters")
        assert event["reason"] == "no_actor"
        count += event["count"]
    assert count == 5


# -- the stream of events --------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_the_node_joins_first_and_leaves_last():
    config = SystemConfig.standalone().with_workers(1)
    async with await create_actor_system(config) as system:
        events = system.events()
        node = str(system.node_id)
        first = await anext(events)
        assert (first["event"], first["node_id"]) == ("joined", node)
    rest = [event async for event in events]
    assert [(e["event"], e["node_id"]) for e in rest] == [("left", node)]


async def test_the_death_of_the_node_is_the_last_event():
    async with await create_actor_system(SystemConfig.standalone().with_workers(0)) as system:
        events = system.events()
        os.kill(system._rt.node_pid, signal.SIGKILL)
        seen = [event["event"] async for event in events]
        assert seen == ["joined", "dead"]


async def test_a_reader_that_is_behind_is_told_how_much_it_missed(system):
    events, other = system.events(), system.events()
    for i in range(3000):
        system._host.supervision.publish({"event": "test", "i": i})
    first = await anext(events)
    assert first == {"event": "missed", "count": 3000 + 1 - 1024}
    assert (await anext(events))["i"] == 3000 - 1024
    other.close()
    assert len([e async for e in other]) == 1025


# -- events without a loop -------------------------------------------------------------------------


def _next_of(events, kind):
    for event in events:
        if event["event"] == kind:
            return event
    return None


def test_the_blocking_form_has_events_too():
    with pulsing.connect(SystemConfig.standalone().with_workers(1)) as system:
        events, other = system.events(), system.events()
        assert next(events)["event"] == "joined"
        member = Member.local(system, name="member")
        member.fail.tell("spilled milk")
        for reader in (events, other):
            event = _next_of(reader, "actor_failed")
            assert event["actor"] == "member" and event["error"] == "RuntimeError: spilled milk"
        system.stop(member)
        member.fail.tell("to nobody")
        event = _next_of(events, "dead_letters")
        assert (event["reason"], event["count"]) == ("no_actor", 1)
        assert Member.local(system).pid() != os.getpid()  # takes in what had come until then
        lost = system.dead_letters()
        ended = []
        reader = threading.Thread(target=lambda: ended.extend(events))
        reader.start()
    reader.join(20)
    assert not reader.is_alive()
    assert [event["event"] for event in ended] == ["left"], "and nothing lost that was not"
    assert not any(lost.values())
    assert [event["event"] for event in other][-1] == "left"
    with pytest.raises(SystemClosed):
        system.events()


def test_the_blocking_form_links_too():
    with pulsing.connect(SystemConfig.standalone().with_workers(2)) as system:
        pair = [Member.local(system, placement=n) for n in range(2)]
        other = Member.local(system, placement=0)
        system.link(*pair)
        system.link(other, pair[0])
        system.stop(pair[1])
        for member in (pair[0], other):
            assert "linked" in system.watch(member) or "stopped" in system.watch(member)
            with pytest.raises(ActorDied):
                member.pid()
