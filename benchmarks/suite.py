# SPDX-License-Identifier: Apache-2.0
"""Runs the workloads, sets their figures beside the project's targets, draws the picture. run.py
starts it, by __main__.py, with the interpreter that has what it needs."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import others
import picture
import processes
import streams
import workloads
from measure import Rows
from sides import Native

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "build" / "benchmarks" / "benchmarks"
# Seconds that one workload may take before it counts as hung.
LIMIT_S = 300
NAMES = ["rings", "ask", "ask_blocking", "ask_inproc", "tell", "ask_window", "bulk", "broadcast"]
NAMES += ["stream", "stream_bulk", "stream_paced", "kill", "idle", "actors", "startup"]
# Those whose figures depend on the event loop.
LOOPED = ("ask", "ask_inproc", "tell", "ask_window", "stream")
ASYNC = {**workloads.ASYNC, **streams.ASYNC}


class Figures:
    """The rows of a run, by what they are about."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def get(self, workload: str, system: str, column: str, **about: Any) -> float:
        for row in self.rows:
            if (row["workload"], row["system"]) == (workload, system) and all(
                row.get(key) == value for key, value in about.items()
            ):
                return float(row[column])
        raise KeyError(workload)

    def ratio(self, workload: str, beside: str, column: str, **about: Any) -> float:
        ours = "pulsing rings (C)" if workload.startswith("c_") else "pulsing"
        return self.get(workload, ours, column, **about) / self.get(
            workload, beside, column, **about
        )


@dataclass(frozen=True)
class Target:
    what: str
    figure: Callable[[Figures], float]
    limit: float
    most: bool = True

    def holds(self, value: float) -> bool:
        return value <= self.limit if self.most else value >= self.limit


C_RINGS = "pulsing rings (C)"
TARGETS = [
    Target(
        "C to C, one way, awake (us)",
        lambda f: f.get("c_ask", C_RINGS, "best_p50_us") / 2,
        0.25,
    ),
    Target(
        "C to C, messages a second",
        lambda f: f.get("c_tell", C_RINGS, "best_ops_per_s"),
        8e6,
        most=False,
    ),
    Target("C wake / raw eventfd", lambda f: f.ratio("c_wake", "floor: eventfd", "p50_us"), 1.2),
    Target(
        "call, awake / mp.Pipe",
        lambda f: f.ratio("ask_xproc", "mp.Pipe", "best_p50_us", payload="64B", loop="asyncio"),
        0.15,
    ),
    Target(
        "call, awake, uvloop / mp.Pipe",
        lambda f: f.ratio("ask_xproc", "mp.Pipe", "best_p50_us", payload="64B", loop="uvloop"),
        1.0,
    ),
    Target(
        "call, woken / mp.Pipe",
        lambda f: f.ratio("wake", "mp.Pipe", "best_p50_us", loop="asyncio"),
        1.0,
    ),
    Target(
        "blocking call / mp.Pipe",
        lambda f: f.ratio("ask_blocking", "mp.Pipe", "best_p50_us"),
        0.08,
    ),
    Target(
        "in-process call (us)",
        lambda f: f.get("ask_inproc", "pulsing", "best_p50_us", loop="asyncio"),
        8.0,
    ),
    Target(
        "tell / mp.Pipe one way",
        lambda f: f.ratio("mailbox", "mp.Pipe", "best_ops_per_s", loop="asyncio"),
        4.0,
        most=False,
    ),
    Target(
        "1,000 outstanding / futures alone",
        lambda f: f.ratio("ask_async", "futures alone", "best_ops_per_s", loop="asyncio"),
        0.4,
        most=False,
    ),
    Target(
        "64 MB array / memcpy", lambda f: f.ratio("bulk", "memcpy", "p50_us", payload="64MB"), 1.15
    ),
    Target(
        "1 MB array / SharedMemory by hand",
        lambda f: f.ratio("bulk", "mp.Pipe+shm", "p50_us", payload="1MB"),
        1.3,
    ),
    Target(
        "1 MB to a group of 4 / a call to one",
        lambda f: f.ratio("broadcast", "pulsing, one call", "best_p50_us"),
        1.5,
    ),
    Target(
        "stream, first chunk (us)",
        lambda f: f.get("stream_first", "pulsing", "best_p50_us", loop="asyncio"),
        150.0,
    ),
    Target(
        "stream items / mp.Pipe one way",
        lambda f: f.ratio("stream", "mp.Pipe", "best_ops_per_s", loop="asyncio"),
        1.0,
        most=False,
    ),
    Target(
        "memory of a 1 GB stream (MB)", lambda f: f.get("stream_bulk", "pulsing", "grown_mb"), 64.0
    ),
    Target(
        "32 streams, 5 ms apart: off by (ms)",
        lambda f: abs(f.get("stream32", "pulsing", "p50_us") / 1e3 - 5.0),
        0.1,
    ),
    Target(
        "kill to ActorDied (ms)",
        lambda f: f.get("kill", "pulsing", "p50_us", resident="small") / 1e3,
        5.0,
    ),
    Target(
        "the same with 1 GiB resident (ms)",
        lambda f: f.get("kill", "pulsing", "p50_us", resident="1 GiB") / 1e3,
        10.0,
    ),
    Target("idle CPU, 4 workers (%)", lambda f: f.get("idle", "pulsing", "cpu_percent"), 0.0),
    Target(
        "idle wake-ups a second and process",
        lambda f: f.get("idle", "pulsing", "wake_ups_per_s"),
        2.0,
    ),
    Target("empty system (MB)", lambda f: f.get("idle", "pulsing", "empty_mb"), 30.0),
    Target("an actor (KB)", lambda f: f.get("spawn", "pulsing", "kb_per_actor"), 5.0),
    Target(
        "actors made a second", lambda f: f.get("spawn", "pulsing", "ops_per_s"), 20e3, most=False
    ),
    Target("first answer (ms)", lambda f: f.get("startup", "pulsing", "first_answer_ms"), 250.0),
    Target("one more worker (ms)", lambda f: f.get("startup", "pulsing", "one_more_ms"), 50.0),
    Target("shutdown (ms)", lambda f: f.get("startup", "pulsing", "shutdown_ms"), 500.0),
]


def print_targets(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table(title="Beside the figures that the project has set itself")
    for heading in ("figure", "measured", "limit", ""):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    figures = Figures(rows)
    for target in TARGETS:
        try:
            value = target.figure(figures)
        except KeyError:
            continue
        limit = f"{'≤' if target.most else '≥'} {target.limit:,g}"
        verdict = "holds" if target.holds(value) else "missed"
        table.add_row(
            target.what, f"{value:,.3g}" if value < 1e4 else f"{value:,.0f}", limit, verdict
        )
    if table.row_count:
        console.print(table)


def print_rows(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table(title="Median of the rounds, best round")
    for heading in (
        "workload",
        "payload",
        "loop",
        "system",
        "p50 us",
        "best",
        "per second",
        "best",
    ):
        right = heading in ("p50 us", "best", "per second")
        table.add_column(heading, justify="right" if right else "left")

    def cell(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    for row in rows:
        if row.get("ops_per_s") is None:
            continue
        table.add_row(
            row["workload"],
            row["payload"],
            row["loop"],
            " ".join([row["system"], *([row["resident"]] if "resident" in row else [])]),
            cell(row["p50_us"], ",.2f"),
            cell(row.get("best_p50_us"), ",.2f"),
            cell(row["ops_per_s"], ",.0f"),
            cell(row.get("best_ops_per_s"), ",.0f"),
        )
    console.print(table)


def run_one(name: str, bench: workloads.Bench, uvloop: bool) -> None:
    if name in workloads.BLOCKING:
        workloads.BLOCKING[name](bench)
        return
    work = asyncio.wait_for(ASYNC[name](bench), LIMIT_S)
    if uvloop:
        import uvloop as loops

        loops.run(work)
    else:
        asyncio.run(work)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--list", action="store_true", help="names the workloads")
    parser.add_argument("--peers", action="store_true", help="measure other actor systems, too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every count")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "benchmarks" / "rows.jsonl")
    parser.add_argument("--programs", type=Path, default=PROGRAMS, help="folder of the C programs")
    parser.add_argument("--picture", type=Path, help="default: the same name with .png")
    parser.add_argument(
        "--show", action="store_true", help="only the table and the picture of the rows in --out"
    )
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no such workload: {', '.join(sorted(unknown))}")
    return options


def measure(options: argparse.Namespace, rows: Rows) -> int:
    """Runs the workloads; how many of them failed."""
    processes.keep_descendants()
    bench = workloads.Bench(rows, Native(options.programs), options.rounds, options.scale)
    failed = 0
    for name in options.names or NAMES:
        for uvloop in (False, True) if name in LOOPED else (False,):
            rows.loop = "uvloop" if uvloop else "asyncio"
            try:
                run_one(name, bench, uvloop)
            except Exception as error:
                failed += 1
                rows.skip(name, "pulsing", f"error: {type(error).__name__}: {error}"[:300])
                traceback.print_exc()
    rows.loop = "asyncio"
    if options.peers:
        others.measure(rows, options.scale)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(row) + "\n" for row in rows.rows))
    return failed


def main() -> int:
    options = parse_options()
    if options.list:
        print("\n".join(NAMES))
        return 0
    rows = Rows()
    failed = 0
    if options.show:
        rows.rows = [json.loads(line) for line in options.out.read_text().splitlines()]
    else:
        failed = measure(options, rows)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    print_rows(console, rows.rows)
    print_targets(console, rows.rows)
    png = options.picture or options.out.with_suffix(".png")
    picture.draw(rows.rows, png)
    console.print(f"the rows are in {options.out}, the picture is {png}")
    return 1 if failed else 0
