# SPDX-License-Identifier: Apache-2.0
"""A notebook as a real kernel runs it: awaits at the top of cells, classes that cells define and
define again, output of workers, the blocking form beside the kernel's own loop."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

CELLS = [
    """
import asyncio, os, sys, threading
import pulsing
from pulsing import SystemConfig, as_actor, create_actor_system
system = await create_actor_system(SystemConfig.standalone().with_workers(1))
FACTOR = 3
print(sys.executable)
""",
    """
def times(n):
    return FACTOR * n

@as_actor
class Multiplier:
    def multiply(self, n):
        return times(n)
    def pid(self):
        return os.getpid()
    def say(self, text):
        print(text)
    def count(self, n):
        yield from range(n)

first = await Multiplier.local(system)
await first.multiply(14), await first.pid() != os.getpid()
""",
    "[x async for x in first.count(3)]",
    """
FACTOR = 5
@as_actor
class Multiplier:
    def multiply(self, n):
        return "again", times(n)

second = await Multiplier.local(system)
await second.multiply(2), await first.multiply(2)
""",
    "await asyncio.gather(*[first.multiply(n) for n in range(4)])",
    """
got = []
def blocking():
    with pulsing.connect() as other:
        got.append(Multiplier.local(other).multiply(3))
thread = threading.Thread(target=blocking)
thread.start()
while thread.is_alive():
    await asyncio.sleep(0.01)
got
""",
    "await first.no_such_method()",
    """
await first.say("a word from the worker")
await system.shutdown()
await asyncio.sleep(1)
""",
]


# What a notebook's client leaves open ends with its process.
RUN = """
import json, nbclient, nbformat, sys
cells = [nbformat.v4.new_code_cell(cell) for cell in json.load(sys.stdin)]
notebook = nbformat.v4.new_notebook(cells=cells)
client = nbclient.NotebookClient(notebook, kernel_name="python3", timeout=60, allow_errors=True)
client.execute()
print()
print(json.dumps([cell.outputs for cell in notebook.cells]))
"""


@pytest.fixture
def results(tmp_path):
    """Each cell's result, error or printed text."""
    # Inside of a test a kernel does not take in what other processes print.
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(CELLS),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    found = []
    for outputs in json.loads(done.stdout.splitlines()[-1]):
        texts = []
        for out in outputs:
            data = out.get("data", {}).get("text/plain")
            error = f"{out['ename']}: {out['evalue']}" if "ename" in out else None
            texts.append(error or data or out.get("text", ""))
        found.append("".join(texts))
    return found


def test_a_notebook_runs(results):
    assert results[0] == f"{sys.executable}\n", "a kernel of another Python"
    assert results[1] == "(42, True)"
    assert results[2] == "[0, 1, 2]"
    assert results[3] == "(('again', 10), 6)", "the first actor keeps what it was made from"
    assert results[4] == "[0, 3, 6, 9]"
    assert results[5] == "[('again', 15)]"
    assert results[6].startswith("AttributeError: ") and "multiply" in results[6]
    (line,) = results[7].splitlines()
    assert line.endswith("a word from the worker") and line != "a word from the worker"
