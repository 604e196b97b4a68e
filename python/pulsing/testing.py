# SPDX-License-Identifier: Apache-2.0
"""Fixtures and faults for users' own tests: see docs/testing.md.

With `pytest_plugins = ["pulsing.testing"]` in the top conftest.py a test asks for `actor_system`,
`cluster`, `blocking_system` or `faults`. The same without pytest: `running_system()`,
`running_cluster()` and `Faults(system)`.

PYTEST_DONT_REWRITE: there is no assertion here whose parts a test would want to see.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import select
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

from . import _core
from ._blocking import BlockingSystem, connect
from ._config import SystemConfig
from ._errors import AskTimeout
from ._system import ALIVE, ActorSystem, create_actor_system

try:
    import pytest
except ImportError:  # the faults are of use without it
    pytest = None  # type: ignore[assignment]

__all__ = ["Cluster", "Faults", "Link", "running_cluster", "running_system"]

_SIGNAL_S_MAX = 10.0
_GONE_S_MAX = 5.0
_KNOWN_S_MAX = 5.0
_MEMBERS_MAX = 64


# What runs while a test runs.


@asynccontextmanager
async def running_system(config: SystemConfig | None = None) -> AsyncIterator[ActorSystem]:
    """A system that is shut down at the end; AssertionError if one of its processes is still there.

    Without a configuration it has two workers and no network listener.
    """
    config = SystemConfig.standalone().with_workers(2) if config is None else config
    system = await create_actor_system(config)
    try:
        yield system
    finally:
        pids = _processes(system)
        await system.shutdown()
        await _gone(pids)


class Cluster:
    """Several systems in the test's process, attached to one node, and what they share.

    `cluster[0]` has the node; each further member is attached to it as another process would be: it
    has a slot, an inbox and actors of its own, and reaches others through shared memory.
    """

    def __init__(self, first: ActorSystem):
        self._members = [first]

    def __getitem__(self, index: int) -> ActorSystem:
        return self._members[index]

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[ActorSystem]:
        return iter(self._members)

    async def join(self) -> ActorSystem:
        """One more member."""
        if len(self._members) == _MEMBERS_MAX:
            raise ValueError(f"a test's cluster has at most {_MEMBERS_MAX} members")
        name = self._members[0].config.name
        assert name is not None
        self._members.append(await create_actor_system(SystemConfig.attach(name)))
        return self._members[-1]

    async def leave(self, member: ActorSystem) -> None:
        """A member shuts down; the first one cannot, since the node is its own."""
        if member is self._members[0]:
            raise ValueError("the first member has the node: the others would end with it")
        self._members.remove(member)
        await member.shutdown()


@asynccontextmanager
async def running_cluster(
    size: int = 3, config: SystemConfig | None = None
) -> AsyncIterator[Cluster]:
    """`size` systems that see each other's public actors; all are shut down at the end."""
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _MEMBERS_MAX:
        raise ValueError(f"size: expected a whole number from 1 to {_MEMBERS_MAX}, got {size!r}")
    config = SystemConfig.standalone().with_workers(2) if config is None else config
    if config.name is None:
        config = config.with_name(f"pulsing-test-{secrets.token_hex(6)}")
    async with running_system(config) as first:
        cluster = Cluster(first)
        try:
            for _ in range(size - 1):
                await cluster.join()
            yield cluster
        finally:
            for member in list(cluster)[:0:-1]:
                await cluster.leave(member)


def _processes(system: ActorSystem) -> list[int]:
    """Node and workers of a system."""
    pids = [line[4] for line in system._rt.directory() if line[2] == ALIVE]
    return [pid for pid in {system._rt.node_pid, *pids} if pid not in (0, os.getpid())]


async def _gone(pids: list[int]) -> None:
    end = time.monotonic() + _GONE_S_MAX
    while left := [pid for pid in pids if _state_of(pid) not in ("Z", "")]:
        assert time.monotonic() < end, f"processes {left} outlived the shutdown of their system"
        await asyncio.sleep(0.005)


def _state_of(pid: int) -> str:
    """The letter of a process's state, or nothing when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return ""


# Faults of processes.


class Faults:
    """Kills, pauses, and lines that lose and delay messages, for the tests of one system.

    A target is a ref (the process where the actor lives), a worker's index, or "node".
    """

    def __init__(self, system: ActorSystem):
        self._system = system
        self._paused: set[int] = set()

    async def pid_of(self, target: Any) -> int:
        """The process of a target; ValueError for this process, LookupError where there is none."""
        return (await self._find(target))[0]

    async def _find(self, target: Any) -> tuple[int, tuple[int, int] | None]:
        """(pid, (slot, epoch)); the node has no slot that could die."""
        lines = [line for line in self._system._rt.directory() if line[2] == ALIVE]
        if target == "node":
            return self._system._rt.node_pid, None
        if isinstance(target, _core.Ref):
            home = await self._system._home(target)
            found = [line for line in lines if line[:2] == home]
        elif isinstance(target, int) and not isinstance(target, bool):
            found = [line for line in lines if line[5] == target and line[5] >= 0]
        else:
            raise TypeError(f"expected a ref, a worker's index or 'node', got {target!r}")
        if not found:
            raise LookupError(f"no process that lives is that of {target!r}")
        if found[0][4] == os.getpid():
            raise ValueError(f"{target!r} lives in this process, which is the test itself")
        return found[0][4], found[0][:2]

    async def kill(self, target: Any, number: int = signal.SIGKILL) -> int:
        """Sends a signal, waits until the process has ended and the system knows how; its pid."""
        pid, place = await self._find(target)
        fd = os.pidfd_open(pid)
        try:
            os.kill(pid, number)
            end = time.monotonic() + _SIGNAL_S_MAX
            while not select.select([fd], [], [], 0)[0]:
                if time.monotonic() > end:
                    raise TimeoutError(
                        f"process {pid} still lives {_SIGNAL_S_MAX:g} s after signal {number}"
                    )
                await asyncio.sleep(0.001)
        finally:
            os.close(fd)
        end = time.monotonic() + _KNOWN_S_MAX
        while place is not None and self._system._rt.death(*place) is None:
            if time.monotonic() > end:
                break  # a node that is paused tells nobody
            await asyncio.sleep(0.001)
        return pid

    @asynccontextmanager
    async def pause(self, target: Any) -> AsyncIterator[int]:
        """`async with faults.pause(ref):` - the process stands still inside, and goes on after."""
        pid = await self.pid_of(target)
        if pid in self._paused:
            raise ValueError(f"process {pid} of {target!r} is paused already")
        self._paused.add(pid)
        os.kill(pid, signal.SIGSTOP)
        try:
            end = time.monotonic() + _SIGNAL_S_MAX
            while _state_of(pid) not in ("T", "t", "Z", ""):
                if time.monotonic() > end:
                    raise TimeoutError(f"process {pid} did not stand still")
                await asyncio.sleep(0.001)
            yield pid
        finally:
            self._resume(pid)

    def _resume(self, pid: int) -> None:
        self._paused.discard(pid)
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass  # it was killed while it stood still

    def close(self) -> None:
        """Whatever is paused goes on."""
        for pid in list(self._paused):
            self._resume(pid)

    # Faults of the line to an actor.

    def link(self, ref: Any) -> Link:
        """A ref with a line of its own, whole at first: hand it to the code under test.

        It may be sent to other actors; there it is another line with what was set by then.
        """
        if not isinstance(ref, _core.Ref):
            raise TypeError(f"expected a ref, got {ref!r}")
        return Link(ref, _Line(timeout=self._system.config.ask_timeout))

    def drop(self, link: Link, count: int | None = None, share: float = 1.0, seed: int = 0) -> None:
        """From now on messages on a link are lost: the next `count`, or all; or a share of them.

        A lost tell is just lost. A lost ask ends in AskTimeout when its time is over, and at once
        when it has none.
        """
        if count is not None and (isinstance(count, bool) or count < 0):
            raise ValueError(f"count: expected a whole number, got {count!r}")
        if not 0 <= share <= 1:
            raise ValueError(f"share: expected a number from 0 to 1, got {share!r}")
        line = _line_of(link)
        line.drop_count = count
        line.drop_share = share
        line.chance = random.Random(seed)

    def delay(self, link: Link, seconds: float) -> None:
        """From now on messages on a link arrive that much later, in their order."""
        if seconds < 0:
            raise ValueError(f"seconds: expected no less than 0, got {seconds!r}")
        _line_of(link).delay = seconds

    def heal(self, link: Link) -> None:
        """From now on a link neither loses nor delays; what is under way keeps its place."""
        line = _line_of(link)
        line.delay = 0.0
        line.drop_count, line.drop_share = 0, 1.0

    def dropped(self, link: Link) -> int:
        """How many messages a link has lost."""
        return _line_of(link).dropped


class _Line:
    """What happens to messages on their way to one actor."""

    def __init__(
        self,
        timeout: float | None,
        delay: float = 0.0,
        drop_count: int | None = 0,
        drop_share: float = 1.0,
        chance: random.Random | None = None,
    ):
        self.timeout = timeout
        self.delay = delay
        self.drop_count = drop_count
        self.drop_share = drop_share
        self.chance = chance or random.Random(0)
        self.dropped = 0
        self._last: asyncio.Future | None = None

    def __reduce__(self) -> Any:
        settings = (self.timeout, self.delay, self.drop_count, self.drop_share, self.chance)
        return _Line, settings

    def loses(self) -> bool:
        if self.drop_count == 0 or self.chance.random() >= self.drop_share:
            return False
        if self.drop_count is not None:
            self.drop_count -= 1
        self.dropped += 1
        return True

    def send(self, make: Callable[[], Any], tell: bool, timeout: float | None) -> Any:
        """The call that `make` makes, sooner or later or never."""
        if self.loses():
            return _Pending(self._lost(tell, self.timeout if timeout is None else timeout))
        if self.delay == 0 and (self._last is None or self._last.done()):
            return make()
        before, sent = self._last, asyncio.get_running_loop().create_future()
        self._last = sent
        return _Pending(self._later(make, self.delay, before, sent))

    async def _lost(self, tell: bool, timeout: float | None) -> None:
        if tell:
            return
        if timeout is not None:
            await asyncio.sleep(timeout)
        raise AskTimeout("the request was lost on its way: the test's link has dropped it")

    async def _later(
        self,
        make: Callable[[], Any],
        delay: float,
        before: asyncio.Future | None,
        sent: asyncio.Future,
    ) -> Any:
        try:
            await asyncio.sleep(delay)
            if before is not None:
                await asyncio.shield(before)
            call = make()
        finally:
            if not sent.done():
                sent.set_result(None)
        return await call


class _Pending(Coroutine):
    """A call that is under way whether it is awaited or not, as those of refs are."""

    def __init__(self, work: Coroutine):
        self._task = asyncio.get_running_loop().create_task(work)
        self._waiter: Any = None

    def __await__(self) -> Any:
        return self._task.__await__()

    async def _wait(self) -> Any:
        return await self._task

    def _coroutine(self) -> Any:
        if self._waiter is None:
            self._waiter = self._wait()
        return self._waiter

    def send(self, value: Any) -> Any:
        return self._coroutine().send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine().throw(*error)

    def close(self) -> None:
        if self._waiter is not None:
            self._waiter.close()

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for item in await self._task:
            yield item


class Link:
    """A ref whose messages a test can lose and delay; made by `faults.link(ref)`.

    It has what a ref has. Only what is sent through it is touched.
    """

    __slots__ = ("_ref", "_line")

    def __init__(self, ref: Any, line: _Line):
        self._ref = ref
        self._line = line

    def __reduce__(self) -> Any:
        return Link, (self._ref, self._line)

    def __repr__(self) -> str:
        return f"<Link to {self._ref!r}>"

    def ask(self, msg: Any, timeout: float | None = None) -> Any:
        """As a ref's."""
        return self._line.send(lambda: self._ref.ask(msg, timeout=timeout), False, timeout)

    def tell(self, msg: Any) -> Any:
        """As a ref's."""
        return self._line.send(lambda: self._ref.tell(msg), True, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self._ref, name)
        return _LinkMethod(self._line, found) if isinstance(found, _core.Endpoint) else found


class _LinkMethod:
    """A method of an actor, as a link has it."""

    __slots__ = ("_line", "_endpoint", "_tell", "_timeout")

    def __init__(self, line: _Line, endpoint: Any, tell: bool = False, timeout: Any = None):
        self._line = line
        self._endpoint = endpoint
        self._tell = tell
        self._timeout = timeout

    @property
    def tell(self) -> _LinkMethod:
        """The same without wanting an answer."""
        return _LinkMethod(self._line, self._endpoint.tell, True, self._timeout)

    def options(self, *, timeout: float | None = None) -> _LinkMethod:
        """The same with a deadline."""
        endpoint = self._endpoint.options(timeout=timeout)
        return _LinkMethod(self._line, endpoint, self._tell, timeout)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        def make() -> Any:
            return self._endpoint(*args, **kwargs)

        return self._line.send(make, self._tell, self._timeout)


def _line_of(link: Any) -> _Line:
    if not isinstance(link, Link):
        raise TypeError(f"expected what faults.link(ref) gave, got {link!r}")
    return link._line


# Fixtures.

if pytest is not None:
    try:
        from pytest_asyncio import fixture as _async_fixture
    except ImportError:

        def _async_fixture(function: Any) -> Any:  # type: ignore[no-redef]
            """A fixture that says what it needs."""

            def needs(request: Any) -> None:
                pytest.fail(
                    f"the fixture {function.__name__!r} needs pytest-asyncio: install it, or use "
                    "the fixture 'blocking_system' or pulsing.testing.running_system()"
                )

            return pytest.fixture(name=function.__name__)(needs)

    @pytest.fixture
    def system_config() -> SystemConfig:
        """The configuration of the other fixtures' systems: override it to change them."""
        return SystemConfig.standalone().with_workers(2)

    @_async_fixture
    async def actor_system(system_config: SystemConfig) -> AsyncIterator[ActorSystem]:
        """A system of the test's own, shut down after it; nothing of it may be left then."""
        async with running_system(system_config) as system:
            yield system

    @_async_fixture
    async def cluster(request: Any, system_config: SystemConfig) -> AsyncIterator[Cluster]:
        """Three systems on one node; `@pytest.mark.cluster(size=n)` asks for another number."""
        mark = request.node.get_closest_marker("cluster")
        size = mark.kwargs.get("size", 3) if mark is not None else 3
        async with running_cluster(size, system_config) as made:
            yield made

    @_async_fixture
    async def faults(actor_system: ActorSystem) -> AsyncIterator[Faults]:
        """Faults in `actor_system`; whatever is paused goes on after the test."""
        made = Faults(actor_system)
        try:
            yield made
        finally:
            made.close()

    @pytest.fixture
    def blocking_system(system_config: SystemConfig) -> Iterator[BlockingSystem]:
        """A system in blocking form, for tests without an event loop."""
        with connect(system_config) as system:
            yield system

    def pytest_configure(config: Any) -> None:
        """Makes the marker known."""
        config.addinivalue_line("markers", "cluster(size): how many systems `cluster` has")
