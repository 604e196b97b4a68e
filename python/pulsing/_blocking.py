# SPDX-License-Identifier: Apache-2.0
"""The blocking form: the same system for code without an event loop.

Calls on a ref return their values; streams are plain iterators; any thread may call. Objects that
are spawned here live on a loop of their own in a background thread, made when the first one is.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import secrets
import threading
import time
from typing import Any

from . import _cluster, _core, _far, _names
from ._config import SystemConfig
from ._errors import ActorDied, ActorNotFound, PulsingError, SystemClosed, WorkerLeaving
from ._host import class_payload, not_found
from ._ids import ActorId, NodeId
from ._supervision import ACTOR_REBUILDING
from ._system import (
    LEFT_LOOKS_MAX,
    LEFT_PAUSE_S,
    ActorSystem,
    Placer,
    attach_runtime,
    check_name,
    create_actor_system,
    flags_of,
    launch_node,
    left_in_turn,
    place_of,
    wait_ms,
    worker_listing,
)

__all__ = ["BlockingSystem", "connect"]

# How often joined() asks again.
JOINED_PAUSE_S = 0.01
# How often a reader of events looks whether messages of its own process have reached nobody.
EVENTS_LOOK_S = 0.1
_OVER: Any = object()


class _Background:
    """An ordinary system on a loop in a thread, attached to the same node."""

    def __init__(self, config: SystemConfig):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(
            target=self.loop.run_forever, name="pulsing-host", daemon=True
        )
        self.thread.start()
        self.system: ActorSystem = self.run(create_actor_system(config))

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def close(self) -> None:
        try:
            self.run(self._end())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(5)
            self.loop.close()

    async def _end(self) -> None:
        await self.system.shutdown()
        # Readers of events get the last one before the loop stops.
        waiting = asyncio.all_tasks() - {asyncio.current_task()}
        if waiting:
            await asyncio.wait(waiting, timeout=1)


class BlockingEvents:
    """What happens to a system, as a plain iterator of dicts; made by `system.events()`."""

    def __init__(self, background: _Background, rt: Any):
        self._background = background
        self._rt = rt
        self._events = background.run(_called(background.system.events))
        self._next: Any = None  # the event that is waited for, in the other thread
        self._letters: dict[str, int] = rt.dead_letters()
        self._lock = threading.Lock()

    def __iter__(self) -> BlockingEvents:
        return self

    def __next__(self) -> dict[str, Any]:
        with self._lock:
            while True:
                event = self._own_letters() or self._other()
                if event is _OVER:
                    raise StopIteration
                if event is not None:
                    return event

    def _own_letters(self) -> dict[str, Any] | None:
        """Messages of this very process that reached nobody."""
        for reason, total in self._rt.dead_letters().items():
            count = total - self._letters.get(reason, 0)
            if count > 0:
                self._letters[reason] = total
                return {"event": "dead_letters", "reason": reason, "count": count}
        return None

    def _other(self) -> Any:
        """The next event, None when none has come for a moment, _OVER after the last."""
        if self._events.closed or not self._background.thread.is_alive():
            return self._last()
        if self._next is None:
            event = self._event()
            try:
                self._next = asyncio.run_coroutine_threadsafe(event, self._background.loop)
            except RuntimeError:  # it has just been closed
                event.close()
                return self._last()
        try:
            event = self._next.result(EVENTS_LOOK_S)
        except concurrent.futures.TimeoutError:
            return None
        self._next = None
        return event

    async def _event(self) -> Any:
        return await anext(self._events, _OVER)

    def _last(self) -> Any:
        """What is left when no more events come."""
        if self._next is not None and self._background.thread.is_alive():
            concurrent.futures.wait([self._next], EVENTS_LOOK_S)
        if self._next is not None and self._next.done():
            event, self._next = self._next.result(), None
            return event
        if self._next is not None and self._background.thread.is_alive():
            return None
        return self._events.left_over() or _OVER


async def _called(function: Any) -> Any:
    return function()


class BlockingSystem:
    """A system in blocking form; made by `pulsing.connect()`, ended by `with` or `shutdown()`."""

    def __init__(self, rt: Any, config: SystemConfig, node: tuple[int, int] | None, attach_to: str):
        self.config = config
        self._rt = rt
        self._node = node
        self._attach_to = attach_to
        self._background: _Background | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._turns: dict[str, int] = {}
        self._placer = Placer(rt, config)
        rt.ask_timeout = config.ask_timeout or 0.0
        rt.slow_ask = config.slow_ask or 0.0
        endpoints = {"reported": BlockingSystem._reported}
        unlimited = 1 << 20
        self._cell = rt.host(
            self,
            endpoints,
            None,
            False,
            None,
            None,
            "system",
            unlimited,
            unlimited,
            0,
            system_actor=True,
        )
        rt.start(self, self)

    def _reported(self, event: dict[str, Any]) -> None:
        """Every program of the node is told of events; here the background system reads them."""

    @property
    def node_id(self) -> NodeId:
        """The node's id."""
        return NodeId(self._rt.node_id)

    @property
    def addr(self) -> str | None:
        """The address where the node listens, or None for a standalone one."""
        return self._rt.address

    def __enter__(self) -> BlockingSystem:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        return f"<BlockingSystem {str(self.node_id)[:12]}>"

    def __reduce__(self):
        raise TypeError("a system travels in Pulsing messages only")

    def _check(self) -> None:
        if self._closed:
            raise SystemClosed("the system has been shut down")

    # Notices of the node.

    def on_rebuild(self, actor: int, attempt: int, name: str, spec: bytes) -> None:
        """A process without a loop builds no actors."""
        self._rt.rebuilt(actor, False, "this process has no event loop")

    def on_member(self, event: int, data: bytes, name: bytes) -> None:
        """This process asks for the members when it wants to know them."""

    def on_shutdown(self, timeout_ms: int) -> None:
        """The node ends the system; the next call says so."""

    def on_node_gone(self, text: str) -> None:
        """The node process has ended."""

    # Spawning.

    def _hosting(self) -> _Background:
        with self._lock:
            if self._background is None:
                self._background = _Background(SystemConfig.attach(self._attach_to))
            return self._background

    def _rebind(self, ref: Any, window: int = 0) -> Any:
        return self._rt.ref(ref._id, window, False, ref.name, ref._class_name, ref._far)

    def spawn(self, *args: Any, **options: Any) -> Any:
        """Hosts an object in this process, on a background loop; returns its ref."""
        self._check()
        background = self._hosting()
        return self._rebind(background.run(background.system.spawn(*args, **options)))

    def _blocking_spawn(self, cls: type, args: tuple, kwargs: dict) -> Any:
        self._check()
        name = kwargs.pop("name", None)
        public = kwargs.pop("public", True)
        placement = kwargs.pop("placement", None)
        kwargs.pop("detached", None)
        check_name(name)
        kind, index = self._placer.normalize(placement)
        if kind == "remote":
            background = self._hosting()
            spawn = background.system._spawn_class(
                cls, args, kwargs, name=name, public=public, placement=placement, detached=True
            )
            return self._rebind(background.run(spawn))
        if kind == "here" or (kind == "worker" and self._rt.workers_max == 0):
            background = self._hosting()
            spawn = background.system._spawn_class(
                cls, args, kwargs, name=name, public=public, placement="here", detached=True
            )
            return self._rebind(background.run(spawn))
        flags = flags_of(public) if name is not None else 0
        message = (class_payload(cls), args, kwargs, name, flags, (kind, index))
        actor, window, restartable, class_name = self._spawn_there(kind, index, message)
        return self._rt.ref(actor, window, restartable, name, class_name)

    def _spawn_there(self, kind: str, index: int, message: tuple) -> Any:
        while True:
            place = self._placer.quick(kind, index)
            if place is None:
                place = place_of(self._rt.place(*self._placer.request(kind, index)))
            try:
                return self._system_ref(*place).spawn(*message)
            except (ActorDied, WorkerLeaving) as error:
                if not self._left_in_turn(place, error):
                    raise
                time.sleep(LEFT_PAUSE_S)

    def _left_in_turn(self, place: tuple[int, int], error: BaseException) -> bool:
        for _ in range(LEFT_LOOKS_MAX):
            left = left_in_turn(self._rt, place, error)
            if left is not None:
                return left
            time.sleep(LEFT_PAUSE_S)
        return False

    def warm(self) -> None:
        """Starts every worker that does not run yet, and waits until their `setup` is done."""
        self._check()
        for index in range(self._rt.workers_max):
            place_of(self._rt.place(*self._placer.request("index", index)))

    def _system_ref(self, slot: int, epoch: int) -> Any:
        return self._rt.ref(slot << 56 | epoch << 32, 0, False, None, "system")

    # Finding.

    def _find(self, name: str, timeout: float | None = None) -> tuple | None:
        self._check()
        check_name(name)
        reply = self._rt.name_find(name, wait_ms(timeout))
        return reply if reply[0] == 0 else None

    def find(
        self, name: str, timeout: float | None = None, policy: str | None = None, key: Any = None
    ) -> Any:
        """The ref of a public actor, or None; as `ActorSystem.find`."""
        self._check()
        check_name(name)
        choice = _names.Choice(policy, key)
        reply = self._rt.name_find(name, wait_ms(timeout), _names.PUBLIC)
        if reply[0] != 0:
            return None
        if choice.local_first:
            return _names.ref_of(self._rt, name, reply)
        refs = self.find_all(name)
        if choice.by_load and len(refs) > 1:
            background = self._hosting()
            return choice.lightest(refs, background.run(background.system._loads(refs)))
        return choice.take(name, refs, self._turns)

    def resolve(self, name: str, timeout: float | None = None, **options: Any) -> Any:
        """As `find`, but raises ActorNotFound."""
        ref = self.find(name, timeout, **options)
        if ref is None:
            raise not_found(name)
        return ref

    def find_all(self, name: str) -> list[Any]:
        """The refs of all replicas of a name: this node's first, if it has one."""
        self._check()
        check_name(name)
        here = self._rt.name_find(name, 0, _names.PUBLIC | _names.LOCAL)
        others = self._rt.name_find(name, 0, _names.FAR)
        return _names.refs_of(self._rt, name, here, others)

    def has_actor(self, name: str) -> bool:
        """Whether an actor has that name: one of this node, or a public one of another."""
        self._check()
        check_name(name)
        return self._rt.name_find(name, 0, 0)[0] == 0

    def actor_ref(self, other: Any) -> Any:
        """The ref of an actor by its id, or of one of this node by its name, private ones
        included."""
        if isinstance(other, ActorId):
            return _far.ref_of_id(self._rt, other)
        reply = self._find(other)
        if reply is None:
            raise ActorNotFound(f"no actor of this node is called {other!r}")
        return _names.ref_of_entry(self._rt, other, reply)

    def actors(self) -> list[dict[str, Any]]:
        """The actors of this process."""
        return [] if self._background is None else self._background.system.actors()

    def local_actor_names(self) -> list[str]:
        """The names of this process's actors."""
        return [] if self._background is None else self._background.system.local_actor_names()

    def all_named_actors(self) -> list[dict[str, Any]]:
        """The public actors of this node: name, actor_id and class."""
        self._check()
        return _names.rows_of(self._rt, self._rt.names_list())

    def get_named_instances(self, name: str) -> list[dict[str, Any]]:
        """The replicas of a name: where each lives."""
        return _names.instances_of(self.find_all(name), self.members())

    def resolve_named(self, name: str, node_id: Any = None) -> Any:
        """`resolve`, on a node if one is given."""
        if node_id is None:
            return self.resolve(name)
        return _names.on_node(self.find_all(name), name, node_id)

    def workers(self) -> list[dict[str, Any]]:
        """The workers of this node: index (None: dedicated), pid, how many actors each has, and for
        how many seconds a plain method has held it up."""
        return worker_listing(self._rt)

    def dead_letters(self) -> dict[str, int]:
        """How many messages reached nobody, as this process saw it, by reason."""
        return self._rt.dead_letters()

    # Watching and ending.

    def _elsewhere(self, action: Any, *args: Any) -> Any:
        """What has to do with an actor of another node, by the system on the background loop."""
        background = self._hosting()
        return background.run(action(background.system._rt, *args))

    def _home(self, ref: Any) -> tuple[int, int] | None:
        actor = ref._id
        birthplace = (actor >> 56, actor >> 32 & 0xFFFFFF)
        if ref._place == birthplace:
            return birthplace
        reply = self._rt.actor_find(actor)
        return (reply[1], reply[2]) if reply[0] == 0 else None

    def _next_home(self, ref: Any, left: tuple[int, int]) -> tuple[int, int] | None:
        for _ in range(LEFT_LOOKS_MAX):
            reply = self._rt.actor_find(ref._id)
            if reply[0] != 0:
                break
            if (reply[1], reply[2]) != left and not reply[5] & ACTOR_REBUILDING:
                return reply[1], reply[2]
            time.sleep(LEFT_PAUSE_S)
        return None

    def watch(self, ref: Any) -> str:
        """Waits until an actor stops or dies; returns why."""
        if ref._far is not None:
            return self._elsewhere(_far.watch, ref)
        place = self._home(ref)
        while place is not None:
            try:
                return self._system_ref(*place).watch(ref._id)
            except ActorDied as error:
                if not self._left_in_turn(place, error):
                    return str(error)
            place = self._next_home(ref, place)
        return "it has been stopped"

    def link(self, a: Any, b: Any) -> None:
        """From now on the end of one, by a stop or a death, ends the other; messages that wait for
        it fail with ActorDied; as `ActorSystem.link`."""
        self._check()
        for one, other in _far.first((a, b), (b, a)):
            if one._far is not None:
                self._elsewhere(_far.follow, one, other)
                continue
            place = self._home(one)
            if place is None:
                continue  # it is gone: the other one learns so from its own side
            try:
                self._system_ref(*place).follow(one._id, other)
            except ActorDied:
                continue

    def stop(self, actor: Any, now: bool = False, timeout: float | None = None) -> None:
        """Ends an actor, by name or ref."""
        self._check()
        if isinstance(actor, str):
            reply = self._find(actor)
            if reply is None:
                return
            actor = _names.ref_of_entry(self._rt, actor, reply)
        if actor._far is not None:
            self._elsewhere(_far.stop, actor, now, timeout)
            return
        place = self._home(actor)
        while place is not None:
            try:
                self._system_ref(*place).stop(actor._id, now, timeout)
                return
            except ActorDied:
                pass  # it may be on its way to another process
            place = self._next_home(actor, place)

    def members(self) -> list[dict[str, Any]]:
        """The nodes of the cluster, this one included."""
        self._check()
        return _cluster.listing(self._rt, self._rt.members_list(False))

    def joined(self, timeout: float | None = None) -> None:
        """Waits until a seed has answered; at once without seeds."""
        _cluster.check_seconds(timeout)
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            self._check()
            reply = self._rt.members_list(False)
            if reply[5] & _cluster.JOINED:
                return
            if until is not None and time.monotonic() >= until:
                raise _cluster.not_joined(timeout or 0.0, reply)
            time.sleep(JOINED_PAUSE_S)

    def isolated(self) -> bool:
        """Whether this node has lost touch with the many, and so cannot tell who lives."""
        self._check()
        return bool(self._rt.members_list(False)[5] & _cluster.ISOLATED)

    def events(self) -> BlockingEvents:
        """What happens from now on, as a plain iterator of dicts with the key `event`, which waits
        for the next one; it ends with the system. The events are those of the awaited form."""
        self._check()
        return BlockingEvents(self._hosting(), self._rt)

    def shutdown(self) -> None:
        """Drains, runs `on_stop`, ends node and workers; safe to call twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        try:
            if self._background is not None:
                self._background.close()
            if self._node is not None:
                self._rt.shutdown_node(int(self.config.stop_timeout * 1000) + 200)
        except PulsingError:
            pass  # the node is gone already
        self._rt.close()
        if self._node is not None:
            _core.node_wait(*self._node, int(self.config.stop_timeout * 1000) + 1000)


def connect(config: SystemConfig | None = None) -> BlockingSystem:
    """A system in blocking form: embedded, or with `SystemConfig.attach(...)` a running one."""
    config = SystemConfig() if config is None else config
    if not isinstance(config, SystemConfig):
        raise TypeError(f"expected a SystemConfig, got {config!r}")
    node = None
    attach_to = config.attach_to
    if attach_to is None:
        attach_to = config.name or f"pulsing-{os.getpid()}-{secrets.token_hex(4)}"
        control, pid, pidfd = launch_node(config, listen=attach_to)
        node = (pid, pidfd)
    else:
        control = _core.connect(attach_to)
    rt = attach_runtime(control, node, config)
    system = BlockingSystem(rt, config, node, attach_to)
    if node is not None and rt.address is not None:
        system._hosting()  # other nodes ask a process that has a loop
    if config.worker_warm:
        try:
            system.warm()
        except BaseException:
            system.shutdown()
            raise
    return system


_core.register_system(BlockingSystem)
