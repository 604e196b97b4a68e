#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A model service: FastAPI under uvicorn, with several web processes attached to one node whose
workers run the models. Embeddings are batched; tokens stream to the browser as server-sent events.

    serve.py run --port 8000                     GET /embed?text=...  GET /generate?prompt=...
    serve.py run --direct                        the same with the models in the web processes
    serve.py load http://127.0.0.1:8000          how many requests, how fast
    serve.py compare                             both services, one after the other, under one load
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import docstrings
import embedding
import pulsing
from pulsing.actor import ActorDied, SystemConfig, as_actor, create_actor_system

CONTEXT = 6
# An embedding may be asked for again when its worker died under it: it changes nothing.
ATTEMPTS_MAX = 5
START_S = 120
STOP_S = 20


class Characters:
    """A character model: what followed each run of characters in the text that it was fitted on."""

    def __init__(self, following: dict[str, str]):
        self.following = following

    @classmethod
    def fit(cls, text: str) -> Characters:
        following: dict[str, list[str]] = {}
        for length in (1, 3, CONTEXT):
            for at in range(len(text) - length):
                following.setdefault(text[at : at + length], []).append(text[at + length])
        return cls({context: "".join(next_ones) for context, next_ones in following.items()})

    def stream(self, prompt: str, count: int) -> Iterator[str]:
        text = prompt[-CONTEXT:] or "T"
        for _ in range(count):
            choices = next(
                filter(None, (self.following.get(text[-n:]) for n in (CONTEXT, 3, 1))), " "
            )
            text = (text + random.choice(choices))[-CONTEXT:]
            yield text[-1]


@dataclass
class Models:
    """What a process that runs models has loaded."""

    embedder: embedding.Model
    characters: Characters

    @classmethod
    def load(cls, folder: Path) -> Models:
        following = json.loads((folder / "characters.json").read_text())
        return cls(embedding.load(str(folder / "embedding")), Characters(following))


def fit(folder: Path, passages_max: int) -> None:
    """Fits both models on docstrings of the standard library."""
    texts = []
    for path, module in docstrings.source_files(False):
        texts += [passage.text for passage in docstrings.passages_of(path, module)]
        if len(texts) >= passages_max:
            break
    embedding.LatentSemantics.fit(texts).save(folder / "embedding")
    characters = Characters.fit("\n".join(texts)[:200_000])
    (folder / "characters.json").write_text(json.dumps(characters.following))


@as_actor(restart="on_failure", max_restarts=1000, min_backoff=0.01)
class Model:
    """Runs the models in a worker."""

    def __init__(self, folder: str) -> None:
        self.models = Models.load(Path(folder))

    def on_start(self) -> None:
        self.models.embedder.embed(["warm"])

    @pulsing.batch(max_size=64, max_wait=0.002)
    def embed(self, texts: list[str]) -> list[list[float]]:
        return self.models.embedder.embed(texts).tolist()

    async def generate(self, prompt: str, count: int) -> AsyncIterator[str]:
        for token in self.models.characters.stream(prompt, count):
            yield token

    def pid(self) -> int:
        return os.getpid()


class Service:
    """The models as a web process calls them: by actors, or in the process itself."""

    def __init__(self, pool: pulsing.Pool | None, models: Models | None):
        self.pool = pool
        self.models = models

    async def embed(self, text: str) -> list[float]:
        if self.pool is None:
            return self.models.embedder.embed([text])[0].tolist()
        for attempt in range(ATTEMPTS_MAX):
            try:
                return await self.pool.embed.options(timeout=30)(text)
            except ActorDied:
                if attempt == ATTEMPTS_MAX - 1:
                    raise
        raise AssertionError("unreachable")

    async def generate(self, prompt: str, count: int) -> AsyncIterator[str]:
        if self.pool is None:
            for token in self.models.characters.stream(prompt, count):
                yield token
                await asyncio.sleep(0)
            return
        member = random.choice(self.pool.members)
        async for token in member.generate(prompt, count):
            yield token


@contextlib.asynccontextmanager
async def service() -> AsyncIterator[Service]:
    if os.environ.get("SERVE_DIRECT"):
        yield Service(None, Models.load(Path(os.environ["SERVE_DIRECT"])))
        return
    async with await create_actor_system(SystemConfig.attach(os.environ["SERVE_NODE"])) as system:
        names = [f"model/{i}" for i in range(int(os.environ["SERVE_MODELS"]))]
        refs = [await system.resolve(name, timeout=START_S) for name in names]
        yield Service(pulsing.Pool.over(system, refs), None)


def app() -> Any:
    """The web application; uvicorn calls this in each of its workers."""
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import StreamingResponse

    @contextlib.asynccontextmanager
    async def lifespan(web: FastAPI) -> AsyncIterator[None]:
        async with service() as web.state.service:
            yield

    web = FastAPI(title="Pulsing example", lifespan=lifespan)

    @web.get("/embed")
    async def embed(text: str) -> dict[str, Any]:
        try:
            return {"vector": await web.state.service.embed(text), "web": os.getpid()}
        except pulsing.PulsingError as error:
            raise HTTPException(503, str(error)) from None

    @web.get("/generate")
    async def generate(prompt: str = "", tokens: int = 100) -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            try:
                async for token in web.state.service.generate(prompt, min(tokens, 10_000)):
                    yield f"data: {json.dumps({'token': token})}\n\n"
                yield "event: end\ndata: {}\n\n"
            except pulsing.PulsingError as error:
                yield f"event: error\ndata: {json.dumps({'error': str(error)})}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    return web


# -- running it ------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def web_processes(port: int, count: int, environment: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", "uvicorn", "serve:app", "--factory", "--port", str(port)]
    command += ["--workers", str(count), "--log-level", "warning"]
    here = str(Path(__file__).parent)
    process = subprocess.Popen(
        [*command, "--app-dir", here], env={**os.environ, **environment}, cwd=here
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def running(folder: str, port: int, web: int, models: int, direct: bool) -> Iterator[list[int]]:
    """The whole service; gives the pids of the model workers."""
    if direct:
        with web_processes(port, web, {"SERVE_DIRECT": folder}):
            yield []
        return
    name = f"serve-{os.getpid()}-{secrets.token_hex(3)}"
    config = SystemConfig.standalone().with_name(name).with_workers(models)
    with pulsing.connect(config) as system:
        refs = [Model.local(system, folder, name=f"model/{i}", placement=i) for i in range(models)]
        environment = {"SERVE_NODE": name, "SERVE_MODELS": str(models)}
        with web_processes(port, web, environment):
            yield [ref.pid() for ref in refs]


# -- the load --------------------------------------------------------------------------------------


@dataclass
class Load:
    """What a load saw: seconds of each answer, and how many were no answer."""

    seconds: list[float] = field(default_factory=list)
    failures: int = 0
    took: float = 0.0

    def line(self, name: str) -> str:
        ordered = sorted(self.seconds) or [float("nan")]
        p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * q))] for q in (0.5, 0.99))
        return (
            f"{name:24} {len(self.seconds) / self.took:8.0f} requests/s   "
            f"p50 {p50 * 1e3:7.1f} ms   p99 {p99 * 1e3:7.1f} ms   {self.failures} failed"
        )


async def get(streams: tuple, host: str, path: str) -> int:
    """One request on a kept connection; its status."""
    reader, writer = streams
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    status = int((await reader.readline()).split()[1])
    length = 0
    while (line := await reader.readline()).strip():
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    await reader.readexactly(length)
    return status


async def load(url: str, callers: int, seconds: float) -> Load:
    """`callers` ask for embeddings, each for the next when it has its answer."""
    parts = urlsplit(url)
    result = Load()
    end = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        streams = await asyncio.open_connection(parts.hostname, parts.port)
        while (begin := time.perf_counter()) < end:
            text = quote(f"open file number {number} and read it at {begin}")
            try:
                answer = get(streams, parts.netloc, f"/embed?text={text}")
                status = await asyncio.wait_for(answer, 60)
            except (OSError, asyncio.IncompleteReadError, IndexError):
                status = 0
                streams = await asyncio.open_connection(parts.hostname, parts.port)
            if status == 200:
                result.seconds.append(time.perf_counter() - begin)
            else:
                result.failures += 1
        streams[1].close()

    begin = time.perf_counter()
    await asyncio.gather(*[caller(i) for i in range(callers)])
    result.took = time.perf_counter() - begin
    return result


def wait_ready(url: str) -> None:
    parts = urlsplit(url)
    end = time.monotonic() + START_S

    async def look() -> int:
        streams = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            return await get(streams, parts.netloc, "/embed?text=ready")
        finally:
            streams[1].close()

    while True:
        with contextlib.suppress(OSError, IndexError, asyncio.IncompleteReadError):
            if asyncio.run(look()) == 200:
                return
        if time.monotonic() > end:
            raise SystemExit("the service does not answer")
        time.sleep(0.1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=["run", "load", "compare"])
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8000")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--web", type=int, default=2, help="web processes")
    parser.add_argument("--models", type=int, default=2, help="model workers")
    parser.add_argument(
        "--passages", type=int, default=4000, help="docstrings to fit the models on"
    )
    parser.add_argument("--direct", action="store_true", help="models in the web processes")
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.what == "load":
        print(asyncio.run(load(options.url, options.callers, options.seconds)).line(options.url))
        return
    with tempfile.TemporaryDirectory() as folder:
        fit(Path(folder), options.passages)
        if options.what == "compare":
            for direct, name in ((True, "model in web process"), (False, "model actors")):
                port = free_port()
                url = f"http://127.0.0.1:{port}"
                with running(folder, port, options.web, options.models, direct):
                    wait_ready(url)
                    print(asyncio.run(load(url, options.callers, options.seconds)).line(name))
            return
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with running(folder, options.port, options.web, options.models, options.direct) as pids:
            print(f"http://127.0.0.1:{options.port} models in {pids}", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    signal.pause()


if __name__ == "__main__":
    main()
