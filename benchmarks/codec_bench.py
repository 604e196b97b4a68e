# SPDX-License-Identifier: Apache-2.0
"""The codec alone, beside pickle and the msgpack package: nanoseconds to write and read a message.

The codec's figures are those of a call with one argument, timed in C as the runtime calls it; the
others are timed from Python over their C functions. One JSON object per line, medians of
alternating rounds. What msgpack cannot carry unchanged has no figure there."""

from __future__ import annotations

import argparse
import dataclasses
import fractions
import json
import pathlib
import pickle
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "python"))
import codec_build

try:
    import msgpack
except ImportError:
    msgpack = None
try:
    import numpy as np
except ImportError:
    np = None


@dataclasses.dataclass
class Request:
    """Sent by value, because this file is a script."""

    name: str
    tokens: list[int]


def workloads() -> dict[str, Any]:
    made = {
        "bytes 64 B": b"x" * 64,
        "bytes 1 MB": b"x" * (1 << 20),
        "int": 12345,
        "str": "hello world",
        "dict of 4": {"id": 7, "name": "query", "score": 0.5, "tags": ["a", "b"]},
        "list of 100 ints": list(range(100)),
        "list of 100 floats": [n / 7 for n in range(100)],
        "100 dicts of 3": [{"id": n, "text": f"text {n}", "score": n / 3} for n in range(100)],
        "tuple of 3": (1, "a", 2.5),
        "importable object": fractions.Fraction(22, 7),
        "script's dataclass": Request("query", [1, 2, 3]),
    }
    if np is not None:
        made["array 64 KB"] = np.zeros(1 << 13)
        made["array 64 MB"] = np.ones(1 << 23)
    return made


def rounds_for(call: Callable[[], Any], seconds: float) -> int:
    begin = time.perf_counter()
    call()
    return max(1, min(200_000, int(seconds / (time.perf_counter() - begin + 1e-7))))


def timed(call: Callable[[], Any], count: int) -> float:
    begin = time.perf_counter_ns()
    for _ in range(count):
        call()
    return (time.perf_counter_ns() - begin) / count


def ways(harness: Any, value: Any, seconds: float) -> dict[str, Callable[[], float]]:
    """Each way's name and a function that gives its nanoseconds per message."""
    message = harness.encode_call(value)
    found: dict[str, Callable[[], float]] = {}

    def add(name: str, call: Callable[[], Any]) -> None:
        count = rounds_for(call, seconds)
        found[name] = lambda: timed(call, count)

    writes = rounds_for(lambda: harness.time_encode(value, 1), seconds)
    # A call to time_decode() copies the region once, which is no part of its figure.
    reads = max(1000, rounds_for(lambda: harness.time_decode(*message, 1), seconds))
    found["codec write"] = lambda: harness.time_encode(value, writes)
    found["codec read"] = lambda: harness.time_decode(*message, reads)
    pickled = pickle.dumps(value, 5)
    add("pickle write", lambda: pickle.dumps(value, 5))
    add("pickle read", lambda: pickle.loads(pickled))
    if msgpack is not None and not isinstance(value, tuple):
        try:
            packed = msgpack.packb(value)
        except TypeError:
            return found
        add("msgpack write", lambda: msgpack.packb(value))
        add("msgpack read", lambda: msgpack.unpackb(packed))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.05, help="of one figure in one round")
    options = parser.parse_args()
    harness = codec_build.load()
    for name, value in workloads().items():
        figures: dict[str, list[float]] = {}
        measured = ways(harness, value, options.seconds)
        for _ in range(options.rounds):
            for way, measure in measured.items():
                figures.setdefault(way, []).append(measure())
        row: dict[str, Any] = {"workload": name, "python": platform.python_version(), "unit": "ns"}
        for way, samples in figures.items():
            row[way] = round(statistics.median(samples), 1)
            row[f"{way} best"] = round(min(samples), 1)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
