# SPDX-License-Identifier: Apache-2.0
"""C programs among Python actors: `examples/c` is built against an installed `libpulsing`, attaches
to this program's node, and calls are made in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

import pulsing
from pulsing import PulsingError
from pulsing.actor import ActorDied, CodecError, SystemConfig, as_actor, create_actor_system

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = f"c-api-{os.getpid()}"


@as_actor
class Greeter:
    def __init__(self):
        self.notes = []

    def greet(self, who):
        if who == "nobody":
            raise LookupError("nobody is here")
        return f"hello, {who}"

    def note(self, text):
        self.notes.append(text)

    def noted(self):
        return self.notes

    def total_of(self, tally, *numbers):
        return self.ask_all(tally, numbers)

    async def ask_all(self, tally, numbers):
        return [await tally.add(n) for n in numbers]


def run(*command, env=None):
    # A sanitizer's runtime is for this process, not for compilers.
    env = {name: value for name, value in (env or os.environ).items() if name != "LD_PRELOAD"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@contextlib.contextmanager
def alone(folder):
    """One process at a time builds there: test runs of several Pythons share the tree."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "test.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """The example, built as a user builds it: install, pkg-config, cmake."""
    for tool in ("cmake", "pkg-config"):
        assert shutil.which(tool), f"{tool} is needed to build the example"
    folder = tmp_path_factory.mktemp("c-api")
    engine = ROOT / "build" / "c-api"
    prefix = folder / "prefix"
    with alone(engine):
        run("cmake", "-S", ROOT, "-B", engine, "-DPLS_TESTS=OFF", "-DCMAKE_BUILD_TYPE=Release")
        run("cmake", "--build", engine, "--target", "pulsing", "--parallel", "2")
        run("cmake", "--install", engine, "--component", "c", "--prefix", prefix)
    found = [str(path) for path in prefix.rglob("pkgconfig")]
    env = dict(os.environ, PKG_CONFIG_PATH=":".join(found), CFLAGS="-Wall -Wextra -Werror")
    run("cmake", "-S", ROOT / "examples" / "c", "-B", folder / "example", env=env)
    run("cmake", "--build", folder / "example", env=env)
    return folder / "example" / "tally"


@pytest.fixture
async def greeted(program):
    """A system with a greeter, and the C program attached to it: (system, process, tally)."""
    config = SystemConfig.standalone().with_name(NAME).with_workers(1)
    async with await create_actor_system(config) as system:
        await system.spawn(Greeter(), "greeter", public=True)
        process = await asyncio.create_subprocess_exec(
            program, NAME, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            tally = await system.find("tally", timeout=20)
            assert tally is not None, (await process.stdout.read()).decode()
            yield system, process, tally
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 10)
            process._transport.close()


async def test_the_c_program_tells_and_asks_a_python_actor(greeted):
    system, process, _ = greeted
    line = await asyncio.wait_for(process.stdout.readline(), 10)
    assert line == b'greeter answered "hello, C"\n'
    greeter = await system.find("greeter")
    assert await greeter.noted() == ["a C program is here"]


async def test_the_c_actor_is_asked_in_order_and_told(greeted):
    _, _, tally = greeted
    calls = [tally.add(n) for n in range(200)]
    assert await asyncio.gather(*calls) == [n * (n + 1) // 2 for n in range(200)]
    await tally.add.tell(-19900)
    assert await tally.add(7) == 7


async def test_the_c_actor_is_asked_by_an_actor_in_a_worker(greeted):
    system, _, tally = greeted
    asker = await Greeter.local(system)
    assert await asker.total_of(tally, 1, 2, 3) == [1, 3, 6]


@pytest.mark.parametrize("size", [0, 1000, 3000, 5000, 3_000_000])
async def test_bytes_of_any_size_go_both_ways(greeted, size):
    _, _, tally = greeted
    assert await tally.size(b"x" * size) == size
    assert await tally.repeat(65, size) == b"A" * size


async def test_a_question_is_relayed_and_its_error_too(greeted):
    _, _, tally = greeted
    assert await tally.relay("Python") == "hello, Python"
    with pytest.raises(LookupError, match="nobody is here"):
        await tally.relay("nobody")
    assert await asyncio.gather(*[tally.relay(str(n)) for n in range(50)]) == [
        f"hello, {n}" for n in range(50)
    ]


async def test_what_the_c_actor_cannot_do_is_said(greeted):
    _, _, tally = greeted
    with pytest.raises(AttributeError, match="add, relay, repeat, size, stop"):
        await tally.divide(1)
    with pytest.raises(CodecError, match="do not suit"):
        await tally.add("one")
    with pytest.raises(CodecError, match="plain arguments only"):
        await tally.add(n=1)
    assert await tally.add(1) == 1


async def test_what_nobody_can_do_to_the_c_actor_is_said(greeted):
    system, _, tally = greeted
    other = await Greeter.local(system)
    for way in (system.stop(tally), system.stop("tally"), system.watch(tally)):
        with pytest.raises(PulsingError, match=r"C program.*a method that stops it"):
            await asyncio.wait_for(way, 10)
    with pytest.raises(PulsingError, match="C program"):
        await asyncio.wait_for(system.link(other, tally), 10)
    assert await tally.add(1) == 1


@pytest.mark.usefixtures("greeted")
async def test_the_blocking_form_says_it_too():
    def stop():
        with pulsing.connect(SystemConfig.attach(NAME)) as there:
            there.stop("tally")

    with pytest.raises(PulsingError, match=r"C program.*a method that stops it"):
        await asyncio.wait_for(asyncio.to_thread(stop), 10)


async def test_stopping_the_c_program_ends_its_name(greeted, eventually):
    system, process, tally = greeted
    assert await tally.stop() is None
    assert await asyncio.wait_for(process.wait(), 10) == 0

    async def unknown():
        return await system.find("tally") is None

    await eventually(unknown, "the name is gone")
    with pytest.raises(ActorDied):
        await tally.add(1)


async def test_killing_the_c_program_ends_the_call_that_waits_for_it(greeted):
    _, process, tally = greeted
    assert await tally.add(2) == 2
    os.kill(process.pid, signal.SIGSTOP)
    waiting = asyncio.ensure_future(tally.add(1))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    process.kill()
    with pytest.raises(ActorDied, match=str(process.pid)):
        await asyncio.wait_for(waiting, 5)


async def test_a_node_that_ends_ends_the_c_program(program):
    system = await create_actor_system(SystemConfig.standalone().with_name(NAME).with_workers(0))
    await system.spawn(Greeter(), "greeter", public=True)
    process = await asyncio.create_subprocess_exec(program, NAME, stdout=subprocess.PIPE)
    assert await system.find("tally", timeout=20) is not None
    await system.shutdown()
    await asyncio.wait_for(process.wait(), 5)
    assert process.returncode == 0
    process._transport.close()
