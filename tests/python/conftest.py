# SPDX-License-Identifier: Apache-2.0
"""What every test of the package gets: a system, an event loop of either kind, and a look at what
it has left behind.

Everything that a test starts carries a mark in its environment. After each test no process with
that mark may live, and this process may hold no descriptor, no mapped memfd, no dead child and no
file in /dev/shm more than before.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import pathlib
import re
import secrets
import signal
import sys
import time
from collections import Counter

import pytest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

MARK = f"PULSING_TEST_MARK={secrets.token_hex(8)}"
os.environ.update([MARK.split("=")])
LEFT_S_MAX = 4.0
_failed = pytest.StashKey[bool]()
_before = pytest.StashKey["Holdings"]()


def pytest_configure(config):
    config.addinivalue_line("markers", "both_loops: run on asyncio's own event loop and on uvloop")


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


class Holdings:
    """What this process holds of the kernel's things."""

    def __init__(self):
        self.fds = Counter()
        for fd in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{fd}")
            except OSError:
                continue
            self.fds[re.sub(r":\[\d+\]$", "", target)] += 1
        self.fds.pop(f"/proc/{os.getpid()}/fd", None)
        maps = pathlib.Path("/proc/self/maps").read_text()
        self.maps = Counter(re.findall(r"(/memfd:\S*)", maps))
        self.shm = set(os.listdir("/dev/shm"))
        self.sockets = {
            line.split()[-1]
            for line in pathlib.Path("/proc/net/unix").read_text().splitlines()
            if "pulsing" in line.split()[-1]
        }

    def more_than(self, other: Holdings) -> list[str]:
        more = [f"{count} descriptors of {what}" for what, count in (self.fds - other.fds).items()]
        more += [f"{count} mappings of {what}" for what, count in (self.maps - other.maps).items()]
        return more


def marked_processes() -> dict[int, str]:
    """Living processes that some test has started, with their command lines."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            environment = pathlib.Path(f"/proc/{entry}/environ").read_bytes()
            if MARK.encode() in environment.split(b"\0"):
                command = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes()
                found[int(entry)] = command.replace(b"\0", b" ").decode(errors="replace")[:200]
        except OSError:
            continue
    return found


def dead_child() -> int | None:
    """The pid of an ended child that nobody has waited for."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if ended is None else ended.si_pid


def held_files() -> set[str]:
    """Names in /dev/shm that a living process has open or mapped."""
    held: set[str] = set()
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            held.update(re.findall(r"/dev/shm/(\S+)", (process / "maps").read_text()))
            held.update(os.readlink(fd).rpartition("/")[2] for fd in (process / "fd").iterdir())
        except OSError:
            continue
    return held


def leftovers(before: Holdings, whole: bool) -> list[str]:
    """What is still there that was not there before; `whole`: this process's own things as well."""
    left = [f"process {pid}: {command}" for pid, command in marked_processes().items()]
    if not whole:
        return left
    now = Holdings()
    left += now.more_than(before)
    child = dead_child()
    if child is not None:
        left.append(f"the ended child {child}, which nobody has waited for")
    new = now.shm - before.shm - held_files()
    left += [f"/dev/shm/{name}" for name in new if os.path.exists(f"/dev/shm/{name}")]
    return left


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
    if left:
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)
    return result


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
