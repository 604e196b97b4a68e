# SPDX-License-Identifier: Apache-2.0
"""The service as it is run: requests, a token stream, a model worker killed under load, and an end
that leaves nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

for package in ("fastapi", "uvicorn", "sklearn"):
    pytest.importorskip(package, reason="the extra `examples` is not installed")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "serve.py"
MARK = f"SERVE_TEST={os.getpid()}"


def marked() -> list[int]:
    """Processes that this test has started, directly or not."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and MARK.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    import serve

    return serve


@pytest.fixture
def service(serve) -> Iterator[tuple[str, list[int]]]:
    port = serve.free_port()
    command = [sys.executable, str(EXAMPLE), "run", "--passages", "400", "--port", str(port)]
    environment = {**os.environ, "SERVE_TEST": str(os.getpid())}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        pids = [int(pid) for pid in re.findall(r"\d+", line.split("models in")[1])]
        url = f"http://127.0.0.1:{port}"
        serve.wait_ready(url)
        yield url, pids
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        end = time.monotonic() + 10
        while (left := marked()) and time.monotonic() < end:
            time.sleep(0.05)
        assert not left, "processes are left"
    finally:
        process.stdout.close()
        for pid in marked():
            os.kill(pid, signal.SIGKILL)
        process.wait()


def test_the_service_answers_streams_and_survives_a_kill(serve, service) -> None:
    url, pids = service
    with urllib.request.urlopen(f"{url}/embed?text=open+a+file", timeout=60) as answer:
        vector = json.load(answer)["vector"]
    assert sum(x * x for x in vector) == pytest.approx(1, abs=1e-3)

    with urllib.request.urlopen(f"{url}/generate?prompt=Return&tokens=50", timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.read().decode().splitlines() if line]
    tokens = [json.loads(line[6:]).get("token") for line in lines if line.startswith("data:")]
    assert len(tokens) == 51 and tokens[-1] is None and lines[-2] == "event: end"
    assert all(len(token) == 1 for token in tokens[:-1])

    async def under_load():
        load = asyncio.ensure_future(serve.load(url, 16, 3.0))
        await asyncio.sleep(1.0)
        os.kill(pids[0], signal.SIGKILL)
        return await asyncio.wait_for(load, 90)

    result = asyncio.run(under_load())
    assert result.seconds and result.failures == 0, result
    with urllib.request.urlopen(f"{url}/embed?text=once+more", timeout=60) as answer:
        assert answer.status == 200
    assert pids[0] not in marked()
