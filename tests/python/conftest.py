# SPDX-License-Identifier: Apache-2.0
"""What every test of the package gets: a system, an event loop of either kind, and a look at what
it has left behind.

Everything that a test starts carries a mark in its environment. After each test no process with
that mark may live, and this process may hold no descriptor, no mapped memfd, no dead child, no
bound socket and no file in /dev/shm more than before.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import pathlib
import signal
import sys
import time

import pytest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

from leftovers import Holdings, leftovers, marked_processes, socket_files  # noqa: E402

LEFT_S_MAX = float(os.environ.get("PULSING_TEST_LEFT_S", "4"))
_failed = pytest.StashKey[bool]()
_before = pytest.StashKey[Holdings]()


def pytest_configure(config):
    config.addinivalue_line("markers", "both_loops: run on asyncio's own event loop and on uvloop")
    config.addinivalue_line(
        "markers", "between_nodes: of node processes, whatever Python they serve"
    )


def pytest_asyncio_loop_factories(config, item):
    factories = {"asyncio": asyncio.SelectorEventLoop}
    if item.get_closest_marker("both_loops"):
        factories["uvloop"] = _uvloop_factory()
    return factories


@functools.cache
def _uvloop_factory():
    """The first loop makes a pipe that libuv then keeps for the process: it is made here, so that
    no test is taken for its owner."""
    import uvloop

    loop = uvloop.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    return uvloop.new_event_loop


def pytest_collection_finish(session):
    """What is there before the first test is not looked through after every test."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item):
    gc.collect()
    item.stash[_before] = Holdings()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item):
    result = yield
    whole = not item.stash.get(_failed, False)
    end = time.monotonic() + LEFT_S_MAX
    while left := leftovers(item.stash[_before], whole):
        if time.monotonic() > end:
            break
        time.sleep(0.01)
        gc.collect()
    for pid in marked_processes():
        os.kill(pid, signal.SIGKILL)
    left += sorted(f"the socket {path}" for path in _own_socket_files(item)) if whole else []
    if left:
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)
    return result


def _own_socket_files(item):
    """Sockets with a name in the test's own folder, which is kept for a while."""
    folder = item.funcargs.get("tmp_path")
    return socket_files(folder) if folder is not None and folder.is_dir() else set()


@pytest.fixture
async def system():
    """A system of this test's own, with two workers at most."""
    from pulsing.actor import SystemConfig, create_actor_system

    async with await create_actor_system(SystemConfig.standalone().with_workers(2)) as it:
        yield it


@pytest.fixture
def eventually():
    """Waits until a condition, plain or async, holds; fails with its name after 20 s."""
    return _eventually


async def _eventually(condition, what="the condition", seconds=20.0):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value) or hasattr(value, "__await__"):
            value = await value
        if value:
            return value
        assert time.monotonic() < end, f"{what} did not come true within {seconds} s"
        await asyncio.sleep(0.005)
