# SPDX-License-Identifier: Apache-2.0
"""Streams: generators, `StreamMessage`, back-pressure, errors, early ends, streams as arguments."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import time

import pytest
from testactors import Log, Streams

from pulsing import ActorDied, PulsingError, StreamClosed
from pulsing.actor import Actor, Message, StreamMessage, as_actor


@as_actor
class Tokens:
    """The guide's producer, with what a test wants to know of it."""

    def __init__(self):
        self.events = []
        self.tasks = []

    async def generate(self, items, end="close", buffer_size=32):
        message, writer = StreamMessage.create("tokens", buffer_size)

        async def produce():
            try:
                for item in items:
                    await writer.write(item)
                    self.events.append("wrote")
                if end == "close":
                    await writer.close()
                elif end == "error":
                    await writer.error(KeyError("lost"))
                elif end == "text":
                    await writer.error("lost in text")
            except Exception as error:
                self.events.append(type(error).__name__)

        self.tasks.append(asyncio.create_task(produce()))
        return message

    def unawaited(self, n):
        message, writer = StreamMessage.create()
        for i in range(n):
            writer.write(i)
        writer.close()
        return message

    def read(self):
        return self.events

    def pid(self):
        return os.getpid()


@as_actor
class Patient:
    def tie(self, log):
        self.log = log

    async def wait_for_ever(self):
        try:
            yield "first"
            await asyncio.sleep(3600)
        except BaseException as error:
            self.log.note.tell(type(error).__name__)
            raise


@pytest.fixture(params=["worker", "here"])
async def streams(system, request):
    if request.param == "worker":
        return await Streams.local(system)
    return await system.spawn(Streams())


@pytest.fixture(params=["worker", "here"])
async def tokens(system, request):
    if request.param == "worker":
        return await Tokens.local(system)
    return await system.spawn(Tokens())


@pytest.mark.both_loops
@pytest.mark.parametrize("method", ["plain", "asynchronous"])
async def test_a_generator_method_streams(streams, method):
    got = [x async for x in getattr(streams, method)(1000)]
    assert got == list(range(1000))
    assert ("closed", method) in await streams.read()


async def test_awaiting_a_stream_method_gives_the_stream(streams):
    stream = await streams.plain(3)
    assert [x async for x in stream] == [0, 1, 2]
    empty = [x async for x in streams.plain(0)]
    assert empty == []


async def test_stream_reader_of_a_generator_method(streams):
    stream = await streams.plain(3)
    assert [x async for x in stream.stream_reader()] == [0, 1, 2]


@pytest.mark.both_loops
async def test_a_stream_message_that_a_handler_returns(tokens):
    items = [{"token": t, "index": i} for i, t in enumerate(["a", "b", "c"])]
    response = await tokens.generate(items)
    assert response.is_stream and response.msg_type == "tokens"
    assert [chunk async for chunk in response.stream_reader()] == items


async def test_chunks_of_different_kinds_arrive_equal(tokens):
    items = [1, "two", b"three", (4, [5]), {"six": 7.0}, None, 1 << 100, bytes(100_000), ()]
    got = [c async for c in (await tokens.generate(items)).stream_reader()]
    assert got == items
    assert list(map(type, got)) == list(map(type, items))


async def test_writes_act_when_made_awaited_or_not(tokens):
    assert [c async for c in await tokens.unawaited(20)] == list(range(20))


@pytest.mark.parametrize(
    "end, kind, text", [("error", KeyError, "lost"), ("text", Exception, "lost in text")]
)
async def test_chunks_before_an_error_arrive_first(tokens, end, kind, text):
    got = []
    with pytest.raises(kind, match=text):
        async for chunk in (await tokens.generate(list(range(10)), end)).stream_reader():
            got.append(chunk)
    assert got == list(range(10))


@pytest.mark.both_loops
@pytest.mark.parametrize("method", ["breaks", "breaks_async"])
async def test_an_exception_in_a_generator_arrives_after_its_chunks(streams, method):
    got = []
    with pytest.raises(KeyError, match="broken") as caught:
        async for chunk in getattr(streams, method)(10):
            got.append(chunk)
    assert got == list(range(10))
    assert f"in {method}" in str(caught.value.__cause__)


@pytest.mark.both_loops
@pytest.mark.parametrize("method", ["plain", "asynchronous"])
async def test_breaking_out_closes_the_generator(streams, method, eventually):
    async for x in getattr(streams, method)(10**9):
        if x == 9:
            break

    async def closed():
        return ("closed", method) in await streams.read()

    await eventually(closed, "the generator's finally")


@pytest.mark.parametrize("method", ["plain", "asynchronous"])
async def test_dropping_a_stream_closes_the_generator(streams, method, eventually):
    stream = (await getattr(streams, method)(10**9)).stream_reader()
    assert await stream.__anext__() == 0
    del stream
    gc.collect()

    async def closed():
        return ("closed", method) in await streams.read()

    await eventually(closed, "the generator's finally")


@pytest.mark.both_loops
async def test_a_writer_whose_reader_stopped_gets_stream_closed(tokens, eventually):
    async for x in (await tokens.generate(range(10**6))).stream_reader():
        if x == 3:
            break

    async def told():
        return "StreamClosed" in await tokens.read()

    await eventually(told, "StreamClosed at the writer")
    assert len(await tokens.read()) < 1000


@pytest.mark.both_loops
@pytest.mark.parametrize("method", ["plain", "asynchronous"])
async def test_the_producer_waits_for_a_slow_reader(streams, method):
    stream = await getattr(streams, method)(100_000)
    iterator = stream.__aiter__()
    for i in range(3):
        assert await iterator.__anext__() == i
    made = before = -1
    while made != before or made < 0:
        before = made
        await asyncio.sleep(0.05)
        made = len(await streams.read())
    assert made < 2000, "the producer ran ahead of a reader that does not read"
    assert await iterator.__anext__() == 3


async def test_the_writer_waits_when_the_buffer_is_full(tokens, eventually):
    response = await tokens.generate(range(1000), "close", 4)
    made = before = -1
    while made != before or made <= 0:
        before = made
        await asyncio.sleep(0.05)
        made = len(await tokens.read())
    assert made <= 8, f"{made} items written into a stream of 4 that nobody reads"
    assert [c async for c in response] == list(range(1000))


async def test_a_stream_does_not_hold_its_actor_between_items(streams):
    stream = await streams.asynchronous(5, 0.05)
    assert await asyncio.wait_for(streams.pid(), 10)
    assert [x async for x in stream] == list(range(5))


@pytest.mark.both_loops
async def test_many_streams_from_one_actor_run_at_the_same_time(streams):
    async def read(n):
        return [x async for x in streams.asynchronous(n, 0.001)]

    got = await asyncio.gather(*[read(20 + i) for i in range(30)])
    assert got == [list(range(20 + i)) for i in range(30)]


async def test_reading_a_ready_stream_lets_other_tasks_run(streams):
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(tick())
    count = 0
    async for _ in streams.plain(20_000):
        count += 1
    task.cancel()
    assert count == 20_000
    assert ticks > 20


@pytest.mark.both_loops
async def test_a_stream_as_an_argument(streams):
    message, writer = StreamMessage.create("numbers", 4)
    total = asyncio.ensure_future(streams.total(message))
    for i in range(100):
        await writer.write(i)
    await writer.close()
    assert await total == 4950


async def test_an_error_in_a_stream_argument_reaches_the_handler(streams):
    message, writer = StreamMessage.create()
    total = asyncio.ensure_future(streams.total(message))
    await writer.write(1)
    await writer.error(LookupError("the client's trouble"))
    with pytest.raises(LookupError, match="the client's trouble"):
        await total


async def test_a_handler_that_stops_reading_its_argument_closes_it(streams):
    message, writer = StreamMessage.create()
    first = asyncio.ensure_future(streams.first(message, 3))
    with pytest.raises(StreamClosed):
        for i in range(100_000):
            await writer.write(i)
    assert await first == [0, 1, 2]


async def test_a_stream_in_and_a_stream_out(streams):
    message, writer = StreamMessage.create(buffer_size=2)

    async def feed():
        for i in range(50):
            await writer.write(i)
        await writer.close()

    feeding = asyncio.create_task(feed())
    assert [x async for x in streams.doubled(message)] == [2 * i for i in range(50)]
    await feeding


async def test_receive_can_answer_with_a_stream_and_be_told_one(system):
    class Both(Actor):
        async def receive(self, msg):
            if msg.is_stream and msg.msg_type == "up":
                return sum([x async for x in msg.stream_reader()])
            message, writer = StreamMessage.create(msg.msg_type)
            for i in range(int(msg.payload)):
                writer.write(i)
            writer.close()
            return message

    ref = await system.spawn(Both())
    answer = await ref.ask(Message.stream("down", b"5"))
    assert answer.msg_type == "down"
    assert [x async for x in answer.stream_reader()] == [0, 1, 2, 3, 4]
    message, writer = StreamMessage.create("up")
    asked = asyncio.ensure_future(ref.ask(message))
    for i in range(10):
        await writer.write(i)
    await writer.close()
    assert await asked == 45


async def test_a_stream_ends_in_actor_died_after_the_chunks_before(system):
    streams = await Streams.local(system, placement="dedicated")
    pid = await streams.pid()
    got = []
    with pytest.raises(ActorDied, match=str(pid)):
        async for x in streams.asynchronous(10**6, 0.001):
            got.append(x)
            if x == 20:
                os.kill(pid, 9)
    assert got[:21] == list(range(21))
    assert got == list(range(len(got)))


async def test_a_writer_learns_of_its_readers_death(system):
    streams = await Streams.local(system, placement="dedicated")
    pid = await streams.pid()
    message, writer = StreamMessage.create()
    total = asyncio.ensure_future(streams.total(message))
    with pytest.raises((StreamClosed, ActorDied)):
        for i in range(10**7):
            await writer.write(i)
            if i == 100:
                os.kill(pid, 9)
    with pytest.raises(ActorDied):
        await total


async def test_a_reader_can_be_cancelled_while_it_waits(streams, eventually):
    stream = await streams.asynchronous(10**6, 0.1)

    async def read(stream):
        async for _ in stream:
            pass

    task = asyncio.create_task(read(stream))
    await asyncio.sleep(0.03)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del stream, task, read
    gc.collect()

    async def closed():
        return ("closed", "asynchronous") in await streams.read()

    await eventually(closed, "the end of the generator")


@pytest.mark.both_loops
@pytest.mark.parametrize("how", ["break", "stop", "stop now"])
async def test_a_generator_that_waits_long_is_closed_at_once(system, how, eventually):
    """Not only when it has its next item."""
    log = await Log.local(system)
    patient = await Patient.local(system, placement=1)
    await patient.tie(log)
    stream = await patient.wait_for_ever()
    async for item in stream:
        assert item == "first"
        break
    begin = time.monotonic()
    if how == "break":
        stream.stream_reader().cancel()
    else:
        await system.stop(patient, now=how == "stop now")

    async def closed():
        return await log.read() == ["CancelledError"]

    await eventually(closed, "the generator's finally")
    assert time.monotonic() - begin < 5


async def test_big_chunks_are_streamed_with_little_memory(system):
    """300 MB in 1 MB chunks: neither side may keep much of it."""
    streams = await Streams.local(system)
    size, count, total = 1 << 20, 300, 0
    _ = [len(x) async for x in streams.big(20, size)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async for chunk in streams.big(count, size):
        total += len(chunk)
    assert total == size * count
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 64 << 10, f"{(after - before) >> 10} MB more"


async def test_a_stream_of_a_threaded_or_sleepy_generator_keeps_its_order(system):
    streams = await Streams.local(system)
    assert [x async for x in streams.sleepy(20, 0.001)] == list(range(20))


async def test_a_stream_is_passed_on_from_actor_to_actor(system):
    @as_actor
    class Relay:
        def __init__(self, source):
            self.source = source

        async def relay(self, n):
            async for x in self.source.plain(n):
                yield x + 1

    source = await Streams.local(system)
    relay = await Relay.local(system, source, placement="dedicated")
    assert [x async for x in relay.relay(100)] == list(range(1, 101))


async def test_the_wrong_end_or_kind_is_a_value_error():
    message, writer = StreamMessage.create("t")
    with pytest.raises(ValueError, match="stream"):
        _ = message.payload
    with pytest.raises(ValueError, match="reader"):
        message.stream_reader()
    with pytest.raises(ValueError, match="single"):
        Message.single("t", b"").stream_reader()
    for size in (0, -1, "many", True):
        with pytest.raises(ValueError, match="buffer_size"):
            StreamMessage.create("t", buffer_size=size)
    writer.close()


async def test_writing_after_close_is_an_error(streams):
    message, writer = StreamMessage.create()
    total = asyncio.ensure_future(streams.total(message))
    await writer.write(5)
    await writer.close()
    with pytest.raises(StreamClosed):
        await writer.write(6)
    assert await total == 5


async def test_an_unsendable_chunk_is_the_writers_error(streams):
    import threading

    from pulsing import CodecError

    message, writer = StreamMessage.create()
    total = asyncio.ensure_future(streams.total(message))
    await writer.write(5)
    with pytest.raises(CodecError, match="lock"):
        await writer.write(threading.Lock())
    await writer.write(6)
    await writer.close()
    assert await total == 11


async def test_an_unsendable_item_of_a_generator_ends_its_stream(streams, system):
    import threading

    @as_actor
    class Bad:
        def items(self):
            yield 1
            yield threading.Lock()

    bad = await Bad.local(system)
    got = []
    with pytest.raises(Exception, match="lock"):
        async for x in bad.items():
            got.append(x)
    assert got == [1]


async def test_shutdown_with_open_streams_leaves_nothing(system):
    streams = await Streams.local(system)
    log = await Log.local(system)
    stream = (await streams.plain(10**9)).stream_reader()
    assert await stream.__anext__() == 0
    nap = asyncio.ensure_future(log.nap(60, "x"))
    await asyncio.sleep(0.02)
    nap.cancel()
    await system.shutdown()
    with pytest.raises(PulsingError):
        while True:
            await asyncio.wait_for(stream.__anext__(), 20)


async def test_stopping_the_actor_ends_its_streams(system):
    streams = await Streams.local(system)
    stream = (await streams.asynchronous(10**6, 0.005)).stream_reader()
    got = [await stream.__anext__()]
    await system.stop(streams, now=True)
    with pytest.raises((ActorDied, StreamClosed)):
        async for x in stream:
            got.append(x)
    assert len(got) < 1000
