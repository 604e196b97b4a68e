# SPDX-License-Identifier: Apache-2.0
"""Order, at most once, mailboxes, deadlines, cancellation, cycles."""

from __future__ import annotations

import asyncio
import os
import pathlib
import time

import numpy as np
import pytest
from testactors import Calculator, Echo, Log, Worker

from pulsing import (
    ActorDied,
    AskTimeout,
    DeadlockError,
    MailboxFull,
    PulsingError,
)
from pulsing.actor import Message, SystemConfig, as_actor, create_actor_system, current_context

# AddressSanitizer keeps what was freed, so that nothing can be said of how much memory is used.
counts_memory = pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer keeps freed memory"
)


@pytest.fixture(params=["worker", "here"])
async def log(system, request):
    if request.param == "worker":
        return await Log.local(system)
    return await system.spawn(Log())


# -- order -----------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_messages_of_one_sender_are_handled_in_the_order_of_the_calls(log):
    calls = []
    for i in range(300):
        if i % 3 == 0:
            log.note.tell(i)
        elif i % 3 == 1:
            calls.append(log.note(i))
        else:
            calls.append(asyncio.ensure_future(log.note(i)))
    for call in reversed(calls):
        await call
    assert await log.read() == list(range(300))


async def test_small_and_big_messages_keep_their_order(log):
    for i in range(60):
        await log.note.tell((i, bytes(0 if i % 3 else 100_000), np.zeros(i * 100)))
    assert [line[0] for line in await log.read()] == list(range(60))


async def test_a_call_takes_its_place_when_it_is_made_awaited_or_not(log):
    first, second = log.note("first"), log.note("second")
    assert await second == 2
    assert await first == 1


@pytest.mark.both_loops
async def test_many_callers_each_in_order_each_message_once(system, log):
    @as_actor
    class Caller:
        async def run(self, log, me, n):
            for i in range(n):
                if i % 2:
                    log.note.tell((me, i))
                else:
                    await log.note((me, i))

    callers = [await Caller.local(system, placement=i % 2) for i in range(8)]
    await asyncio.gather(*[c.run(log, k, 100) for k, c in enumerate(callers)])
    lines = await log.read()
    assert len(lines) == 800
    for k in range(8):
        assert [i for me, i in lines if me == k] == list(range(100))


async def test_a_thousand_asks_under_way_get_their_own_answers(system):
    echo = await Echo.local(system)
    assert await asyncio.gather(*[echo.echo(i) for i in range(1000)]) == list(range(1000))


async def test_calls_are_accepted_wherever_a_coroutine_is(system):
    calc = await Calculator.local(system)
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(_as_coroutine(calc.add(1)))
    assert await task == 1
    assert await asyncio.ensure_future(calc.add(1)) == 2
    assert await asyncio.create_task(calc.add(1)) == 3
    assert await loop.create_task(calc.add(1)) == 4
    assert await asyncio.wait_for(calc.add(1), 20) == 5
    assert await asyncio.gather(calc.add(1), calc.add(1)) == [6, 7]
    assert await asyncio.shield(calc.add(1)) == 8
    done, _ = await asyncio.wait([asyncio.ensure_future(calc.add(1))])
    assert done.pop().result() == 9
    for next_done in asyncio.as_completed([calc.add(1)]):
        assert await next_done == 10
    if hasattr(asyncio, "TaskGroup"):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(calc.add(1))
        assert task.result() == 11
    if hasattr(asyncio, "timeout"):
        async with asyncio.timeout(20):
            assert await calc.get() == 11


async def _as_coroutine(awaitable):
    return await awaitable


async def test_a_call_can_be_awaited_by_several_tasks_or_explains_itself(system):
    calc = await Calculator.local(system)
    call = calc.add(1)
    assert await call == 1
    try:
        assert await call == 1
    except RuntimeError as error:
        assert "await" in str(error)
    assert await calc.get() == 1, "awaiting twice does not call twice"


async def test_a_failed_call_that_nobody_awaits_is_reported(system, caplog, eventually):
    @as_actor
    class Bad:
        def boom(self):
            raise KeyError("nobody hears")

    bad = await system.spawn(Bad())
    bad.boom.tell()
    await eventually(lambda: "nobody hears" in caplog.text, "the report")
    assert caplog.text.count("KeyError") == 1 or "Traceback" in caplog.text


async def test_options_give_a_timeout_and_leave_the_method_usable(system):
    echo = await Calculator.local(system)
    quick = echo.async_echo.options(timeout=0.5)
    with pytest.raises(AskTimeout):
        await quick(1, 30)
    assert await quick(2) == 2
    assert await echo.async_echo(3, 0.6) == 3


# -- deadlines -------------------------------------------------------------------------------------


async def test_the_systems_ask_timeout_is_the_default():
    config = SystemConfig.standalone().with_ask_timeout(0.1)
    async with await create_actor_system(config) as system:
        log = await Log.local(system)
        with pytest.raises(AskTimeout):
            await log.nap(30, "x")
        assert await log.nap.options(timeout=20)(0.2, "y") == "y"


async def test_nested_asks_inherit_what_is_left(system):
    @as_actor
    class Outer:
        async def through(self, inner):
            await inner.nap(30, "inner")

        def left(self):
            deadline = current_context().deadline
            return None if deadline is None else deadline - time.monotonic()

        async def left_below(self, other):
            return await other.left()

    outer = await Outer.local(system, placement=0)
    other = await Outer.local(system, placement=1)
    inner = await Log.local(system, placement=1)
    with pytest.raises(AskTimeout):
        await outer.through.options(timeout=0.2)(inner)
    lines = await asyncio.wait_for(inner.read(), 20)
    assert lines == [("start", "inner"), ("cancelled", "inner")]
    assert await outer.left() is None
    assert 10 < await outer.left.options(timeout=60)() <= 60
    assert 10 < await outer.left_below.options(timeout=60)(other) <= 60


# -- cancellation ----------------------------------------------------------------------------------


@pytest.mark.both_loops
@pytest.mark.parametrize("way", ["task", "wait_for", "timeout"])
async def test_cancelling_the_awaiting_task_cancels_the_handler(log, eventually, way):
    if way == "wait_for":
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(log.nap(60, "x"), 0.1)
    elif way == "timeout":
        if not hasattr(asyncio, "timeout"):
            pytest.skip("asyncio.timeout is new in Python 3.11")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await log.nap(60, "x")
    else:
        task = asyncio.ensure_future(log.nap(60, "x"))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert await asyncio.wait_for(log.read(), 20) == [("start", "x"), ("cancelled", "x")]


async def test_a_cancelled_call_that_waits_in_the_mailbox_is_not_started(log):
    busy = asyncio.ensure_future(log.nap(0.3, "busy"))
    doomed = asyncio.ensure_future(log.nap(0, "doomed"))
    await asyncio.sleep(0.05)
    doomed.cancel()
    await asyncio.wait([doomed])
    assert doomed.cancelled()
    await busy
    assert await log.read() == [("start", "busy"), ("end", "busy")]


async def test_cancellation_goes_down_a_chain(system):
    @as_actor
    class Link:
        async def go(self, nexts):
            await (nexts[0].go(nexts[1:]) if len(nexts) > 1 else nexts[0].nap(60, "end"))

    links = [await Link.local(system, placement=i % 2) for i in range(3)]
    log = await Log.local(system)
    task = asyncio.ensure_future(links[0].go([*links[1:], log]))
    await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.wait([task])
    assert await asyncio.wait_for(log.read(), 20) == [("start", "end"), ("cancelled", "end")]


# -- cycles ----------------------------------------------------------------------------------------


@as_actor
class Knot:
    def __init__(self):
        self.other = None

    def tie(self, other):
        self.other = other

    async def pull(self, n=0):
        return await self.other.pull(n + 1)

    async def pull_later(self, seconds):
        await asyncio.sleep(seconds)
        return await self.other.pull_later(seconds)

    async def start_only(self):
        self.call = self.other.nothing()

    async def forward(self):
        self.other.nothing.tell()
        return "told"

    def nothing(self):
        return "nothing"


@pytest.mark.both_loops
@pytest.mark.parametrize("places", [("here", "here"), (0, 0), (0, 1), ("here", 1)])
async def test_an_ask_cycle_raises_and_names_the_actors(system, places):
    a = await Knot.local(system, name="knot-a", placement=places[0])
    b = await Knot.local(system, name="knot-b", placement=places[1])
    await a.tie(b)
    await b.tie(a)
    with pytest.raises(DeadlockError) as caught:
        await asyncio.wait_for(a.pull(), 20)
    assert "knot-a" in str(caught.value) and "knot-b" in str(caught.value)
    assert await a.nothing() == await b.nothing() == "nothing"


async def test_an_actor_that_asks_itself_and_waits_is_a_cycle(system):
    a = await Knot.local(system)
    await a.tie(a)
    with pytest.raises(DeadlockError, match="Knot"):
        await asyncio.wait_for(a.pull(), 20)


async def test_a_longer_cycle_over_three_processes(system):
    names = ["ring-0", "ring-1", "ring-2", "ring-3"]
    places = ["here", 0, 1, "dedicated"]
    ring = [
        await Knot.local(system, name=n, placement=p) for n, p in zip(names, places, strict=True)
    ]
    for i, knot in enumerate(ring):
        await knot.tie(ring[(i + 1) % 4])
    with pytest.raises(DeadlockError) as caught:
        await asyncio.wait_for(ring[0].pull(), 20)
    assert all(name in str(caught.value) for name in names)


async def test_what_the_handler_does_not_wait_for_is_no_cycle(system):
    a = await Knot.local(system, placement=0)
    b = await Knot.local(system, placement=1)
    await a.tie(b)
    await b.tie(a)
    assert await a.forward() == "told"
    await a.start_only()
    await a.tie(a)
    assert await a.forward() == "told"
    await a.start_only()
    assert await a.nothing() == "nothing"


async def test_overlapping_methods_of_one_actor_are_no_cycle(system):
    @as_actor(max_concurrency=4)
    class Wide:
        def tie(self, me):
            self.me = me

        async def down(self, n):
            return n if n == 0 else await self.me.down(n - 1)

    wide = await Wide.local(system)
    await wide.tie(wide)
    assert await asyncio.wait_for(wide.down(3), 20) == 0


# -- mailboxes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["here", "worker"])
async def test_a_full_mailbox_rejects_when_it_is_told_to(system, place):
    @as_actor(mailbox=8, overflow="reject")
    class Small:
        async def nap(self, s):
            await asyncio.sleep(s)

    small = await Small.local(system, placement=place)
    ends = await asyncio.gather(*[small.nap(0.02) for _ in range(40)], return_exceptions=True)
    full = [e for e in ends if isinstance(e, MailboxFull)]
    assert 20 <= len(full) <= 33
    assert sum(e is None for e in ends) == 40 - len(full)
    assert "Small" in str(full[0]) or "8" in str(full[0])
    assert await small.nap(0) is None


@pytest.mark.parametrize("place", ["here", "worker"])
async def test_a_full_mailbox_drops_the_oldest_when_it_is_told_to(system, place):
    @as_actor(mailbox=4, overflow="drop_oldest")
    class Fresh:
        def __init__(self):
            self.seen = []

        async def take(self, i):
            await asyncio.sleep(0.02 if i else 0.2)
            self.seen.append(i)

        def read(self):
            return self.seen

    fresh = await Fresh.local(system, placement=place)
    first = asyncio.ensure_future(fresh.take(0))
    await asyncio.sleep(0.05)
    ends = await asyncio.gather(*[fresh.take(i) for i in range(1, 21)], return_exceptions=True)
    await first
    assert sum(e is None for e in ends) == 4
    assert all(isinstance(e, PulsingError) for e in ends if e is not None)
    assert await fresh.read() == [0, 17, 18, 19, 20]


@pytest.mark.both_loops
@pytest.mark.parametrize("place", ["here", "worker"])
async def test_a_full_mailbox_makes_tell_wait(system, place):
    @as_actor(mailbox=10)
    class Narrow:
        def __init__(self):
            self.count = 0

        async def nap(self, s):
            await asyncio.sleep(s)

        def tick(self, i):
            assert i == self.count
            self.count += 1

        def read(self):
            return self.count

    narrow = await Narrow.local(system, placement=place)
    nap = asyncio.ensure_future(narrow.nap(0.4))
    await asyncio.sleep(0.05)
    sent = 0

    async def flood():
        nonlocal sent
        for i in range(200):
            await narrow.tick.tell(i)
            sent = i + 1

    flooding = asyncio.create_task(flood())
    await asyncio.sleep(0.15)
    assert sent <= 12 and not nap.done()
    await flooding
    assert await narrow.read() == 200


@counts_memory
async def test_memory_stays_bounded_under_a_flood_of_tells(system):
    """200,000 awaited tells of 1 KB to an actor that is slower than its senders: 200 MB in all."""

    @as_actor
    class Slow:
        def __init__(self):
            self.count = 0

        def take(self, data):
            self.count += 1
            if self.count % 50 == 0:
                time.sleep(0.0005)

        def read(self):
            return self.count, os.getpid()

    slow = await Slow.local(system)
    _, pid = await slow.read()
    before = _resident(os.getpid()) + _resident(pid)
    data = bytes(1000)
    for _ in range(200_000):
        await slow.take.tell(data)
    between = _resident(os.getpid()) + _resident(pid)
    assert (await slow.read())[0] == 200_000
    assert between - before < 60 << 20, f"{(between - before) >> 20} MB more"


def _resident(pid):
    fields = pathlib.Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_slow_actor_does_not_hold_up_its_neighbours(system):
    slow = await Log.local(system, placement=0)
    other = await Calculator.local(system, placement=0)
    nap = asyncio.ensure_future(slow.nap(60, "x"))
    assert [await other.add(1) for _ in range(100)] == list(range(1, 101))
    assert not nap.done()
    nap.cancel()


async def test_a_blocking_method_holds_up_its_own_worker_only(system):
    slow = await Worker.local(system, placement=0)
    other = await Calculator.local(system, placement=1)
    assert await other.add(0) == 0
    block = asyncio.ensure_future(slow.block(0.7))
    await asyncio.sleep(0.05)
    begin = time.perf_counter()
    for i in range(20):
        assert await other.add(1) == i + 1
    assert not block.done() and time.perf_counter() - begin < 0.6
    await block


# -- stop ------------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_stop_drains_what_was_accepted(system, log):
    calls = [asyncio.ensure_future(log.nap(0.005, i)) for i in range(20)]
    await asyncio.sleep(0)
    await system.stop(log)
    assert await asyncio.gather(*calls) == list(range(20))
    with pytest.raises(ActorDied, match="stop"):
        await log.read()


async def test_stop_now_rejects_the_rest(system, log):
    calls = [asyncio.ensure_future(log.nap(0.5, i)) for i in range(10)]
    await asyncio.sleep(0.1)
    await system.stop(log, now=True)
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(e, (ActorDied, asyncio.CancelledError, PulsingError)) for e in ends), ends
    assert sum(isinstance(e, ActorDied) for e in ends) >= 9


async def test_stop_keeps_to_its_timeout(system, log):
    calls = [asyncio.ensure_future(log.nap(60, i)) for i in range(3)]
    await asyncio.sleep(0.05)
    begin = time.perf_counter()
    await system.stop(log, timeout=0.3)
    assert time.perf_counter() - begin < 5
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(e, (PulsingError, asyncio.CancelledError)) for e in ends), ends


async def test_stopping_what_is_not_there_is_no_error(system, log):
    await system.stop("nobody")
    await system.stop(log)
    await system.stop(log)


async def test_an_actor_can_stop_itself(system):
    @as_actor
    class Quitter:
        async def quit(self):
            context = current_context()
            self.task = asyncio.ensure_future(context.system.stop("quitter"))
            return "bye"

    quitter = await Quitter.local(system, name="quitter")
    watching = asyncio.ensure_future(system.watch(quitter))
    assert await quitter.quit() == "bye"
    assert "stop" in await asyncio.wait_for(watching, 20)
    assert not await system.has_actor("quitter")


@pytest.mark.both_loops
async def test_an_expired_request_is_not_started(log):
    busy = asyncio.ensure_future(log.nap(0.3, "busy"))
    with pytest.raises(AskTimeout) as caught:
        await log.nap.options(timeout=0.05)(0, "late")
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, asyncio.TimeoutError)
    assert "wait" in str(caught.value)
    assert await busy == "busy"
    assert await log.read() == [("start", "busy"), ("end", "busy")]


async def test_an_async_handler_is_cancelled_at_its_deadline(log, eventually):
    with pytest.raises(AskTimeout, match="run"):
        await log.nap.options(timeout=0.1)(30, "long")
    assert await log.read() == [("start", "long"), ("cancelled", "long")]


async def test_ask_has_a_timeout(system):
    class Slow:
        async def receive(self, msg):
            await asyncio.sleep(30)

    ref = await system.spawn(Slow())
    with pytest.raises(AskTimeout):
        await ref.ask(Message.single("x"), timeout=0.05)
    with pytest.raises((ValueError, TypeError), match="timeout"):
        await ref.ask(Message.single("x"), timeout="soon")
    with pytest.raises((ValueError, TypeError), match="timeout"):
        await ref.ask(Message.single("x"), timeout=-1)


@counts_memory
async def test_unawaited_tells_are_bounded_by_an_error_not_by_memory(system):
    """Nobody awaits: there is no place to wait in, so that at some point the call itself fails."""
    log = await Log.local(system)
    nap = asyncio.ensure_future(log.nap(1.0, "busy"))
    await asyncio.sleep(0.05)
    before = _resident(os.getpid())
    refused = None
    for _ in range(2_000_000):
        try:
            log.note.tell(b"x" * 100)
        except PulsingError as error:
            refused = error
            break
    assert refused is not None and "await" in str(refused)
    assert _resident(os.getpid()) - before < 200 << 20
    assert await nap == "busy"


async def test_a_spent_memory_budget_is_a_clear_error_and_passes():
    config = SystemConfig.standalone().with_workers(1).with_memory(32 << 20)
    async with await create_actor_system(config) as system:
        echo = await Echo.local(system)
        busy = asyncio.ensure_future(echo.call(time.sleep, 0.5))
        await asyncio.sleep(0.05)
        data = np.zeros(8 << 20, np.uint8)
        with pytest.raises(PulsingError, match=r"budget.*with_memory"):
            for _ in range(100):
                await echo.show.tell(data)
        await busy
        assert await echo.echo(1) == 1
        with pytest.raises(PulsingError, match=r"budget|memory"):
            await echo.echo(np.zeros(64 << 20, np.uint8))
        assert await asyncio.wait_for(echo.kind(data), 20) == "numpy.ndarray"


async def test_a_plain_method_sees_that_it_is_cancelled_while_it_runs(system, tmp_path):
    @as_actor
    class Busy:
        def work(self, path):
            context = current_context()
            open(path, "w").close()
            end = time.monotonic() + 20
            while time.monotonic() < end:
                if context.is_cancelled():
                    return self.note("cancelled")
            return self.note("ran to its end")

        def note(self, text):
            self.text = text

        def read(self):
            return self.text

    busy = await Busy.local(system)
    path = tmp_path / "started"
    task = asyncio.ensure_future(busy.work(str(path)))
    while not path.exists():
        await asyncio.sleep(0.005)
    task.cancel()
    assert await asyncio.wait_for(busy.read(), 30) == "cancelled"
