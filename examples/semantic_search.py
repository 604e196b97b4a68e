#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Semantic search over every docstring of this Python, on a pool of worker processes.

Each worker loads a model that was fitted on the corpus and embeds passages in batches; the vectors
come back as arrays, through shared memory. Then the same work is done beside multiprocessing.Pool,
and queries are answered with their nearest passages.

    semantic_search.py                         the whole job
    semantic_search.py --query "read a file"   and a query of yours (may be given several times)
    semantic_search.py --kill                  kills a worker in the middle; no result is lost
    semantic_search.py --model FOLDER          embeds with a transformers checkpoint instead
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import random
import signal
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

import cpu_time
import docstrings
import embedding
from pulsing.actor import ActorDied, ActorSystem, SystemConfig, as_actor, create_actor_system

QUERIES = [
    "parse command line arguments",
    "wait for several coroutines to finish",
    "create a temporary directory",
    "singular value decomposition of a sparse matrix",
]
# Calls that wait at each worker, so that it finds the next batch when it has answered one.
WINDOW = 4
# Beyond this share of the CPUs used by other programs, rates say little.
DISTURBED = 0.1
# Deaths that one batch may meet before the job gives up on it.
DEATHS_MAX = 5
KILLS_MAX = 8

console = Console(highlight=False)


@as_actor(restart="on_failure", max_restarts=20)
class Embedder:
    """A worker: the model, and what this process has done with it."""

    def __init__(self, model_path: str) -> None:
        self.model = embedding.load(model_path)
        self.batches = 0
        self.passages = 0
        self.busy_s = 0.0

    def embed(self, texts: list[str]) -> np.ndarray:
        begin = time.perf_counter()
        rows = self.model.embed(texts)
        self.batches += 1
        self.passages += len(texts)
        self.busy_s += time.perf_counter() - begin
        return rows

    def report(self) -> dict:
        return {
            "pid": os.getpid(),
            "batches": self.batches,
            "passages": self.passages,
            "busy_s": self.busy_s,
        }


@dataclass
class Batch:
    start: int
    texts: list[str]
    deaths: int = 0


@dataclass
class Outcome:
    vectors: np.ndarray
    resent: list[tuple[Batch, ActorDied]] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def complete(self) -> int:
        """Rows that hold a vector; a row without one still holds what it was made with."""
        return int((~np.isnan(self.vectors).any(axis=1)).sum())


@dataclass
class Turns:
    """What one side has done in the rounds of a comparison."""

    pids: list[int]
    rates: list[float] = field(default_factory=list)
    passages: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    machine_s: float = 0.0

    @contextlib.contextmanager
    def turn(self, passages: int, outcome: Outcome) -> Iterator[Outcome]:
        cpu_s, machine_s = cpu_time.of_processes(self.pids), cpu_time.of_machine()
        yield outcome
        self.cpu_s += cpu_time.of_processes(self.pids) - cpu_s
        self.machine_s += cpu_time.of_machine() - machine_s
        self.seconds += outcome.seconds
        self.passages += passages
        self.rates.append(passages / outcome.seconds)

    def cpu_us(self) -> float:
        """Of a passage, in this process and the workers."""
        return self.cpu_s / self.passages * 1e6

    def others(self) -> float:
        """The share of the CPUs that other programs used meanwhile."""
        cpus = len(os.sched_getaffinity(0))
        return max(0.0, self.machine_s - self.cpu_s) / (self.seconds * cpus)


def batches_of(texts: list[str], size: int) -> list[Batch]:
    return [Batch(start, texts[start : start + size]) for start in range(0, len(texts), size)]


async def embed_all(
    workers: list,
    batches: list[Batch],
    outcome: Outcome,
    step: Callable[[Batch], object] | None,
) -> None:
    """Every batch to whichever worker is free. A batch whose worker died under it is sent again."""
    todo = deque(batches)

    async def feed(worker) -> None:
        while todo:
            batch = todo.popleft()
            try:
                rows = await worker.embed(batch.texts)
            except ActorDied as death:
                batch.deaths += 1
                if batch.deaths > DEATHS_MAX:
                    raise
                outcome.resent.append((batch, death))
                todo.append(batch)
                continue
            outcome.vectors[batch.start : batch.start + len(rows)] = rows
            if step is not None:
                step(batch)

    begin = time.perf_counter()
    await asyncio.gather(*[feed(worker) for worker in workers for _ in range(WINDOW)])
    outcome.seconds = time.perf_counter() - begin


class PoolSide:
    """The same work by multiprocessing.Pool: its processes load the same model."""

    model: embedding.Model

    def __init__(self, count: int, model_path: str) -> None:
        before = set(multiprocessing.active_children())
        self.pool = multiprocessing.Pool(count, PoolSide.begin, (model_path,))
        processes = set(multiprocessing.active_children()) - before
        self.pids = [process.pid for process in processes if process.pid is not None]

    @staticmethod
    def begin(model_path: str) -> None:
        PoolSide.model = embedding.load(model_path)

    @staticmethod
    def embed(task: tuple[int, list[str]]) -> tuple[int, np.ndarray]:
        start, texts = task
        return start, PoolSide.model.embed(texts)

    def embed_all(self, batches: list[Batch], outcome: Outcome) -> None:
        begin = time.perf_counter()
        tasks = ((batch.start, batch.texts) for batch in batches)
        for start, rows in self.pool.imap_unordered(PoolSide.embed, tasks):
            outcome.vectors[start : start + len(rows)] = rows
        outcome.seconds = time.perf_counter() - begin

    def close(self) -> None:
        self.pool.terminate()
        self.pool.join()


class Job:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.cache: Path = options.cache
        self.passages: list[docstrings.Passage] = []
        self.texts: list[str] = []
        self.corpus_print = ""
        self.model_path = ""
        self.dimensions = 0

    def say(self, what: str, text: str) -> None:
        console.print(f"[bold]{what:10}[/bold] {text}", soft_wrap=True)

    def load_corpus(self) -> None:
        begin = time.perf_counter()
        console.print("[dim]reading the docstrings ...[/dim]")
        corpus = docstrings.load(self.cache, packages_too=not self.options.stdlib)
        passages = corpus.passages
        if self.options.limit:
            passages = random.Random(0).sample(passages, min(self.options.limit, len(passages)))
        self.passages = passages
        self.texts = [passage.document() for passage in passages]
        self.corpus_print = corpus.fingerprint
        how = "from the cache" if corpus.cached else "read from their sources"
        seconds = time.perf_counter() - begin
        self.say("corpus", f"{len(passages):,} docstrings, {how} in {seconds:.1f} s")

    def prepare_model(self) -> None:
        if self.options.model:
            self.model_path = str(self.options.model.resolve(strict=True))
            self.say("model", f"the transformers checkpoint {self.options.model}")
            return
        limit = f"-{self.options.limit}" if self.options.limit else ""
        path = self.cache / f"lsa-{self.corpus_print}{limit}.joblib"
        begin = time.perf_counter()
        how = "from the cache"
        if not path.is_file():
            console.print("[dim]fitting TF-IDF and truncated SVD ...[/dim]")
            embedding.LatentSemantics.fit(self.texts).save(path)
            how = f"fitted in {time.perf_counter() - begin:.1f} s and saved"
        self.model_path = str(path)
        size_mb = path.stat().st_size / 1e6
        self.say("model", f"TF-IDF and truncated SVD, {how} ({size_mb:.0f} MB)")

    def outcome(self) -> Outcome:
        return Outcome(np.full((len(self.texts), self.dimensions), np.nan, dtype=np.float32))

    async def run(self) -> bool:
        self.load_corpus()
        self.prepare_model()
        count = self.options.workers
        threads = os.environ["OMP_NUM_THREADS"]
        begin = time.perf_counter()
        config = SystemConfig.standalone().with_workers(count)
        async with await create_actor_system(config) as system:
            workers = await self.start_workers(system, count)
            ready = f"ready in {time.perf_counter() - begin:.2f} s"
            self.say("workers", f"{count} processes, BLAS threads each: {threads}, {ready}")
            outcome = await self.embed_corpus(workers)
            complete = outcome.complete() == len(self.texts)
            await self.tell_reports(workers)
            if not self.options.no_comparison:
                await self.compare(workers)
            await self.answer(workers[0], outcome.vectors)
        return complete

    async def start_workers(self, system: ActorSystem, count: int) -> list:
        workers = [
            await Embedder.local(system, self.model_path, name=f"embedder-{k}", placement=k)
            for k in range(count)
        ]
        first = await workers[0].embed(["the first passage"])
        self.dimensions = first.shape[1]
        return workers

    async def embed_corpus(self, workers: list) -> Outcome:
        outcome = self.outcome()
        quarter = asyncio.Event()
        killer = asyncio.create_task(self.kill_in_the_middle(workers[0], quarter, outcome))
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        columns.append(TextColumn("{task.fields[rate]:,.0f} passages/s"))
        begin = time.perf_counter()
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("[bold]embedding ", total=len(self.texts), rate=0)

            def step(batch: Batch) -> None:
                progress.advance(bar, len(batch.texts))
                done = progress.tasks[0].completed
                progress.update(bar, rate=done / (time.perf_counter() - begin))
                if done > len(self.texts) / 4:
                    quarter.set()

            await embed_all(workers, batches_of(self.texts, self.options.batch), outcome, step)
        killer.cancel()
        self.tell_embedding(outcome)
        return outcome

    async def kill_in_the_middle(
        self, worker: Any, quarter: asyncio.Event, outcome: Outcome
    ) -> None:
        """SIGKILL for a worker and its successors, until one was hit while it handled a batch. One
        that is hit between two batches loses nothing: those that waited go to its successor."""
        for turn in range(KILLS_MAX if self.options.kill else 0):
            await quarter.wait()
            with contextlib.suppress(ActorDied):
                pid = (await worker.report())["pid"]
                await asyncio.sleep(0.002 * (turn + 1))
                os.kill(pid, signal.SIGKILL)
                outcome.killed.append(pid)
            await asyncio.sleep(0.05)
            if outcome.resent:
                return

    def tell_embedding(self, outcome: Outcome) -> None:
        total = len(self.texts)
        for pid in outcome.killed:
            self.say("kill", f"worker 0 (pid {pid}) got SIGKILL in the middle")
        here = embedding.load(self.model_path) if outcome.resent else None
        for batch, death in outcome.resent:
            self.say("", f"batch at passage {batch.start:,} sent again after: {death}")
            rows = outcome.vectors[batch.start : batch.start + len(batch.texts)]
            if here is not None and not np.allclose(rows, here.embed(batch.texts), atol=1e-4):
                raise RuntimeError(f"the batch at {batch.start} came back with other vectors")
        rate = total / outcome.seconds
        text = f"{outcome.complete():,} of {total:,} passages have their vector"
        self.say("result", f"{text}, {outcome.seconds:.2f} s, {rate:,.0f} passages/s")

    async def tell_reports(self, workers: list) -> None:
        table = Table("worker", "pid", "batches", "passages", "busy", title="What each worker did")
        for index, worker in enumerate(workers):
            did = await worker.report()
            numbers = (did["pid"], did["batches"], f"{did['passages']:,}", f"{did['busy_s']:.2f} s")
            table.add_row(str(index), *map(str, numbers))
        if self.options.kill:
            table.caption = "The killed worker's successor counts from its own start."
        console.print(table)

    async def compare(self, workers: list) -> None:
        """Both sides in alternating rounds, on the same batches, with both sides' processes idle
        while the other works."""
        sample = self.texts if not self.options.model else self.texts[:1000]
        single = random.Random(1).sample(sample, min(len(sample), self.options.singles))
        work = {self.options.batch: sample, 1: single}
        counts = sorted({1, len(workers)})
        rounds = f"median of {self.options.rounds} alternating rounds"
        table = Table(title=f"Passages a second, {rounds}")
        for heading in ("batch", "workers", "pulsing", "Pool", "ratio", "CPU us", "Pool's"):
            table.add_column(heading, justify="right")
        pids = [(await worker.report())["pid"] for worker in workers]
        pools = {count: PoolSide(count, self.model_path) for count in counts}
        disturbed = 0.0
        console.print("[dim]comparing with multiprocessing.Pool ...[/dim]")
        try:
            for size, texts in work.items():
                for count in counts:
                    sides = Turns([os.getpid(), *pids]), Turns([os.getpid(), *pools[count].pids])
                    await self.rounds(workers[:count], pools[count], texts, size, sides)
                    ours, theirs = sides
                    pairs = zip(ours.rates, theirs.rates, strict=True)
                    ratio = statistics.median(a / b for a, b in pairs)
                    rates = [f"{statistics.median(side.rates):,.0f}" for side in sides]
                    costs = [f"{side.cpu_us():,.0f}" for side in sides]
                    table.add_row(str(size), str(count), *rates, f"{ratio:.2f}", *costs)
                    disturbed = max(disturbed, *(side.others() for side in sides))
        finally:
            for pool in pools.values():
                pool.close()
        table.caption = "CPU us: processor time of a passage, in all processes of that side."
        console.print(table)
        if disturbed > DISTURBED:
            share = f"Other programs used up to {disturbed:.0%} of the CPUs meanwhile"
            self.say("disturbed", f"{share}: compare the processor time, not the rates.")

    async def rounds(
        self,
        workers: list,
        pool: PoolSide,
        texts: list[str],
        size: int,
        sides: tuple[Turns, Turns],
    ) -> None:
        batches = batches_of(texts, size)

        async def our_turn(turns: Turns) -> None:
            with turns.turn(len(texts), self.outcome()) as outcome:
                await embed_all(workers, batches, outcome, None)

        async def their_turn(turns: Turns) -> None:
            with turns.turn(len(texts), self.outcome()) as outcome:
                pool.embed_all(batches, outcome)

        order = [(our_turn, sides[0]), (their_turn, sides[1])]
        for turn, side in order:
            await turn(Turns(side.pids))
        for _ in range(self.options.rounds):
            for turn, side in order:
                await turn(side)
            order.reverse()

    async def answer(self, worker, vectors: np.ndarray) -> None:
        for query in self.options.query or QUERIES:
            (vector,) = await worker.embed([query])
            likeness = vectors @ vector
            console.print(f"\n[bold]{query}[/bold]", markup=True)
            shown: set[str] = set()
            for index in np.argsort(-likeness):
                passage = self.passages[index]
                if passage.text in shown:
                    continue
                shown.add(passage.text)
                line = f"  {likeness[index]:.2f}  {passage.name}: {passage.headline()}"
                console.print(line, markup=False, overflow="ellipsis", no_wrap=True)
                if len(shown) == 3:
                    break


def parse_options() -> argparse.Namespace:
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usable = len(os.sched_getaffinity(0))
    parser.add_argument("--query", action="append", help="a query to answer")
    parser.add_argument("--kill", action="store_true", help="kill a worker in the middle")
    parser.add_argument("--model", type=Path, help="folder of a transformers checkpoint")
    parser.add_argument("--workers", type=int, default=usable, help=f"default: {usable}")
    parser.add_argument("--batch", type=int, default=256, help="passages a call (256)")
    parser.add_argument("--singles", type=int, default=2000, help="calls of one passage (2000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the comparison (5)")
    parser.add_argument("--no-comparison", action="store_true", help="leave it out")
    parser.add_argument("--stdlib", action="store_true", help="leave the packages out")
    parser.add_argument("--limit", type=int, help="use only so many passages")
    parser.add_argument("--cache", type=Path, default=root / "build" / "semantic-search")
    options = parser.parse_args()
    if options.model and not options.limit:
        options.limit = 2000
    return options


def main() -> int:
    return 0 if asyncio.run(Job(parse_options()).run()) else 1


if __name__ == "__main__":
    sys.exit(main())
