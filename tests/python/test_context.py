# SPDX-License-Identifier: Apache-2.0
"""Context variables follow a call, and nothing of a handler's leaks into another."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import pulsing
from pulsing.actor import Actor, CodecError, Group, as_actor, batch, create_actor_system

request: contextvars.ContextVar = contextvars.ContextVar("request", default=None)
tenant: contextvars.ContextVar = contextvars.ContextVar("tenant")


def seen():
    return request.get(), tenant.get("nobody")


@as_actor
class Seer:
    def __init__(self):
        self.sizes = []

    def plain(self):
        return seen()

    async def later(self):
        await asyncio.sleep(0)
        return seen()

    async def here(self):
        return seen()

    def items(self, n):
        for _ in range(n):
            yield seen()

    async def async_items(self, n):
        for _ in range(n):
            await asyncio.sleep(0)
            yield seen()

    def set(self, value):
        request.set(value)

    async def async_set(self, value):
        request.set(value)

    async def onward(self, other):
        tenant.set("onward")
        return await other.later()

    def size(self, data):
        return len(data), seen()

    def total(self, array):
        return int(array.sum()), seen()


@as_actor
class Batched:
    @batch(max_size=4, max_wait=0.05)
    async def seen(self, items):
        return [(item, seen(), pulsing.current_context() is not None) for item in items]


@as_actor(thread=True)
class Threaded:
    def plain(self):
        return seen(), threading.current_thread() is threading.main_thread()

    def items(self, n):
        for _ in range(n):
            yield seen(), threading.current_thread() is threading.main_thread()


def name_of_context():
    try:
        return pulsing.current_context().name
    except RuntimeError:
        return None


class Spawner:
    def contexts(self):
        """In the method, and in a thread that is nobody's while the method runs."""
        seen = [name_of_context()]
        thread = threading.Thread(target=lambda: seen.append(name_of_context()))
        thread.start()
        thread.join()
        return seen


class Receiver(Actor):
    def receive(self, msg):
        return seen()


async def places(system):
    """One in this process, one in a worker."""
    return [await system.spawn(Seer()), await Seer.local(system)]


@pytest.mark.both_loops
async def test_variables_follow_a_call_of_every_kind(system):
    for ref in await places(system):
        request.set("r1")
        tenant.set(("t", 2))
        expected = ("r1", ("t", 2))
        assert await ref.plain() == expected
        assert await ref.later() == expected
        assert await ref.here() == expected
        assert [x async for x in ref.items(300)] == [expected] * 300
        assert [x async for x in ref.async_items(3)] == [expected] * 3
        request.set(None)
        assert await ref.plain() == (None, ("t", 2))
    receiver = await system.spawn(Receiver())
    request.set([1, {"a": 2}])
    assert await receiver.ask("x") == ([1, {"a": 2}], ("t", 2))


@pytest.mark.both_loops
async def test_every_call_has_its_own(system):
    for ref in await places(system):

        async def one(n, ref=ref):
            request.set(n)
            return await ref.plain(), await ref.later()

        ends = await asyncio.gather(*[one(n) for n in range(40)])
        assert ends == [((n, "nobody"), (n, "nobody")) for n in range(40)]
        assert await ref.plain() == (None, "nobody")


@pytest.mark.both_loops
async def test_what_a_handler_sets_stays_in_it(system):
    for ref in await places(system):
        await ref.set("leak")
        await ref.async_set("leak")
        assert await ref.plain() == (None, "nobody")
        assert await ref.later() == (None, "nobody")
    assert request.get() is None


@pytest.mark.both_loops
async def test_what_was_set_before_the_system_was_made_is_not_everybodys():
    from pulsing.actor import SystemConfig

    request.set("before")
    async with await create_actor_system(SystemConfig.standalone().with_workers(1)) as system:
        request.set(None)
        for ref in await places(system):
            assert await ref.plain() == (None, "nobody")
            assert await ref.later() == (None, "nobody")


@pytest.mark.both_loops
async def test_a_handler_passes_them_on_with_its_own(system):
    here, there = await places(system)
    request.set("far")
    assert await there.onward(here) == ("far", "onward")
    assert await here.onward(there) == ("far", "onward")
    assert tenant.get("nobody") == "nobody"


@pytest.mark.both_loops
async def test_they_go_with_large_payloads_and_broadcasts(system):
    refs = [*await places(system), await Seer.local(system)]
    request.set("big")
    for bytes_count in (1, 3000, 5_000_000):
        data = b"x" * bytes_count
        expected = (bytes_count, ("big", "nobody"))
        assert [await r.size(data) for r in refs] == [expected] * 3
        assert await Group(refs).size(data) == [expected] * 3
        assert await refs[1].size([data, "y" * bytes_count]) == (2, ("big", "nobody"))
    request.set("long " * 2000)
    assert await refs[1].size(b"z" * 100_000) == (100_000, ("long " * 2000, "nobody"))
    array = np.arange(100_000)
    expected = (int(array.sum()), ("long " * 2000, "nobody"))
    assert [await r.total(array) for r in refs] == [expected] * 3
    assert await Group(refs).total(array) == [expected] * 3


@pytest.mark.both_loops
async def test_a_batch_sees_the_variables_of_none_of_its_callers(system):
    for ref in (await system.spawn(Batched()), await Batched.local(system)):

        async def one(n, ref=ref):
            request.set(n)
            return await ref.seen(n)

        ends = await asyncio.gather(*[one(n) for n in range(6)])
        assert ends == [(n, (None, "nobody"), True) for n in range(6)]


@pytest.mark.both_loops
async def test_they_reach_the_thread_of_an_actor(system):
    for ref in (await system.spawn(Threaded()), await Threaded.local(system)):
        request.set("t")
        assert await ref.plain() == (("t", "nobody"), False)
        assert [x async for x in ref.items(3)] == [(("t", "nobody"), False)] * 3


async def test_a_thread_beside_a_handler_is_in_no_actor(system):
    kind = as_actor(Spawner)
    refs = await system.spawn(kind(), "own"), await kind.local(system, name="own2")
    assert [await ref.contexts() for ref in refs] == [["own", None], ["own2", None]]


@pytest.mark.both_loops
async def test_a_variable_that_only_a_function_has_goes_with_its_class(system):
    inner: contextvars.ContextVar = contextvars.ContextVar("inner", default="unset")

    @as_actor
    class Local:
        def get(self):
            return inner.get()

    refs = [await system.spawn(Local()), await Local.local(system)]
    assert [await ref.get() for ref in refs] == ["unset"] * 2
    inner.set("set")
    assert [await ref.get() for ref in refs] == ["set"] * 2


@pytest.mark.both_loops
async def test_a_value_that_cannot_be_sent_is_an_error_that_names_its_variable(system):
    for ref in await places(system):
        token = request.set(threading.Lock())
        with pytest.raises(CodecError, match=r"context variable 'request'.*context_stays"):
            await ref.plain()
        with pytest.raises(CodecError, match="context variable 'request'"):
            await ref.plain.tell()
        request.reset(token)
        token = request.set("x" * 100_000)
        with pytest.raises(CodecError, match=r"'request'.*more than 65536 bytes"):
            await ref.plain()
        request.reset(token)
        assert await ref.plain() == (None, "nobody")


class Unreadable:
    def __reduce__(self):
        return int, ("no number",)


async def test_a_value_that_cannot_be_read_is_an_error_that_names_its_variable(system):
    ref = await Seer.local(system)
    request.set(Unreadable())
    with pytest.raises(CodecError, match=r"context variable 'request'.*cannot be read"):
        await ref.plain()
    request.set(1)
    assert await ref.plain() == (1, "nobody")


async def test_a_library_s_value_that_cannot_be_sent_stays_behind(system, tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "pls_a_library.py").write_text(
        "from contextvars import ContextVar\nv=ContextVar('v')\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    import pls_a_library

    ref = await system.spawn(Seer())
    pls_a_library.v.set(threading.Lock())
    request.set("mine")
    assert await ref.plain() == ("mine", "nobody")


@as_actor
class Timed:
    def __init__(self):
        self.rang = None

    def ring_in(self, seconds):
        begin = time.monotonic()
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, lambda: setattr(self, "rang", time.monotonic() - begin))

    def after(self):
        return self.rang


async def test_a_timer_that_a_plain_method_sets_comes_in_time_in_a_worker(system):
    """The worker sleeps by then, and knew of no timer when it computed for how long."""
    ref = await Timed.local(system, placement=0)
    for _ in range(3):
        await ref.ring_in(0.05)
        await asyncio.sleep(0.6)
        assert 0.05 <= await ref.after() < 0.5


staying: contextvars.ContextVar = contextvars.ContextVar("staying", default="unset")


@as_actor
class Stays:
    def get(self):
        return staying.get()


async def test_a_variable_may_stay(system):
    refs = [await system.spawn(Stays()), await Stays.local(system)]
    pulsing.context_stays(staying)
    for value in ("mine", threading.Lock()):
        staying.set(value)
        assert [await ref.get() for ref in refs] == ["unset"] * 2
    with pytest.raises(TypeError, match="context variables, not 'x'"):
        pulsing.context_stays("x")


def test_they_follow_the_blocking_form_from_any_thread():
    with pulsing.connect() as system:
        ref = Seer.local(system)
        ends = {}

        def one(n):
            request.set(n)
            ends[n] = ref.plain(), list(ref.items(2))

        threads = [threading.Thread(target=one, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        for n in range(4):
            assert ends[n] == ((n, "nobody"), [(n, "nobody")] * 2)
        assert ref.plain() == (None, "nobody")


SCRIPT = """
import asyncio, contextvars, threading
from pulsing import CodecError, as_actor, create_actor_system
user = contextvars.ContextVar("user")
unused = contextvars.ContextVar("unused")

@as_actor
class Who:
    async def am_i(self):
        return user.get("nobody")
    async def relay(self, other):
        user.set(user.get() + "'s friend")
        return await other.am_i()

async def main():
    async with await create_actor_system() as system:
        one, two = await Who.local(system), await Who.local(system)
        print(await one.am_i())
        user.set("ada")
        print(await one.am_i(), await one.relay(two))
        unused.set(threading.Lock())
        try:
            await (await system.spawn(Who())).am_i()
        except CodecError as error:
            print("'unused'" in str(error))

asyncio.run(main())
"""


def test_a_script_s_own_variables_follow(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=60, env=os.environ
    )
    assert done.stdout == "nobody\nada ada's friend\nTrue\n", done.stderr


@as_actor(thread=True)
class Generators:
    def __init__(self):
        self.closed_in = None

    def slow(self, n, pause):
        try:
            for i in range(n):
                time.sleep(pause)
                yield i, threading.get_ident()
            raise ValueError("no more")
        finally:
            self.closed_in = threading.get_ident()

    async def loop_thread(self):
        return threading.get_ident()

    def thread(self):
        return threading.get_ident()

    async def closed(self):
        return self.closed_in


@pytest.mark.both_loops
async def test_generators_of_a_threaded_actor_run_in_its_thread(system, eventually):
    for ref in (await system.spawn(Generators()), await Generators.local(system)):
        thread, loop_thread = await ref.thread(), await ref.loop_thread()
        assert thread != loop_thread
        got = []
        with pytest.raises(ValueError, match="no more"):
            async for item in ref.slow(5, 0):
                got.append(item)
        assert got == [(i, thread) for i in range(5)]
        assert await ref.closed() == thread
        reader = (await ref.slow(1000, 0.01)).stream_reader()
        assert await anext(reader) == (0, thread)
        await reader.aclose()

        async def closed(ref=ref, thread=thread):
            return await ref.closed() == thread

        await eventually(closed, "closed by its thread")


@pytest.mark.both_loops
async def test_a_slow_generator_in_a_thread_holds_up_nobody(system):
    """Its worker's loop goes on, and so do its own other methods, between the items."""
    ref = await Generators.local(system, placement=0)
    other = await Seer.local(system, placement=0)
    begin = time.monotonic()
    reader = (await ref.slow(3, 1)).stream_reader()
    first = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0.02)
    assert await other.plain() == (None, "nobody")
    assert not first.done()
    assert isinstance(await ref.thread(), int)
    assert time.monotonic() - begin < 3, "it was the turn of another message before the last item"
    await first
    with pytest.raises(ValueError):
        async for _ in reader:
            pass


@pytest.mark.both_loops
async def test_the_bound_is_for_all_variables_of_a_call_together(system):
    ref = await Seer.local(system)
    request.set("x" * 40_000)
    tenant.set("y" * 20_000)
    assert await ref.plain() == ("x" * 40_000, "y" * 20_000)
    tenant.set("y" * 40_000)
    with pytest.raises(CodecError, match=r"'(request|tenant)'.*more than 65536 bytes"):
        await ref.plain()
    with pytest.raises(CodecError, match="more than 65536 bytes"):
        await Group([ref]).plain()


async def test_what_cannot_be_sent_is_in_nobody_s_way_but_its_calls(system):
    """Places, names and ends of actors are asked for by calls, too, which carry no variables."""
    request.set(threading.Lock())
    ref = await Seer.local(system, name="seer")
    assert await system.find("seer") == ref
    watch = asyncio.ensure_future(system.watch(ref))
    with pytest.raises(CodecError, match="'request'"):
        await ref.plain()
    await system.stop(ref)
    assert await asyncio.wait_for(watch, 20) == "it has been stopped"


async def test_a_variable_that_nothing_names_is_known_to_its_own_process(system):
    nameless: contextvars.ContextVar = contextvars.ContextVar("nameless", default="unset")

    class Here:
        def receive(self, msg):
            return nameless.get()

    here, there = await system.spawn(Here()), await Seer.local(system)
    nameless.set("set")
    assert await here.ask("x") == "set"
    nameless.set(threading.Lock())
    assert await there.plain() == (None, "nobody")
    nameless.set("again")
    assert await here.ask("x") == "again", "the worker's call had not even looked at it"


async def test_a_module_that_cannot_be_loaded_there_leaves_its_variable_unset(
    tmp_path, monkeypatch
):
    from pulsing.actor import SystemConfig

    (tmp_path / "pls_only_here.py").write_text(
        "import contextvars, os\n"
        "if os.environ['PLS_MAKER'] != str(os.getpid()):\n"
        "    raise RuntimeError('no device here')\n"
        "v = contextvars.ContextVar('v')\n"
    )
    monkeypatch.setenv("PLS_MAKER", str(os.getpid()))
    monkeypatch.syspath_prepend(str(tmp_path))
    import pls_only_here

    async with await create_actor_system(SystemConfig.standalone().with_workers(1)) as system:
        ref = await Seer.local(system)
        pls_only_here.v.set(1)
        request.set("goes")
        assert await ref.plain() == ("goes", "nobody")


class Future:
    """Methods that give a future, and are no coroutines."""

    def give(self, value):
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.01, future.set_result, value)
        return future

    def fail(self):
        future = asyncio.get_running_loop().create_future()
        future.set_exception(ValueError("spilled"))
        return future

    def never(self):
        self.future = asyncio.get_running_loop().create_future()
        return self.future

    def was_cancelled(self):
        return self.future.cancelled()


@pytest.mark.both_loops
async def test_a_future_that_a_method_gives_is_waited_for(system):
    kind = as_actor(Future)
    for ref in (await system.spawn(kind()), await kind.local(system)):
        assert await asyncio.gather(*[ref.give(n) for n in range(3)]) == [0, 1, 2]
        with pytest.raises(ValueError, match="spilled"):
            await ref.fail()
        with pytest.raises(pulsing.AskTimeout):
            await ref.never.options(timeout=0.05)()
        assert await ref.was_cancelled()


async def test_calls_with_variables_leave_no_memory_behind(system):
    """Whatever their ends: both sides of these calls are in this process."""
    ref = await system.spawn(Seer())
    bad = [threading.Lock(), "x" * 100_000, Unreadable()]

    async def some(count):
        for n in range(count):
            tokens = request.set(["value", n]), tenant.set((n, "t" * 100))
            assert await ref.plain() == (["value", n], (n, "t" * 100))
            await ref.later()
            assert len([x async for x in ref.items(2)]) == 2
            tenant.reset(tokens[1])
            request.set(bad[n % 3])
            with pytest.raises(CodecError):
                await ref.plain()
            request.reset(tokens[0])

    async def grown(count):
        gc.collect()
        blocks = sys.getallocatedblocks()
        await some(count)
        gc.collect()
        return sys.getallocatedblocks() - blocks

    await some(60)
    counts = [sys.getrefcount(x) for x in (request, tenant, *bad)]
    # A leak grows each time; what the interpreter makes once, late, is not made again and again.
    seen = []
    while len(seen) < 5 and (not seen or seen[-1] >= 100):
        seen.append(await grown(300))
    assert seen[-1] < 100, f"a third of a block for a round: {seen}"
    assert [sys.getrefcount(x) for x in (request, tenant, *bad)] == counts
