# SPDX-License-Identifier: Apache-2.0
"""Several nodes: membership over real sockets, each node a process of its own."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import socket
import time

import pytest
from nodes import BOUND_S, config, sees, until
from testactors import Calculator

import pulsing
from pulsing import ActorNotFound, NodeUnreachable, PulsingError
from pulsing.actor import SystemConfig, create_actor_system

pytestmark = pytest.mark.between_nodes

SEEN_S = 0.3  # until two nodes see each other
KILLED_S = 2.5  # until a node whose host refuses connections counts as dead


@pytest.mark.asyncio
async def test_two_nodes_see_each_other(capsys):
    async with await create_actor_system(config()) as one:
        begun = time.monotonic()
        async with await create_actor_system(config(one.addr)) as two:
            await two.joined(BOUND_S)
            await until(sees(one, two.node_id))
            await until(sees(two, one.node_id))
            took = time.monotonic() - begun
            with capsys.disabled():
                print(f"\nseen {took * 1000:.0f} ms after the second began to start")
            assert took < SEEN_S * 10
            addresses = {row["addr"] for row in await one.members()}
            assert addresses == {one.addr, two.addr}


@pytest.mark.asyncio
async def test_the_address_is_the_real_one():
    async with await create_actor_system(config()) as one:
        host, _, port = one.addr.rpartition(":")
        assert host == "127.0.0.1" and int(port) > 0
    async with await create_actor_system(SystemConfig(workers=0)) as alone:
        assert alone.addr is None


@pytest.mark.asyncio
async def test_the_port_is_free_when_shutdown_returns():
    one = await create_actor_system(config())
    addr = one.addr
    two = await create_actor_system(config(addr))
    await two.joined(BOUND_S)
    await one.shutdown()
    async with await create_actor_system(SystemConfig(addr=addr, workers=0)) as again:
        assert again.addr == addr
    await two.shutdown()


@pytest.mark.asyncio
async def test_a_killed_node_leaves_the_members(capsys):
    async with await create_actor_system(config()) as one:
        two = await create_actor_system(config(one.addr))
        await two.joined(BOUND_S)
        await until(sees(one, two.node_id))
        os.kill(two._rt.node_pid, signal.SIGKILL)
        took = await until(sees(one, two.node_id, "Dead"))
        with capsys.disabled():
            print(f"\ndead {took:.2f} s after the kill")
        assert took < KILLED_S
        await two.shutdown()


@pytest.mark.asyncio
async def test_a_node_that_leaves_has_left_and_is_not_dead():
    async with await create_actor_system(config()) as one:
        events = one.events()
        async with await create_actor_system(config(one.addr)) as two:
            await two.joined(BOUND_S)
            node = str(two.node_id)
        assert await until(sees(one, two.node_id, "Left")) < 1.0
        seen = []
        while not seen or seen[-1] != "left":
            event = await asyncio.wait_for(anext(events), BOUND_S)
            if event["node_id"] == node:
                seen.append(event["event"])
        assert seen == ["joined", "left"]


@pytest.mark.asyncio
async def test_joined_says_what_the_seeds_answered():
    async with await create_actor_system(config("127.0.0.1:1")) as one:
        with pytest.raises(NodeUnreachable, match=r"127\.0\.0\.1:1"):
            await one.joined(0.5)


@pytest.mark.asyncio
async def test_a_seed_that_comes_later_is_found():
    first = await create_actor_system(config())
    addr = first.addr
    await first.shutdown()
    async with await create_actor_system(config(addr, "127.0.0.1:1")) as early:
        await asyncio.sleep(0.5)
        async with await create_actor_system(SystemConfig(addr=addr, workers=0)) as late:
            await early.joined(BOUND_S)
            await until(sees(late, early.node_id))


@pytest.mark.asyncio
async def test_without_seeds_joined_returns_at_once():
    async with await create_actor_system(config()) as one:
        await one.joined(0)
    async with await create_actor_system(SystemConfig(workers=0)) as alone:
        await alone.joined(0)
        rows = await alone.members()
        assert [row["status"] for row in rows] == ["Alive"]
        assert rows[0]["node_id"] == str(alone.node_id)


@pytest.mark.asyncio
async def test_names_are_looked_up_and_a_dead_seed_holds_up_no_other():
    async with await create_actor_system(config()) as one:
        port = one.addr.rpartition(":")[2]
        seeds = ("no-such-host.invalid:1", "127.0.0.1:1", f"localhost:{port}")
        async with await create_actor_system(config(*seeds)) as two:
            begun = time.monotonic()
            await two.joined(BOUND_S)
            assert time.monotonic() - begun < 2.0


@pytest.mark.asyncio
async def test_a_wildcard_is_never_what_peers_are_told():
    wild = SystemConfig(addr="0.0.0.0:0", workers=0)
    async with await create_actor_system(wild) as alone:
        host, _, port = alone.addr.rpartition(":")
        assert host != "0.0.0.0" and int(port) > 0
        async with await create_actor_system(wild.with_seeds([f"127.0.0.1:{port}"])) as second:
            # It speaks to its seed from there.
            assert second.addr.startswith("127.0.0.1:")
            await second.joined(BOUND_S)
    async with await create_actor_system(wild.with_advertise("127.0.0.9:0")) as told:
        assert told.addr.startswith("127.0.0.9:") and not told.addr.endswith(":0")


@pytest.mark.asyncio
async def test_listening_to_the_world_without_a_key_is_warned_of_once(capfd):
    async with await create_actor_system(SystemConfig(addr="0.0.0.0:0", workers=0)):
        await asyncio.sleep(0.1)
    assert capfd.readouterr().err.count("without a cluster key") == 1
    key = SystemConfig(addr="0.0.0.0:0", workers=0, cluster_key=b"k" * 32)
    for quiet in (config(), key):
        async with await create_actor_system(quiet):
            await asyncio.sleep(0.1)
        assert "cluster key" not in capfd.readouterr().err


@pytest.mark.asyncio
async def test_an_address_in_use_is_an_error_that_names_it():
    async with await create_actor_system(config()) as one:
        with pytest.raises(PulsingError, match=rf"{one.addr}.*in use"):
            await create_actor_system(SystemConfig(addr=one.addr, workers=0))
    with pytest.raises(PulsingError, match="does not have that address"):
        await create_actor_system(SystemConfig(addr="192.0.2.77:0", workers=0))
    with pytest.raises(PulsingError, match=r"no-such-host\.invalid"):
        await create_actor_system(SystemConfig(addr="no-such-host.invalid:0", workers=0))


@pytest.mark.asyncio
async def test_a_process_that_starts_again_at_an_address_replaces_the_one_before():
    async with await create_actor_system(config()) as one:
        two = await create_actor_system(config(one.addr))
        addr = two.addr
        await until(sees(one, two.node_id))
        os.kill(two._rt.node_pid, signal.SIGKILL)
        await two.shutdown()
        again = SystemConfig(addr=addr, seeds=(one.addr,), workers=0)
        async with await create_actor_system(again) as three:
            assert await until(sees(one, three.node_id)) < 2.0
            await until(sees(one, two.node_id, "Dead"))


@pytest.mark.asyncio
async def test_a_node_that_reaches_nobody_says_that_it_is_isolated():
    async with await create_actor_system(config()) as one:
        others = [await create_actor_system(config(one.addr)) for _ in range(2)]
        for other in others:
            await until(sees(one, other.node_id))
            await other.joined(BOUND_S)
        assert not await one.isolated()
        events = one.events()
        pids = [other._rt.node_pid for other in others]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        await until(one.isolated)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

        async def regained():
            return not await one.isolated()

        await until(regained)
        seen = []
        while "regained" not in seen:
            event = await asyncio.wait_for(anext(events), BOUND_S)
            seen.append(event["event"])
        assert "isolated" in seen
        for other in others:
            await other.shutdown()


def sockets_of(pid):
    """The TCP and UDP sockets of a process."""
    inodes = set()
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(fd))
        except OSError:
            continue
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        lines = pathlib.Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        found += [line for line in lines if f"socket:[{line.split()[9]}]" in inodes]
    return found


@pytest.mark.asyncio
async def test_a_node_without_an_address_has_no_network():
    async with await create_actor_system(SystemConfig(workers=0)) as alone:
        pid = alone._rt.node_pid
        assert sockets_of(pid) == []
        assert "zmq" not in pathlib.Path(f"/proc/{pid}/maps").read_text()
        await asyncio.sleep(0.3)
        before = switches(pid)
        await asyncio.sleep(2.0)
        assert switches(pid) - before <= 4
    async with await create_actor_system(config()) as one:
        assert len(sockets_of(one._rt.node_pid)) == 1


def switches(pid):
    """How often a process has gone to sleep, all its threads together."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary"):
                total += int(line.split()[1])
    return total


@pytest.mark.asyncio
async def test_nodes_with_the_key_join_and_others_are_refused(tmp_path, capfd):
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    async with await create_actor_system(config(cluster_key=key)) as one:
        async with await create_actor_system(config(one.addr, cluster_key="ab" * 32)) as two:
            await two.joined(BOUND_S)
            await until(sees(one, two.node_id))
        for wrong in ("cd" * 32, None):
            async with await create_actor_system(config(one.addr, cluster_key=wrong)) as stranger:
                with pytest.raises(NodeUnreachable):
                    await stranger.joined(2.0)
                rows = await one.members()
                assert str(stranger.node_id) not in {row["node_id"] for row in rows}
    assert "turned away" in capfd.readouterr().err


@pytest.mark.asyncio
async def test_a_key_that_others_may_read_is_refused(tmp_path):
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    key.chmod(0o644)
    with pytest.raises(PulsingError, match="chmod 600"):
        await create_actor_system(config(cluster_key=key))
    with pytest.raises(PulsingError, match="pulsing keygen"):
        await create_actor_system(config(cluster_key=tmp_path / "missing"))
    with pytest.raises(ValueError, match="cluster_key"):
        SystemConfig(cluster_key=b"short")
    assert "ab" * 32 not in repr(SystemConfig(cluster_key="ab" * 32))


@pytest.mark.asyncio
async def test_garbage_at_the_port_does_no_harm():
    async with await create_actor_system(config()) as one:
        host, _, port = one.addr.rpartition(":")
        for _ in range(20):
            with socket.create_connection((host, int(port))) as garbage:
                garbage.sendall(os.urandom(2000))
        async with await create_actor_system(config(one.addr)) as two:
            await two.joined(BOUND_S)
            await until(sees(one, two.node_id))


BAD_SECONDS = ["5", True, -1, float("nan")]


@pytest.mark.asyncio
async def test_a_time_that_is_none_is_refused_by_name():
    async with await create_actor_system(SystemConfig(workers=0)) as system:
        for bad in BAD_SECONDS:
            with pytest.raises(ValueError, match="timeout: expected seconds, got"):
                await system.joined(bad)
            with pytest.raises(ValueError, match="timeout: expected seconds, got"):
                await system.find("name", timeout=bad)


def test_the_blocking_form_joins_too():
    with pulsing.connect(config()) as one, pulsing.connect(config(one.addr)) as two:
        for bad in BAD_SECONDS:
            with pytest.raises(ValueError, match="timeout: expected seconds, got"):
                two.joined(bad)
        two.joined(BOUND_S)
        assert {row["addr"] for row in two.members()} == {one.addr, two.addr}
        assert not two.isolated()
        other = next(event for event in two.events() if event["addr"] == one.addr)
        assert other["event"] == "joined"
        one.spawn(Calculator(), name="counter", public=True)
        assert two.find("counter", timeout=BOUND_S) is not None
        assert two.has_actor("counter")
        assert [row["name"] for row in one.all_named_actors()] == ["counter"]
        assert one.local_actor_names() == ["counter"] and two.local_actor_names() == []
        assert [row["addr"] for row in two.get_named_instances("counter")] == [one.addr]
        assert two.resolve_named("counter", one.node_id).add(3) == 3
        with pytest.raises(ActorNotFound):
            two.resolve_named("counter", two.node_id)
    with pulsing.connect(config("127.0.0.1:1")) as alone:
        with pytest.raises(NodeUnreachable, match=r"within 0\.3 s.*127\.0\.0\.1:1"):
            alone.joined(0.3)
