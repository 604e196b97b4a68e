# SPDX-License-Identifier: Apache-2.0
"""`@batch`: single calls from many callers become list calls of one handler."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar, overload

from . import _core
from ._system import current_system_context

__all__ = ["batch"]

_STATE = "_pulsing_batches"
_Self = TypeVar("_Self")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class _Decorator(Protocol):
    """From a method that takes a list to one that takes an item, plain or async."""

    @overload
    def __call__(
        self, function: Callable[[_Self, list[_Item]], Coroutine[Any, Any, Iterable[_Result]]], /
    ) -> Callable[[_Self, _Item], Coroutine[Any, Any, _Result]]: ...

    @overload
    def __call__(
        self, function: Callable[[_Self, list[_Item]], Iterable[_Result]], /
    ) -> Callable[[_Self, _Item], Coroutine[Any, Any, _Result]]: ...


def batch(max_size: int = 32, max_wait: float = 0.002) -> _Decorator:
    """Collects calls of a method into lists.

    The method takes one list and returns one list of the same length; callers call it with one
    item and get one result. A result that is an exception is raised at its caller alone. The list
    is handed over when it has `max_size` items, or `max_wait` seconds after its first one. The
    handler runs alone: no other message of the actor runs at the same time.
    """
    if not isinstance(max_size, int) or isinstance(max_size, bool) or max_size < 1:
        raise ValueError(
            f"batch(max_size=...): expected a whole number from 1 on, got {max_size!r}"
        )
    if not isinstance(max_wait, (int, float)) or max_wait < 0:
        raise ValueError(f"batch(max_wait=...): expected seconds, got {max_wait!r}")

    def decorate(function: Callable) -> Any:
        key = f"{_STATE}_{function.__name__}"

        @functools.wraps(function)
        def put(self: Any, item: Any) -> asyncio.Future:
            batcher = self.__dict__.get(key)
            if batcher is None:
                batcher = self.__dict__[key] = _Batcher(self, function, max_size, max_wait)
            return batcher.put(item)

        @functools.wraps(function)
        async def call(self: Any, item: Any) -> Any:
            return await put(self, item)

        # As an endpoint it is what gives the future: a call then needs no task of its own.
        call.__pulsing_batch__ = put  # type: ignore[attr-defined]
        return call

    return decorate


def turn_of(instance: Any) -> asyncio.Lock:
    """The lock that lets one handler of an actor with batches run at a time."""
    states = instance.__dict__.setdefault(_STATE, {})
    lock = states.get("")
    if lock is None:
        lock = states[""] = asyncio.Lock()
    return lock


def alone(function: Callable) -> Callable:
    """An endpoint of an actor with batches that waits for its turn."""
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        return function

    @functools.wraps(function)
    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        async with turn_of(self):
            result = function(self, *args, **kwargs)
            return await result if inspect.isawaitable(result) else result

    return call


class _Batcher:
    """The calls of one method that wait for their list."""

    def __init__(self, instance: Any, function: Callable, max_size: int, max_wait: float):
        self.instance = instance
        self.function = function
        self.max_size = max_size
        self.max_wait = max_wait
        self.context = current_system_context()
        self.waiting: list[tuple[Any, asyncio.Future]] = []
        self.timer: asyncio.TimerHandle | None = None
        self.tasks: set[asyncio.Task] = set()

    def put(self, item: Any) -> asyncio.Future:
        """The future of an item's result."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.waiting.append((item, future))
        if len(self.waiting) >= self.max_size:
            self.flush()
        elif self.timer is None:
            self.timer = loop.call_later(self.max_wait, self.flush)
        return future

    def flush(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        waiting, self.waiting = self.waiting, []
        # A caller that was cancelled, or whose time is over, does not count.
        entries = [(item, future) for item, future in waiting if not future.done()]
        if entries:
            # The handler works for many callers: it sees the variables of none.
            task = _core.fresh_context(self.context).run(
                asyncio.get_running_loop().create_task, self.run(entries)
            )
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def run(self, entries: list[tuple[Any, asyncio.Future]]) -> None:
        try:
            async with turn_of(self.instance):
                entries = [(item, future) for item, future in entries if not future.done()]
                if not entries:
                    return
                results = self.function(self.instance, [item for item, _ in entries])
                if inspect.isawaitable(results):
                    results = await results
            results = list(results)
            if len(results) != len(entries):
                raise ValueError(
                    f"{self.function.__qualname__} got {len(entries)} items and returned "
                    f"{len(results)} results: a batch method returns one for each"
                )
        except Exception as error:
            results = [error] * len(entries)
        for (_, future), result in zip(entries, results, strict=True):
            if future.done():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
