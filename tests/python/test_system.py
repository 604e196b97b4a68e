# SPDX-License-Identifier: Apache-2.0
"""Systems: start and end, configuration, names, placement, misuse, forks, threads, programs."""

from __future__ import annotations

import asyncio
import os
import pathlib
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from testactors import Calculator, Echo, EchoActor, Log, Worker

import pulsing
from pulsing import ActorExists, ActorNotFound, PulsingError, SystemClosed
from pulsing.actor import ActorSystem, SystemConfig, as_actor, create_actor_system, current_context

HERE = pathlib.Path(__file__).parent


# -- start and stop --------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_both_ways_to_make_a_system():
    one = await create_actor_system(SystemConfig.standalone())
    two = await ActorSystem.create(SystemConfig.standalone())
    assert type(one) is type(two) and one.node_id != two.node_id
    await one.shutdown()
    await one.shutdown()
    await two.shutdown()


@pytest.mark.both_loops
async def test_async_with_shuts_down_also_after_an_exception():
    with pytest.raises(KeyError):
        async with await create_actor_system() as system:
            calc = await Calculator.local(system)
            raise KeyError
    with pytest.raises(SystemClosed):
        await calc.add(1)


async def test_use_after_shutdown_is_system_closed(system):
    worker = await Calculator.local(system)
    here = await system.spawn(Calculator())
    await system.shutdown()
    for use in (
        lambda: worker.add(1),
        lambda: here.add(1),
        lambda: worker.add.tell(1),
        lambda: Calculator.local(system),
        lambda: system.spawn(Calculator()),
        lambda: system.find("x"),
        lambda: system.has_actor("x"),
        lambda: system.stop("x"),
    ):
        with pytest.raises(SystemClosed, match=r"shut down|closed"):
            await use()


async def test_several_systems_side_by_side():
    systems = [await create_actor_system(SystemConfig.standalone()) for _ in range(3)]
    refs = [await Calculator.local(s, i, name="same") for i, s in enumerate(systems)]
    assert await asyncio.gather(*[r.add(10) for r in refs]) == [10, 11, 12]
    await systems[1].shutdown()
    assert await refs[0].add(1) == 11 and await refs[2].add(1) == 13
    await asyncio.gather(*[s.shutdown() for s in systems])


async def test_shutdown_with_calls_under_way_ends_them():
    config = SystemConfig.standalone().with_stop_timeout(0.3)
    system = await create_actor_system(config)
    log = await Log.local(system)
    nap = asyncio.ensure_future(log.nap(60, "x"))
    await asyncio.sleep(0.1)
    await asyncio.wait_for(system.shutdown(), 20)
    with pytest.raises((PulsingError, asyncio.CancelledError)):
        await asyncio.wait_for(nap, 10)


async def test_systems_come_and_go_without_growing():
    def count():
        return len(os.listdir("/proc/self/fd"))

    before = count()
    for _ in range(10):
        async with await create_actor_system(SystemConfig.standalone()) as system:
            await (await Calculator.local(system)).add(1)
    assert count() == before


# -- configuration ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, field",
    [
        (lambda: SystemConfig.with_addr("nonsense"), "addr"),
        (lambda: SystemConfig.with_addr("host:70000"), "addr"),
        (lambda: SystemConfig.standalone().with_seeds("host:1"), "seeds"),
        (lambda: SystemConfig.standalone().with_seeds(["host"]), "seeds"),
        (lambda: SystemConfig.standalone().with_workers(-1), "workers"),
        (lambda: SystemConfig.standalone().with_workers(1.5), "workers"),
        (lambda: SystemConfig.standalone().with_workers(1000), "workers"),
        (lambda: SystemConfig.standalone().with_workers(2, setup=3), "setup"),
        (lambda: SystemConfig.standalone().with_ask_timeout(0), "ask_timeout"),
        (lambda: SystemConfig.standalone().with_ask_timeout("1"), "ask_timeout"),
        (lambda: SystemConfig.standalone().with_stop_timeout(-1), "stop_timeout"),
        (lambda: SystemConfig.standalone().with_name(""), "name"),
        (lambda: SystemConfig.attach(""), "attach"),
        (lambda: SystemConfig(workers="four"), "workers"),
    ],
)
def test_a_bad_value_is_a_value_error_that_names_the_field(make, field):
    with pytest.raises(ValueError, match=field):
        make()


def test_each_with_gives_a_new_configuration():
    one = SystemConfig.standalone()
    two = one.with_workers(3)
    assert (one.workers, two.workers) == (None, 3)
    assert two.with_seeds(["a:1"]).seeds == ("a:1",) and two.seeds == ()
    assert SystemConfig(workers=3) == two


def test_environment_variables_fill_what_the_program_leaves_out(monkeypatch):
    monkeypatch.setenv("PULSING_WORKERS", "3")
    monkeypatch.setenv("PULSING_SEEDS", "a:1,b:2")
    assert SystemConfig.standalone().workers == 3
    assert SystemConfig.standalone().seeds == ("a:1", "b:2")
    assert SystemConfig.standalone().with_workers(5).workers == 5
    monkeypatch.setenv("PULSING_WORKERS", "some")
    with pytest.raises(ValueError, match="workers"):
        SystemConfig.standalone()


async def test_what_is_no_configuration_is_refused():
    with pytest.raises(TypeError, match="SystemConfig"):
        await create_actor_system("127.0.0.1:8000")


async def test_attaching_to_nothing_names_it():
    with pytest.raises(PulsingError, match="no-such-node"):
        await create_actor_system(SystemConfig.attach("no-such-node"))
    with pytest.raises(PulsingError, match="/nowhere/at/all"):
        await create_actor_system(SystemConfig.attach("/nowhere/at/all"))


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_finding_by_name(system):
    calc = await Calculator.local(system, name="calc")
    await system.spawn(EchoActor(), "hidden")
    assert await system.find("calc") == calc
    assert await system.resolve("calc") == calc
    assert await system.find_all("calc") == [calc]
    assert await system.find("hidden") is None
    assert await system.has_actor("hidden")
    assert await system.find("nobody") is None
    assert not await system.has_actor("nobody")
    with pytest.raises(ActorNotFound, match="nobody"):
        await system.resolve("nobody")
    assert await system.actor_ref(calc.actor_id) == calc
    assert await (await system.actor_ref("hidden")).ask(1) == 1


async def test_find_waits_for_a_name_when_it_is_told_to(system):
    waiting = asyncio.ensure_future(system.find("late", timeout=30))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    late = await Calculator.local(system, name="late")
    assert await asyncio.wait_for(waiting, 20) == late
    assert await system.find("never", timeout=0.05) is None
    with pytest.raises(ValueError, match="timeout"):
        await system.find("x", timeout="soon")


async def test_a_name_is_unique_and_the_error_says_whose_it_is(system):
    await Calculator.local(system, name="one")
    with pytest.raises(ActorExists, match=r"one.*Calculator"):
        await Log.local(system, name="one")
    with pytest.raises(ActorExists, match="one"):
        await system.spawn(EchoActor(), "one")
    await system.stop("one")
    assert await (await Log.local(system, name="one")).note("mine") == 1


@pytest.mark.parametrize("name", ["", "x" * 300, "a\0b"])
async def test_a_bad_name_is_refused(system, name):
    with pytest.raises(ValueError, match="name"):
        await Calculator.local(system, name=name)
    with pytest.raises(ValueError, match="name"):
        await system.spawn(EchoActor(), name)


async def test_a_bad_public_is_refused(system):
    with pytest.raises(ValueError, match="public"):
        await system.spawn(EchoActor(), "x", public="yes")


# -- where actors live -----------------------------------------------------------------------------


async def test_placement(system):
    here = await Worker.local(system, placement="here")
    assert await here.pid() == os.getpid() and await here.worker() is None
    zero, one = [await Worker.local(system, placement=i) for i in (0, 1)]
    assert await zero.worker() == 0 and await one.worker() == 1
    assert len({await r.pid() for r in (zero, one)} | {os.getpid()}) == 3
    assert await (await Worker.local(system, placement=0)).pid() == await zero.pid()
    alone = await Worker.local(system, placement="dedicated")
    assert await alone.pid() not in {await zero.pid(), await one.pid()}
    assert await alone.parent() == await zero.parent(), "children of the node"
    same = await Worker.local(system, placement=system.node_id)
    assert await same.pid() in {await zero.pid(), await one.pid()}


async def test_actors_spread_over_the_workers(system):
    refs = [await Worker.local(system) for _ in range(8)]
    pids = [await r.pid() for r in refs]
    assert sorted(pids.count(p) for p in set(pids)) == [4, 4]


@pytest.mark.parametrize("placement", ["nowhere", 2, -1, 1.5, True])
async def test_a_bad_placement_is_refused(system, placement):
    with pytest.raises(ValueError, match="placement"):
        await Worker.local(system, placement=placement)


async def test_remote_without_another_node_is_explained(system):
    with pytest.raises(PulsingError, match="node"):
        await Worker.remote(system)


async def test_without_workers_everything_is_here():
    config = SystemConfig.standalone().with_workers(0)
    async with await create_actor_system(config) as system:
        assert await (await Worker.local(system)).pid() == os.getpid()


def _prepare():
    os.environ["PREPARED"] = os.environ.get("PREPARED", "") + "once"


async def test_environment_cpus_and_setup_of_workers():
    cpu = min(os.sched_getaffinity(0))
    config = SystemConfig.standalone().with_workers(
        2,
        env=lambda i: {"DEVICE": str(i)},
        cpus=[[cpu], [cpu]],
        setup=_prepare,
    )
    async with await create_actor_system(config) as system:
        for i in (1, 0):
            ref = await Worker.local(system, placement=i)
            assert await ref.env("DEVICE") == str(i)
            assert await ref.cpus() == {cpu}
            assert await ref.env("PREPARED") == "once"
    assert "PREPARED" not in os.environ


async def test_a_failing_setup_shows_its_traceback_at_the_caller():
    def bad():
        raise LookupError("no weights here")

    config = SystemConfig.standalone().with_workers(1, setup=bad)
    async with await create_actor_system(config) as system:
        with pytest.raises(PulsingError, match="no weights here"):
            await asyncio.wait_for(Worker.local(system), 60)


# -- forks, threads, loops -------------------------------------------------------------------------


async def test_forking_is_safe_and_use_in_the_child_is_an_error(system):
    calc = await Calculator.local(system)
    assert await calc.add(1) == 1
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            calc.add(1)
            text = "no error"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    text = os.read(read, 10_000).decode()
    os.close(read)
    assert "fork" in text, text
    assert await calc.add(1) == 2


async def test_use_from_another_thread_is_refused_and_named(system):
    calc = await Calculator.local(system)
    errors = []

    def use():
        try:
            calc.add(1)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.005)
    assert len(errors) == 1 and "thread" in str(errors[0])
    assert await calc.add(1) == 1


async def test_another_thread_asks_by_run_coroutine_threadsafe(system):
    calc = await Calculator.local(system)
    loop = asyncio.get_running_loop()

    async def add(n):
        return await calc.add(n)

    def use():
        return [asyncio.run_coroutine_threadsafe(add(1), loop).result(30) for _ in range(10)]

    assert await loop.run_in_executor(None, use) == list(range(1, 11))


def test_a_system_in_a_thread_of_its_own():
    results = []

    async def main():
        async with await create_actor_system(SystemConfig.standalone()) as system:
            results.append(await (await Calculator.local(system)).add(2))

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join(60)
    assert results == [2]


# -- context ---------------------------------------------------------------------------------------


async def test_what_a_context_knows(system):
    @as_actor
    class Curious:
        def look(self):
            c = current_context()
            return {
                "actor": str(c.actor_id),
                "node": str(c.node_id),
                "worker": c.worker_id,
                "name": c.name,
                "cancelled": (c.is_cancelled(), c.cancel_token.is_cancelled()),
                "deadline": c.deadline is not None,
                "system": str(c.system.node_id),
            }

        async def other(self, name):
            return await current_context().actor_ref(name)

    ref = await Curious.local(system, name="curious", placement=1)
    assert await ref.look() == {
        "actor": str(ref.actor_id),
        "node": str(system.node_id),
        "worker": 1,
        "name": "curious",
        "cancelled": (False, False),
        "deadline": False,
        "system": str(system.node_id),
    }
    assert (await ref.look.options(timeout=60)())["deadline"] is True
    assert await ref.other("curious") == ref


async def test_an_actor_schedules_a_message_for_itself(system, eventually):
    class Timer(pulsing.Actor):
        def __init__(self):
            self.seen = []

        def receive(self, msg, ctx):
            self.seen.append(msg)
            if msg == "start":
                ctx.schedule(0.02, "tick")

    timer = Timer()
    ref = await system.spawn(timer)
    await ref.tell("start")
    await eventually(lambda: timer.seen == ["start", "tick"], "the tick")


# -- programs --------------------------------------------------------------------------------------


def run_program(tmp_path, text, *args, timeout=60):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(text))
    return subprocess.run(
        [sys.executable, str(path), *args],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


SCRIPT = """
    import asyncio, os
    from pulsing.actor import SystemConfig, as_actor, create_actor_system

    FACTOR = 3

    def times(n):
        return FACTOR * n

    @as_actor
    class Multiplier:
        def multiply(self, n):
            return times(n)
        def pid(self):
            return os.getpid()

    async def main():
        async with await create_actor_system(SystemConfig.standalone()) as system:
            m = await Multiplier.local(system)
            assert await m.pid() != os.getpid()
            print(await m.multiply(14))
"""


@pytest.mark.parametrize(
    "end", ["asyncio.run(main())", "if __name__ == '__main__': asyncio.run(main())"]
)
def test_a_script_with_and_without_a_main_guard(tmp_path, end):
    done = run_program(tmp_path, textwrap.dedent(SCRIPT) + end + "\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "42\n", "")


def test_a_program_from_standard_input_and_from_a_string(tmp_path):
    program = textwrap.dedent(SCRIPT) + "asyncio.run(main())\n"
    for arguments, given in ((["-c", program], None), (["-"], program)):
        done = subprocess.run(
            [sys.executable, *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "42\n", "")


def test_a_class_beside_the_script_is_imported_by_the_worker(tmp_path):
    (tmp_path / "parts.py").write_text(textwrap.dedent(SCRIPT).replace("FACTOR = 3", "FACTOR = 5"))
    done = run_program(
        tmp_path,
        """
        import asyncio, os
        import parts
        from pulsing.actor import create_actor_system
        async def main():
            async with await create_actor_system() as system:
                print(await (await parts.Multiplier.local(system)).multiply(2))
        asyncio.run(main())
        """,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "10\n", "")


async def test_a_class_from_cells_as_a_notebook_runs_them(system):
    cells = {"__name__": "__main__", "as_actor": as_actor}
    exec("import math\nbase = 2", cells)
    exec("def power(n): return base ** n", cells)
    exec("@as_actor\nclass Cell:\n    def go(self, n): return power(n) + math.floor(0.5)", cells)
    assert await (await cells["Cell"].local(system)).go(5) == 32
    exec("@as_actor\nclass Cell:\n    def go(self, n): return -power(n)", cells)
    assert await (await cells["Cell"].local(system)).go(5) == -32, "the cell was run again"


async def test_a_class_of_a_test_function_with_its_closure(system):
    offset = 7

    @as_actor
    class Inner:
        def add(self, n):
            return n + offset

    assert await (await Inner.local(system)).add(1) == 8


async def test_a_class_that_cannot_travel_is_refused_and_says_why(system):
    lock = threading.Lock()

    @as_actor
    class Holds:
        def use(self):
            with lock:
                return 1

    with pytest.raises(pulsing.CodecError, match="lock"):
        await Holds.local(system)
    assert await (await Holds.local(system, placement="here")).use() == 1


async def test_an_unsendable_constructor_argument_is_refused(system):
    with pytest.raises(pulsing.CodecError, match="lock"):
        await Calculator.local(system, threading.Lock())


def test_a_module_that_fails_in_the_worker_shows_its_traceback(tmp_path):
    (tmp_path / "fragile.py").write_text(
        "import os, sys\nfrom pulsing.actor import as_actor\n"
        "if os.environ.get('ONE') != str(os.getpid()):\n"
        "    raise LookupError('only in the first process')\n"
        "@as_actor\nclass A:\n    def f(self): return 1\n"
    )
    done = run_program(
        tmp_path,
        """
        import asyncio, os
        os.environ["ONE"] = str(os.getpid())
        import fragile
        from pulsing.actor import create_actor_system
        async def main():
            async with await create_actor_system() as system:
                await fragile.A.local(system)
        asyncio.run(main())
        """,
    )
    assert done.returncode == 1
    assert "only in the first process" in done.stderr and "fragile.py" in done.stderr


def test_output_of_workers_is_forwarded_with_a_prefix(tmp_path):
    done = run_program(
        tmp_path,
        """
        import asyncio, sys
        from pulsing.actor import as_actor, create_actor_system
        @as_actor
        class Loud:
            def say(self):
                print("to stdout")
                print("to stderr", file=sys.stderr)
        async def main():
            async with await create_actor_system() as system:
                await (await Loud.local(system)).say()
        asyncio.run(main())
        """,
    )
    assert done.returncode == 0
    lines = (done.stdout + done.stderr).splitlines()
    for text in ("to stdout", "to stderr"):
        (line,) = [line for line in lines if text in line]
        assert line != text and line.endswith(text)


def test_a_pytest_of_the_users_own_finds_its_classes(tmp_path):
    (tmp_path / "test_users.py").write_text(
        textwrap.dedent(
            """
            import asyncio
            from pulsing.actor import as_actor, create_actor_system
            @as_actor
            class A:
                def f(self, x): return x + 1
            def test_it():
                async def main():
                    async with await create_actor_system() as system:
                        assert await (await A.local(system)).f(1) == 2
                asyncio.run(main())
            """
        )
    )
    for mode in ("prepend", "importlib"):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                f"--import-mode={mode}",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout


def test_blocking_form():
    with pulsing.connect() as system:
        calc = Calculator.local(system, 5)
        assert calc.add(1) == 6
        assert calc.pid() != os.getpid()
        with pytest.raises(ZeroDivisionError):
            calc.divide(0)
        named = Log.local(system, name="log")
        assert system.find("log") == named
        assert system.find("log").note("x") == 1
        assert system.find("nobody") is None
        results = []
        threads = [
            threading.Thread(target=lambda: results.extend(calc.add(1) for _ in range(50)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(results) == list(range(7, 207))
        here = system.spawn(Calculator(1))
        assert here.add(1) == 2 and here.pid() == os.getpid()
        echo = Echo.local(system)
        assert echo.echo(bytes(1_000_000)) == bytes(1_000_000)
    with pytest.raises(SystemClosed):
        calc.add(1)


def test_blocking_streams_are_plain_iterators():
    from testactors import Streams

    with pulsing.connect() as system:
        streams = Streams.local(system)
        assert list(streams.plain(100)) == list(range(100))
        assert list(streams.asynchronous(100)) == list(range(100))
        got = []
        with pytest.raises(KeyError, match="broken"):
            for x in streams.breaks(5):
                got.append(x)
        assert got == [0, 1, 2, 3, 4]
        for x in streams.plain(10**9):
            if x == 5:
                break
        end = time.monotonic() + 20
        while ("closed", "plain") not in streams.read()[-1:] and time.monotonic() < end:
            time.sleep(0.01)
        assert streams.read()[-1] == ("closed", "plain")


@pytest.mark.both_loops
async def test_the_blocking_form_beside_a_running_loop():
    name = f"beside-{os.getpid()}-{time.monotonic_ns()}"
    config = SystemConfig.standalone().with_workers(1).with_name(name)
    async with await create_actor_system(config) as system:
        calc = await Calculator.local(system, name="shared")
        here = await system.spawn(Calculator(100), "here", public=True)

        def use():
            with pulsing.connect(SystemConfig.attach(name)) as blocking:
                found = blocking.find("shared")
                own = blocking.spawn(Calculator(7))
                # `here` lives on the loop of the other thread, which goes on meanwhile.
                return [found.add(1) for _ in range(20)], blocking.find("here").add(1), own.add(1)

        beats = 0
        work = asyncio.get_running_loop().run_in_executor(None, use)
        while not work.done():
            beats += 1
            await asyncio.sleep(0.001)
        assert await work == (list(range(1, 21)), 101, 8)
        assert beats > 3 and await calc.add(1) == 21 and await here.add(1) == 102
