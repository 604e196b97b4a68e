# SPDX-License-Identifier: Apache-2.0
"""Kills for want of memory are told by the cgroup of the process, not by the whole host."""

from __future__ import annotations

import os
import subprocess
import sys

from memory_groups import memory_group

MIB = 1 << 20

PROGRAM = """
import asyncio, os, sys
from pulsing import ActorDied, SystemConfig, as_actor, create_actor_system

@as_actor
class Eater:
    def pid(self):
        return os.getpid()
    def eat(self, mib):
        with open("/proc/self/oom_score_adj", "w") as f:
            f.write("1000")
        self.food = bytearray(os.urandom(4096)) * (256 * mib)
        return len(self.food)

async def end(call):
    try:
        await call
    except ActorDied as error:
        while "dying" in str(error):
            await asyncio.sleep(0.01)
        print(int(error.signal), error.out_of_memory, flush=True)
    else:
        print("lived", flush=True)

async def main():
    async with await create_actor_system(SystemConfig.standalone().with_workers(1)) as system:
        eater, other = [await Eater.local(system, placement="dedicated") for _ in range(2)]
        pid = await other.pid()
        print("ready", flush=True)
        if sys.stdin.readline() == "eat\\n":
            await end(eater.eat(1024))
        os.kill(pid, 9)
        await end(other.pid())

asyncio.run(main())
"""


def started_in(group, *command):
    line = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
    return subprocess.Popen(
        ["sh", "-c", line, str(group), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )


def run_program(tmp_path, group, word, meanwhile=lambda: None):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    program = started_in(group, sys.executable, str(path))
    try:
        assert program.stdout.readline() == "ready\n"
        meanwhile()
        out, _ = program.communicate(word + "\n", timeout=60)
    finally:
        program.kill()
        program.wait()
    return out.splitlines()


def test_a_kill_for_want_of_memory_is_told_and_the_next_kill_is_not_taken_for_one(tmp_path):
    with memory_group("eats", 512 * MIB) as group:
        eaten, killed = run_program(tmp_path, group, "eat")
    assert eaten == "9 True"
    assert killed == "9 False"


def test_somebody_else_s_want_of_memory_does_not_explain_a_kill(tmp_path):
    def elsewhere():
        with memory_group("elsewhere", 64 * MIB) as other:
            text = "b = bytearray(b'x' * 4096) * (1 << 17)"
            hungry = started_in(other, sys.executable, "-c", text)
            assert hungry.wait(60) == -9
            hungry.stdin.close()
            hungry.stdout.close()

    with memory_group("plain", 2048 * MIB) as group:
        assert run_program(tmp_path, group, "no", elsewhere) == ["9 False"]
