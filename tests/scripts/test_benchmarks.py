# SPDX-License-Identifier: Apache-2.0
"""The benchmarks at their smallest scale: every workload gives its rows, in the form that figures
are compared in, and the table and the picture are made of them."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

for module in ("matplotlib", "numpy", "rich", "uvloop", "zmq"):
    pytest.importorskip(module, reason="the extra `benchmarks` is not installed")

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
BESIDE = {
    "c_ask": "floor: shared memory",
    "c_wake": "floor: eventfd",
    "ask_xproc": "mp.Pipe",
    "wake": "pyzmq",
    "ask_blocking": "mp.Pipe",
    "ask_inproc": "asyncio queue and future",
    "mailbox": "pyzmq",
    "ask_async": "futures alone",
    "bulk": "memcpy",
    "broadcast": "memcpy",
    "stream": "mp.Pipe",
    "kill": "mp.Pipe",
    "startup": "multiprocessing fork",
}
ALONE = {"c_tell", "stream_first", "stream_bulk", "stream32", "idle", "spawn"}
FIELDS = {"system", "workload", "payload", "n", "p50_us", "p99_us", "ops_per_s", "gbps"}


def build_programs() -> None:
    spec = importlib.util.spec_from_file_location("run", FOLDER / "run.py")
    assert spec is not None and spec.loader is not None
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    run.build_programs()


def suite(out: Path, *names: str) -> subprocess.CompletedProcess[str]:
    options = ["--rounds", "1", "--scale", "0.0005", "--out", str(out)]
    command = [sys.executable, str(FOLDER), *names, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.timeout(330)
def test_every_workload_gives_its_rows_a_table_and_a_picture(tmp_path: Path) -> None:
    build_programs()
    out = tmp_path / "rows.jsonl"
    done = suite(out)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert not [row for row in rows if "skipped" in row]
    assert all(row.keys() >= FIELDS for row in rows)
    systems: dict[str, set[str]] = {}
    for row in rows:
        systems.setdefault(row["workload"], set()).add(row["system"])
    assert systems.keys() == BESIDE.keys() | ALONE
    for workload, members in systems.items():
        assert any(member.startswith("pulsing") for member in members), workload
        assert workload in ALONE or BESIDE[workload] in members, workload
    looped = {row["workload"] for row in rows if row["loop"] == "uvloop"}
    assert {"ask_xproc", "wake", "mailbox", "ask_async", "stream"} <= looped
    assert "Beside the figures that the project has set itself" in done.stdout
    targets = [line for line in done.stdout.splitlines() if "holds" in line or "missed" in line]
    assert len(targets) == 27
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_a_workload_that_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    done = suite(tmp_path / "rows.jsonl", "nonesuch")
    assert done.returncode == 2 and "nonesuch" in done.stderr


def test_a_workload_that_fails_gives_a_row_that_says_why(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    command = [sys.executable, str(FOLDER), "rings", "--rounds", "1"]
    command += ["--scale", "0.0005", "--out", str(out), "--programs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert row["workload"] == "rings" and "bench_floor" in row["skipped"]
