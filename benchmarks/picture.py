# SPDX-License-Identifier: Apache-2.0
"""The picture: a panel per workload, a bar per system; latencies and rates on logarithmic axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as pyplot
from matplotlib.ticker import NullFormatter

TITLES = {
    "c_ask": "C, there and back",
    "c_tell": "C, one way",
    "c_wake": "C, asleep before",
    "ask_xproc": "call to another process",
    "wake": "the same, asleep before",
    "ask_blocking": "blocking call",
    "ask_inproc": "call within a process",
    "mailbox": "one way",
    "ask_async": "calls, 1,000 outstanding",
    "bulk": "array to another process",
    "broadcast": "array to four processes",
    "stream_first": "a chunk to a waiting reader",
    "stream": "items of a stream",
    "stream_bulk": "arrays of a stream",
    "kill": "SIGKILL to error",
    "spawn": "actors made",
}
OURS, OTHERS = "#4f46e5", "#94a3b8"


def panels(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    grouped: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row.get("ops_per_s") is not None and row["workload"] in TITLES:
            key = (row["workload"], row["payload"], row["loop"])
            grouped.setdefault(key, []).append(row)
    return grouped


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    grouped = panels(rows)
    if not grouped:
        return
    columns = 3
    lines = -(-len(grouped) // columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(15, 2.3 * lines), squeeze=False)
    for axis in axes.flat[len(grouped) :]:
        axis.axis("off")
    for axis, ((workload, size, loop), members) in zip(axes.flat, grouped.items(), strict=False):
        latency = members[0]["p50_us"] is not None
        column = "p50_us" if latency else "ops_per_s"
        members = sorted(members, key=lambda row: row[column], reverse=latency)
        names = [
            row["system"] + (f" {row['resident']}" if "resident" in row else "") for row in members
        ]
        values = [row[column] for row in members]
        colours = [
            OURS if not name.startswith("pulsing (Rust)") and name.startswith("pulsing") else OTHERS
            for name in names
        ]
        bars = axis.barh(names, values, color=colours)
        axis.bar_label(
            bars,
            [f"{value:,.3g}" if value < 1e4 else f"{value:,.0f}" for value in values],
            padding=3,
        )
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlim(min(values) / 3, max(values) * 5)
        unit = "us, less is better" if latency else "a second, more is better"
        details = ", ".join(
            word for word in (size, loop if loop != "asyncio" else "") if word not in ("-", "")
        )
        axis.set_title(f"{TITLES[workload]} {details} ({unit})", fontsize=9)
        axis.tick_params(labelsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
