# SPDX-License-Identifier: Apache-2.0
"""What happens when a worker, the node, the template or the user's process dies, at any moment; and
what restarts keep. Real processes, real signals."""

from __future__ import annotations

import asyncio
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest
from leftovers import marked_processes
from testactors import Calculator, Phoenix, Worker

from pulsing import ActorDied, ActorFailed, Group, PulsingError, SystemClosed
from pulsing.actor import SystemConfig, as_actor, create_actor_system

HERE = pathlib.Path(__file__).parent


def node_of(pid):
    """The node is the parent of its workers."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])


def templates():
    return [pid for pid, command in marked_processes().items() if _is_template(pid, command)]


def _is_template(pid, command):
    name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    return "_template" in command and not name.startswith("pulsing-")


async def _end(awaitable):
    try:
        return await asyncio.wait_for(awaitable, 30)
    except Exception as error:
        return error


async def _pid(ref):
    return await ref.pid()


# -- a worker --------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_every_caller_of_a_killed_worker_gets_actor_died_and_others_go_on(system):
    bystander = await Worker.local(system)
    there = await bystander.pid()
    victim = await Worker.local(system, placement="dedicated")
    pid = await victim.pid()
    asks = [asyncio.ensure_future(victim.sleep(60)) for _ in range(20)]
    await asyncio.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    for error in await asyncio.gather(*map(_end, asks)):
        assert isinstance(error, ActorDied), error
        assert str(pid) in str(error)
        assert "SIGKILL" in str(error) or "dying" in str(error)
    assert await bystander.pid() == there
    with pytest.raises(ActorDied, match=str(pid)):
        await victim.pid()
    with pytest.raises(ActorDied, match=str(pid)):
        await victim.pid.tell()


@pytest.mark.parametrize("how, text", [("leave", "exit code 3"), ("die", "SIGSEGV")])
async def test_actor_died_says_how_the_process_ended(system, how, text, eventually):
    victim = await Worker.local(system, placement="dedicated")
    pid = await victim.pid()
    error = await _end(victim.leave(3) if how == "leave" else victim.die(signal.SIGSEGV))
    assert isinstance(error, ActorDied) and str(pid) in str(error)

    async def told():
        again = await _end(_pid(victim))
        assert isinstance(again, ActorDied) and str(pid) in str(again)
        return text in str(again)

    await eventually(told, f"ActorDied with {text}")


async def test_watch_returns_the_reason_of_a_stop_and_of_a_death(system):
    stopped = await Worker.local(system)
    watching = asyncio.ensure_future(system.watch(stopped))
    await asyncio.sleep(0.02)
    assert not watching.done()
    await system.stop(stopped)
    assert "stop" in await asyncio.wait_for(watching, 20)
    victim = await Worker.local(system, placement="dedicated")
    pid = await victim.pid()
    watching = asyncio.ensure_future(system.watch(victim))
    await asyncio.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    assert str(pid) in await asyncio.wait_for(watching, 20)


async def test_a_worker_is_replaced_for_the_next_actor(system):
    one = await Worker.local(system, placement=0)
    pid = await one.pid()
    await _end(one.die())
    other = await asyncio.wait_for(Worker.local(system, placement=0), 30)
    assert await other.pid() != pid


async def test_the_name_of_a_dead_actor_is_free(system, eventually):
    one = await Worker.local(system, name="service", placement="dedicated")
    await _end(one.die())

    async def free():
        return not await system.has_actor("service")

    await eventually(free, "the end of the name")
    two = await Worker.local(system, name="service", placement="dedicated")
    assert await two.pid() == await (await system.find("service")).pid()


async def test_kills_at_random_moments_never_hang_a_caller(system):
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for _ in range(15):
        victim = await Calculator.local(system, placement="dedicated")
        pid = await victim.pid()

        async def work(victim=victim):
            while True:
                await victim.echo(bytes(chance.choice((10, 3000, 100_000))))

        tasks = [asyncio.ensure_future(work()) for _ in range(5)]
        await asyncio.sleep(chance.random() * 0.03)
        os.kill(pid, signal.SIGKILL)
        ends = await asyncio.gather(*map(_end, tasks))
        assert all(isinstance(e, ActorDied) for e in ends), (seed, ends)


# -- what was told to the dead ---------------------------------------------------------------------


@as_actor
class Sink:
    """Takes what it is told at once, until it is told to nap."""

    def __init__(self):
        self.taken = 0

    def pid(self):
        return os.getpid()

    def take(self):
        self.taken += 1

    def count(self):
        return self.taken

    async def nap(self):
        await asyncio.sleep(1000)


async def _letters(events, count):
    """Reads events until `count` messages are lost; what was lost beyond, and why."""
    seen = {}
    while sum(seen.values()) < count:
        event = await asyncio.wait_for(anext(events), 20)
        if event["event"] == "dead_letters":
            seen[event["reason"]] = seen.get(event["reason"], 0) + event["count"]
    return seen


@pytest.mark.both_loops
async def test_tells_that_wait_in_a_killed_worker_are_dead_letters(system):
    """Not those that it has handled or begun, credited or not, and no asks."""
    events = system.events()
    sink = await Sink.local(system, placement="dedicated")
    for _ in range(30):
        await sink.take.tell()
    assert await sink.count() == 30
    pid = await sink.pid()
    begun = asyncio.ensure_future(sink.nap())
    for _ in range(20):
        await sink.take.tell()
    asks = [asyncio.ensure_future(sink.count()) for _ in range(5)]
    await asyncio.sleep(0.05)
    os.kill(pid, signal.SIGSTOP)
    for _ in range(7):
        await sink.take.tell()
    os.kill(pid, signal.SIGKILL)
    for ask in [begun, *asks]:
        assert isinstance(await _end(ask), ActorDied)
    assert await _letters(events, 27) == {"died": 27}
    await asyncio.sleep(0.3)
    assert {r: n for r, n in system.dead_letters().items() if n} == {"died": 27}


async def test_a_groups_tells_to_killed_members_are_dead_letters(system):
    """Each member's copy of one payload is a message of its own."""
    events = system.events()
    members = [await Sink.local(system, placement="dedicated") for _ in range(3)]
    pids = [await member.pid() for member in members]
    naps = [asyncio.ensure_future(member.nap()) for member in members]
    await asyncio.sleep(0.05)
    await Group(members).take.tell()
    for pid in pids[:2]:
        os.kill(pid, signal.SIGKILL)
    assert await _letters(events, 2) == {"died": 2}
    assert isinstance(await _end(naps[0]), ActorDied)
    os.kill(pids[2], signal.SIGKILL)
    assert await _letters(events, 1) == {"died": 1}
    await asyncio.wait(naps)


async def test_what_goes_again_to_a_rebuilt_actor_is_no_dead_letter(system):
    phoenix = await Phoenix.local(system, placement="dedicated")
    pid = await phoenix.pid()
    os.kill(pid, signal.SIGSTOP)
    for i in range(40):
        await phoenix.note.tell(i)
    os.kill(pid, signal.SIGKILL)
    assert await asyncio.wait_for(phoenix.read(), 30) == list(range(40))
    assert not any(system.dead_letters().values())


async def test_what_was_kept_for_an_actor_that_is_given_up_is_a_dead_letter(system):
    @as_actor(restart="on_failure", max_restarts=0)
    class Mortal:
        def pid(self):
            return os.getpid()

        async def nap(self):
            await asyncio.sleep(1000)

        def take(self):
            pass

    events = system.events()
    mortal = await Mortal.local(system, placement="dedicated")
    pid = await mortal.pid()
    nap = asyncio.ensure_future(mortal.nap())
    for _ in range(40):
        await mortal.take.tell()
    os.kill(pid, signal.SIGKILL)
    assert isinstance(await _end(nap), ActorDied)
    assert await _letters(events, 40) == {"died": 40}


async def test_messages_of_a_dead_sender_leave_their_receiver_alive(system):
    """What waits in a mailbox outlives its sender, also where a copy was kept for a restart."""

    @as_actor
    class Teller:
        async def inform(self, ref):
            for i in range(5):
                await ref.note.tell(i)
            return os.getpid()

    phoenix = await Phoenix.local(system, placement="dedicated")
    pid = await phoenix.pid()
    nap = asyncio.ensure_future(phoenix.nap(0.5))
    teller = await Teller.local(system, placement="dedicated")
    os.kill(await teller.inform(phoenix), signal.SIGKILL)
    await nap
    assert await asyncio.wait_for(phoenix.read(), 30) == list(range(5))
    assert await phoenix.pid() == pid, "it died of the death of its sender"


# -- restarts --------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_a_rebuilt_actor_handles_what_was_queued_in_order_none_twice(system):
    phoenix = await Phoenix.local(system, placement="dedicated", name="phoenix")
    before = await phoenix.pid()
    crash = asyncio.ensure_future(phoenix.crash())
    notes = [asyncio.ensure_future(phoenix.note(i)) for i in range(50)]
    assert isinstance(await _end(crash), ActorDied)
    assert await asyncio.wait_for(asyncio.gather(*notes), 30) == list(range(50))
    assert await phoenix.read() == list(range(50))
    assert await phoenix.pid() != before
    assert await (await system.find("phoenix")).read() == list(range(50))


async def test_tells_survive_kills_in_order_none_twice(system, tmp_path):
    """What was being handled when a kill came may be lost; nothing else may, and nothing twice."""
    path = tmp_path / "notes"
    phoenix = await Phoenix.local(system, str(path), placement="dedicated")
    kills = 0
    for i in range(300):
        await phoenix.note.tell(i)
        if i % 40 == 39:
            pid = await phoenix.pid()
            for k in range(10):
                await phoenix.note.tell(1000 * i + k)
            os.kill(pid, signal.SIGKILL)
            kills += 1
    await asyncio.wait_for(phoenix.pid(), 60)
    lines = [int(line) for line in path.read_text().split()]
    assert lines == sorted(set(lines), key=lines.index), "handled twice"
    expected = []
    for i in range(300):
        expected.append(i)
        if i % 40 == 39:
            expected += [1000 * i + k for k in range(10)]
    places = [expected.index(line) for line in lines]
    assert places == sorted(places), "out of order"
    assert len(lines) >= len(expected) - kills


async def test_thousands_of_restartable_actors_of_one_worker_come_and_go(tmp_path):
    """And those that live when it is killed are rebuilt, with all that was on its way to them."""
    path = tmp_path / "notes"
    async with await create_actor_system(SystemConfig.standalone().with_workers(1)) as system:
        for i in range(2000):
            passing = await Phoenix.local(system)
            await passing.note.tell(i)
            assert await passing.note(i) == i
            await system.stop(passing)
        living = [await Phoenix.local(system, str(path)) for _ in range(600)]
        for i, phoenix in enumerate(living):
            phoenix.note.tell(i)
        first = await living[0].pid()
        for i, phoenix in enumerate(living):
            phoenix.note.tell(1000 + i)
        os.kill(first, signal.SIGKILL)
        notes = [asyncio.ensure_future(p.note(2000 + i)) for i, p in enumerate(living)]
        assert await asyncio.wait_for(_all_pids(living), 60) != first
        ends = await asyncio.wait_for(asyncio.gather(*notes, return_exceptions=True), 60)
        lost = [end for end in ends if not isinstance(end, int)]
        assert len(lost) <= 1
        assert all(isinstance(end, ActorDied) for end in lost)
        lines = [int(line) for line in path.read_text().split()]
        assert len(lines) == len(set(lines)), "handled twice"
        assert len(lines) >= 3 * len(living) - 1, "more than what was being handled is lost"
        for i in range(len(living)):
            of = [line for line in lines if line % 1000 == i]
            assert of == sorted(of), "out of order"


async def _all_pids(refs):
    pids = set(await asyncio.gather(*(ref.pid() for ref in refs)))
    assert len(pids) == 1
    return pids.pop()


async def test_actor_failed_rebuilds_and_the_state_is_new(system):
    phoenix = await Phoenix.local(system)
    await phoenix.note(1)
    with pytest.raises(ActorFailed, match="worn out"):
        await phoenix.fail()
    assert await asyncio.wait_for(phoenix.read(), 30) == []
    assert await phoenix.note(2) == 2


async def test_restarts_end_at_their_limit(system):
    @as_actor(restart="on_failure", max_restarts=2, min_backoff=0.001, max_backoff=0.002)
    class Brittle(Worker):
        pass

    ref = await Brittle.local(system, placement="dedicated")
    pids = []
    for _ in range(2):
        pids.append(await asyncio.wait_for(ref.pid(), 30))
        await _end(ref.die())
    pids.append(await asyncio.wait_for(ref.pid(), 30))
    assert len(set(pids)) == 3
    await _end(ref.die())
    with pytest.raises(ActorDied):
        await asyncio.wait_for(ref.pid(), 30)


async def test_an_actor_without_a_policy_is_not_rebuilt(system):
    ref = await Worker.local(system, placement="dedicated")
    await _end(ref.die())
    with pytest.raises(ActorDied):
        await asyncio.wait_for(ref.pid(), 30)


# -- template and node -----------------------------------------------------------------------------


async def test_killing_the_template_kills_no_worker_and_new_ones_still_start(system):
    one = await Worker.local(system, placement=0)
    pid = await one.pid()
    killed = templates()
    assert len(killed) == 1
    os.kill(killed[0], signal.SIGKILL)
    assert await one.pid() == pid
    two = await asyncio.wait_for(Worker.local(system, placement="dedicated"), 30)
    assert await two.pid() != pid
    assert await one.pid() == pid


@pytest.mark.both_loops
async def test_the_nodes_death_ends_every_call_and_every_process(eventually):
    system = await create_actor_system(SystemConfig.standalone().with_workers(2))
    workers = [await Worker.local(system, placement=i) for i in range(2)]
    node = node_of(await workers[0].pid())
    asks = [asyncio.ensure_future(w.sleep(60)) for w in workers]
    await asyncio.sleep(0.05)
    os.kill(node, signal.SIGKILL)
    ends = await asyncio.gather(*map(_end, asks))
    assert all(isinstance(e, (SystemClosed, ActorDied)) for e in ends), ends
    later = await _end(_pid(workers[0]))
    assert isinstance(later, (SystemClosed, ActorDied)), later
    with pytest.raises(PulsingError):
        await Worker.local(system)
    await eventually(lambda: not marked_processes(), "the end of the workers")
    await asyncio.wait_for(system.shutdown(), 20)


async def test_a_node_killed_at_random_moments_of_its_start_is_an_error_not_a_hang():
    chance = random.Random()
    for _ in range(8):
        system = await create_actor_system(SystemConfig.standalone().with_workers(2))
        local = asyncio.ensure_future(_end(Worker.local(system)))
        await asyncio.sleep(chance.random() * 0.1)
        for pid, command in marked_processes().items():
            if "pulsing-node" in command:
                os.kill(pid, signal.SIGKILL)
        assert isinstance(await local, Exception) or await _end(system.watch(local.result()))
        await asyncio.wait_for(system.shutdown(), 20)


# -- the user's process ----------------------------------------------------------------------------

PROGRAM = """
import asyncio, os, sys, time
from pulsing.actor import SystemConfig, as_actor, create_actor_system
@as_actor
class A:
    def f(self, x): return x
async def main(mode):
    s = await create_actor_system(SystemConfig.standalone().with_workers(2))
    refs = [await A.local(s) for _ in range(2)]
    for r in refs: await r.f(1)
    print("ready", flush=True)
    if mode == "_exit": os._exit(3)
    if mode == "raise": raise RuntimeError("no clean shutdown")
    if mode == "idle": await asyncio.sleep(60)
    while True:
        await asyncio.gather(*[r.f(bytes(100_000)) for r in refs])
asyncio.run(main(sys.argv[1]))
"""


def start(mode, **options):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, mode],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, which this may be, does not hear of Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **options,
    )


def nothing_is_left(seconds=10.0):
    end = time.monotonic() + seconds
    while left := marked_processes():
        assert time.monotonic() < end, left
        time.sleep(0.02)


@pytest.mark.parametrize("mode", ["busy", "idle", "_exit", "raise", "starting"])
def test_nothing_outlives_the_users_process(mode):
    for _ in range(6 if mode == "starting" else 2):
        with start(mode) as process:
            if mode == "starting":
                time.sleep(random.random() * 0.4)
                process.kill()
            else:
                assert process.stdout.readline() == "ready\n", process.stderr.read()
                if mode in ("busy", "idle"):
                    time.sleep(random.random() * 0.1)
                    process.kill()
            process.wait(20)
        nothing_is_left()


def test_an_unclean_end_shows_the_programs_own_error():
    with start("raise") as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.rstrip().endswith("RuntimeError: no clean shutdown")
    nothing_is_left()


def test_ctrl_c_interrupts_the_users_program_alone():
    """The terminal sends SIGINT to the whole group; only the user's process takes notice."""
    with start("idle", start_new_session=True) as process:
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode in (1, -signal.SIGINT)
    assert errors.count("KeyboardInterrupt") >= 1
    assert errors.count("Traceback") <= 2, errors
    nothing_is_left()


def test_workers_and_node_ignore_the_terminals_sigint():
    with start("busy", start_new_session=True) as process:
        assert process.stdout.readline() == "ready\n"
        others = [pid for pid in marked_processes() if pid != process.pid]
        assert len(others) >= 3
        for pid in others:
            os.kill(pid, signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        assert set(others) <= set(marked_processes())
        process.kill()
    nothing_is_left()
