# SPDX-License-Identifier: Apache-2.0
"""Kills random worker processes under load, through the public API.

    python tests/stress/soak_workers.py [--kills N] [--seconds S] [--workers N] [--seed N]

Callers ask restartable actors without end, each message with a number of its own; handlers mark
their numbers in a file that outlives them. Every ask must end: with its answer, or in ActorDied.
A message that was answered was handled once; one that ended in ActorDied was handled at most once;
none is handled twice, and an actor's death ends no more than the one message that it was handling.
At the end nothing of what was started is left. Exit status 1 if any of that does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import mmap
import os
import pathlib
import random
import re
import secrets
import signal
import statistics
import sys
import tempfile
import time

from pulsing.actor import (
    ActorDied,
    SystemConfig,
    as_actor,
    create_actor_system,
)

NUMBERS_MAX = 20_000_000
ASK_LIMIT_S = 60.0
CALLERS = 6
PAYLOADS = (0, 50, 3000, 40_000)
ACTORS_PER_WORKER = 2
MARK_NAME = "PULSING_SOAK_MARK"


@as_actor(restart="on_failure", max_restarts=1_000_000, min_backoff=0.0005, max_backoff=0.002)
class Tally:
    """Marks what it handles in a shared file: a byte for each number."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self.marks = mmap.mmap(file.fileno(), NUMBERS_MAX)

    def pid(self) -> int:
        return os.getpid()

    def handle(self, number: int, payload: bytes) -> tuple[int, int]:
        self.marks[number] += 1
        return number, len(payload)


class Outcome:
    def __init__(self) -> None:
        self.answered: list[int] = []
        self.died: list[int] = []
        self.told: list[int] = []
        self.wrong: list[str] = []
        self.next_number = 0
        self.kills = 0
        self.recovered_ms: list[float] = []

    def number(self) -> int:
        self.next_number += 1
        if self.next_number >= NUMBERS_MAX:
            raise RuntimeError("out of numbers")
        return self.next_number


async def ask_one(tally, outcome: Outcome, payload: bytes) -> None:
    number = outcome.number()
    try:
        answer = await asyncio.wait_for(tally.handle(number, payload), ASK_LIMIT_S)
    except ActorDied:
        outcome.died.append(number)
    except asyncio.TimeoutError:
        outcome.wrong.append(f"ask {number} did not end")
    except Exception as error:
        outcome.wrong.append(f"ask {number} ended in {type(error).__name__}: {error}")
    else:
        if tuple(answer) != (number, len(payload)):
            outcome.wrong.append(f"ask {number} was answered with {answer}")
        outcome.answered.append(number)


async def call_without_end(tallies, outcome: Outcome, dice: random.Random, stop) -> None:
    while not stop.is_set():
        tally = dice.choice(tallies)
        payload = bytes(dice.choice(PAYLOADS))
        burst = [ask_one(tally, outcome, payload) for _ in range(dice.randrange(1, 12))]
        if dice.random() < 0.2:
            number = outcome.number()
            try:
                await tally.handle.tell(number, b"")
                outcome.told.append(number)
            except ActorDied:
                outcome.died.append(number)
        await asyncio.gather(*burst)


async def pid_of(tally) -> int:
    end = time.monotonic() + ASK_LIMIT_S
    while True:
        try:
            return await asyncio.wait_for(tally.pid(), ASK_LIMIT_S)
        except ActorDied:
            if time.monotonic() > end:
                raise


async def kill_without_end(tallies, outcome: Outcome, dice: random.Random, options) -> None:
    end = time.monotonic() + options.seconds
    while outcome.kills < options.kills and time.monotonic() < end and not outcome.wrong:
        await asyncio.sleep(dice.random() * 0.01)
        tally = dice.choice(tallies)
        pid = await pid_of(tally)
        begin = time.monotonic()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        outcome.kills += 1
        if dice.random() < 0.2:
            while await pid_of(tally) == pid:
                await asyncio.sleep(0)
            outcome.recovered_ms.append((time.monotonic() - begin) * 1e3)


async def soak(options, path: str) -> Outcome:
    outcome = Outcome()
    dice = random.Random(options.seed)
    stop = asyncio.Event()
    config = SystemConfig.standalone().with_workers(options.workers)
    async with await create_actor_system(config) as system:
        tallies = [
            await Tally.local(system, path, placement=index)
            for index in range(options.workers)
            for _ in range(ACTORS_PER_WORKER)
        ]
        callers = [
            asyncio.ensure_future(
                call_without_end(tallies, outcome, random.Random(options.seed + i), stop)
            )
            for i in range(CALLERS)
        ]
        try:
            await kill_without_end(tallies, outcome, dice, options)
        finally:
            stop.set()
            ended = await asyncio.gather(*callers, return_exceptions=True)
            outcome.wrong += [f"a caller ended in {e!r}" for e in ended if e is not None]
            for tally in tallies:
                await pid_of(tally)
    return outcome


def judge(outcome: Outcome, marks: bytes) -> None:
    """Adds to `wrong` whatever the marks say against the outcome."""
    handled = {n: marks[n] for n in range(1, outcome.next_number + 1)}
    twice = [n for n, count in handled.items() if count > 1]
    if twice:
        ends = dict.fromkeys(outcome.answered, "answered")
        ends |= dict.fromkeys(outcome.died, "died") | dict.fromkeys(outcome.told, "told")
        some = [(n, ends.get(n, "open")) for n in twice[:8]]
        outcome.wrong.append(f"{len(twice)} messages were handled twice: {some}")
    lost = [n for n in outcome.answered if handled[n] != 1]
    if lost:
        outcome.wrong.append(f"{len(lost)} messages were answered and not handled: {lost[:5]}")
    if len(outcome.died) > outcome.kills * ACTORS_PER_WORKER:
        text = (
            f"{len(outcome.died)} asks ended in ActorDied, more than one for each actor that died"
        )
        outcome.wrong.append(text)
    unhandled = sum(handled[n] == 0 for n in outcome.told)
    if unhandled > outcome.kills:
        outcome.wrong.append(f"{unhandled} tells vanished in {outcome.kills} deaths")


def processes_left(mark: str) -> list[int]:
    left = []
    for entry in pathlib.Path("/proc").iterdir():
        if not re.fullmatch(r"\d+", entry.name) or int(entry.name) == os.getpid():
            continue
        try:
            if mark.encode() in (entry / "environ").read_bytes():
                left.append(int(entry.name))
        except OSError:
            continue
    return left


def descriptors() -> collections.Counter:
    found: collections.Counter = collections.Counter()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        found[re.sub(r":\[\d+\]$", "", target)] += 1
    return found


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="kills random workers under load")
    parser.add_argument("--kills", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=3600.0, help="stop after so many")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(given)


def run(given: list[str] | None = None) -> dict:
    """One soak; its figures, with what went wrong under "wrong"."""
    options = arguments(given)
    mark = secrets.token_hex(8)
    os.environ[MARK_NAME] = mark
    before = descriptors()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "marks")
        with open(path, "wb") as file:
            file.truncate(NUMBERS_MAX)
        outcome = asyncio.run(soak(options, path))
        with open(path, "rb") as file:
            judge(outcome, file.read(outcome.next_number + 1))
    end = time.monotonic() + 5
    while processes_left(mark) and time.monotonic() < end:
        time.sleep(0.02)
    left = processes_left(mark)
    if left:
        outcome.wrong.append(f"processes are left: {left}")
    more = descriptors() - before
    if more:
        outcome.wrong.append(f"descriptors are left: {dict(more)}")
    del os.environ[MARK_NAME]
    recovered = sorted(outcome.recovered_ms)
    return {
        "seed": options.seed,
        "kills": outcome.kills,
        "asks": len(outcome.answered) + len(outcome.died),
        "answered": len(outcome.answered),
        "died": len(outcome.died),
        "tells": len(outcome.told),
        "seconds": round(time.monotonic() - begin, 1),
        "rebuilt_ms_median": round(statistics.median(recovered), 1) if recovered else None,
        "rebuilt_ms_max": round(recovered[-1], 1) if recovered else None,
        "wrong": outcome.wrong[:20],
    }


def main() -> int:
    figures = run()
    print(json.dumps(figures))
    return 1 if figures["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
