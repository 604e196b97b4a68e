# SPDX-License-Identifier: Apache-2.0
"""What makes a class an actor: `Actor`, `@as_actor`, and the context of a handler."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import _core
from ._compat import class_resolve, class_spawn

if TYPE_CHECKING:
    from ._system import ActorSystem

__all__ = ["Actor", "ActorClass", "ActorContext", "as_actor", "current_context", "describe"]

_REF_NAMES = frozenset(
    name
    for name in (*dir(_core.Ref), "send", "ask_json", "tell_json", "ask_stream")
    if not name.startswith("_")
)
_CLASS_NAMES = frozenset(("local", "remote", "spawn", "resolve"))
_HOOKS = frozenset(("on_start", "on_stop", "metadata", "receive"))
_OVERFLOWS = {"wait": 0, "reject": 1, "drop_oldest": 2}
_described: weakref.WeakKeyDictionary[type, ActorClass] = weakref.WeakKeyDictionary()
_RESTARTS = {"never": 0, "on_failure": 1, "always": 2}


class Actor:
    """Base class of actors that handle messages in `receive(self, msg)`, or with `ctx` after it.

    Hooks, plain or async: `on_start(self)` or `on_start(self, ctx)`, `on_stop(self)`,
    `metadata(self) -> dict[str, str]`.
    """

    def receive(self, *args: Any, **kwargs: Any) -> Any:
        """Handle one message; what it returns is the answer.

        Written as `receive(self, msg)` or `receive(self, msg, ctx)`, plain or async.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define receive()")


class CancelToken:
    """Whether the message that is being handled is still wanted."""

    __slots__ = ("_context",)

    def __init__(self, context: ActorContext):
        self._context = context

    def is_cancelled(self) -> bool:
        """True when the actor stops, or the message's deadline has passed."""
        return self._context.is_cancelled()


class ActorContext:
    """Where a handler runs, and for whom."""

    __slots__ = ("_system", "_actor", "_name", "_stopping", "_children", "__weakref__")

    def __init__(self, system: ActorSystem, actor: int, name: str | None):
        self._system = system
        self._actor = actor
        self._name = name
        self._stopping = False
        self._children: dict[int, Any] = {}

    @property
    def system(self) -> ActorSystem:
        """The system of this process."""
        return self._system

    @property
    def actor_id(self):
        """The actor's id."""
        from ._ids import ActorId

        return ActorId(self._system._rt.node_id, self._actor, self._name)

    @property
    def node_id(self):
        """The node's id."""
        return self._system.node_id

    @property
    def worker_id(self) -> int | None:
        """The worker's index; None outside of the numbered workers."""
        index = self._system._rt.worker_index
        return None if index < 0 else index

    @property
    def name(self) -> str | None:
        """The actor's name, or None."""
        return self._name

    @property
    def sender(self):
        """The id of the actor that sent the message, or None."""
        message = self._system._rt.current_message()
        if message is None or message[1] & 0xFFFFFFFF == 0:
            return None
        from ._ids import ActorId

        return ActorId(self._system._rt.node_id, message[1])

    @property
    def deadline(self) -> float | None:
        """When the message's time is over, on `time.monotonic()`'s clock, or None."""
        message = self._system._rt.current_message()
        return None if message is None else message[0]

    @property
    def cancel_token(self) -> CancelToken:
        """The cancellation signal."""
        return CancelToken(self)

    def is_cancelled(self) -> bool:
        """True when the caller waits no more, the actor stops, or the deadline has passed."""
        deadline = self.deadline
        return (
            self._system._rt.is_cancelled()
            or self._stopping
            or (deadline is not None and time.monotonic() >= deadline)
        )

    async def actor_ref(self, other: Any):
        """The ref of another actor of this node, by name or id."""
        return await self._system.actor_ref(other)

    async def watch(self, ref: Any) -> str:
        """Waits until an actor stops or dies; returns why."""
        return await self._system.watch(ref)

    def schedule(self, seconds: float, message: Any) -> asyncio.TimerHandle:
        """Sends this actor a message after some seconds; the handle cancels it."""
        ref = self._system._own_ref(self._actor)
        return asyncio.get_running_loop().call_later(seconds, lambda: ref.tell(message))


def current_context() -> ActorContext:
    """The context of the message that is being handled. RuntimeError outside of a handler."""
    from ._system import current_system_context

    context = current_system_context()
    if context is None:
        raise RuntimeError("current_context() is for code that an actor's method runs")
    return context


class ActorClass:
    """What the host needs to know of a class: its endpoints, its hooks, its options."""

    __slots__ = ("batches", "cls", "methods", "receive", "receive_context", "options", "name")

    def __init__(self, cls: type, options: dict[str, Any]):
        self.cls = cls
        self.name = cls.__qualname__.rpartition(".")[2] or cls.__name__
        self.options = options
        self.methods = {
            name: _endpoint(cls, name, options) for name in _endpoint_names(cls, options)
        }
        self.batches = any(hasattr(m, "__pulsing_batch__") for m in self.methods.values())
        if self.batches:
            from ._batch import alone

            for name, method in self.methods.items():
                put = getattr(method, "__pulsing_batch__", None)
                self.methods[name] = alone(method) if put is None else put
        receive = getattr(cls, "receive", None)
        self.receive = receive if callable(receive) else None
        self.receive_context = self.receive is not None and _wants_context(self.receive, 2)

    @property
    def concurrency(self) -> int:
        """Messages that may be handled at a time: calls that wait for their batch are many."""
        return self.options.get("max_concurrency", BATCH_CONCURRENCY if self.batches else 1)


BATCH_CONCURRENCY = 65536


def _wants_context(function: Callable, plain: int) -> bool:
    """Whether a function takes one positional argument more than `plain` of them."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > plain or any(p.kind == p.VAR_POSITIONAL for p in parameters)


def _endpoint_names(cls: type, options: dict[str, Any]) -> list[str]:
    """Public methods; for classes with `receive` that are not `@as_actor`, none but receive."""
    names = []
    for name in dir(cls):
        if name.startswith("_") or name in _HOOKS or name in _CLASS_NAMES:
            continue
        attribute = inspect.getattr_static(cls, name)
        if callable(getattr(cls, name, None)) and not isinstance(attribute, (property, type)):
            names.append(name)
    return names


def _endpoint(cls: type, name: str, options: dict[str, Any]) -> Callable:
    attribute = inspect.getattr_static(cls, name)
    function = getattr(cls, name)
    if isinstance(attribute, (staticmethod, classmethod)):
        bound = function

        def function(self, *args, **kwargs):
            return bound(*args, **kwargs)

        functools.update_wrapper(function, bound)
    if options.get("thread") and not _is_async(function):
        return _threaded(function)
    return function


def _is_async(function: Callable) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _in_thread(instance: Any, function: Callable, *args: Any, **kwargs: Any) -> asyncio.Future:
    """Runs a function in the actor's thread, in the caller's context."""
    executor = instance.__dict__.get("_pulsing_thread")
    if executor is None:
        from concurrent.futures import ThreadPoolExecutor

        executor = instance.__dict__["_pulsing_thread"] = ThreadPoolExecutor(1, "pulsing-actor")
    run = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
    return asyncio.get_running_loop().run_in_executor(executor, run)


def _threaded(function: Callable) -> Callable:
    if inspect.isgeneratorfunction(function):
        return _threaded_generator(function)

    @functools.wraps(function)
    async def call(self, *args, **kwargs):
        return await _in_thread(self, function, self, *args, **kwargs)

    return call


_END = object()


def _threaded_generator(function: Callable) -> Callable:
    """Each item is a turn of the actor's thread of its own, so that other methods run between."""

    @functools.wraps(function)
    async def call(self, *args, **kwargs):
        generator = function(self, *args, **kwargs)
        try:
            while (item := await _in_thread(self, next, generator, _END)) is not _END:
                yield item
        finally:
            await _in_thread(self, generator.close)

    return call


def describe(cls: type) -> ActorClass:
    """The description of a class, made once."""
    found = _described.get(cls)
    if found is None:
        found = _described[cls] = ActorClass(cls, getattr(cls, "__pulsing_options__", {}))
    return found


def _check_options(options: dict[str, Any]) -> dict[str, Any]:
    checks = {
        "restart": lambda v: v in _RESTARTS,
        "overflow": lambda v: v in _OVERFLOWS,
        "mailbox": lambda v: isinstance(v, int) and not isinstance(v, bool) and 1 <= v <= 1 << 20,
        "max_concurrency": lambda v: (
            isinstance(v, int) and not isinstance(v, bool) and 1 <= v <= 1 << 20
        ),
        "max_restarts": lambda v: v is None or (isinstance(v, int) and v >= 0),
        "min_backoff": lambda v: isinstance(v, (int, float)) and 0 <= v <= 3600,
        "max_backoff": lambda v: isinstance(v, (int, float)) and 0 <= v <= 86400,
        "thread": lambda v: isinstance(v, bool),
    }
    for name, value in options.items():
        if name not in checks:
            raise TypeError(
                f"as_actor() has no option {name!r}; it has: {', '.join(sorted(checks))}"
            )
        if not checks[name](value):
            raise ValueError(f"as_actor({name}=...): {value!r} is not a valid value")
    return options


def _check_names(cls: type) -> None:
    for name in _endpoint_names(cls, {}):
        if name in _REF_NAMES:
            raise ValueError(
                f"{cls.__name__}.{name}() would hide ref.{name}, which every ref has: "
                "give the method another name"
            )
    for name in _CLASS_NAMES & set(vars(cls)):
        if getattr(vars(cls)[name], "__func__", None) not in _ADDED.values():
            raise ValueError(
                f"{cls.__name__}.{name}() would hide {cls.__name__}.{name}(...), which makes "
                "the actor: give the method another name"
            )


async def _local(
    cls, system, *args, name=None, public=True, placement=None, detached=False, **kwargs
):
    """Builds the actor in a worker process of this node; returns its ref."""
    return await system._spawn_class(
        cls,
        args,
        kwargs,
        name=name,
        public=public,
        placement=placement,
        detached=detached,
    )


def _local_entry(cls, system, *args, **kwargs):
    blocking = getattr(system, "_blocking_spawn", None)
    if blocking is not None:
        return blocking(cls, args, kwargs)
    return _local(cls, system, *args, **kwargs)


def _remote_entry(cls, system, *args, **kwargs):
    kwargs.setdefault("placement", "remote")
    return _local_entry(cls, system, *args, **kwargs)


def _spawn_entry(cls, *args, **kwargs):
    return class_spawn(cls, *args, **kwargs)


def _resolve_entry(cls, name, timeout=None):
    return class_resolve(cls, name, timeout)


_ADDED = {
    "local": _local_entry,
    "remote": _remote_entry,
    "spawn": _spawn_entry,
    "resolve": _resolve_entry,
}


def as_actor(cls: type | None = None, /, **options: Any) -> Any:
    """Makes a class an actor class: its public methods become endpoints of its refs.

    `Cls(...)` alone is still an ordinary object; `await Cls.local(system, ...)` builds one in a
    worker process. Options: `restart` ("never", "on_failure", "always"), `max_restarts`,
    `min_backoff`, `max_backoff` (seconds), `mailbox` (messages), `overflow` ("wait", "reject",
    "drop_oldest"), `max_concurrency`, `thread`.
    """
    _check_options(options)

    def decorate(cls: type) -> type:
        if not isinstance(cls, type):
            raise TypeError(f"as_actor decorates a class, not {cls!r}")
        _check_names(cls)
        cls.__pulsing_options__ = {  # type: ignore[attr-defined]
            **getattr(cls, "__pulsing_options__", {}),
            **options,
        }
        for name, function in _ADDED.items():
            setattr(cls, name, classmethod(function))
        return cls

    return decorate if cls is None else decorate(cls)
