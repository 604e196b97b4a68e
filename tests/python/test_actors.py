# SPDX-License-Identifier: Apache-2.0
"""`@as_actor` classes, `Actor.receive`, hooks: what a class has to be, and what its refs can do."""

from __future__ import annotations

import asyncio
import inspect
import os
import pathlib

import pytest
from testactors import Calculator, Echo, EchoActor, Log, Worker

from pulsing.actor import Actor, ActorContext, Message, as_actor, current_context


@pytest.mark.both_loops
async def test_methods_of_a_worker_actor_are_called(system):
    calc = await Calculator.local(system, initial_value=100)
    assert await calc.add(50) == 150
    assert await calc.add(n=-30) == 120
    assert await calc.get() == 120
    assert await calc.pid() != os.getpid()


@pytest.mark.both_loops
async def test_methods_of_a_hosted_object_are_called(system):
    calc = Calculator(5)
    ref = await system.spawn(calc, "calc")
    assert await ref.add(1) == 6
    assert await ref.pid() == os.getpid()
    assert calc.value == 6, "the very object, not a copy"


async def test_a_decorated_class_is_still_an_ordinary_class():
    calc = Calculator(3)
    assert calc.add(4) == 7
    assert isinstance(calc, Calculator)
    assert Calculator.__doc__ == "Adds."
    assert Calculator.add.__doc__ == "Add n."
    assert list(inspect.signature(Calculator).parameters) == ["initial_value"]
    assert inspect.signature(Calculator.add).return_annotation in (int, "int")
    assert Calculator.__module__ == "testactors"


async def test_inherited_static_and_class_methods_are_endpoints(system):
    @as_actor
    class Child(Calculator):
        kind = "child"

        @staticmethod
        def twice(x):
            return 2 * x

        @classmethod
        def what(cls):
            return cls.kind

        def add(self, n):
            return super().add(n) + 1000

    ref = await Child.local(system, initial_value=1)
    assert await ref.twice(4) == 8
    assert await ref.what() == "child"
    assert await ref.add(1) == 1002
    assert await ref.get() == 2


async def test_options_of_the_decorator_are_inherited(system):
    @as_actor(mailbox=4, overflow="reject")
    class Parent:
        async def nap(self, s):
            await asyncio.sleep(s)

    @as_actor
    class Child(Parent):
        pass

    assert Child.__pulsing_options__["mailbox"] == 4


async def test_a_handlers_exception_reaches_the_caller_and_the_actor_goes_on(system):
    calc = await Calculator.local(system, initial_value=7)
    with pytest.raises(ZeroDivisionError) as caught:
        await calc.divide(0)
    assert "in divide" in str(caught.value.__cause__)
    assert "testactors.py" in str(caught.value.__cause__)
    assert await calc.get() == 7


def observed(pid):
    """The memory that a process keeps for whoever looks at it."""
    folder = pathlib.Path(f"/proc/{pid}/fd")
    links = {fd: os.readlink(fd) for fd in folder.iterdir()}
    (file,) = [fd for fd, link in links.items() if "pulsing-obs" in link]
    return file.read_bytes()


@as_actor
class Deep:
    def pid(self):
        return os.getpid()

    def outer(self, depth):
        if depth == 0:
            raise LookupError("there is " + "x" * 1000)
        self.outer(depth - 1)

    async def later(self):
        await asyncio.sleep(0)
        raise LookupError("later")


async def test_an_error_is_kept_with_where_it_was_raised(system):
    deep = await Deep.local(system)
    for _ in range(3):
        with pytest.raises(LookupError):
            await deep.outer(6)
    with pytest.raises(LookupError):
        await deep.later()
    line = Deep.outer.__code__.co_firstlineno + 2
    seen = observed(await deep.pid())
    frames = [f"test_actors.py:{line + above}, in outer".encode() for above in (0, 1, 1)]
    at = seen.index(b"LookupError: there is xxx")
    words = seen[at : at + 472].split(b"\0")[0].split(b"\n")
    assert len(words[0]) == len("LookupError: ") + 200
    assert len(words) >= 2 and all(map(bytes.endswith, words[1:3], frames))
    assert seen.count(b"LookupError: there is xxx") == 1
    assert b"LookupError: later\n" in seen and b", in later" in seen


class Peculiar(Exception):
    def __init__(self, code, *, detail):
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail

    def __reduce__(self):
        return _peculiar, (self.code, self.detail)


def _peculiar(code, detail):
    return Peculiar(code, detail=detail)


async def test_an_exception_of_the_users_own_class_arrives_as_itself(system):
    @as_actor
    class Picky:
        def refuse(self):
            raise Peculiar(7, detail="no")

    ref = await system.spawn(Picky())
    with pytest.raises(Peculiar) as caught:
        await ref.refuse()
    assert (caught.value.code, caught.value.detail) == (7, "no")


async def test_an_exception_that_cannot_be_rebuilt_arrives_as_actor_error(system):
    from pulsing import ActorError

    @as_actor
    class Hopeless:
        def refuse(self):
            class Local(Exception):
                def __reduce__(self):
                    raise TypeError("never")

            raise Local("the reason")

    ref = await Hopeless.local(system)
    with pytest.raises(ActorError, match=r"Local.*the reason"):
        await ref.refuse()


async def test_an_unknown_method_names_those_that_there_are(system):
    calc = await Calculator.local(system)
    with pytest.raises(AttributeError) as caught:
        await calc.subtract(1)
    for name in ("subtract", "add", "get", "divide", "async_echo"):
        assert name in str(caught.value)
    assert "_private" not in str(caught.value)


async def test_private_names_are_never_endpoints(system):
    calc = await Calculator.local(system)
    with pytest.raises(AttributeError):
        await calc._private()
    with pytest.raises(AttributeError):
        await calc.__dict__x()
    assert not hasattr(calc, "_value")


async def test_wrong_arguments_are_the_callers_type_error(system):
    calc = await Calculator.local(system)
    with pytest.raises(TypeError, match="add"):
        await calc.add()
    with pytest.raises(TypeError, match="add"):
        await calc.add(1, 2, 3)
    with pytest.raises(TypeError, match="no_such"):
        await calc.add(no_such=1)
    assert await calc.add(1) == 1


@pytest.mark.parametrize(
    "name", ["ask", "tell", "actor_id", "is_local", "name", "send", "ask_json"]
)
async def test_a_method_that_hides_a_refs_own_is_refused_at_decoration(name):
    with pytest.raises(ValueError, match=name):
        as_actor(type("Clash", (), {name: lambda self: None}))


@pytest.mark.parametrize("name", ["local", "remote"])
async def test_a_method_that_hides_a_class_entry_is_refused(name):
    with pytest.raises(ValueError, match=name):
        as_actor(type("Clash", (), {name: lambda self: None}))


async def test_as_actor_refuses_what_is_no_class():
    with pytest.raises(TypeError, match="class"):
        as_actor(lambda: None)


@pytest.mark.parametrize(
    "option, value",
    [
        ("restart", "sometimes"),
        ("overflow", "explode"),
        ("mailbox", 0),
        ("mailbox", "many"),
        ("mailbox", True),
        ("max_concurrency", 0),
        ("max_restarts", -1),
        ("min_backoff", -1),
        ("max_backoff", "long"),
        ("thread", 1),
    ],
)
async def test_a_bad_option_is_refused_by_name(option, value):
    with pytest.raises(ValueError, match=option):
        as_actor(**{option: value})(type("Some", (), {"f": lambda self: None}))


async def test_an_unknown_option_names_those_that_there_are():
    with pytest.raises(TypeError, match=r"mailboks.*mailbox"):
        as_actor(mailboks=3)


# -- receive ---------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_receive_answers_messages(system):
    ref = await system.spawn(EchoActor(), "echo")
    answer = await ref.ask(Message.single("echo", b"hello"))
    assert (answer.msg_type, answer.payload) == ("echo_response", b"hello")
    assert (await ref.ask(Message.single("count"))).payload == b"2"
    with pytest.raises(ValueError, match="Unknown message type: x"):
        await ref.ask(Message.single("x", b""))
    assert await ref.ask({"plain": (1, 2)}) == {"plain": (1, 2)}
    await ref.tell(Message.single("echo", b""))
    assert (await ref.ask(Message.single("count"))).payload == b"6"


async def test_receive_comes_in_four_forms(system):
    class Plain(Actor):
        def receive(self, msg):
            return ("plain", msg)

    class PlainContext(Actor):
        def receive(self, msg, ctx):
            return ("plain context", msg, isinstance(ctx, ActorContext))

    class Async(Actor):
        async def receive(self, msg):
            await asyncio.sleep(0)
            return ("async", msg)

    class AsyncContext(Actor):
        async def receive(self, msg, ctx):
            await asyncio.sleep(0)
            return ("async context", msg, isinstance(ctx, ActorContext))

    class NoBase:
        def receive(self, msg):
            return ("no base", msg)

    assert await (await system.spawn(Plain())).ask(1) == ("plain", 1)
    assert await (await system.spawn(PlainContext())).ask(1) == ("plain context", 1, True)
    assert await (await system.spawn(Async())).ask(1) == ("async", 1)
    assert await (await system.spawn(AsyncContext())).ask(1) == ("async context", 1, True)
    assert await (await system.spawn(NoBase())).ask(1) == ("no base", 1)


async def test_ask_of_an_actor_without_receive_is_explained(system):
    ref = await Calculator.local(system)
    with pytest.raises((AttributeError, TypeError, NotImplementedError), match="receive"):
        await ref.ask(Message.single("x"))


async def test_what_is_no_actor_is_refused_by_spawn(system):
    class Empty:
        pass

    for thing, what in (
        (Empty(), "Empty"),
        (Calculator, "class Calculator"),
        (3, "3"),
        (None, "None"),
        ("text", "text"),
    ):
        with pytest.raises(TypeError, match=what):
            await system.spawn(thing)
    assert system.actors() == []


async def test_spawn_accepts_its_arguments_in_each_order(system):
    for args, kwargs, name in (
        ((EchoActor(), "one"), {}, "one"),
        (("two", EchoActor()), {}, "two"),
        ((EchoActor(),), {"name": "three"}, "three"),
        ((EchoActor(),), {}, None),
    ):
        ref = await system.spawn(*args, **kwargs)
        assert ref.name == name
        assert (await ref.ask(Message.single("count"))).payload == b"1"
    with pytest.raises(TypeError, match="twice"):
        await system.spawn(EchoActor(), "a", name="b")
    with pytest.raises(TypeError):
        await system.spawn()
    with pytest.raises(TypeError):
        await system.spawn(EchoActor(), "a", "b")
    with pytest.raises(TypeError, match="name"):
        await system.spawn(EchoActor(), 7)


# -- hooks -----------------------------------------------------------------------------------------


@pytest.mark.both_loops
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_hooks_run_before_the_first_and_after_the_last_message(system, kind):
    log = []

    class Plain:
        def on_start(self):
            log.append("start")

        def on_stop(self):
            log.append("stop")

        def work(self, i):
            log.append(i)

    class Async:
        async def on_start(self, ctx):
            await asyncio.sleep(0.01)
            log.append("start")
            assert isinstance(ctx, ActorContext)

        async def on_stop(self):
            await asyncio.sleep(0.01)
            log.append("stop")

        async def work(self, i):
            await asyncio.sleep(0.001)
            log.append(i)

    ref = await system.spawn((Plain if kind == "plain" else Async)(), "hooked")
    assert log == ["start"]
    for i in range(5):
        await ref.work.tell(i)
    await system.stop("hooked")
    assert log == ["start", 0, 1, 2, 3, 4, "stop"]


async def test_on_start_of_a_worker_actor_is_over_when_local_returns(system):
    @as_actor
    class Slow:
        async def on_start(self):
            await asyncio.sleep(0.05)
            self.ready = True

        def is_ready(self):
            return self.ready

    ref = await Slow.local(system)
    assert await ref.is_ready()


async def test_a_failing_on_start_is_the_spawners_exception_and_frees_the_name(system):
    class Bad(Actor):
        def on_start(self):
            raise KeyError("no luck")

        def receive(self, msg):
            return msg

    with pytest.raises(KeyError, match="no luck"):
        await system.spawn(Bad(), "fragile", public=True)
    assert not await system.has_actor("fragile")
    ref = await system.spawn(EchoActor(), "fragile", public=True)
    assert await ref.ask(1) == 1


async def test_a_failing_init_is_the_spawners_exception(system):
    @as_actor
    class Bad:
        def __init__(self, x):
            raise LookupError(f"no {x}")

        def f(self):
            pass

    with pytest.raises(LookupError, match="no model") as caught:
        await Bad.local(system, "model", name="bad")
    assert "in __init__" in str(caught.value.__cause__)
    assert not await system.has_actor("bad")
    with pytest.raises(TypeError, match="__init__"):
        await Bad.local(system)


async def test_on_stop_runs_before_shutdown_returns(tmp_path):
    from pulsing.actor import create_actor_system

    @as_actor
    class Saver:
        def __init__(self, path):
            self.path = path

        async def on_stop(self):
            await asyncio.sleep(0.05)
            with open(self.path, "w") as file:
                file.write("saved")

        def ping(self):
            return "pong"

    system = await create_actor_system()
    paths = [tmp_path / str(i) for i in range(3)]
    await Saver.local(system, paths[0])
    await Saver.local(system, paths[1], placement="dedicated")
    await system.spawn(Saver(paths[2]))
    await system.shutdown()
    assert [p.read_text() if p.exists() else None for p in paths] == ["saved"] * 3


async def test_a_failing_on_stop_stops_the_actor_all_the_same(system, caplog):
    class Bad(Actor):
        def on_stop(self):
            raise KeyError("stuck")

        def receive(self, msg):
            return msg

    await system.spawn(Bad(), "bad")
    await system.stop("bad")
    assert not await system.has_actor("bad")
    assert "stuck" in caplog.text


async def test_many_actors_stop_at_the_same_time(system):
    class Slow(Actor):
        async def on_stop(self):
            await asyncio.sleep(0.2)

        def receive(self, msg):
            return msg

    refs = [await system.spawn(Slow()) for _ in range(30)]
    begin = asyncio.get_running_loop().time()
    await asyncio.gather(*[system.stop(ref) for ref in refs])
    assert asyncio.get_running_loop().time() - begin < 3, "one after the other it takes 6 s"
    assert system.actors() == []


async def test_an_actor_made_by_an_actor_stops_with_it_unless_detached(system, eventually):
    @as_actor
    class Parent:
        async def make(self, name, detached):
            system = current_context().system
            await Log.local(system, name=name, detached=detached)

    parent = await Parent.local(system)
    await parent.make("bound", False)
    await parent.make("free", True)
    assert await system.has_actor("bound") and await system.has_actor("free")
    await system.stop(parent)
    await eventually(lambda: _gone(system, "bound"), "the end of the child")
    assert await system.has_actor("free")


async def _gone(system, name):
    return not await system.has_actor(name)


# -- one at a time ---------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_one_message_at_a_time_also_across_an_await(system):
    log = await Log.local(system)
    await asyncio.gather(*[log.nap(0.002, i) for i in range(20)])
    expected = [line for i in range(20) for line in (("start", i), ("end", i))]
    assert await log.read() == expected


@pytest.mark.both_loops
async def test_max_concurrency_lets_async_methods_overlap_up_to_its_limit(system):
    @as_actor(max_concurrency=4)
    class Wide:
        def __init__(self):
            self.now = self.most = 0

        async def work(self):
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.01)
            self.now -= 1

        def read(self):
            return self.most

    wide = await Wide.local(system)
    await asyncio.gather(*[wide.work() for _ in range(40)])
    assert await wide.read() == 4


async def test_a_threaded_actor_does_not_stop_its_worker(system):
    @as_actor(thread=True)
    class Blocking:
        def block(self, path):
            while not os.path.exists(path):
                pass
            return "released"

        def where(self):
            import threading

            return threading.current_thread() is threading.main_thread()

    import tempfile

    blocking = await Blocking.local(system, placement=0)
    neighbour = await Worker.local(system, placement=0)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "go")
        call = asyncio.ensure_future(blocking.block(path))
        assert await asyncio.wait_for(neighbour.pid(), 20)
        assert not call.done()
        open(path, "w").close()
        assert await call == "released"
    assert await blocking.where() is False


async def test_context_variables_follow_a_call_inside_of_this_process(system):
    echo = await system.spawn(Echo())
    assert await echo.echo(1) == 1
    with pytest.raises(RuntimeError, match="current_context"):
        current_context()
