# SPDX-License-Identifier: Apache-2.0
"""Calls to actors of other nodes: two systems in this process, each with a node process of its own
and workers, and programs that are killed. Real sockets on the loopback, real signals."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy
import pytest
from faractors import Far, Narrow, Wide
from nodes import BOUND_S, config, joined, sees, until

import pulsing
from pulsing import (
    ActorDied,
    ActorError,
    AskTimeout,
    CodecError,
    NodeUnreachable,
)
from pulsing.actor import StreamMessage, as_actor, create_actor_system

pytestmark = pytest.mark.between_nodes

HERE = pathlib.Path(__file__).parent
KILL_S = 2.0  # until the asks of a killed node have failed
KEY = "5a" * 32


@pytest.fixture
async def pair():
    """Two nodes that know each other; the second one has two workers."""
    async with await create_actor_system(config()) as here:
        async with await create_actor_system(config(here.addr, workers=2)) as there:
            await joined(here, there)
            yield here, there


async def far(system, ref, window=None):
    """A ref of `system` to the actor of another one."""
    if window is None:
        return await system.actor_ref(ref.actor_id)
    return system._rt.ref(ref._id, window, False, None, "Far", bytes(ref.actor_id.node_id))


def limited(awaitable, seconds=BOUND_S):
    return asyncio.wait_for(awaitable, seconds)


async def outcome(awaitable):
    try:
        return await limited(awaitable)
    except Exception as error:
        return error


class Program:
    """A node in a program of its own, with a Far and a Wide actor."""

    def __init__(self, seed):
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "faractors.py"), seed],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        words = self.process.stdout.readline().split()
        self.addr, self.node_pid = words[0], int(words[1])
        self.node = bytes.fromhex(words[2])
        self.far, self.wide, self.narrow = (int(word) for word in words[3:])

    def ref(self, system, actor):
        return system._rt.ref(actor, 100000, False, None, "Far", self.node)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def program():
    started = []

    def start(seed):
        started.append(Program(seed))
        return started[-1]

    yield start
    for it in started:
        it.end()


# -- calls -----------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_a_call_answers_from_the_process_and_from_a_worker_of_another_node(pair):
    here, there = pair
    near = await there.spawn(Far())
    worker = await Far.local(there)
    for actor in (near, worker):
        ref = await far(here, actor)
        assert not ref.is_local()
        assert await limited(ref.add(2, b=3)) == 5
        assert await limited(ref.echo({"a": [1, "x", None, 2.5, b"raw", (1, 2)]})) == {
            "a": [1, "x", None, 2.5, b"raw", (1, 2)]
        }
    assert await limited((await far(here, worker)).pid()) != os.getpid()


async def test_refs_of_two_nodes_to_one_actor_are_equal(pair):
    here, there = pair
    actor = await there.spawn(Far(), "it")
    ref = await far(here, actor)
    assert ref == actor and hash(ref) == hash(actor)
    assert ref.actor_id == actor.actor_id
    assert ref != await here.spawn(Far())


async def test_builtin_exceptions_arrive_as_themselves_others_as_actor_errors(pair):
    here, there = pair
    ref = await far(here, await Far.local(there))
    error = await outcome(ref.divide(1, 0))
    assert type(error) is ZeroDivisionError
    assert "Traceback" in str(error.__cause__) and "divide" in str(error.__cause__)
    error = await outcome(ref.custom())
    assert type(error) is ActorError and "Custom" in str(error)
    assert "not known elsewhere" in str(error)
    error = await outcome(ref.nothing())
    assert isinstance(error, AttributeError) and "echo" in str(error)


async def test_tells_and_asks_of_one_sender_are_handled_in_order(pair):
    here, there = pair
    ref = await far(here, await Far.local(there))
    calls = []
    for i in range(3000):
        if i % 3 == 0:
            calls.append(asyncio.ensure_future(ref.note(i)))
        else:
            await limited(ref.note.tell(i))
        if i % 500 == 0:
            # Of another size, and so by another way: it must not be overtaken.
            await limited(ref.note.tell(b"x" * 300_000))
    await limited(asyncio.gather(*calls))
    seen = [x for x in await limited(ref.notes()) if not isinstance(x, bytes)]
    assert seen == list(range(3000))


async def test_many_asks_are_outstanding_at_once(pair):
    here, there = pair
    ref = await far(here, await there.spawn(Wide()), window=100000)
    begun = time.monotonic()
    await limited(asyncio.gather(*[ref.slow(0.5) for _ in range(5000)]))
    assert time.monotonic() - begun < BOUND_S / 2


async def test_a_deadline_cancels_the_handler_and_ends_the_call(pair, eventually):
    here, there = pair
    ref = await far(here, await Far.local(there))
    begun = time.monotonic()
    with pytest.raises(AskTimeout):
        await ref.slow.options(timeout=0.3)(20)
    assert 0.25 < time.monotonic() - begun < 5

    async def cancelled():
        return (await ref.counts())[0] == 1

    await eventually(cancelled)


async def test_a_cancelled_task_cancels_the_handler(pair, eventually):
    here, there = pair
    ref = await far(here, await Far.local(there))

    async def call():
        await ref.slow(20)

    task = asyncio.ensure_future(call())
    await asyncio.sleep(0.2)
    task.cancel()

    async def cancelled():
        return (await ref.counts())[0] == 1

    await eventually(cancelled)


# -- sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4000, 4090, 4096, 4200, 8190, 8200, 300_000, 1 << 20])
async def test_payloads_of_any_size_go_there_and_back(pair, size):
    here, there = pair
    ref = await far(here, await Far.local(there))
    sent = os.urandom(size)
    assert await limited(ref.echo(sent)) == sent
    beside = {"array": numpy.frombuffer(sent, dtype=numpy.uint8), "text": "x" * (size % 4000)}
    back = await limited(ref.echo(beside))
    assert (back["array"] == beside["array"]).all() and back["text"] == beside["text"]


@as_actor
class Forgetful:
    def pid(self):
        return os.getpid()

    def note(self, load):
        pass


@pytest.fixture
async def tight():
    """Two nodes of which each process, and the node, may have 128 MiB of payloads at a time."""
    tight = {"memory_bytes": 128 << 20, "workers": 1}
    async with await create_actor_system(config(**tight)) as here:
        async with await create_actor_system(config(here.addr, **tight)) as there:
            await joined(here, there)
            yield here, there


async def test_a_large_payload_leaves_nothing_behind(tight):
    here, there = tight
    ref = await far(here, await Far.local(there))
    sent = numpy.arange(8 << 20, dtype=numpy.uint8)
    # Six times what any of the four memories on the way there and back may have.
    for _ in range(100):
        assert len(await limited(ref.echo(sent))) == len(sent)


async def test_large_payloads_that_waited_for_a_process_leave_nothing_behind(tight):
    here, there = tight
    actor = await Forgetful.local(there)
    ref = await far(here, actor, window=100000)
    pid = await actor.pid()
    sent = numpy.arange(8 << 20, dtype=numpy.uint8)
    for _ in range(48):
        os.kill(pid, signal.SIGSTOP)
        try:
            # These fill the ring of the process over there, so that the large one waits behind it.
            loads = [[7] * 900] * 400 + [sent]
            calls = [asyncio.ensure_future(ref.note(load)) for load in loads]
            await asyncio.sleep(0.1)
        finally:
            os.kill(pid, signal.SIGCONT)
        await limited(asyncio.gather(*calls))


# -- bounds ----------------------------------------------------------------------------------------


async def test_a_full_mailbox_holds_a_remote_sender_back_and_gives_credit_again(pair):
    here, there = pair
    narrow = Narrow()
    actor = await there.spawn(narrow)
    ref = await far(here, actor, window=9)
    tells = [asyncio.ensure_future(_told(ref, i)) for i in range(100)]
    await asyncio.sleep(0.5)
    [row] = [row for row in there.actors() if row["id"] == actor._id]
    assert row["queued"] + row["running"] <= 9
    assert sum(tell.done() for tell in tells) <= 10
    narrow.gate.set()
    await limited(asyncio.gather(*tells))
    assert (await limited(ref.notes()))[-1] == 99
    assert await limited(ref.notes()) == list(range(100))


async def _told(ref, i):
    await ref.note.tell(i)


async def test_a_process_that_does_not_read_fills_no_memory_and_hinders_no_other(pair):
    here, there = pair
    stuck = await Far.local(there, placement=0)
    other = await Far.local(there, placement=1)
    pid = await stuck.pid()
    stuck_ref = await far(here, stuck, window=100000)
    other_ref = await far(here, other)
    os.kill(pid, signal.SIGSTOP)
    try:
        calls = [asyncio.ensure_future(_answer(stuck_ref.echo(b"x" * 3000))) for _ in range(10000)]
        for i in range(50):
            assert await limited(other_ref.add(i)) == i + 1
    finally:
        os.kill(pid, signal.SIGCONT)
    assert all(await limited(asyncio.gather(*calls)))


async def _answer(call):
    return len(await call) == 3000


async def test_what_waits_for_a_process_is_bounded_and_arrives_in_order(pair):
    here, there = pair
    actor = await Far.local(there, placement=0)
    pid = await actor.pid()
    ref = await far(here, actor, window=100000)
    # More than the node over there queues for one process, so that it takes no more from here.
    count, load = 30000, b"x" * 4000
    os.kill(pid, signal.SIGSTOP)
    try:
        for i in range(count):
            ref.count_up.tell(i, load)
        await asyncio.sleep(4)
        assert _resident_mib(there) < 90
    finally:
        os.kill(pid, signal.SIGCONT)
    assert await limited(ref.counted(), 30) == (count, 0)


def _resident_mib(system):
    for line in pathlib.Path(f"/proc/{system._node[0]}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) >> 10
    raise AssertionError("no such process")


async def test_a_node_that_stands_still_holds_its_senders_back_and_loses_nothing(pair):
    here, there = pair
    ref = await far(here, await there.spawn(Far()), window=100000)
    assert await limited(ref.add(1)) == 2
    # More than the queue to a node takes; the ring and the process keep the rest.
    count = 15000
    os.kill(there._node[0], signal.SIGSTOP)
    try:
        for i in range(count):
            ref.count_up.tell(i, b"")
        # So long that it becomes suspect, which closes the connection.
        await asyncio.sleep(2.5)
    finally:
        os.kill(there._node[0], signal.SIGCONT)
    assert await limited(ref.counted(), 30) == (count, 0)


# -- streams ---------------------------------------------------------------------------------------


async def test_a_generator_streams_to_another_node(pair):
    here, there = pair
    ref = await far(here, await Far.local(there))
    assert [x async for x in ref.count(1000)] == list(range(1000))
    sizes = [len(x) async for x in ref.count(50, size=100_000)]
    assert sizes == [100_000] * 50
    stream = await limited(ref.count(3))
    assert [x async for x in stream.stream_reader()] == [0, 1, 2]


async def test_a_reader_that_stops_closes_the_generator(pair, eventually):
    here, there = pair
    ref = await far(here, await Far.local(there))
    async for x in ref.count(1_000_000):
        if x == 20:
            break

    async def closed():
        return (await ref.counts())[1] == 0

    await eventually(closed)


async def test_a_stream_is_sent_to_an_actor_of_another_node(pair):
    here, there = pair
    ref = await far(here, await Far.local(there))
    message, writer = StreamMessage.create("numbers", buffer_size=4)

    async def produce():
        for i in range(200):
            await writer.write(i)
        await writer.close()

    producing = asyncio.ensure_future(produce())
    assert await limited(ref.eat(message)) == list(range(200))
    await producing


async def test_a_stream_ends_when_its_writer_dies(pair):
    here, there = pair
    actor = await Far.local(there, placement="dedicated")
    pid = await actor.pid()
    ref = await far(here, actor)
    with pytest.raises(ActorDied) as caught:
        async for x in ref.count(1_000_000_000):
            if x == 100:
                os.kill(pid, signal.SIGKILL)
    assert str(pid) in str(caught.value) and "SIGKILL" in str(caught.value)


# -- refs ------------------------------------------------------------------------------------------


async def test_a_ref_travels_to_another_node_and_home_again(pair):
    here, there = pair
    ref = await far(here, await Far.local(there))
    home = await here.spawn(Far())
    assert await limited(ref.call(home, [1, 2])) == [1, 2]
    await limited(ref.keep(home))
    assert await limited(ref.ask_kept("later")) == "later"
    back = await limited(ref.echo(home))
    assert back == home and back.is_local()
    assert await limited(back.echo(5)) == 5


# -- ends ------------------------------------------------------------------------------------------


async def test_callers_of_a_killed_worker_learn_its_pid_and_signal(pair):
    here, there = pair
    actor = await Far.local(there, placement="dedicated")
    ref = await far(here, actor)
    pid = await limited(ref.pid())
    pending = [asyncio.ensure_future(outcome(ref.slow(60))) for _ in range(20)]
    await asyncio.sleep(0.2)
    begun = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    for error in await asyncio.gather(*pending):
        assert type(error) is ActorDied, error
        assert str(pid) in str(error) and "SIGKILL" in str(error)
    assert time.monotonic() - begun < KILL_S
    assert type(await outcome(ref.add(1))) is ActorDied


@pytest.mark.parametrize("whom", ["node", "program"])
async def test_asks_fail_when_their_node_is_killed(program, whom):
    async with await create_actor_system(config()) as here:
        other = program(here.addr)
        await until(sees(here, other.node.hex()))
        ref, wide = other.ref(here, other.far), other.ref(here, other.wide)
        assert await outcome(ref.add(1)) == 2
        pending = [asyncio.ensure_future(outcome(ref.slow(60))) for _ in range(3)]
        pending += [asyncio.ensure_future(outcome(wide.slow(60))) for _ in range(500)]
        await asyncio.sleep(0.3)
        begun = time.monotonic()
        os.kill(other.node_pid if whom == "node" else other.process.pid, signal.SIGKILL)
        for error in await asyncio.gather(*pending):
            assert type(error) is NodeUnreachable, error
            assert other.addr in str(error) and "unanswered" in str(error)
        took = time.monotonic() - begun
        assert took < KILL_S, took
        error = await outcome(ref.add(1))
        assert type(error) is NodeUnreachable and "not sent" in str(error)


async def test_what_a_killed_program_had_started_elsewhere_is_cancelled(program, eventually):
    async with await create_actor_system(config()) as here:
        other = program(here.addr)
        await until(sees(here, other.node.hex()))
        mine = Far()
        home = await here.spawn(mine)
        ref = other.ref(here, other.far)
        await limited(ref.keep(home))
        asking = asyncio.ensure_future(outcome(ref.wait_for_kept(60)))
        await asyncio.sleep(0.3)
        assert mine.cancelled == 0
        os.kill(other.process.pid, signal.SIGKILL)
        await eventually(lambda: mine.cancelled == 1)
        assert type(await asking) is NodeUnreachable


async def test_what_a_killed_worker_had_started_elsewhere_is_cancelled(pair, eventually):
    here, there = pair
    mine = Far()
    home = await here.spawn(mine)
    actor = await Far.local(there, placement="dedicated")
    pid = await actor.pid()
    ref = await far(here, actor)
    await limited(ref.keep(home))
    asking = asyncio.ensure_future(outcome(ref.wait_for_kept(60)))
    await asyncio.sleep(0.3)
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: mine.cancelled == 1)
    assert type(await asking) is ActorDied


async def test_a_watch_tells_how_an_actor_of_another_node_ended(pair, program):
    here, there = pair
    actor = await Far.local(there, placement="dedicated")
    pid = await actor.pid()
    far_one = await far(here, actor)
    watching = asyncio.ensure_future(here.watch(far_one))
    stopped = await there.spawn(Far())
    watching_stop = asyncio.ensure_future(here.watch(await far(here, stopped)))
    other = program(here.addr)
    await until(sees(here, other.node.hex()))
    ref = other.ref(here, other.far)
    assert await outcome(ref.add(1)) == 2
    watching_node = asyncio.ensure_future(here.watch(ref))
    await asyncio.sleep(0.3)
    os.kill(pid, signal.SIGKILL)
    reason = await limited(watching)
    assert str(pid) in reason and "SIGKILL" in reason
    with pytest.raises(ActorDied, match=r"^add of actor [0-9a-f]{6}"):
        await far_one.add(1)
    await there.stop(stopped)
    assert "stopped" in await limited(watching_stop)
    os.kill(other.node_pid, signal.SIGKILL)
    assert other.addr in await limited(watching_node)


# -- trust -----------------------------------------------------------------------------------------


class Unknown:
    """A class that plain values cannot carry."""


async def test_without_a_key_what_needs_pickle_is_refused_where_it_is_sent(pair):
    here, there = pair
    actor = await there.spawn(Far())
    ref = await far(here, actor)
    with pytest.raises(CodecError, match="Unknown"):
        await ref.echo(Unknown())
    with pytest.raises(CodecError, match="Unknown"):
        await ref.echo.tell(Unknown())
    assert await limited(ref.add(1)) == 2
    # The answer's sender is the other side; its caller must not be left waiting.
    ref = await far(here, await there.spawn(Giver()))
    error = await outcome(ref.give())
    assert type(error) is CodecError and "Unknown" in str(error)


class Giver:
    """Answers with what cannot travel."""

    def receive(self, message):
        return Unknown()

    def give(self):
        return Unknown()


async def test_without_a_key_nobody_builds_or_stops_actors_elsewhere(pair):
    here, there = pair
    actor = await there.spawn(Far())
    ref = await far(here, actor)
    error = await outcome(Far.remote(here))
    assert type(error) is CodecError and "key" in str(error)
    error = await outcome(here.stop(ref))
    assert type(error) is CodecError and "key" in str(error)
    assert await limited(ref.add(1)) == 2


async def test_members_with_a_key_build_and_stop_actors_and_send_any_object():
    async with await create_actor_system(config(cluster_key=KEY)) as here:
        async with await create_actor_system(
            config(here.addr, workers=1, cluster_key=KEY)
        ) as there:
            await joined(here, there)
            ref = await limited(Far.remote(here))
            assert ref.actor_id.node_id == there.node_id
            assert await limited(ref.pid()) == there.workers()[0]["pid"]
            back = await limited(ref.echo({"set": {1, 2}, "unknown": Unknown()}))
            assert isinstance(back["unknown"], Unknown)
            watching = asyncio.ensure_future(here.watch(ref))
            await asyncio.sleep(0.1)
            await limited(here.stop(ref))
            assert "stopped" in await limited(watching)
            assert type(await outcome(ref.add(1))) is ActorDied


def test_the_blocking_form_calls_builds_watches_and_stops_elsewhere():
    key = b"k" * 32
    with (
        pulsing.connect(config(workers=1, cluster_key=key)) as here,
        pulsing.connect(config(here.addr, cluster_key=key)) as there,
    ):
        there.joined(BOUND_S)
        named = Far.local(here, name="far")
        ref = there.find("far", timeout=BOUND_S)
        assert ref.add(2) == 3 and named.add(1) == 2
        assert there.actor_ref(named.actor_id).add(3) == 4
        for placement in ("remote", here.node_id):
            built = Far.local(there, placement=placement)
            assert built.actor_id.node_id == here.node_id
            assert built.add(5) == 6
        there.stop(built)
        assert "stopped" in there.watch(built)
        with pytest.raises(ActorDied):
            built.add(1)


async def test_a_node_of_one_host_refuses_refs_of_others(system, pair):
    _, there = pair
    actor = await there.spawn(Far())
    with pytest.raises(NodeUnreachable, match="with_addr"):
        await system.actor_ref(actor.actor_id)
    mine = await system.spawn(Far())
    with pytest.raises(CodecError, match="another system"):
        await mine.echo(actor)
