# SPDX-License-Identifier: Apache-2.0
"""What ActorDied says of the process that died: how it ended, what ran, what it printed last."""

from __future__ import annotations

import asyncio
import ctypes
import os
import pickle
import signal
import sys
import time

import pytest
from memory_groups import memory_group

from pulsing import ActorDied
from pulsing.actor import SystemConfig, as_actor, create_actor_system, current_context


@as_actor
class Mortal:
    def pid(self):
        return os.getpid()

    async def nap(self, seconds):
        await asyncio.sleep(seconds)

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass

    def speak_and_leave(self, code):
        for i in range(30):
            print(f"line {i}")
        print("a last sigh", file=sys.stderr)
        sys.stdout.flush()
        os._exit(code)

    def crash(self):
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # a sanitizer would make an exit of it
        ctypes.string_at(0)

    def eat(self, megabytes):
        kept = []
        for _ in range(megabytes):
            kept.append(bytearray(os.urandom(4096)) * 256)
        return len(kept)


@as_actor
class Carrier:
    async def carry(self, other):
        try:
            await other.nap(60)
        except ActorDied as error:
            # What the kernel has not told by now does not follow the error to another process.
            while "dying" in str(error):
                await asyncio.sleep(0.01)
            raise


@as_actor
class Stranger:
    async def meet(self, other):
        try:
            await other.pid()
        except ActorDied as error:
            return str(error), error.pid, error.signal

    async def watch(self, other):
        return await current_context().system.watch(other)


@as_actor(restart="on_failure", min_backoff=0.001)
class Phoenix(Mortal):
    pass


async def death_of(call):
    with pytest.raises(ActorDied) as caught:
        await asyncio.wait_for(call, 20)
    return caught.value


async def final(error, eventually):
    """While the kernel tears the process down, what is known is not all."""
    await eventually(lambda: "dying" not in str(error), "the end of the death")
    return error


@pytest.mark.both_loops
async def test_a_killed_process_its_signal_and_the_suspended_method(system, eventually):
    mortal = await Mortal.local(system, name="mortal", placement="dedicated")
    pid = await mortal.pid()
    napping = asyncio.ensure_future(mortal.nap(60))
    queued = asyncio.ensure_future(mortal.spin(0))
    await asyncio.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    for call in (napping, queued):
        error = await final(await death_of(call), eventually)
        assert error.pid == pid
        assert error.signal is signal.SIGKILL
        assert error.exit_code is None
        assert error.out_of_memory is False
        assert error.method == "nap"
        assert error.actor == mortal.actor_id and error.actor.name == "mortal"
        assert f"pid {pid}, SIGKILL" in str(error) and "nap() was running" in str(error)
    later = await final(await death_of(_ask(mortal)), eventually)
    assert (later.pid, later.signal, later.method) == (pid, signal.SIGKILL, "nap")


async def _ask(ref):
    return await ref.pid()


async def test_the_method_that_has_the_thread(system, eventually):
    mortal = await Mortal.local(system, placement="dedicated")
    pid = await mortal.pid()
    spinning = asyncio.ensure_future(mortal.spin(60))
    await asyncio.sleep(0.1)
    os.kill(pid, signal.SIGTERM)
    error = await final(await death_of(spinning), eventually)
    assert (error.signal, error.method) == (signal.SIGTERM, "spin")


async def test_another_actor_of_the_process_learns_who_had_the_thread(system, eventually):
    loud = await Mortal.local(system, placement=0)
    quiet = await Mortal.local(system, placement=0)
    napping = asyncio.ensure_future(quiet.nap(60))
    await asyncio.sleep(0.1)
    crash = asyncio.ensure_future(loud.crash())
    error = await final(await death_of(crash), eventually)
    assert (error.signal, error.method) == (signal.SIGSEGV, "crash")
    error = await final(await death_of(napping), eventually)
    assert (error.signal, error.method) == (signal.SIGSEGV, "nap")


async def test_an_exit_code_and_the_last_lines_of_the_output(system, eventually):
    mortal = await Mortal.local(system, placement="dedicated")
    error = await final(await death_of(mortal.speak_and_leave(3)), eventually)
    assert (error.exit_code, error.signal) == (3, None)
    assert error.method == "speak_and_leave"
    assert "line 29\n" in error.output and "a last sigh" in error.output
    text = str(error)
    assert "exit code 3" in text and "line 29" in text and "a last sigh" in text
    assert "line 5\n" not in text, "the text has the last ten lines"


async def test_it_travels(system, eventually):
    mortal = await Mortal.local(system, name="mortal", placement="dedicated")
    carrier = await Carrier.local(system, placement=0)
    pid = await mortal.pid()
    carrying = asyncio.ensure_future(carrier.carry(mortal))
    await asyncio.sleep(0.2)
    os.kill(pid, signal.SIGKILL)
    error = await death_of(carrying)
    assert error.pid == pid and error.signal is signal.SIGKILL and error.method == "nap"
    assert error.actor == mortal.actor_id
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert (again.pid, again.signal, again.method) == (pid, signal.SIGKILL, "nap")


async def test_who_never_talked_to_the_dead_process_learns_of_its_end_too(system, eventually):
    mortal = await Mortal.local(system, name="mortal", placement="dedicated")
    stranger = await Stranger.local(system, placement=0)
    pid = await mortal.pid()
    os.kill(pid, signal.SIGKILL)
    await final(await death_of(mortal.pid()), eventually)
    began = time.monotonic()
    text, died, killed_by = await stranger.meet(mortal)
    assert f"(pid {pid}, SIGKILL)" in text and (died, killed_by) == (pid, signal.SIGKILL)
    assert f"(pid {pid}, SIGKILL)" in await stranger.watch(mortal)
    assert time.monotonic() - began < 4, "it waited for what does not come"


async def test_a_rebuilt_actor_too(system, eventually):
    phoenix = await Phoenix.local(system, placement="dedicated")
    pid = await phoenix.pid()
    error = await final(await death_of(phoenix.speak_and_leave(4)), eventually)
    assert (error.pid, error.exit_code, error.method) == (pid, 4, "speak_and_leave")
    assert "a last sigh" in str(error)
    assert await asyncio.wait_for(phoenix.pid(), 20) != pid


async def test_a_stopped_actor_has_no_dead_process(system):
    mortal = await Mortal.local(system)
    await system.stop(mortal)
    error = await death_of(mortal.pid())
    assert error.pid is error.signal is error.exit_code is error.method is None
    assert error.actor == mortal.actor_id and error.output == "" and not error.out_of_memory


async def test_it_can_be_read_after_the_system_has_ended():
    async with await create_actor_system(SystemConfig.standalone().with_workers(1)) as system:
        mortal = await Mortal.local(system, placement="dedicated")
        error = await death_of(mortal.speak_and_leave(5))
        await asyncio.sleep(0.2)
        assert "exit code 5" in str(error)
    assert error.exit_code == 5 and "a last sigh" in str(error)


async def test_the_kernel_killed_it_for_memory(eventually):
    with memory_group("obituary", 64 << 20) as home:

        def enter():
            (home / "cgroup.procs").write_text(str(os.getpid()))

        config = SystemConfig.standalone().with_workers(1, setup=enter)
        async with await create_actor_system(config) as system:
            mortal = await Mortal.local(system, placement="dedicated")
            error = await final(await death_of(mortal.eat(1000)), eventually)
            assert error.signal is signal.SIGKILL
            assert error.out_of_memory is True
            assert error.method == "eat"
            assert "out of memory" in str(error)
            other = await Mortal.local(system, placement="dedicated")
            victim = await other.pid()
            napping = asyncio.ensure_future(other.nap(60))
            await asyncio.sleep(0.1)
            os.kill(victim, signal.SIGKILL)
            error = await final(await death_of(napping), eventually)
            assert error.out_of_memory is False
