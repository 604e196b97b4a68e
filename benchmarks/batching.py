#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What `@batch` gives: 64 callers ask one worker for embeddings of the demo's model, one call per
text and by batches, in alternating rounds; beside it what the model's own batch run gains over
single texts. One JSON object a line.

    batching.py [--rounds 3] [--seconds 2] [--passages 2000] [--check]

`--check` ends with exit code 1 unless the gain is at least 0.8 of the model's own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

import docstrings  # noqa: E402
import embedding  # noqa: E402
import pulsing  # noqa: E402
from pulsing.actor import SystemConfig, as_actor, create_actor_system  # noqa: E402

CALLERS = 64
SHARE_MIN = 0.8


@as_actor
class Embedder:
    """The model in a worker, called each way."""

    def __init__(self, path: str) -> None:
        self.model = embedding.load(path)

    def single(self, text: str):
        return self.model.embed([text])[0]

    @pulsing.batch(max_size=CALLERS, max_wait=0.002)
    def batched(self, texts: list[str]):
        return list(self.model.embed(texts))


@as_actor
class Bare:
    """The model alone: texts a second of single and of batch runs, without any message."""

    def __init__(self, path: str) -> None:
        self.model = embedding.load(path)

    def rate(self, texts: list[str], size: int, seconds: float) -> float:
        done = 0
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            at = done % (len(texts) - size)
            self.model.embed(texts[at : at + size])
            done += size
        return done / (time.perf_counter() - begin)


async def rate_of(method, texts: list[str], seconds: float) -> float:
    """Answers a second with CALLERS callers, each of which waits for its answer."""
    end = time.perf_counter() + seconds
    done = 0

    async def caller(number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await method(texts[(number + done) % len(texts)])
            done += 1

    begin = time.perf_counter()
    await asyncio.gather(*[caller(i) for i in range(CALLERS)])
    return done / (time.perf_counter() - begin)


def corpus(most: int) -> list[str]:
    texts: list[str] = []
    for path, module in docstrings.source_files(False):
        texts += [passage.text for passage in docstrings.passages_of(path, module)]
        if len(texts) >= most:
            break
    return texts


async def measure(path: str, texts: list[str], rounds: int, seconds: float) -> dict[str, list]:
    rates: dict[str, list] = {"single": [], "batched": [], "model_1": [], "model_64": []}
    async with await create_actor_system(SystemConfig.standalone().with_workers(1)) as system:
        embedder = await Embedder.local(system, path)
        bare = await Bare.local(system, path)
        for _ in range(rounds):
            rates["model_1"].append(await bare.rate(texts, 1, seconds))
            rates["single"].append(await rate_of(embedder.single, texts, seconds))
            rates["model_64"].append(await bare.rate(texts, CALLERS, seconds))
            rates["batched"].append(await rate_of(embedder.batched, texts, seconds))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--passages", type=int, default=2000)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    texts = corpus(options.passages)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        embedding.LatentSemantics.fit(texts).save(path)
        rates = asyncio.run(measure(str(path), texts, options.rounds, options.seconds))
    for name, values in rates.items():
        line = {"system": "pulsing", "workload": f"embed_{name}", "payload": "docstring"}
        best = {
            "n": len(values),
            "p50_us": None,
            "p99_us": None,
            "ops_per_s": round(max(values), 1),
        }
        more = {"gbps": None, "median_ops_per_s": round(statistics.median(values), 1)}
        print(json.dumps({**line, **best, **more, "callers": CALLERS}))
    gain = max(rates["batched"]) / max(rates["single"])
    own = max(rates["model_64"]) / max(rates["model_1"])
    line = {"system": "pulsing", "workload": "embed_gain", "payload": "docstring"}
    print(json.dumps({**line, "gain": gain, "model_gain": own, "share": gain / own}))
    if options.check and gain < SHARE_MIN * own:
        sys.exit(f"batching gains {gain:.2f}, the model's own batch run {own:.2f}")


if __name__ == "__main__":
    main()
