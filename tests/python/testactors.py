# SPDX-License-Identifier: Apache-2.0
"""Actors for the tests, in a module that workers can import."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time

from pulsing.actor import Actor, ActorFailed, Message, as_actor, current_context


@as_actor
class Calculator:
    """Adds."""

    def __init__(self, initial_value: int = 0):
        self.value = initial_value

    def add(self, n: int) -> int:
        """Add n."""
        self.value += n
        return self.value

    def get(self) -> int:
        return self.value

    def divide(self, n):
        return self.value / n

    def echo(self, x):
        return x

    def pid(self):
        return os.getpid()

    async def async_echo(self, x, pause=0.0):
        await asyncio.sleep(pause)
        return x

    def _private(self):
        return "never"


@as_actor
class Echo:
    """Gives back what it gets, in ways that a test can look at."""

    def echo(self, x):
        return x

    def show(self, x):
        return repr(x)

    def kind(self, x):
        return type(x).__module__ + "." + type(x).__qualname__

    def call(self, function, *args):
        return function(*args)

    def pid(self):
        return os.getpid()


@as_actor
class Worker:
    """Says where it runs."""

    def pid(self):
        return os.getpid()

    def parent(self):
        return os.getppid()

    def worker(self):
        return current_context().worker_id

    def thread(self):
        return threading.get_ident()

    def env(self, name):
        return os.environ.get(name)

    def cpus(self):
        return os.sched_getaffinity(0)

    def block(self, seconds):
        time.sleep(seconds)
        return os.getpid()

    async def sleep(self, seconds):
        await asyncio.sleep(seconds)
        return os.getpid()

    def die(self, how=signal.SIGKILL):
        if how != signal.SIGKILL:
            signal.signal(how, signal.SIG_DFL)  # a sanitizer would make an exit of it
        os.kill(os.getpid(), how)

    def leave(self, code):
        os._exit(code)

    def say(self, text, err=False):
        print(text, file=sys.stderr if err else sys.stdout, flush=True)


@as_actor
class Log:
    """Keeps what happened, in order."""

    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)
        return len(self.lines)

    async def nap(self, seconds, tag):
        self.lines.append(("start", tag))
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.lines.append(("cancelled", tag))
            raise
        self.lines.append(("end", tag))
        return tag

    def block(self, seconds, tag=None):
        self.lines.append(("start", tag))
        time.sleep(seconds)
        self.lines.append(("end", tag))
        return tag

    def read(self):
        return self.lines

    def pid(self):
        return os.getpid()


class EchoActor(Actor):
    """The guide's echo, with the context's words."""

    def __init__(self):
        self.message_count = 0

    async def receive(self, msg, ctx):
        self.message_count += 1
        if not isinstance(msg, Message):
            return msg
        if msg.msg_type == "echo":
            return Message.single("echo_response", msg.payload)
        if msg.msg_type == "count":
            return Message.single("count_response", str(self.message_count).encode())
        raise ValueError(f"Unknown message type: {msg.msg_type}")


@as_actor(restart="on_failure", max_restarts=1000, min_backoff=0.001, max_backoff=0.01)
class Phoenix:
    """Is built again when its worker dies."""

    def __init__(self, path=None):
        self.path = path
        self.seen = []

    def pid(self):
        return os.getpid()

    def crash(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def fail(self, text="worn out"):
        raise ActorFailed(text)

    def note(self, i):
        self.seen.append(i)
        if self.path is not None:
            with open(self.path, "a") as file:
                file.write(f"{i}\n")
        return i

    def read(self):
        return self.seen

    async def nap(self, seconds):
        await asyncio.sleep(seconds)


@as_actor
class Streams:
    """Streams of each kind."""

    def __init__(self):
        self.log = []

    def plain(self, n):
        try:
            for i in range(n):
                self.log.append(("plain", i))
                yield i
        finally:
            self.log.append(("closed", "plain"))

    async def asynchronous(self, n, pause=0.0):
        try:
            for i in range(n):
                if pause:
                    await asyncio.sleep(pause)
                self.log.append(("asynchronous", i))
                yield i
        finally:
            self.log.append(("closed", "asynchronous"))

    def breaks(self, n):
        yield from range(n)
        raise KeyError("broken")

    async def breaks_async(self, n):
        for i in range(n):
            yield i
        raise KeyError("broken")

    def things(self, things):
        yield from things

    def big(self, n, size):
        for i in range(n):
            yield bytes([i & 255]) * size

    def sleepy(self, n, seconds):
        for i in range(n):
            time.sleep(seconds)
            yield i

    async def total(self, stream):
        return sum([x async for x in stream])

    async def first(self, stream, n):
        got = []
        async for x in stream:
            got.append(x)
            if len(got) == n:
                break
        return got

    async def doubled(self, stream):
        async for x in stream:
            yield 2 * x

    def read(self):
        return self.log

    def clear(self):
        self.log = []

    def pid(self):
        return os.getpid()
