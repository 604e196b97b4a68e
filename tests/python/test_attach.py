# SPDX-License-Identifier: Apache-2.0
"""`pulsing node`, the processes attached to it, and the rest of the command line."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from testactors import Calculator

import pulsing
from pulsing import PulsingError, SystemClosed
from pulsing.actor import SystemConfig, as_actor, create_actor_system

HERE = pathlib.Path(__file__).parent
CLI = [sys.executable, "-c", "import sys; from pulsing._cli import main; main()"]
ENV = dict(os.environ, PYTHONPATH=os.pathsep.join([p for p in sys.path if p] + [str(HERE)]))
LEARN_S_MAX = 0.1


@as_actor
class Keeper:
    """Counts, and writes its end into a file."""

    def __init__(self, path):
        self.path = path
        self.total = 0

    def add(self, n):
        self.total += n
        return self.total

    def count(self, n):
        yield from range(n)

    def fail(self):
        raise LookupError("nothing there")

    async def wait(self, seconds):
        await asyncio.sleep(seconds)
        return "waited"

    def on_stop(self):
        pathlib.Path(self.path).write_text(f"stopped at {self.total}")


def start(*arguments, **options):
    return subprocess.Popen(
        [*CLI, *arguments],
        env=ENV,
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def cli(*arguments):
    """(exit code, stdout, stderr) of one command."""
    process = start(*arguments)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


async def attached(name, seconds=20.0):
    """A system attached to a node that may still be starting."""
    end = time.monotonic() + seconds
    while True:
        try:
            return await create_actor_system(SystemConfig.attach(name))
        except PulsingError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.02)


def ended(process, seconds=10.0):
    """Waits for the end of a process; its exit code."""
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode


@pytest.fixture(params=["bare", "path"])
def name(request, tmp_path):
    return f"attach-{os.getpid()}" if request.param == "bare" else str(tmp_path / "node.sock")


@pytest.fixture
def node(name):
    process = start("node", "--name", name, "--workers", "1")
    yield process
    if process.poll() is None:
        process.terminate()
    ended(process)


CLIENT = """
    import asyncio, sys
    from pulsing.actor import SystemConfig, create_actor_system

    async def main():
        async with await create_actor_system(SystemConfig.attach(sys.argv[1])) as system:
            keeper = await system.find("keeper", timeout=20)
            for _ in range(100):
                await keeper.add(1)
            print("done", flush=True)

    asyncio.run(main())
"""


def client(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_several_processes_use_one_node(node, name, tmp_path):
    async with await attached(name) as system:
        keeper = await Keeper.local(system, str(tmp_path / "end"), name="keeper")
        clients = [client(CLIENT, name) for _ in range(3)]
        for process in clients:
            out, err = await asyncio.to_thread(process.communicate, timeout=60)
            assert (process.returncode, out) == (0, "done\n"), err
        assert await keeper.add(0) == 300


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_the_node_and_it_leaves(node, name, tmp_path, number):
    end = tmp_path / "end"
    system = await attached(name)
    keeper = await Keeper.local(system, str(end), name="keeper")
    answers = [keeper.add(1) for _ in range(100)]
    assert (await asyncio.gather(*answers))[-1] == 100
    node.send_signal(number)
    assert await asyncio.to_thread(ended, node) == 0
    assert end.read_text() == "stopped at 100"
    with pytest.raises(PulsingError):
        await keeper.add(1)
    await system.shutdown()


WAITER = """
    import asyncio, sys, time
    from pulsing import SystemClosed
    from pulsing.actor import SystemConfig, create_actor_system

    async def main():
        system = await create_actor_system(SystemConfig.attach(sys.argv[1]))
        keeper = await system.find("keeper", timeout=20)
        waiting = keeper.wait(60)
        print("waiting", flush=True)
        try:
            await waiting
        except SystemClosed as error:
            print(time.monotonic(), error, flush=True)
        try:
            await keeper.add(1)
        except SystemClosed as error:
            print(error, flush=True)

    asyncio.run(main())
"""


async def test_the_kill_of_a_node_reaches_everybody_at_once(node, name, tmp_path):
    system = await attached(name)
    keeper = await Keeper.local(system, str(tmp_path / "end"), name="keeper")
    waiters = [client(WAITER, name) for _ in range(3)]
    for process in waiters:
        assert select.select([process.stdout], [], [], 20)[0]
        assert process.stdout.readline() == "waiting\n"
    pending = asyncio.ensure_future(keeper.wait(60))
    await asyncio.sleep(0.1)
    killed = time.monotonic()
    node.kill()
    with pytest.raises(SystemClosed, match=str(node.pid)):
        await asyncio.wait_for(pending, 5)
    assert time.monotonic() - killed < LEARN_S_MAX
    for process in waiters:
        out, err = await asyncio.to_thread(process.communicate, timeout=20)
        assert process.returncode == 0, err
        first, later = out.splitlines()
        at, _, text = first.partition(" ")
        assert str(node.pid) in text and str(node.pid) in later
        assert float(at) - killed < LEARN_S_MAX
    with pytest.raises(SystemClosed, match=str(node.pid)):
        await keeper.add(1)
    await system.shutdown()
    # Its name is all that a killed node leaves: the next one there takes it over, see below.
    pathlib.Path(name).unlink(missing_ok=True)


async def test_a_wrong_name_is_said(tmp_path):
    with pytest.raises(PulsingError, match="no-such-node"):
        await create_actor_system(SystemConfig.attach("no-such-node"))
    with pytest.raises(PulsingError, match=r"missing\.sock"):
        await create_actor_system(SystemConfig.attach(str(tmp_path / "missing.sock")))
    code, _, err = cli("actors", "no-such-node")
    assert code == 1 and "no-such-node" in err and "Traceback" not in err


async def test_a_foreign_socket_is_refused(tmp_path):
    path = str(tmp_path / "foreign.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as foreign:
        foreign.bind(path)
        foreign.listen()
        with pytest.raises(PulsingError, match=r"foreign\.sock"):
            await create_actor_system(SystemConfig.attach(path))
    os.unlink(path)


async def test_a_second_node_of_the_same_name_is_refused(node, name):
    async with await attached(name):
        code, _, err = await asyncio.to_thread(cli, "node", "--name", name)
        assert code == 1 and "taken" in err


async def test_a_path_left_by_a_killed_node_is_used_again(tmp_path):
    path = str(tmp_path / "node.sock")
    first = start("node", "--name", path, "--workers", "0")
    system = await attached(path)
    first.kill()
    ended(first)
    await system.shutdown()
    assert os.path.exists(path)
    with pytest.raises(PulsingError):
        await create_actor_system(SystemConfig.attach(path))
    second = start("node", "--name", path, "--workers", "0")
    await (await attached(path)).shutdown()
    second.terminate()
    assert ended(second) == 0
    assert not os.path.exists(path)


async def test_the_command_line_lists_calls_and_stops(node, name, tmp_path):
    end = tmp_path / "end"

    async def run(*arguments):
        return await asyncio.to_thread(cli, *arguments)

    async with await attached(name) as system:
        await Keeper.local(system, str(end), name="keeper")
        await system.spawn(Calculator(), "hidden")
        code, out, err = await run("actors", name, "--json")
        rows = {row["name"]: row for row in json.loads(out)}
        assert code == 0 and set(rows) == {"keeper", "hidden"}, err
        assert rows["keeper"]["class"] == "Keeper" and rows["keeper"]["worker"] == 0
        assert rows["hidden"]["pid"] == os.getpid() and rows["hidden"]["public"] is False
        code, out, _ = await run("actors", name)
        assert code == 0 and [line.split()[0] for line in out.splitlines()] == [
            "NAME",
            "hidden",
            "keeper",
        ]
        code, out, _ = await run("find", name, "keeper", "--json")
        where = {"node": name, "node_id": str(system.node_id)}
        assert code == 0 and json.loads(out) == [{**where, **rows["keeper"]}]
        code, _, err = await run("find", name, "nobody")
        assert code == 1 and "nobody" in err
        assert await run("call", name, "keeper", "add", "5") == (0, "5\n", "")
        assert await run("call", name, "keeper", "add", "--", "-2") == (0, "3\n", "")
        assert await run("call", name, "keeper", "count", "3") == (0, "0\n1\n2\n", "")
        code, _, err = await run("call", name, "keeper", "fail")
        assert (code, err) == (1, "Error: LookupError: nothing there\n")
        code, _, err = await run("call", name, "keeper", "nothing")
        assert code == 1 and "add, count, fail, wait" in err
        code, _, err = await run("call", name, "keeper", "wait", "60", "--timeout", "0.2")
        assert code == 1 and "AskTimeout" in err
        code, _, err = await run("call", name, "keeper", "add", "five")
        assert code == 2 and "is not JSON" in err
        assert (await run("stop", name, "keeper"))[0] == 0
        assert end.read_text() == "stopped at 3"
        assert await system.find("keeper") is None
        assert (await run("stop", name, "keeper"))[0] == 0


def test_the_command_line_explains_itself():
    code, out, _ = cli("--help")
    assert code == 0
    for command in ("node", "actors", "find", "call", "stop", "stubs"):
        assert f"\n  {command} " in out
    code, out, _ = cli("--version")
    assert code == 0 and out.startswith("pulsing, version ")


def test_a_blocking_system_may_be_ended_in_another_thread():
    held = []
    for _ in range(3):
        system = pulsing.connect(SystemConfig(workers=1))
        assert Calculator.local(system).add(1) == 1
        ending = threading.Thread(target=system.shutdown)
        ending.start()
        ending.join(30)
        assert not ending.is_alive()
        with pytest.raises(SystemClosed):
            system.find("calculator")
        held.append(len(os.listdir("/proc/self/fd")))
    # What only the main thread can give back is given back when it comes by.
    assert held[2] == held[0]
    with pulsing.connect(SystemConfig(workers=0)):
        pass


def test_a_system_that_is_dropped_in_another_thread_ends_in_good_order():
    script = """
import asyncio, gc, threading
from pulsing.actor import SystemConfig, create_actor_system
async def main():
    return await create_actor_system(SystemConfig(workers=0))
held = [asyncio.new_event_loop()]
held.append(held[0].run_until_complete(main()))
held[0].close()
def drop():
    held.clear()
    gc.collect()
thread = threading.Thread(target=drop)
thread.start()
thread.join()
print("dropped")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "dropped\n"), done.stderr
