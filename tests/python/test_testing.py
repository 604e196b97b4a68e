# SPDX-License-Identifier: Apache-2.0
"""`pulsing.testing`: its fixtures, and that each fault does what it says."""

from __future__ import annotations

import asyncio
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

from pulsing import ActorDied, AskTimeout, SystemClosed
from pulsing.actor import as_actor
from pulsing.testing import Faults, running_cluster, running_system

pytest_plugins = ["pulsing.testing"]

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "testing.md"


@as_actor
class Notes:
    """Keeps what it was told, in order."""

    def __init__(self):
        self.seen = []

    def note(self, item):
        self.seen.append((item, time.monotonic()))
        return item

    def read(self):
        return [item for item, _ in self.seen]

    def times(self):
        return [at for _, at in self.seen]

    def count(self, n):
        yield from range(n)

    def pid(self):
        return os.getpid()


@as_actor(restart="on_failure", min_backoff=0.001)
class Phoenix(Notes):
    pass


@as_actor
class Caller:
    """Calls what it was given."""

    def __init__(self, target):
        self.target = target

    async def call(self, item):
        return await self.target.note(item)


def alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# -- fixtures --------------------------------------------------------------------------------------


async def test_the_system_has_two_workers_and_nothing_of_it_is_left():
    async with running_system() as system:
        refs = [await Notes.local(system) for _ in range(4)]
        pids = {await ref.pid() for ref in refs}
        assert len(pids) == 2
        pids.add(await Faults(system).pid_of("node"))
    assert not any(map(alive, pids))


async def test_members_of_a_cluster_find_each_others_actors(cluster):
    assert len(cluster) == 3 and len({m._rt.slot for m in cluster}) == 3
    await cluster[1].spawn(Notes(), "notes", public=True)
    ref = await cluster[2].find("notes", timeout=10)
    assert not ref.is_local()
    assert await ref.note("across") == "across"
    await Notes.local(cluster[0], name="built")
    assert await (await cluster[1].resolve("built", timeout=10)).pid() != os.getpid()


async def test_a_cluster_grows_and_shrinks():
    async with running_cluster(2) as cluster:
        third = await cluster.join()
        ref = await third.spawn(Notes(), "third", public=True)
        there = await cluster[0].resolve("third", timeout=10)
        assert await there.read() == []
        await cluster.leave(third)
        assert len(cluster) == 2
        with pytest.raises(ActorDied):
            await there.read()
        with pytest.raises(SystemClosed):
            await ref.read()
        with pytest.raises(ValueError, match="the first member has the node"):
            await cluster.leave(cluster[0])


@pytest.mark.parametrize("size", [0, 65, "three", True])
async def test_a_bad_size_is_refused(size):
    with pytest.raises(ValueError, match="size"):
        async with running_cluster(size):
            pass


def test_the_blocking_form(blocking_system):
    assert Notes.local(blocking_system).note(1) == 1


# -- processes -------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_kill_ends_the_actors_process_before_it_returns(actor_system, faults):
    victim = await Notes.local(actor_system, placement=0)
    other = await Notes.local(actor_system, placement=1)
    pid = await victim.pid()
    waiting = asyncio.ensure_future(victim.note(1))
    assert await faults.kill(victim) == pid
    assert not alive(pid)
    await asyncio.wait([waiting])
    with pytest.raises(ActorDied, match="SIGKILL"):
        await victim.read()
    assert await other.note("on") == "on"


async def test_kill_takes_an_index_and_a_rebuilt_actor_is_found_where_it_is(actor_system, faults):
    phoenix = await Phoenix.local(actor_system, placement=1)
    first = await phoenix.pid()
    assert await faults.kill(1) == first
    second = await asyncio.wait_for(phoenix.pid(), 30)
    assert second != first and await faults.pid_of(phoenix) == second
    assert await faults.kill(phoenix) == second
    assert await asyncio.wait_for(phoenix.pid(), 30) not in (first, second)
    await actor_system.stop(phoenix)
    with pytest.raises(ActorDied, match="stopped"):
        await phoenix.pid()


async def test_kill_of_the_node_closes_the_system(actor_system, faults):
    ref = await Notes.local(actor_system)
    await faults.kill("node")
    with pytest.raises(SystemClosed):
        await ref.read()


async def test_a_paused_process_answers_when_it_goes_on(actor_system, faults):
    slow = await Notes.local(actor_system, placement=0)
    other = await Notes.local(actor_system, placement=1)
    async with faults.pause(slow) as pid:
        assert pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        call = asyncio.ensure_future(slow.note("late"))
        with pytest.raises(AskTimeout):
            await slow.note.options(timeout=0.1)("lost")
        assert await other.note("on") == "on"
        assert not call.done()
        with pytest.raises(ValueError, match="paused already"):
            async with faults.pause(slow):
                pass
    assert await asyncio.wait_for(call, 10) == "late"
    assert await slow.read() == ["late"]


async def test_a_process_killed_in_its_pause_is_no_error(actor_system, faults):
    ref = await Notes.local(actor_system)
    async with faults.pause(ref):
        await faults.kill(ref)
    with pytest.raises(ActorDied):
        await ref.read()


async def test_a_bad_target_is_refused(actor_system, faults):
    here = await actor_system.spawn(Notes())
    with pytest.raises(ValueError, match="lives in this process"):
        await faults.kill(here)
    with pytest.raises(LookupError):
        await faults.kill(1)
    with pytest.raises(TypeError, match="expected a ref, a worker's index or 'node'"):
        await faults.kill("worker")


# -- lines -----------------------------------------------------------------------------------------


async def test_a_whole_link_is_a_ref(actor_system, faults):
    ref = await Notes.local(actor_system, name="notes")
    link = faults.link(ref)
    assert await link.note(1) == 1
    await link.note.tell(2)
    assert await link.note.options(timeout=5)(3) == 3
    assert [x async for x in link.count(3)] == [0, 1, 2]
    assert await asyncio.create_task(link.read()) == [1, 2, 3]
    assert (link.name, link.actor_id, link.is_local()) == ("notes", ref.actor_id, False)
    with pytest.raises(AttributeError, match="no_such"):
        await link.no_such()


async def test_drop_loses_the_next_messages_and_no_others(actor_system, faults):
    link = faults.link(await Notes.local(actor_system))
    faults.drop(link, count=3)
    await link.note.tell(1)
    begin = time.monotonic()
    with pytest.raises(AskTimeout, match="lost on its way"):
        await link.note.options(timeout=0.2)(2)
    assert 0.2 <= time.monotonic() - begin < 5
    with pytest.raises(AskTimeout, match="lost on its way"):
        await link.note(3)  # has no timeout: it does not hang
    assert await link.note(4) == 4
    assert await link.read() == [4] and faults.dropped(link) == 3


async def test_drop_of_a_share_is_the_same_for_the_same_seed(actor_system, faults):
    kept = []
    for seed in (1, 1, 2):
        link = faults.link(await Notes.local(actor_system))
        faults.drop(link, share=0.5, seed=seed)
        for i in range(100):
            await link.note.tell(i)
        faults.heal(link)
        kept.append(await link.read())
        assert len(kept[-1]) == 100 - faults.dropped(link)
    assert kept[0] == kept[1] != kept[2]
    assert all(20 < len(k) < 80 and k == sorted(k) for k in kept)


async def test_delay_makes_messages_later_and_keeps_their_order(actor_system, faults):
    ref = await Notes.local(actor_system)
    link = faults.link(ref)
    faults.delay(link, 1)
    begin = time.monotonic()
    calls = [link.note(i) for i in range(5)]
    faults.delay(link, 0.01)
    calls += [link.note(i) for i in range(5, 8)]
    assert await ref.note("direct") == "direct", "only the link is slow"
    assert time.monotonic() - begin < 1
    assert await asyncio.gather(*calls) == list(range(8))
    assert await ref.read() == ["direct", *range(8)]
    assert all(at - begin >= 1 for at in (await ref.times())[1:])
    faults.heal(link)
    assert await link.note("healed") == "healed"


async def test_a_delayed_stream_is_a_stream(actor_system, faults):
    link = faults.link(await Notes.local(actor_system))
    faults.delay(link, 0.05)
    assert [x async for x in link.count(3)] == [0, 1, 2]


async def test_a_link_keeps_its_faults_in_another_process(actor_system, faults):
    target = await Notes.local(actor_system, placement=0)
    link = faults.link(target)
    faults.drop(link, count=1)
    caller = await Caller.local(actor_system, link, placement=1)
    with pytest.raises(AskTimeout, match="lost on its way"):
        await caller.call("first")
    assert await caller.call("second") == "second"
    assert await target.read() == ["second"]


async def test_what_is_no_link_is_refused(actor_system, faults):
    ref = await Notes.local(actor_system)
    with pytest.raises(TypeError, match=r"expected what faults.link\(ref\) gave"):
        faults.drop(ref)
    with pytest.raises(TypeError, match="expected a ref"):
        faults.link("notes")
    for bad in (
        lambda: faults.drop(faults.link(ref), share=2),
        lambda: faults.drop(faults.link(ref), count=-1),
        lambda: faults.delay(faults.link(ref), -1),
    ):
        with pytest.raises(ValueError, match="expected"):
            bad()


# -- as users have it ------------------------------------------------------------------------------


def run_pytest(folder, *options):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=110, check=False
    )


def test_the_pages_example_runs(tmp_path):
    files = re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert [name for name, _ in files] == ["conftest.py", "counter.py", "test_counter.py"]
    for name, text in files:
        (tmp_path / name).write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b(\d+) passed", done.stdout)[1] == str(PAGE.read_text().count("def test_"))


def test_without_pytest_asyncio_the_fixtures_say_what_they_need(tmp_path):
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["pulsing.testing"]\n')
    (tmp_path / "test_it.py").write_text(
        "def test_plain(blocking_system):\n    assert blocking_system.find('x') is None\n"
        "def test_async(actor_system):\n    pass\n"
    )
    (tmp_path / "pytest_asyncio.py").write_text("raise ImportError('not here')\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = run_pytest(tmp_path, "-p", "no:asyncio")
    assert "1 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "needs pytest-asyncio" in done.stdout
