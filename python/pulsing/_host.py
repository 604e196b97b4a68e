# SPDX-License-Identifier: Apache-2.0
"""Actors of this process: building them, their hooks, stopping them, and building them again.

Every attached process has a `Host` as its system actor; others ask it to spawn, stop and watch.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import _core
from ._actor import _OVERFLOWS, _RESTARTS, ActorClass, ActorContext, _wants_context, describe
from ._errors import (
    ActorDied,
    ActorExists,
    ActorFailed,
    ActorNotFound,
    PulsingError,
    WorkerLeaving,
)
from ._supervision import Supervision

if TYPE_CHECKING:
    from ._system import ActorSystem

log = logging.getLogger("pulsing")

NAME_PUBLIC = 1
NAME_UNIQUE = 2
NAME_FAR = 8
EEXIST = 11
# What an actor is built of is kept beside it up to this size, to be given to the node again.
MAKING_BYTES_MAX = 1 << 18
MAILBOX_DEFAULT = 1024
UNLIMITED = 0xFFFFFFFF
PLACES = {"worker": 0, "index": 1, "dedicated": 2}


def class_payload(cls: type) -> Any:
    """How a class travels to a worker: its import path, or (from a script) the class itself."""
    return f"{cls.__module__}:{cls.__qualname__}" if _importable(cls) else cls


def _importable(cls: type) -> bool:
    from ._pickling import module_by_value

    found: Any = sys.modules.get(cls.__module__)
    if found is None or module_by_value(cls.__module__):
        return False
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls


def class_of(payload: Any) -> type:
    """The class that `class_payload` described."""
    if not isinstance(payload, str):
        return payload
    module, _, path = payload.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


class Hosted:
    """One actor of this process."""

    __slots__ = (
        "cell",
        "description",
        "name",
        "flags",
        "watchers",
        "bonds",
        "parent",
        "reason",
        "stopping",
        "dedicated",
        "restart",
        "kept",
        "place",
        "making",
        "links",
    )

    def __init__(self, cell: Any, description: ActorClass, name: str | None, flags: int):
        self.cell = cell
        self.description = description
        self.name = name
        self.flags = flags
        self.watchers: set[asyncio.Future] = set()
        self.bonds: set[Any] = set()  # tasks that end it with others
        self.parent: Any = None  # the ref of the actor that made it
        self.reason: str | None = None
        self.stopping: asyncio.Future | None = None
        self.dedicated = False
        self.restart = "never"
        self.kept = False  # the node can build it again, at `place`
        self.place: tuple = ("worker", 0)
        self.making = b""  # what it is built of, where links may be added to what the node keeps
        self.links: set[Any] = set()  # refs of actors whose end is its own

    @property
    def label(self) -> str:
        return self.name or f"{self.description.name} {self.cell.id:x}"


def window_of(description: ActorClass) -> int:
    """Messages that one process may have under way to an actor; 0: the receiver decides."""
    options = description.options
    if options.get("overflow", "wait") != "wait":
        return 0
    return options.get("mailbox", MAILBOX_DEFAULT) + description.concurrency


def metadata_of(description: ActorClass, kept: bool) -> bytes:
    """What a name carries beside its actor: enough to make a ref."""
    return window_of(description).to_bytes(4, "little") + bytes([kept])


async def _maybe(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


class Host:
    """The system actor of a process."""

    def __init__(self, system: ActorSystem):
        self.system = system
        self.rt = system._rt
        self.actors: dict[int, Hosted] = {}
        self._tasks: set[asyncio.Task] = set()
        self.when_empty: Any = None
        self.recycles = False  # this worker is replaced now and then, and its actors move on
        self.leaving = False
        self.watching = 0
        self.supervision = Supervision(self)
        endpoints = {
            name: getattr(Host, name)
            for name in (
                "spawn",
                "stop",
                "watch",
                "follow",
                "disown",
                "reported",
                "listing",
                "ping",
                "load",
                "watch_here",
                "load_here",
                "stop_here",
                "follow_here",
                "last_end_here",
                "build",
            )
        }
        self.cell = self.rt.host(
            self,
            endpoints,
            None,
            False,
            None,
            None,
            "system",
            1 << 20,
            1 << 20,
            0,
            system_actor=True,
        )

    def background(self, coroutine: Any) -> asyncio.Task:
        """A task that is kept until it is done."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Endpoints of the system actor.

    def ping(self) -> int:
        return self.rt.slot

    def listing(self) -> list[dict[str, Any]]:
        return [
            {
                "id": actor,
                "name": hosted.name,
                "class": hosted.description.name,
                "queued": hosted.cell.queued,
                "running": hosted.cell.running,
            }
            for actor, hosted in self.actors.items()
        ]

    def spawn(
        self,
        payload: Any,
        args: tuple,
        kwargs: dict,
        name: str | None,
        flags: int,
        place: tuple,
        parent: Any = None,
    ) -> Any:
        if self.leaving:
            raise WorkerLeaving("this worker makes room for a fresh one")
        cls = class_of(payload)
        description = describe(cls)
        plain = name is None and not self._is_kept(description)
        if plain and not hasattr(cls, "on_start"):
            hosted = self._add(description, None, 0)
            try:
                hosted.cell.set_instance(cls(*args, **kwargs))
            except BaseException:
                self._drop(hosted, "it could not be built")
                raise
            hosted.dedicated = place[0] == "dedicated"
            self._belong(hosted, parent)
            return hosted.cell.id, window_of(description), False, description.name
        return self._spawn_slow(payload, description, args, kwargs, name, flags, place, parent)

    def _is_kept(self, description: ActorClass) -> bool:
        return self.recycles or description.options.get("restart", "never") != "never"

    def _belong(self, hosted: Hosted, parent: Any) -> None:
        if parent is not None:
            hosted.parent = parent
            self.supervision.follow(hosted, parent, "the actor that made it,")

    async def _spawn_slow(self, payload, description, args, kwargs, name, flags, place, parent):
        def build():
            return description.cls(*args, **kwargs)

        kept = self._is_kept(description)
        making = b""
        if kept:
            making = _core.encode((payload, args, kwargs, name, flags, place, parent), self.rt)
        hosted = await self.start(build, description, name, flags, making=making, place=place)
        hosted.dedicated = place[0] == "dedicated"
        self._belong(hosted, parent)
        return hosted.cell.id, window_of(description), kept, description.name

    async def stop(self, actor: int, now: bool = False, timeout: float | None = None) -> bool:
        hosted = self.actors.get(actor)
        if hosted is None:
            return False
        await self.end(hosted, now, timeout, "it has been stopped")
        return True

    async def watch(self, actor: int) -> str:
        hosted = self.actors.get(actor)
        if hosted is None:
            return "it has been stopped"
        future = asyncio.get_running_loop().create_future()
        hosted.watchers.add(future)
        try:
            with self._waiting():
                return await future
        finally:
            hosted.watchers.discard(future)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Whoever only waits for an end keeps no worker from making room for a fresh one."""
        self.watching += 1
        try:
            yield
        finally:
            self.watching -= 1

    def load(self, actor: int) -> int:
        hosted = self.actors.get(actor)
        return 0 if hosted is None else hosted.cell.queued + hosted.cell.running

    # Endpoints for other nodes, which ask any process of this one; see `_far`.

    async def load_here(self, actor: int) -> int:
        return await self.system._load(self.rt.ref(actor, 0, False, None, "actor"))

    async def watch_here(self, actor: int) -> str:
        with self._waiting():
            return await self.system.watch(self.rt.ref(actor, 0, False, None, "actor"))

    async def last_end_here(self, actor: int, follower: Any) -> str:
        with self._waiting():
            other = self.rt.ref(actor, 0, False, None, "actor")
            return await self.supervision.last_end(other, follower)

    async def follow_here(self, actor: int, other: Any) -> None:
        reply = await self.rt.actor_find(actor)
        here = reply[0] == 0  # the node knows those that may have moved; others are where they were
        place = reply[1:3] if here else (actor >> 56, actor >> 32 & 0xFFFFFF)
        try:
            await self.system._system_ref(*place).follow(actor, other)
        except ActorDied:
            pass  # it is gone: the other one learns so from its own side

    async def stop_here(self, actor: int, now: bool, timeout: float | None) -> None:
        await self.system.stop(self.rt.ref(actor, 0, False, None, "actor"), now, timeout)

    async def build(self, payload: Any, args: tuple, kwargs: dict, name: Any, public: Any) -> Any:
        return await self.system._spawn_class(
            class_of(payload),
            args,
            kwargs,
            name=name,
            public=public,
            placement="worker",
            detached=True,
        )

    async def follow(self, actor: int, other: Any) -> bool:
        hosted = self.actors.get(actor)
        if hosted is None or hosted.stopping is not None:
            return False
        if other not in hosted.links:
            self.supervision.link(hosted, other)
            if hosted.making:
                await self._restart_register(hosted, hosted.making)
        return True

    def disown(self, actor: int, child: int) -> None:
        hosted = self.actors.get(actor)
        if hosted is not None:
            hosted.cell.context._children.pop(child, None)

    def reported(self, event: dict[str, Any]) -> None:
        self.supervision.publish(event)

    # Building.

    def _add(
        self, description: ActorClass, name: str | None, flags: int, actor_id: int = 0
    ) -> Hosted:
        options = description.options
        receive = description.receive
        context = ActorContext(self.system, 0, name)
        cell = self.rt.host(
            None,
            description.methods,
            receive,
            description.receive_context,
            context,
            name,
            description.name,
            options.get("mailbox", MAILBOX_DEFAULT),
            description.concurrency,
            _OVERFLOWS[options.get("overflow", "wait")],
            actor_id,
        )
        context._actor = cell.id
        hosted = Hosted(cell, description, name, flags)
        hosted.restart = options.get("restart", "never")
        cell.failed = lambda error, waited: self._failed(hosted, error, waited)
        self.actors[cell.id] = hosted
        return hosted

    def _drop(self, hosted: Hosted, reason: str) -> None:
        hosted.reason = reason
        self.actors.pop(hosted.cell.id, None)
        hosted.cell.failed = None
        hosted.cell.drained = None
        hosted.cell.remove(reason)
        for future in list(hosted.watchers):
            if not future.done():
                future.set_result(reason)
        self.supervision.gone(hosted)
        if self.when_empty is not None and not self.actors and hosted.dedicated:
            self.when_empty()

    async def start(
        self,
        build: Any,
        description: ActorClass,
        name: str | None,
        flags: int,
        making: bytes = b"",
        place: tuple = ("worker", 0),
    ) -> Hosted:
        """Hosts an actor: takes its name, builds it, runs `on_start`, lets messages in."""
        hosted = self._add(description, name, flags)
        hosted.place = place
        hosted.cell.hold(True)
        try:
            await self._register(hosted, making)
            hosted.cell.set_instance(build())
            await self._on_start(hosted)
        except BaseException:
            self._drop(hosted, "it could not be started")
            await self._unregister(hosted, making)
            raise
        hosted.cell.hold(False)
        return hosted

    async def _register(self, hosted: Hosted, making: bytes) -> None:
        hosted.kept = bool(making)
        if hosted.name is not None:
            reply = await self.rt.name_register(
                hosted.name,
                hosted.cell.id,
                hosted.flags,
                hosted.description.name,
                metadata_of(hosted.description, hosted.kept),
            )
            if reply[0] == EEXIST:
                hosted.name, name = None, hosted.name
                if reply[5] & NAME_FAR:
                    raise ActorExists(
                        f"the name {name!r} is taken in the cluster, and either that registration "
                        "or this one is unique: stop that actor first, or choose another name"
                    )
                raise ActorExists(
                    f"the name {name!r} is taken on this node by a {reply[6] or 'actor'} "
                    f"(id {reply[3]:x}): "
                    "stop it first, or choose another name"
                )
            if reply[0] != 0:
                raise PulsingError(f"the name {hosted.name!r} could not be registered: {reply[6]}")
        if making:
            await self._restart_register(hosted, making)

    async def _restart_register(self, hosted: Hosted, making: bytes) -> None:
        """Gives the node all that it takes to build the actor again."""
        options = hosted.description.options
        hosted.making = making if len(making) <= MAKING_BYTES_MAX else b""
        most = options.get("max_restarts", 10)
        await self.rt.restart_register(
            hosted.cell.id,
            _RESTARTS[hosted.restart],
            UNLIMITED if most is None else most,
            int(options.get("min_backoff", 0.1) * 1000),
            int(max(options.get("max_backoff", 10.0), options.get("min_backoff", 0.1)) * 1000),
            PLACES[hosted.place[0]],
            hosted.place[1],
            _core.encode((making, list(hosted.links)), self.rt),
        )

    async def _unregister(self, hosted: Hosted, kept: bytes | bool) -> None:
        if hosted.name is not None or kept:
            try:
                await self.rt.actor_unregister(hosted.cell.id)
            except PulsingError:
                pass  # the node is gone, and with it every name

    async def _on_start(self, hosted: Hosted) -> None:
        hook = getattr(hosted.cell.instance, "on_start", None)
        if hook is not None:
            context = (hosted.cell.context,) if _wants_context(hook, 0) else ()
            await _maybe(hook(*context))

    # Ending.

    async def end(self, hosted: Hosted, now: bool, timeout: float | None, reason: str) -> None:
        """Drains, runs `on_stop`, and forgets the actor; a second caller waits for the first."""
        if hosted.stopping is not None:
            await asyncio.shield(hosted.stopping)
            return
        loop = asyncio.get_running_loop()
        hosted.stopping = loop.create_future()
        limit = self.system.config.stop_timeout if timeout is None else timeout
        until = loop.time() + limit
        hosted.cell.context._stopping = True
        try:
            await self._drain(hosted, now, until)
            await self._on_stop(hosted, until)
            await self.supervision.end_children(hosted, now, max(0.0, until - loop.time()))
        finally:
            self._drop(hosted, reason)
            hosted.stopping.set_result(None)
        await self._unregister(hosted, hosted.kept)

    async def _drain(self, hosted: Hosted, now: bool, until: float) -> None:
        loop = asyncio.get_running_loop()
        drained = loop.create_future()

        def on_drained() -> None:
            if not drained.done():
                drained.set_result(None)

        hosted.cell.drained = on_drained
        hosted.cell.stop(now)
        tasks = hosted.cell.tasks()
        if now:
            for task in tasks:
                task.cancel()
        done, _ = await asyncio.wait([drained], timeout=max(0.0, until - loop.time()))
        if not done:
            hosted.cell.stop(True)
            for task in hosted.cell.tasks():
                task.cancel()
            await asyncio.wait([drained], timeout=0.2)

    async def _on_stop(self, hosted: Hosted, until: float) -> None:
        hook = getattr(hosted.cell.instance, "on_stop", None)
        if hook is None:
            return
        try:
            left = max(0.05, until - asyncio.get_running_loop().time())
            await asyncio.wait_for(_maybe(hook()), left)
        except asyncio.TimeoutError:
            log.error("on_stop of %s did not end within its stop timeout", hosted.label)
        except Exception:
            log.exception("on_stop of %s failed", hosted.label)

    def idle(self) -> bool:
        """Whether nothing runs here, and nothing of this process is still to be told to others."""
        running = sum(hosted.cell.running for hosted in self.actors.values())
        return (
            running == 0
            and self.cell.running <= self.watching
            and not self._tasks
            and self.rt.unfinished_count == 0
        )

    def hold_all(self, hold: bool) -> None:
        """Lets no message start any more, or lets them start again."""
        for hosted in self.actors.values():
            hosted.cell.hold(hold)

    async def leave(self, limit: float) -> None:
        """Runs `on_stop` of every actor, which are held already and will be built elsewhere."""
        self.cell.hold(True)
        until = asyncio.get_running_loop().time() + limit
        await asyncio.gather(*[self._on_stop(h, until) for h in list(self.actors.values())])

    async def end_all(self, timeout: float | None = None) -> None:
        """Ends every actor of this process at the same time."""
        await asyncio.gather(
            *[
                self.end(h, False, timeout, "its system was shut down")
                for h in list(self.actors.values())
            ]
        )

    # Failing and building again.

    def _failed(self, hosted: Hosted, error: BaseException, waited: bool) -> None:
        if not isinstance(error, ActorFailed):
            self.supervision.failed(hosted, error)
            return
        if hosted.restart == "never":
            self.background(self.end(hosted, True, None, f"it failed: {error}"))
            return
        hosted.cell.hold(True)
        self.rt.actor_failed(hosted.cell.id, str(error))

    def on_rebuild(self, actor: int, attempt: int, name: str, spec: bytes) -> None:
        """The node asks this process to build a restartable actor again."""
        self.background(self._rebuild(actor, spec))

    async def _rebuild(self, actor: int, spec: bytes) -> None:
        hosted = self.actors.get(actor)
        try:
            making, links = _core.decode(spec, self.rt)
            payload, args, kwargs, name, flags, place, parent = _core.decode(making, self.rt)
            description = describe(class_of(payload))
            if hosted is None:
                hosted = self._add(description, name, flags, actor)
                hosted.dedicated = place[0] == "dedicated"
                hosted.kept, hosted.place = True, place
                hosted.making = making if len(making) <= MAKING_BYTES_MAX else b""
                self._belong(hosted, parent)
                for other in links:
                    self.supervision.link(hosted, other)
            hosted.cell.hold(True)
            await self.supervision.end_children(hosted, True, self.system.config.stop_timeout)
            hosted.cell.set_instance(description.cls(*args, **kwargs))
            await self._on_start(hosted)
        except BaseException as error:
            if hosted is not None:
                self._drop(hosted, f"it could not be built again: {error!r}")
            self.rt.rebuilt(actor, False, f"building it again failed: {error!r}")
            return
        self.rt.rebuilt(actor, True, "")
        hosted.cell.hold(False)

    def on_dead_letters(self) -> None:
        """Messages have reached nobody."""
        self.supervision.on_dead_letters()

    def on_member(self, event: int, data: bytes, name: bytes) -> None:
        """Something happened to a node of the cluster."""
        self.system._cluster.on_member(event, data, name)

    def on_shutdown(self, timeout_ms: int) -> None:
        """The node ends the system."""
        self.system._on_shutdown(timeout_ms / 1000)

    def on_node_gone(self, text: str) -> None:
        """The node process has ended."""
        self.system._on_node_gone(text)


def not_found(what: str) -> ActorNotFound:
    """The error for a name or id that leads nowhere."""
    return ActorNotFound(
        f"no public actor is called {what!r} (a private one is found by its node's ctx.actor_ref)"
    )
