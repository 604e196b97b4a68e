# SPDX-License-Identifier: Apache-2.0
"""Workers as a service needs them: what they start with, share, may use, and when they go."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from testactors import Calculator, Worker

import pulsing
from pulsing import PulsingError
from pulsing.actor import SystemConfig, as_actor, create_actor_system


def workers(n, **options):
    return SystemConfig.standalone().with_workers(n, **options)


@as_actor
class Look:
    """Looks at its process."""

    def evaluate(self, text):
        import importlib

        modules = {name: importlib.import_module(name) for name in ("os", "sys", "logging")}
        return eval(text, modules)

    def pid(self):
        return os.getpid()

    def log(self, text):
        logging.getLogger("service").info(text)
        logging.getLogger("service").debug("too fine")


# -- environment, CPUs, threads --------------------------------------------------------------------


@pytest.mark.both_loops
async def test_a_device_for_each_worker_also_after_its_death():
    config = workers(2, env=lambda i: {"CUDA_VISIBLE_DEVICES": str(i)})
    async with await create_actor_system(config) as system:
        for i in (1, 0, 1):
            ref = await Worker.local(system, placement=i)
            assert await ref.env("CUDA_VISIBLE_DEVICES") == str(i)
            with pytest.raises(pulsing.ActorDied):
                await ref.die()


async def test_a_rebuilt_actor_finds_the_environment_of_its_worker(eventually):
    @as_actor(restart="on_failure", min_backoff=0.001)
    class Lasting(Worker):
        pass

    async with await create_actor_system(workers(1, env=[{"DEVICE": "7"}])) as system:
        ref = await Lasting.local(system)
        with pytest.raises(pulsing.ActorDied):
            await ref.die()
        assert await asyncio.wait_for(ref.env("DEVICE"), 30) == "7"


async def test_one_environment_for_all_and_removed_variables(monkeypatch):
    monkeypatch.setenv("NOT_WANTED", "1")
    config = workers(1, env={"EVERYWHERE": "1", "NOT_WANTED": None})
    async with await create_actor_system(config) as system:
        for placement in (0, "dedicated"):
            ref = await Worker.local(system, placement=placement)
            assert await ref.env("EVERYWHERE") == "1"
            assert await ref.env("NOT_WANTED") is None


async def test_what_is_read_at_exec_gets_a_fresh_interpreter():
    config = workers(2, env=[{"PYTHONHASHSEED": "12"}, {"PLAIN": "1"}])
    async with await create_actor_system(config) as system:
        seeded, plain = [await Look.local(system, placement=i) for i in (0, 1)]
        want = subprocess.run(
            [sys.executable, "-c", "print(hash('pulsing'))"],
            env={**os.environ, "PYTHONHASHSEED": "12"},
            capture_output=True,
            check=True,
        )
        assert await seeded.evaluate("hash('pulsing')") == int(want.stdout)
        # /proc shows what the process was exec'd with; a fork has its template's.
        look = "open('/proc/self/environ').read().count('%s=')"
        assert await seeded.evaluate(look % "PYTHONHASHSEED") == 1
        assert await plain.evaluate(look % "PLAIN") == 0
        assert await plain.evaluate("os.environ['PLAIN']") == "1"
        names = [await r.evaluate("open('/proc/self/comm').read()") for r in (seeded, plain)]
        assert names == ["pulsing-w0\n", "pulsing-w1\n"]


async def test_start_exec_shares_nothing_with_the_template():
    config = workers(1, start="exec", preload=["this_is_loaded"], setup=None)
    with pytest.raises(ValueError, match="start"):
        workers(1, start="spawn")
    config = workers(1, start="exec")
    async with await create_actor_system(config) as system:
        ref = await Look.local(system)
        assert await ref.evaluate("'worker' in sys.orig_argv")
        with pytest.raises(pulsing.ActorDied):
            await (await Worker.local(system)).die()
        assert await (await Worker.local(system)).worker() == 0


async def test_thread_pools_fit_the_share_of_cpus(monkeypatch):
    cpu = min(os.sched_getaffinity(0))
    usable = len(os.sched_getaffinity(0))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    async with await create_actor_system(workers(2)) as system:
        ref = await Worker.local(system)
        assert {await ref.env(name) for name in names} == {str(max(1, usable // 2))}
    config = workers(2, cpus=[[cpu], None], env=[{}, {"OMP_NUM_THREADS": "5"}])
    async with await create_actor_system(config) as system:
        pinned, free = [await Worker.local(system, placement=i) for i in (0, 1)]
        assert await pinned.cpus() == {cpu} and await free.cpus() == os.sched_getaffinity(0)
        assert {await pinned.env(name) for name in names} == {"1"}
        assert await free.env("OMP_NUM_THREADS") == "5"


async def test_a_loaded_blas_has_as_many_threads_as_its_worker_has_cpus():
    text = "__import__('threadpoolctl').threadpool_info()"
    import numpy  # noqa: F401  (loaded here, so that the template loads it)

    config = workers(2, env=[{"OPENBLAS_NUM_THREADS": "1"}, {"OPENBLAS_NUM_THREADS": "2"}])
    async with await create_actor_system(config) as system:
        for i in (0, 1):
            ref = await Look.local(system, placement=i)
            await ref.evaluate("__import__('numpy').ones(1)")
            pools = [p for p in await ref.evaluate(text) if p["internal_api"] == "openblas"]
            if not pools:
                pytest.skip("this numpy brings no OpenBLAS")
            assert {p["num_threads"] for p in pools} == {i + 1}


@pytest.mark.parametrize(
    "options, field",
    [
        ({"env": [{}]}, "env"),
        ({"env": 3}, "env"),
        ({"cpus": "0"}, "cpus"),
        ({"start": "thread"}, "start"),
        ({"memory": 5}, "memory"),
        ({"recycle": 0}, "recycle"),
        ({"warm": "yes"}, "warm"),
        ({"preload": 5}, "preload"),
    ],
)
def test_a_bad_description_of_workers_is_refused(options, field):
    with pytest.raises(ValueError, match=field):
        workers(2, **options)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"env": lambda i: {"A=B": "1"}}, "env"),
        ({"env": lambda i: None}, "env"),
        ({"cpus": lambda i: [4095]}, "cpus"),
        ({"cpus": [[], None]}, "cpus"),
    ],
)
async def test_what_only_shows_when_it_is_asked_for_is_refused_at_the_start(options, text):
    with pytest.raises(ValueError, match=text):
        await create_actor_system(workers(2, **options))


def test_workers_are_described_where_their_node_is_started():
    with pytest.raises(ValueError, match="setup"):
        SystemConfig.attach("x").with_workers(1, setup=print)


# -- setup, preload, failures ----------------------------------------------------------------------


def _count_setups():
    os.environ["SETUPS"] = str(int(os.environ.get("SETUPS", "0")) + 1)


@pytest.mark.both_loops
async def test_setup_runs_once_in_each_worker():
    async with await create_actor_system(workers(2, setup=_count_setups)) as system:
        refs = [await Worker.local(system, placement=i % 2) for i in range(6)]
        refs.append(await Worker.local(system, placement="dedicated"))
        assert [await ref.env("SETUPS") for ref in refs] == ["1"] * 7


async def test_what_the_template_loads_is_shared_and_not_loaded_again():
    def load():
        import ctypes
        import re
        import sys
        import types

        model = types.ModuleType("shared_model")
        model.weights = bytearray(64 << 20)
        model.loaded_by = os.getpid()

        def private_kib():
            """Of the mapping in which the weights are, what this process has for itself."""
            at = ctypes.addressof(ctypes.c_char.from_buffer(model.weights))
            inside = False
            for line in open("/proc/self/smaps"):
                head = re.match("([0-9a-f]+)-([0-9a-f]+) ", line)
                if head:
                    inside = int(head[1], 16) <= at < int(head[2], 16)
                elif inside and line.startswith("Private_Dirty:"):
                    return int(line.split()[1])

        model.private_kib = private_kib
        sys.modules["shared_model"] = model

    async with await create_actor_system(workers(2, preload=load)) as system:
        refs = [await Look.local(system, placement=i) for i in (0, 1)]
        model = "sys.modules['shared_model']"
        by = [await ref.evaluate(f"{model}.loaded_by") for ref in refs]
        assert by[0] == by[1] and by[0] not in [await ref.pid() for ref in refs]
        for ref in refs:
            private = await ref.evaluate(f"{model}.private_kib()")
            assert private < 4 << 10, "64 MiB of weights were copied"
        write = f"{model}.weights.__setitem__(slice(None), b'x' * (64 << 20))"
        await refs[0].evaluate(write)
        assert await refs[0].evaluate(f"{model}.private_kib()") >= 64 << 10, "which would be seen"
        assert await refs[1].evaluate(f"{model}.weights[0]") == 0


async def test_preload_by_module_name_and_its_failure_at_the_caller():
    async with await create_actor_system(workers(1, preload=["calendar"])) as system:
        assert await (await Look.local(system)).evaluate("'calendar' in sys.modules")
    async with await create_actor_system(workers(1, preload="no_such_module_here")) as system:
        with pytest.raises(PulsingError, match="no_such_module_here"):
            await asyncio.wait_for(Worker.local(system), 60)


async def test_a_preload_that_leaves_a_thread_is_refused():
    def leaves():
        import threading
        import time

        threading.Thread(target=time.sleep, args=(60,), daemon=True, name="refresher").start()

    async with await create_actor_system(workers(1, preload=leaves)) as system:
        with pytest.raises(PulsingError, match="refresher"):
            await asyncio.wait_for(Worker.local(system), 60)


@pytest.mark.parametrize("start", ["fork", "exec"])
async def test_a_start_that_fails_shows_its_traceback_at_the_caller(start):
    def bad():
        print("loading")
        raise LookupError("no weights here")

    async with await create_actor_system(workers(1, setup=bad, start=start)) as system:
        for _ in range(2):
            with pytest.raises(PulsingError) as caught:
                await asyncio.wait_for(Worker.local(system), 60)
            text = str(caught.value)
            assert "Traceback" in text and "in bad" in text and "no weights here" in text


async def test_a_start_that_ends_by_a_signal_says_so():
    def dies():
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # a sanitizer would make an exit of it
        os.kill(os.getpid(), signal.SIGSEGV)

    async with await create_actor_system(workers(1, setup=dies)) as system:
        with pytest.raises(PulsingError, match="SIGSEGV"):
            await asyncio.wait_for(Worker.local(system), 60)


async def test_warm_starts_every_worker_before_the_first_request():
    config = workers(2, setup=_count_setups, warm=True)
    async with await create_actor_system(config) as system:
        assert sum(1 for line in system._rt.directory() if line[5] >= 0) == 2
        assert await (await Worker.local(system)).env("SETUPS") == "1"

    def bad():
        raise LookupError("no weights here")

    with pytest.raises(PulsingError, match="no weights here"):
        await asyncio.wait_for(create_actor_system(workers(2, setup=bad, warm=True)), 60)


# -- memory ----------------------------------------------------------------------------------------


@as_actor
class Hoarder:
    """Keeps memory."""

    def __init__(self):
        self.kept = []

    def grow(self, mib):
        self.kept.append(bytearray(mib << 20))
        return len(self.kept)

    def reserve(self, mib):
        import mmap

        self.kept.append(mmap.mmap(-1, mib << 20))
        return len(self.kept)

    def linger(self, mib):
        self.grow(mib)
        time.sleep(30)


@pytest.mark.both_loops
async def test_a_worker_over_its_memory_limit_is_killed_and_says_why():
    async with await create_actor_system(workers(2, memory=200 << 20)) as system:
        hoarder, other = [await Hoarder.local(system, placement=i) for i in (0, 1)]
        assert await hoarder.reserve(4096) == 1, "what is only reserved does not count"
        assert await hoarder.grow(40) == 2
        with pytest.raises(pulsing.ActorDied, match="memory limit"):
            await asyncio.wait_for(hoarder.linger(400), 20)
        assert await other.grow(10) == 1
        assert await (await Hoarder.local(system, placement=0)).grow(1) == 1


async def test_an_actor_of_a_killed_worker_is_rebuilt_when_it_asks_for_that():
    @as_actor(restart="on_failure", min_backoff=0.001)
    class Lasting(Hoarder):
        pass

    async with await create_actor_system(workers(1, memory=200 << 20)) as system:
        ref = await Lasting.local(system)
        with pytest.raises(pulsing.ActorDied, match="memory limit"):
            await asyncio.wait_for(ref.linger(400), 20)
        assert await asyncio.wait_for(ref.grow(1), 30) == 1


# -- workers held by a plain method ----------------------------------------------------------------


@as_actor
class Holder:
    """Keeps its worker until a file is there."""

    def hold(self, path):
        end = time.monotonic() + 60
        while not os.path.exists(path) and time.monotonic() < end:
            time.sleep(0.01)


@pytest.mark.both_loops
async def test_new_actors_avoid_a_held_worker_and_listings_show_it(system, eventually, tmp_path):
    busy = await Holder.local(system, placement=0)
    for _ in range(3):
        await Worker.local(system, placement=1)
    task = asyncio.ensure_future(busy.hold(str(tmp_path / "end")))
    await eventually(lambda: system.workers()[0]["held"], "the held worker")
    held, free = sorted(system.workers(), key=lambda w: w["index"])
    assert held["held"] > 0 and held["actors"] == 1
    assert (free["held"], free["actors"]) == (None, 3)
    refs = [await asyncio.wait_for(Worker.local(system), 30) for _ in range(2)]
    assert [await r.worker() for r in refs] == [1, 1] and not task.done()
    (tmp_path / "end").touch()
    await task
    await eventually(lambda: not any(w["held"] for w in system.workers()), "an end of the holding")
    assert await (await Worker.local(system)).worker() == 0, "the least loaded again"


async def test_the_node_avoids_a_held_worker_too(system, eventually, tmp_path):
    @as_actor(restart="on_failure", min_backoff=0.001)
    class Lasting(Worker):
        pass

    lasting = await Lasting.local(system)
    assert await lasting.worker() == 0
    holder = await Holder.local(system, placement=1)
    other = await Worker.local(system, placement=0)
    task = asyncio.ensure_future(holder.hold(str(tmp_path / "end")))
    await eventually(lambda: any(w["held"] for w in system.workers()), "the held worker")
    with pytest.raises(pulsing.ActorDied):
        await other.die()
    assert await asyncio.wait_for(lasting.worker(), 30) == 0, "not in the one that is held"
    (tmp_path / "end").touch()
    await task


async def test_a_pool_avoids_members_whose_worker_is_held(system, eventually, tmp_path):
    async with await pulsing.Pool.create(system, Worker, size=2, policy="least_loaded") as pool:
        workers_of = [await ref.worker() for ref in pool.members]
        busy = await Holder.local(system, placement=workers_of[0])
        task = asyncio.ensure_future(busy.hold(str(tmp_path / "end")))
        await eventually(lambda: any(w["held"] for w in system.workers()), "the held worker")
        assert {await asyncio.wait_for(pool.worker(), 30) for _ in range(4)} == {workers_of[1]}
        (tmp_path / "end").touch()
        await task


# -- logging ---------------------------------------------------------------------------------------


def test_logging_of_workers_is_forwarded_with_a_prefix(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import asyncio, logging
            from test_workers import Look, workers
            from pulsing.actor import create_actor_system
            logging.basicConfig(level=logging.INFO)
            async def main():
                async with await create_actor_system(workers(1)) as system:
                    await (await Look.local(system)).log("model loaded")
            asyncio.run(main())
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    assert "[worker 0] INFO:service:model loaded" in lines
    assert not any("too fine" in line for line in lines)


# -- recycling -------------------------------------------------------------------------------------


@as_actor
class Counter:
    """Counts what its present instance has handled, and writes down every number it was given."""

    def __init__(self, path):
        self.path = path
        self.count = 0

    def on_stop(self):
        with open(self.path, "a") as file:
            file.write("stopped\n")

    def note(self, i):
        self.count += 1
        with open(self.path, "a") as file:
            file.write(f"{i}\n")
        return i, os.getpid()

    async def slowly(self, i, seconds=0.002):
        await asyncio.sleep(seconds)
        return self.note(i)

    async def through(self, other, i):
        return await other.note(i)

    def stream(self, n):
        for i in range(n):
            time.sleep(0.002)
            yield i, os.getpid()

    def pid(self):
        return os.getpid()


def numbers(path):
    return [int(line) for line in path.read_text().split() if line != "stopped"]


@pytest.mark.both_loops
async def test_a_recycled_worker_loses_nothing_and_its_actors_keep_name_and_address(tmp_path):
    path = tmp_path / "numbers"
    async with await create_actor_system(workers(1, recycle=200, setup=_count_setups)) as system:
        counter = await Counter.local(system, str(path), name="counter")
        address = counter.actor_id
        calls = [counter.note(i) for i in range(2000)]
        tells = [counter.note.tell(i) for i in range(2000, 3000)]
        done = await asyncio.wait_for(asyncio.gather(*calls, *tells), 60)
        pids = {pid for _, pid in done[:2000]}
        assert [i for i, _ in done[:2000]] == list(range(2000))
        assert len(pids) >= 3, "a process has done more than its share"
        found = await system.resolve("counter")
        assert found.actor_id == address and await found.pid() == await counter.pid()
        assert numbers(path) == list(range(3000)), "in order, none twice, none lost"
        assert "stopped" in path.read_text()
        assert (await Worker.local(system)) and await (await Worker.local(system)).worker() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(next(iter(pids)), 0)


async def test_workers_recycle_while_actors_talk_to_each_other(tmp_path):
    paths = [tmp_path / f"numbers{i}" for i in range(2)]
    async with await create_actor_system(workers(2, recycle=60)) as system:
        one, two = [await Counter.local(system, str(p), placement=i) for i, p in enumerate(paths)]
        own = [one.note(i) for i in range(0, 400, 2)]
        calls = [one.through(two, i) for i in range(200)]
        results = await asyncio.wait_for(asyncio.gather(*own, *calls), 60)
        assert [i for i, _ in results] == [*range(0, 400, 2), *range(200)]
        assert numbers(paths[0]) == list(range(0, 400, 2))
        assert numbers(paths[1]) == list(range(200))
        assert len({pid for _, pid in results}) > 2


async def test_a_stream_is_not_cut_by_recycling(tmp_path):
    async with await create_actor_system(workers(1, recycle=20)) as system:
        counter = await Counter.local(system, str(tmp_path / "numbers"))
        stream = aiter(counter.stream(300))
        got = [await anext(stream)]
        pids = {(await counter.note(i))[1] for i in range(100)}
        got += [item async for item in stream]
        assert [i for i, _ in got] == list(range(300)) and len({pid for _, pid in got}) == 1
        for i in range(100, 200):
            pids.add((await counter.note(i))[1])
        assert len(pids) > 1 and numbers(tmp_path / "numbers") == list(range(200))


async def test_recycling_under_calls_that_overlap(tmp_path):
    @as_actor(max_concurrency=8)
    class Overlapping(Counter):
        pass

    path = tmp_path / "numbers"
    async with await create_actor_system(workers(1, recycle=50)) as system:
        refs = [await Overlapping.local(system, str(path)) for _ in range(3)]
        calls = [refs[i % 3].slowly(i, 0.01) for i in range(2000)]
        done = await asyncio.wait_for(asyncio.gather(*calls), 60)
        assert sorted(numbers(path)) == list(range(2000))
        assert len({pid for _, pid in done}) > 1


async def test_spawning_stopping_and_watching_go_on_while_workers_recycle(tmp_path, eventually):
    async with await create_actor_system(workers(2, recycle=30)) as system:
        kept = await Counter.local(system, str(tmp_path / "kept"))
        watch = asyncio.ensure_future(system.watch(kept))
        for i in range(100):
            ref = await asyncio.wait_for(Calculator.local(system, i), 20)
            assert await asyncio.wait_for(ref.add(1), 20) == i + 1
            await kept.note(i)
            await asyncio.wait_for(system.stop(ref), 20)
        assert numbers(tmp_path / "kept") == list(range(100))
        assert not watch.done(), watch.result()
        await eventually(lambda: sum(w["actors"] for w in system.workers()) == 1, "one is left")
        await system.stop(kept)
        assert "stopped" in await asyncio.wait_for(watch, 20)


async def test_a_crash_beside_recycling_still_is_a_crash(tmp_path):
    async with await create_actor_system(workers(1, recycle=1000)) as system:
        worker = await Worker.local(system, name="victim")
        with pytest.raises(pulsing.ActorDied, match="SIGKILL"):
            await asyncio.wait_for(worker.die(), 20)
        with pytest.raises(pulsing.ActorDied):
            await asyncio.wait_for(worker.pid(), 20)
        assert await system.find("victim") is None
