# SPDX-License-Identifier: Apache-2.0
"""Many actors behind one handle: `Pool`, `Group` and `Topic`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import Any

from . import _core
from ._actor import Actor, as_actor
from ._errors import ActorDied, PulsingError, SystemClosed
from ._system import HELD_S

__all__ = ["Group", "Pool", "Topic"]

_POLICIES = ("round_robin", "least_loaded", "hash")
_RING_POINTS = 64


def _point(text: str) -> int:
    """A place on the hash ring: the same in every process and run."""
    import hashlib

    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class _Member:
    __slots__ = ("ref", "load", "index", "watch")

    def __init__(self, ref: Any, index: int):
        self.ref = ref
        self.index = index
        self.load = 0
        self.watch: asyncio.Task | None = None

    def forget(self) -> None:
        """Its end is no news any more."""
        if self.watch is not None:
            self.watch.cancel()


class _PoolMethod:
    """A method of whichever member is chosen for the call."""

    __slots__ = ("_pool", "_name", "_key", "_timeout")

    def __init__(self, pool: Pool, name: str, key: Any = None, timeout: float | None = None):
        self._pool = pool
        self._name = name
        self._key = key
        self._timeout = timeout

    def options(self, key: Any = None, timeout: float | None = None) -> _PoolMethod:
        """The same method with a key for the hash policy, or a deadline."""
        return _PoolMethod(self._pool, self._name, key, timeout)

    def _endpoint(self, member: _Member) -> Any:
        endpoint = getattr(member.ref, self._name)
        return endpoint if self._timeout is None else endpoint.options(timeout=self._timeout)

    async def _call(self, args: tuple, kwargs: dict) -> Any:
        member = await self._pool._choose(self._key)
        member.load += 1
        try:
            return await self._endpoint(member)(*args, **kwargs)
        finally:
            member.load -= 1

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(args, kwargs)

    async def tell(self, *args: Any, **kwargs: Any) -> None:
        """The same without wanting an answer."""
        member = await self._pool._choose(self._key)
        await self._endpoint(member).tell(*args, **kwargs)


class Pool:
    """n actors of one class behind one handle: `await pool.method(x)` calls one of them.

    `policy` is "round_robin", "least_loaded" (fewest calls of this pool under way) or "hash"
    (`pool.method.options(key=...)(x)`: the same member for the same key, and few keys move when
    members come and go). A member that dies is replaced; calls under way end in `ActorDied`.
    """

    def __init__(
        self, system: Any, cls: type, policy: str, args: tuple, kwargs: dict, placement: Any
    ):
        if policy not in _POLICIES:
            raise ValueError(f"policy: expected one of {', '.join(_POLICIES)}, got {policy!r}")
        self._system = system
        self._cls = cls
        self._policy = policy
        self._args = args
        self._kwargs = kwargs
        self._placement = placement
        self._members: list[_Member] = []
        self._ring: list[tuple[int, _Member]] = []
        self._turn = itertools.count()
        self._indexes = itertools.count()
        self._size = 0
        self._changed: asyncio.Future | None = None
        self._closed = False
        self._borrowed = False
        self.replaced = 0
        """How many members have been replaced after they died."""

    @classmethod
    async def create(
        cls,
        system: Any,
        actor: type,
        *args: Any,
        size: int,
        policy: str = "least_loaded",
        placement: Any = "worker",
        **kwargs: Any,
    ) -> Pool:
        """Builds `size` actors of class `actor` with these arguments."""
        pool = cls(system, actor, policy, args, kwargs, placement)
        await pool.resize(size)
        return pool

    @classmethod
    def over(cls, system: Any, refs: Iterable[Any], policy: str = "least_loaded") -> Pool:
        """A pool over actors that others have made: it chooses among them, and neither replaces
        nor stops one. For those who attach to a service: its actors restart by themselves."""
        pool = cls(system, Actor, policy, (), {}, None)
        pool._members = [_Member(ref, next(pool._indexes)) for ref in refs]
        if not pool._members:
            raise ValueError("a pool needs at least one actor")
        pool._borrowed = True
        pool._rebuild()
        return pool

    @property
    def members(self) -> list[Any]:
        """The refs of the members that live now."""
        return [m.ref for m in self._members]

    def __len__(self) -> int:
        return len(self._members)

    def __getattr__(self, name: str) -> _PoolMethod:
        if name.startswith("_"):
            raise AttributeError(name)
        method = self.__dict__[name] = _PoolMethod(self, name)
        return method

    def group(self) -> Group:
        """The members as a group, for broadcasts."""
        return Group(self.members)

    async def resize(self, size: int) -> None:
        """Grows or shrinks to `size` members; those that go finish what they have accepted."""
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"size: expected a whole number from 1 on, got {size!r}")
        if self._closed:
            raise SystemClosed("the pool has been closed")
        if self._borrowed:
            raise ValueError("this pool is over actors of others: it cannot make or stop them")
        self._size = size
        gone = self._members[size:]
        del self._members[size:]
        self._rebuild()
        for member in gone:
            member.forget()
        await asyncio.gather(*[self._system.stop(m.ref) for m in gone])
        await asyncio.gather(*[self._add() for _ in range(size - len(self._members))])

    async def close(self) -> None:
        """Stops every member."""
        self._closed = True
        members, self._members = self._members, []
        self._rebuild()
        for member in members:
            member.forget()
        if not self._borrowed:
            await asyncio.gather(*[self._system.stop(m.ref) for m in members])

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self.close()

    async def _add(self) -> None:
        ref = await self._cls.local(  # type: ignore[attr-defined]
            self._system, *self._args, placement=self._placement, **self._kwargs
        )
        member = _Member(ref, next(self._indexes))
        member.watch = asyncio.get_running_loop().create_task(self._replace(member))
        self._members.append(member)
        self._rebuild()

    async def _replace(self, member: _Member) -> None:
        await self._system.watch(member.ref)
        if self._closed or member not in self._members:
            return
        self._members.remove(member)
        self._rebuild()
        pause = 0.01
        while not self._closed and len(self._members) < self._size:
            try:
                await self._add()
                self.replaced += 1
            except PulsingError:
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)

    def _rebuild(self) -> None:
        if self._policy == "hash":
            self._ring = sorted(
                ((_point(f"{m.index}/{i}"), m) for m in self._members for i in range(_RING_POINTS)),
                key=lambda entry: entry[0],
            )
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
        self._changed = None

    async def _choose(self, key: Any) -> _Member:
        while not self._members:
            if self._closed:
                raise SystemClosed("the pool has been closed")
            if self._changed is None:
                self._changed = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._changed)
        if self._policy == "round_robin":
            return self._members[next(self._turn) % len(self._members)]
        if self._policy == "least_loaded":
            return min(self._members, key=self._load)
        if key is None:
            raise ValueError("a pool with policy='hash' needs pool.method.options(key=...)(...)")
        return self._by_key(key)

    def _load(self, member: _Member) -> tuple[int, float]:
        held = self._system._rt.held(member.ref._place[0])
        return member.load + (held > HELD_S), held

    def _by_key(self, key: Any) -> _Member:
        import bisect

        place = bisect.bisect_left(self._ring, _point(repr(key)), key=lambda entry: entry[0])
        return self._ring[place % len(self._ring)][1]


class _GroupMethod:
    __slots__ = ("_group", "_name")

    def __init__(self, group: Group, name: str):
        self._group = group
        self._name = name

    async def __call__(self, *args: Any, **kwargs: Any) -> list[Any]:
        calls = _core.broadcast(self._group.members, self._name, False, *args, **kwargs)
        waits = [c if isinstance(c, BaseException) else asyncio.ensure_future(c) for c in calls]
        await asyncio.wait([w for w in waits if not isinstance(w, BaseException)] or [_nothing()])
        return [_outcome(w) for w in waits]

    async def tell(self, *args: Any, **kwargs: Any) -> None:
        """The same without wanting answers; members that are gone are passed over."""
        for call in _core.broadcast(self._group.members, self._name, True, *args, **kwargs):
            if not isinstance(call, BaseException):
                try:
                    await call
                except ActorDied:
                    pass


def _nothing() -> asyncio.Future:
    future = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future


def _outcome(wait: Any) -> Any:
    if isinstance(wait, BaseException):
        return wait
    return wait.exception() or wait.result()


class Group:
    """Refs that get the same calls: the payload is written once and read by every member.

    `await group.method(x)` gives the list of their results, in order; in the place of a member
    that failed stands its exception.
    """

    def __init__(self, members: Iterable[Any]):
        self.members = list(members)

    def __len__(self) -> int:
        return len(self.members)

    def __getattr__(self, name: str) -> _GroupMethod:
        if name.startswith("_"):
            raise AttributeError(name)
        return _GroupMethod(self, name)


@as_actor
class _Broker(Actor):
    """Who listens to one topic; the actor behind `Topic`."""

    def __init__(self) -> None:
        self._listeners: list[tuple[Any, str]] = []

    async def receive(self, msg: Any, ctx: Any) -> Any:
        """Brokers have methods only."""
        raise ValueError("publish to the topic instead")

    def subscribe(self, ref: Any, method: str) -> int:
        """Adds a listener; the number of them."""
        if (ref, method) not in self._listeners:
            self._listeners.append((ref, method))
        return len(self._listeners)

    def unsubscribe(self, ref: Any, method: str) -> int:
        """Removes a listener; the number of those left."""
        self._listeners = [entry for entry in self._listeners if entry != (ref, method)]
        return len(self._listeners)

    async def publish(self, msg: Any) -> int:
        """Hands a message to every listener; how many there are. Those that died are dropped."""
        for method in {method for _, method in self._listeners}:
            refs = [ref for ref, name in self._listeners if name == method]
            for ref, call in zip(refs, _core.broadcast(refs, method, True, msg), strict=True):
                if isinstance(call, BaseException):
                    self.unsubscribe(ref, method)
                else:
                    await call
        return len(self._listeners)


class Topic:
    """A named channel: what is published reaches every subscriber, in the publisher's order."""

    def __init__(self, name: str, broker: Any):
        self.name = name
        self._broker = broker

    @classmethod
    async def open(cls, system: Any, name: str) -> Topic:
        """The topic of that name on this node, made when it is not there yet."""
        from ._errors import ActorExists

        full = f"pulsing.topic/{name}"
        broker = await system.find(full)
        if broker is None:
            try:
                broker = await _Broker.local(  # type: ignore[attr-defined]
                    system, name=full, public=True, detached=True
                )
            except ActorExists:
                broker = await system.resolve(full, timeout=5)
        return cls(name, broker)

    async def subscribe(self, ref: Any, method: str) -> None:
        """From now on `ref.method(msg)` is told every message."""
        await self._broker.subscribe(ref, method)

    async def unsubscribe(self, ref: Any, method: str) -> None:
        """No more messages for `ref.method`."""
        await self._broker.unsubscribe(ref, method)

    async def publish(self, msg: Any) -> int:
        """Sends a message to all subscribers; how many there are."""
        return await self._broker.publish(msg)
