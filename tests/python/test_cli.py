# SPDX-License-Identifier: Apache-2.0
"""The command line on several nodes: how a node is described, and what reaches other nodes."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
from testactors import Calculator

from pulsing import PulsingError
from pulsing.actor import SystemConfig, create_actor_system

HERE = pathlib.Path(__file__).parent
CLI = [sys.executable, "-c", "from pulsing._cli import main; main(prog_name='pulsing')"]
BOUND_S = 30.0
LOOPBACK = "127.0.0.1:0"


def environment(**more):
    env = {name: value for name, value in os.environ.items() if name[:8] != "PULSING_"}
    return {**env, "PYTHONPATH": os.pathsep.join([p for p in sys.path if p] + [str(HERE)]), **more}


def cli(*arguments, **env):
    """(exit code, stdout, stderr) of one command."""
    done = subprocess.run(
        [*CLI, *arguments], env=environment(**env), capture_output=True, text=True, timeout=BOUND_S
    )
    return done.returncode, done.stdout, done.stderr


def run(*arguments, **env):
    return asyncio.to_thread(cli, *arguments, **env)


@pytest.fixture
def start():
    """Starts a node by its command; all of them are ended after the test."""
    started = []

    def begin(*arguments, **env):
        started.append(subprocess.Popen([*CLI, "node", *arguments], env=environment(**env)))
        return started[-1]

    yield begin
    for process in started:
        process.terminate()
    for process in started:
        try:
            process.wait(BOUND_S)
        finally:
            process.kill()


async def attached(name):
    end = time.monotonic() + BOUND_S
    while True:
        try:
            return await create_actor_system(SystemConfig.attach(name))
        except PulsingError:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)


async def members(name, count):
    """What `pulsing members` says, once it says so many."""
    end = time.monotonic() + BOUND_S
    while True:
        code, out, err = await run("members", name, "--json")
        assert code == 0, err
        rows = json.loads(out)
        if len(rows) == count:
            return rows
        assert time.monotonic() < end, rows


def names(*ends):
    return [f"cli-{os.getpid()}-{end}" for end in ends]


async def test_flags_go_before_the_environment_and_that_before_the_file(start, tmp_path):
    first, second, third = names("first", "second", "third")
    assert cli("keygen", str(tmp_path / "key"))[0] == 0
    file = tmp_path / "node.toml"
    file.write_text(
        f'name = "{first}"\naddr = "{LOOPBACK}"\nworkers = 1\ncluster_key = "key"\n'
        'memory = 16777216\nseeds = ["127.0.0.1:1", "127.0.0.1:2"]\n'
    )
    start("--config", str(file))
    async with await attached(first) as system:
        assert [row["index"] for row in system.workers()] == [] and system._rt.workers_max == 1
        # The environment goes before the file; the file still says what it does not.
        start("--config", str(file), PULSING_NAME=second, PULSING_SEEDS=f"{system.addr},[::1]:1")
        async with await attached(second) as other:
            assert other._rt.workers_max == 1
            await other.joined(BOUND_S)
        # A flag goes before both. It reaches the others by its seed alone, so it has the same key.
        start(
            *("--config", str(file), "--name", third, "--workers", "0"),
            *("--seeds", "127.0.0.1:1", "--seeds", system.addr),
            *("--addr", LOOPBACK, "--cluster-key", str(tmp_path / "key")),
            PULSING_NAME=second,
            PULSING_WORKERS="7",
            PULSING_SEEDS="127.0.0.1:1",
        )
        async with await attached(third) as other:
            assert other._rt.workers_max == 0
        rows = await members(third, 3)
        assert [row["name"] for row in rows] == [first, second, third]
        assert {row["status"] for row in rows} == {"Alive"}
        assert rows[0]["addr"] == system.addr and rows[0]["node_id"] == str(system.node_id)
        code, out, _ = await run("members", first)
        lines = [line.split() for line in out.splitlines()]
        assert code == 0 and lines[0] == ["NAME", "ADDR", "STATUS", "NODE_ID"]
        assert [line[0] for line in lines[1:]] == [first, second, third]


async def test_others_are_told_the_advertised_address(start):
    (name,) = names("told")
    start("--name", name, "--addr", LOOPBACK, "--advertise", "localhost:0", "--workers", "0")
    async with await attached(name) as system:
        host, _, port = system.addr.rpartition(":")
        assert host in ("localhost", "127.0.0.1") and int(port) > 0


@pytest.mark.parametrize(
    "text, said",
    [
        ('nmae = "x"\nworkrs = 1\n', "unknown key 'nmae', 'workrs'; a node has addr"),
        ('workers = "4"\n', "workers is a whole number, got '4'"),
        ("memory = true\n", "memory is a whole number, got True"),
        ('seeds = "127.0.0.1:1"\n', "seeds is a list of texts, got '127.0.0.1:1'"),
        ('name = "x"\nname = "y"\n', "node.toml: "),
        ("name = \n", "node.toml: "),
        ('name = "x"\nworkers = 4000\n', "workers"),
        ('name = "x"\naddr = "nowhere"\n', "addr: expected 'host:port', got 'nowhere'"),
        ('name = "x"\nseeds = ["127.0.0.1:70000"]\n', "seeds: expected 'host:port' with a port"),
        (f'name = "x"\ncluster_key = "{"5a" * 32}"\n', "expected the path of a file"),
        ("workers = 1\n", "--name"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path, text, said):
    file = tmp_path / "node.toml"
    file.write_text(text)
    code, out, err = cli("node", "--config", str(file))
    assert code in (1, 2) and said in err and not out and "Traceback" not in err


def test_a_key_on_the_command_line_is_refused_and_a_missing_file_named(tmp_path):
    code, _, err = cli("node", "--name", "x", "--addr", LOOPBACK, "--cluster-key", "5a" * 32)
    assert code == 2 and "pulsing keygen" in err and "5a5a" not in err
    code, _, err = cli("node", "--config", str(tmp_path / "none.toml"))
    assert code == 1 and "none.toml" in err and "No such file" in err
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    code, _, err = cli("node", "--config", str(tmp_path / "binary"))
    assert code == 1 and "binary" in err and "Traceback" not in err


@pytest.mark.between_nodes
async def test_actors_of_other_nodes_are_found_called_and_stopped(start):
    near, far = names("near", "far")
    key = {"PULSING_CLUSTER_KEY": "5a" * 32}  # without one, nodes stop no actors of each other
    start("--name", near, "--addr", LOOPBACK, "--workers", "0", **key)
    async with await attached(near) as here:
        start("--name", far, "--addr", LOOPBACK, "--seeds", here.addr, "--workers", "1", **key)
        async with await attached(far) as there:
            await there.joined(BOUND_S)
            actor = await Calculator.local(there, name="counter", public=True)
            await there.spawn(Calculator(), "hidden")
            code, out, err = await run("find", near, "counter", "--wait", "20", "--json")
            assert code == 0, err
            assert json.loads(out) == [
                {
                    "node": far,
                    "node_id": str(there.node_id),
                    "name": "counter",
                    "class": None,
                    "id": f"{actor.actor_id.number:x}",
                    "public": True,
                    "worker": None,
                    "pid": None,
                }
            ]
            assert await run("call", near, "counter", "add", "2") == (0, "2\n", "")
            assert await actor.add(3) == 5
            assert (await run("call", near, "hidden", "add", "2"))[0] == 1
            # A second one, here: it is found and called before the other, which --on still means.
            await here.spawn(Calculator(), "counter", public=True)
            code, out, _ = await run("find", near, "counter")
            lines = [line.split() for line in out.splitlines()]
            assert [line[0] for line in lines] == ["NODE", near, far]
            assert lines[1][2] == "Calculator" and lines[2][2] == "-"
            assert await run("call", near, "counter", "add", "1") == (0, "1\n", "")
            for on in (far, there.addr, str(there.node_id)):
                assert (await run("call", near, "counter", "add", "0", "--on", on))[1] == "5\n"
            assert (await run("call", near, "counter", "add", "0", "--on", near))[1] == "1\n"
            code, _, err = await run("call", near, "counter", "add", "0", "--on", "nobody")
            assert code == 1 and "'nobody'" in err and far in err
            code, _, err = await run("stop", near, "hidden", "--on", far)
            assert code == 1 and "no public actor" in err
            # Stopping by name means this node's, and never another's by mistake.
            assert (await run("stop", near, "counter"))[0] == 0
            assert await here._find("counter") is None and await actor.add(0) == 5
            code, _, err = await run("stop", near, "counter")
            assert code == 1 and f"but of {far}; say which: --on" in err
            assert await actor.add(0) == 5
            assert await run("stop", near, "counter", "--on", far) == (0, "", "")
            assert await there.find("counter") is None


def test_the_shell_completes_commands():
    code, out, err = cli(_PULSING_COMPLETE="bash_complete", COMP_WORDS="pulsing me", COMP_CWORD="1")
    assert (code, out) == (0, "plain,members\n"), err
    code, out, err = cli(_PULSING_COMPLETE="bash_source")
    assert code == 0 and "complete -o nosort -F _pulsing_completion pulsing" in out, err
