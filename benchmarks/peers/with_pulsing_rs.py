# SPDX-License-Identifier: Apache-2.0
"""The registry's "pulsing", a Rust program: the actor in a second interpreter, reached over its
cluster, since it has no worker processes.

Its proxy cannot decode the reply of another process (0.1.2: "expected value at line 1"), so the
request is written by hand and the pickled reply read by hand; everything else is its own path."""

from __future__ import annotations

import asyncio
import pickle
import socket
import subprocess
import sys

from work import Work, touch

import processes
import pulsing

# With more calls outstanding its pool of connections is exhausted and refuses the rest.
WINDOW = 8


@pulsing.remote
class Echo:
    def __init__(self) -> None:
        self.ticks = 0

    def echo(self, value):
        return value

    def sink(self, array):
        return touch(array)

    def tick(self, value) -> None:
        self.ticks += 1

    def ticked(self) -> int:
        return self.ticks


def request(method: str, *arguments: object) -> dict:
    return {
        "__pulsing_proto__": "1",
        "__pulsing__": {"call": method, "async": False},
        "user_data": {"args": arguments, "kwargs": {}},
    }


class Caller:
    def __init__(self, proxy) -> None:
        self.ref = proxy.ref

    async def call(self, method: str, *arguments: object):
        reply = await self.ref.ask(request(method, *arguments))
        body = (reply if isinstance(reply, dict) else pickle.loads(reply.payload))["__pulsing__"]
        if "error" in body:
            raise RuntimeError(body["error"])
        return body["result"]

    async def tell(self, method: str, *arguments: object) -> None:
        await self.ref.tell(request(method, *arguments))


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def serve(address: str, seed: str) -> None:
    from with_pulsing_rs import Echo

    await pulsing.init(addr=address, seeds=[seed])
    await Echo.spawn(name="echo", public=True)
    print("ready", flush=True)
    await asyncio.Event().wait()


async def main() -> None:
    from with_pulsing_rs import Echo

    work = Work("pulsing (Rust)", "pulsing")
    seed = free_address()
    await pulsing.init(addr=seed)
    command = [sys.executable, __file__, "serve", free_address(), seed]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            if server.stdout is None or server.stdout.readline().strip() != "ready":
                raise RuntimeError("the other interpreter did not start")
            far = Caller(await Echo.resolve("echo", timeout=30))
            await work.ask(lambda value: far.call("echo", value))
            await work.bulk(lambda array: far.call("sink", array))
            await work.window(lambda value: far.call("echo", value), WINDOW)
            await work.tell(lambda value: far.tell("tick", value), lambda: far.call("ticked"))
            await work.idle()
        finally:
            server.kill()
    await pulsing.shutdown()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(*sys.argv[2:4]))
    else:
        processes.keep_descendants()
        asyncio.run(main())
