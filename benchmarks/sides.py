# SPDX-License-Identifier: Apache-2.0
"""What users would write without an actor system, on the same work: multiprocessing.Pipe,
SharedMemory by hand, raw pyzmq, and the C programs of this folder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np

from measure import Sample

SPAWN = multiprocessing.get_context("spawn")
WINDOW = 1000
# Both ends of a pipe send before they receive, so more than its buffers hold would lock them up.
PIPE_WINDOW = 64
NATIVE_ROUND_S = 5.0


def touch(array: np.ndarray) -> int:
    """What a receiver does with an array: its size and both ends, so that it must be there."""
    return int(array[0]) + int(array[-1]) + array.nbytes


class Far:
    """A process at the other end; killed if it does not end by itself."""

    def __init__(self, target, *arguments) -> None:
        self.process = SPAWN.Process(target=target, args=arguments, daemon=True)
        self.process.start()

    def close(self) -> None:
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def pipe_far(connection: Connection) -> None:
    for kind, argument in iter(connection.recv, None):
        if kind == "echo":
            connection.send(argument)
        elif kind == "take":
            for _ in range(argument):
                connection.recv()
            connection.send(argument)
        elif kind == "give":
            for item in range(argument):
                connection.send(item)
        elif kind == "sleep":
            time.sleep(argument)


class Pipe:
    """multiprocessing.Pipe: pickled objects, blocking at both ends."""

    def __init__(self) -> None:
        self.here, there = multiprocessing.Pipe()
        self.far = Far(pipe_far, there)
        there.close()
        self.echo(b"")

    def echo(self, value: object) -> object:
        self.here.send(("echo", value))
        return self.here.recv()

    def one_way(self, value: bytes, n: int) -> Sample:
        self.here.send(("take", n))
        begin = time.perf_counter()
        for _ in range(n):
            self.here.send(value)
        self.here.recv()
        return Sample.of_rate(n, time.perf_counter() - begin)

    def given(self, n: int) -> Sample:
        """Numbers from the other end, as fast as they go."""
        begin = time.perf_counter()
        self.here.send(("give", n))
        for expected in range(n):
            if self.here.recv() != expected:
                raise RuntimeError("an item in the place of another")
        return Sample.of_rate(n, time.perf_counter() - begin)

    def windowed(self, value: bytes, n: int) -> Sample:
        sent = 0
        begin = time.perf_counter()
        for answered in range(n):
            while sent < n and sent - answered < PIPE_WINDOW:
                self.here.send(("echo", value))
                sent += 1
            self.here.recv()
        return Sample.of_rate(n, time.perf_counter() - begin)

    def death(self) -> float:
        """Seconds from SIGKILL of the other end to the end of file here."""
        self.here.send(("sleep", 60))
        time.sleep(0.05)
        begin = time.perf_counter()
        os.kill(self.far.process.pid or 0, signal.SIGKILL)
        with contextlib.suppress(EOFError, OSError):
            self.here.recv()
        return time.perf_counter() - begin

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.here.send(None)
        self.far.close()
        self.here.close()


def by_hand_far(connection: Connection, name: str) -> None:
    memory = SharedMemory(name)
    for size in iter(connection.recv, None):
        array = np.ndarray(size, np.uint8, memory.buf)
        connection.send(touch(array))
        del array
    memory.close()


class ByHand:
    """The array copied into a SharedMemory block, a word over a Pipe, an answer back."""

    def __init__(self, size: int) -> None:
        self.memory = SharedMemory(create=True, size=size)
        self.view = np.ndarray(size, np.uint8, self.memory.buf)
        self.here, there = multiprocessing.Pipe()
        self.far = Far(by_hand_far, there, self.memory.name)
        there.close()

    def sink(self, array: np.ndarray) -> int:
        np.copyto(self.view, array)
        self.here.send(array.nbytes)
        return self.here.recv()

    def close(self) -> None:
        self.here.send(None)
        self.far.close()
        del self.view
        self.memory.close()
        self.memory.unlink()


def zmq_far(address: str) -> None:
    import zmq

    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.set_hwm(0)
        socket.bind(address)
        while True:
            peer, kind, body = socket.recv_multipart(copy=False)
            word = kind.bytes
            if word == b"echo":
                socket.send_multipart([peer, body], copy=False)
            elif word == b"sink":
                answer = touch(np.frombuffer(body.buffer, np.uint8))
                socket.send_multipart([peer, answer.to_bytes(8, "little")])
            elif word == b"told":
                socket.send_multipart([peer, b""])
            elif word == b"stop":
                return


class Zmq:
    """pyzmq, a DEALER and a ROUTER over a Unix socket, blocking at both ends, bodies not copied."""

    def __init__(self) -> None:
        import zmq

        self.folder = tempfile.TemporaryDirectory()
        address = f"ipc://{self.folder.name}/socket"
        self.far = Far(zmq_far, address)
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.set_hwm(0)
        self.socket.connect(address)
        self.echo(b"")

    def call(self, kind: bytes, body: object) -> bytes:
        self.socket.send_multipart([kind, body], copy=False)
        return self.socket.recv()

    def echo(self, value: bytes) -> bytes:
        return self.call(b"echo", value)

    def sink(self, array: np.ndarray) -> int:
        return int.from_bytes(self.call(b"sink", array), "little")

    def one_way(self, value: bytes, n: int) -> Sample:
        begin = time.perf_counter()
        for _ in range(n):
            self.socket.send_multipart([b"tell", value])
        self.call(b"told", b"")
        return Sample.of_rate(n, time.perf_counter() - begin)

    def windowed(self, value: bytes, n: int) -> Sample:
        sent = 0
        begin = time.perf_counter()
        for answered in range(n):
            while sent < n and sent - answered < WINDOW:
                self.socket.send_multipart([b"echo", value])
                sent += 1
            self.socket.recv()
        return Sample.of_rate(n, time.perf_counter() - begin)

    def close(self) -> None:
        self.socket.send_multipart([b"stop", b""])
        self.far.close()
        self.socket.close(0)
        self.context.term()
        self.folder.cleanup()


class Native:
    """The C programs; each call is one round in two fresh processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, program: str, *arguments: object) -> Sample:
        command = [str(self.folder / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
        row = json.loads(done.stdout)
        return Sample(row["n"], row["ops_per_s"], row["p50_us"], row["p99_us"])

    def fitting(self, n: int) -> int:
        """Of n exchanges, as many as fit into a round: two processes that look for each other all
        the time get on slowly where others keep the CPUs busy."""
        few = max(3, n // 50)
        begin = time.perf_counter()
        self.run("bench_floor", "ask", few)
        seconds = time.perf_counter() - begin
        return max(few, min(n, int(few * NATIVE_ROUND_S / seconds)))


async def bare_futures(n: int) -> Sample:
    """The least that an asyncio program pays for n answers, WINDOW outstanding: a future each, all
    that wait resolved by one reader."""
    loop = asyncio.get_running_loop()
    left = iter(range(n))
    waiting: list[asyncio.Future[None]] = []
    readable, writable = os.pipe()

    def answer_all() -> None:
        os.read(readable, 4096)
        ready, waiting[:] = list(waiting), []
        for future in ready:
            future.set_result(None)

    async def caller() -> None:
        for _ in left:
            future = loop.create_future()
            if not waiting:
                os.write(writable, b"x")
            waiting.append(future)
            await future

    loop.add_reader(readable, answer_all)
    begin = time.perf_counter()
    await asyncio.gather(*[caller() for _ in range(WINDOW)])
    seconds = time.perf_counter() - begin
    loop.remove_reader(readable)
    os.close(readable)
    os.close(writable)
    return Sample.of_rate(n, seconds)


@contextlib.contextmanager
def opened(*sides) -> Iterator[tuple]:
    try:
        yield sides
    finally:
        for side in sides:
            side.close()
