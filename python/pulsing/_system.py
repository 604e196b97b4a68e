# SPDX-License-Identifier: Apache-2.0
"""`ActorSystem`: a node, as a program on an event loop uses it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Any

from . import _core, _far, _names
from ._actor import ActorContext, describe
from ._cluster import Cluster, check_seconds
from ._config import SystemConfig, cpus_of, env_of, key_arguments, listen_address, usable_cpus
from ._errors import ActorDied, ActorNotFound, PulsingError, SystemClosed, WorkerLeaving
from ._host import (
    NAME_PUBLIC,
    NAME_UNIQUE,
    PLACES,
    Host,
    class_payload,
    not_found,
    window_of,
)
from ._ids import ActorId, NodeId
from ._supervision import ACTOR_REBUILDING, Events, last_words

__all__ = ["ActorSystem", "create_actor_system"]

ROLE_WORKER = 2
# A handler that has kept its worker's thread for longer makes others look for another worker.
HELD_S = 0.001
ALIVE = 2
WAIT_FOREVER = 0xFFFFFFFF
EDEAD = 5
# Before asking again, when a worker has gone to make room for a fresh one.
LEFT_PAUSE_S = 0.005
# How long a replica is asked for its load.
LOAD_WAIT_S = 1.0
# How often to look how a process ended that the kernel is still tearing down.
LEFT_LOOKS_MAX = 2000
NODE_END_MS = 2000


def node_program() -> str:
    """The path of the node program that this installation brought."""
    return os.path.join(os.path.dirname(_core.__file__), "_bin", "pulsing-node")


def launch_node(config: SystemConfig, listen: str | None = None) -> tuple[int, int, int]:
    """Starts an embedded node: (control descriptor, pid, pidfd)."""
    return _core.launch(*_node_arguments(config, listen))


def become_node(config: SystemConfig) -> None:
    """Replaces this process by a node in the foreground; returns only by an exception."""
    _core.node_become(*_node_arguments(config, None))


def attach_runtime(
    control: int, node: tuple[int, int] | None, config: SystemConfig, loop: Any = None
) -> Any:
    """This process's runtime; when the node refuses, nothing of either is left."""
    try:
        return _core.Runtime(control, memory_bytes=config.memory_bytes or 0, loop=loop)
    except BaseException:
        if node is not None:
            # Without its control socket it ends, if it has not already.
            _core.node_wait(*node, NODE_END_MS)
        raise


def _node_arguments(config: SystemConfig, listen: str | None) -> tuple:
    from . import _template

    workers = usable_cpus() if config.workers is None else config.workers
    info = worker_settings(config, workers)
    addr = listen_address(config)
    return (
        node_program(),
        workers,
        _template.argv() if workers else None,
        _search_path(),
        [f"PULSING_PRELOAD={','.join(name for name in _PRELOADS if name in sys.modules)}"],
        info,
        config.name,
        listen or config.name,
        config.memory_bytes or 0,
        False,
        config.worker_memory or 0,
        addr,
        config.advertise if addr is not None else None,
        list(config.seeds),
        *key_arguments(config.cluster_key),
    )


def worker_settings(config: SystemConfig, workers: int) -> bytes:
    """What template and workers are told. Functions travel as bytes of their own, so that they are
    unpacked only where they run, with the environment in which they shall run."""
    from . import _template

    def packed(function: Any) -> bytes | None:
        return None if function is None else _core.encode(function)

    preload = config.worker_preload
    env = cpus = None
    if config.worker_env is not None:
        env = [env_of(config.worker_env, i) for i in range(workers)]
    if config.worker_cpus is not None:
        cpus = [cpus_of(config.worker_cpus, i) for i in range(workers)]
    return _core.encode(
        {
            "stop_timeout": config.stop_timeout,
            "slow_ask": config.slow_ask,
            "setup": packed(config.worker_setup),
            "preload": packed([preload] if isinstance(preload, str) else preload),
            "env": env,
            "every": env_of(config.worker_env, 0) if isinstance(config.worker_env, dict) else None,
            "cpus": cpus,
            "exec": config.worker_start == "exec",
            "recycle": config.worker_recycle or 0,
            "threads": [name for name in _template.THREAD_NAMES if name not in os.environ],
            "logging": logging_level(),
        }
    )


def logging_level() -> int | None:
    """The level of this program's root logger, if somebody set logging up; for its workers."""
    root = logging.getLogger()
    return root.level if root.handlers else None


# Slow to import, and safe to fork after: no threads before their first use.
_PRELOADS = ("numpy",)


def _search_path() -> list[str]:
    here = os.getcwd()
    return [os.path.abspath(p) if p else here for p in sys.path]


def current_system_context() -> ActorContext | None:
    """The context of the handler that runs now, in whatever system of this process."""
    current = _core.current()
    if current is not None:
        return current if isinstance(current, ActorContext) else current.context
    for system in list(_live):
        context = system._rt.current_context()
        if context is not None:
            return context
    return None


_live: set[ActorSystem] = set()


class Placer:
    """Chooses the worker for a new actor: the least loaded among those that no plain method holds
    up; one not yet started counts as empty."""

    def __init__(self, rt: Any, config: SystemConfig):
        self.rt = rt
        self.config = config
        self.pending: dict[int, int] = {}

    def _workers(self) -> dict[int, tuple[int, int, int, float]]:
        return {
            line[5]: (line[0], line[1], line[6], line[8] if line[8] > HELD_S else 0.0)
            for line in self.rt.directory()
            if line[3] == ROLE_WORKER and line[2] == ALIVE and line[5] >= 0
        }

    def quick(self, kind: str, index: int) -> tuple[int, int] | None:
        """(slot, epoch) when the workers in question have started; else the node is asked."""
        if kind == "dedicated":
            return None
        workers = self._workers()
        if kind == "index":
            slot, epoch, _, _ = workers.get(index, (0, 0, 0, 0.0))
            return (slot, epoch) if epoch else None
        if len(workers) < self.rt.workers_max:
            return None
        slot, epoch, _, _ = min(
            workers.values(), key=lambda w: (w[3], w[2] + self.pending.get(w[0], 0), w[0])
        )
        return slot, epoch

    def request(self, kind: str, index: int) -> tuple[int, int, Any, Any]:
        """The arguments of a place request. What a worker starts with the template knows."""
        return PLACES[kind], index, None, None

    def normalize(self, placement: Any) -> tuple[str, int]:
        """(kind, index) of a `placement=` argument; ValueError for what is none."""
        if placement is None:
            return "worker", 0
        if placement in ("here", "worker", "dedicated", "remote"):
            return placement, 0
        if isinstance(placement, int) and not isinstance(placement, bool):
            if not 0 <= placement < self.rt.workers_max:
                raise ValueError(
                    f"placement={placement}: the worker's index is from 0 to "
                    f"{self.rt.workers_max - 1}; "
                    "SystemConfig.with_workers(n) sets how many there are"
                )
            return "index", placement
        if placement == NodeId(self.rt.node_id):
            return "worker", 0
        if isinstance(placement, NodeId):
            return "remote", 0
        raise ValueError(
            f"placement={placement!r}: expected 'here', 'worker', 'dedicated', 'remote', "
            "a worker's index or a NodeId"
        )


def spawn_arguments(args: tuple, name: str | None) -> tuple[Any, str | None]:
    """`(actor, "name")`, `("name", actor)`, `(actor)`, with `name=`: which is which."""
    if not 1 <= len(args) <= 2:
        raise TypeError(
            f"spawn() takes an actor and perhaps a name, not {len(args)} positional arguments"
        )
    actor, *rest = args
    if rest:
        if isinstance(actor, str) and not isinstance(rest[0], str):
            actor, rest = rest[0], [actor]
        if not isinstance(rest[0], (str, type(None))):
            raise TypeError(f"spawn(): the name is a string, not {type(rest[0]).__name__}")
        if name is not None and rest[0] is not None:
            raise TypeError("spawn() got the name twice")
        name = rest[0] if rest[0] is not None else name
    if isinstance(actor, type):
        raise TypeError(
            f"spawn() takes an object, not the class {actor.__name__}: pass {actor.__name__}(...), "
            f"or use await {actor.__name__}.local(system, ...)"
        )
    if isinstance(actor, (str, bytes, int, float, type(None))):
        raise TypeError(f"spawn(): {actor!r} is not an actor")
    check_name(name)
    return actor, name


def check_name(name: Any) -> None:
    """ValueError unless `name` is None or a name that an actor can have."""
    if name is None:
        return
    if not isinstance(name, str):
        raise TypeError(f"name: expected a string, got {name!r}")
    if not 0 < len(name.encode()) <= 255 or "\0" in name:
        raise ValueError(f"name: expected 1 to 255 bytes of text, got {name!r}")


def flags_of(public: Any) -> int:
    """The registration flags of a `public=` argument."""
    if public == "unique":
        return NAME_PUBLIC | NAME_UNIQUE
    if not isinstance(public, bool):
        raise ValueError(f"public: expected True, False or 'unique', got {public!r}")
    return NAME_PUBLIC if public else 0


class ActorSystem:
    """A node of this program's own, or an attachment to one that runs on the host.

    `await create_actor_system(config)` makes it; `async with` shuts it down.
    """

    def __init__(self, rt: Any, config: SystemConfig, node: tuple[int, int] | None, loop: Any):
        self.config = config
        self._rt = rt
        self._node = node
        self._loop = loop
        self._ending: asyncio.Future | None = None
        self._writing = False
        self._placer = Placer(rt, config)
        rt.ask_timeout = config.ask_timeout or 0.0
        rt.slow_ask = config.slow_ask or 0.0
        self._cluster = Cluster(self)
        self._turns: dict[str, int] = {}
        self._host = Host(self)
        rt.start(self._host, self, self._on_control)
        _live.add(self)

    @classmethod
    async def create(cls, config: SystemConfig | None = None) -> ActorSystem:
        """Starts a system; the same as `create_actor_system(config)`."""
        return await create_actor_system(config)

    def _listen(self) -> None:
        self._loop.add_reader(self._rt.event_fd, self._rt.on_event)
        self._loop.add_reader(self._rt.control_fd, self._on_control)

    def _unlisten(self) -> None:
        self._loop.remove_reader(self._rt.event_fd)
        self._loop.remove_reader(self._rt.control_fd)
        self._loop.remove_writer(self._rt.control_fd)

    def _on_control(self) -> None:
        wants_write = self._rt.on_control()
        if wants_write and not self._writing:
            self._loop.add_writer(self._rt.control_fd, self._on_control)
        elif self._writing and not wants_write and self._rt.control_fd >= 0:
            self._loop.remove_writer(self._rt.control_fd)
        self._writing = wants_write

    # Identity.

    @property
    def node_id(self) -> NodeId:
        """The node's id."""
        return NodeId(self._rt.node_id)

    @property
    def addr(self) -> str | None:
        """The address where the node listens, or None for a standalone one."""
        return self._rt.address

    def __repr__(self) -> str:
        return f"<ActorSystem {str(self.node_id)[:12]}>"

    def __reduce__(self):
        raise TypeError("a system travels in Pulsing messages only")

    async def __aenter__(self) -> ActorSystem:
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self.shutdown()

    # Spawning.

    async def spawn(
        self,
        *args: Any,
        name: str | None = None,
        public: Any = False,
        placement: Any = "here",
        detached: bool = False,
    ) -> Any:
        """Hosts an object in this process, on its event loop; returns its ref.

        Accepts `(actor, "name")`, `("name", actor)`, `(actor, name=...)` and `(actor)`.
        """
        self._check()
        actor, name = spawn_arguments(args, name)
        if placement != "here":
            raise ValueError(
                f"placement={placement!r}: an object stays in the process that made it; "
                "to build the actor in a "
                f"worker use await {type(actor).__name__}.local(system, ...) with @as_actor"
            )
        cls = type(actor)
        description = describe(cls)
        if description.receive is None and not description.methods:
            raise TypeError(
                f"{cls.__name__} has neither receive() nor a public method: it cannot be an actor"
            )
        hosted = await self._host.start(lambda: actor, description, name, flags_of(public))
        ref = self._rt.ref(hosted.cell.id, window_of(description), False, name, description.name)
        return self._owned(ref, detached)

    async def _spawn_class(
        self,
        cls: type,
        args: tuple,
        kwargs: dict,
        *,
        name: Any,
        public: Any,
        placement: Any,
        detached: bool,
    ) -> Any:
        self._check()
        check_name(name)
        flags = flags_of(public) if name is not None else 0
        kind, index = self._placer.normalize(placement)
        if kind == "remote":
            node = placement if isinstance(placement, NodeId) else None
            return await _far.spawn(self, node, cls, args, kwargs, (name, public))
        if kind == "here" or (kind == "worker" and self._rt.workers_max == 0):
            description = describe(cls)
            hosted = await self._host.start(lambda: cls(*args, **kwargs), description, name, flags)
            ref = self._rt.ref(
                hosted.cell.id, window_of(description), False, name, description.name
            )
            return self._owned(ref, detached)
        parent = self._parent(detached)
        message = (class_payload(cls), args, kwargs, name, flags, (kind, index), parent)
        actor, window, restartable, class_name = await self._spawn_there(kind, index, message)
        return self._owned(self._rt.ref(actor, window, restartable, name, class_name), detached)

    async def _spawn_there(self, kind: str, index: int, message: tuple) -> Any:
        pending = self._placer.pending
        while True:
            place = self._placer.quick(kind, index)
            if place is None:
                place = await self._place(kind, index)
            pending[place[0]] = pending.get(place[0], 0) + 1
            try:
                return await self._system_ref(*place).spawn(*message)
            except (ActorDied, WorkerLeaving) as error:
                # A worker that made room for a fresh one had not started this.
                if not await self._left_in_turn(place, error):
                    raise
                await asyncio.sleep(LEFT_PAUSE_S)
            finally:
                pending[place[0]] -= 1

    async def _left_in_turn(self, place: tuple[int, int], error: BaseException) -> bool:
        for _ in range(LEFT_LOOKS_MAX):
            left = left_in_turn(self._rt, place, error)
            if left is not None:
                return left
            await asyncio.sleep(LEFT_PAUSE_S)
        return False

    async def warm(self) -> None:
        """Starts every worker that does not run yet, and waits until their `setup` is done."""
        self._check()
        await asyncio.gather(*[self._place("index", i) for i in range(self._rt.workers_max)])

    async def _place(self, kind: str, index: int) -> tuple[int, int]:
        reply = await self._rt.place(*self._placer.request(kind, index))
        return place_of(reply)

    def _owned(self, ref: Any, detached: bool) -> Any:
        """An actor made by an actor belongs to it, unless detached."""
        context = current_system_context()
        if context is not None and not detached and context.system is self:
            self._host.supervision.adopt(context, ref)
        return ref

    def _parent(self, detached: bool) -> Any:
        """The ref of the actor whose handler runs now, if what it makes belongs to it."""
        context = current_system_context()
        if context is None or detached or context.system is not self:
            return None
        return self._own_ref(context._actor) if context._actor in self._host.actors else None

    def _system_ref(self, slot: int, epoch: int) -> Any:
        return self._rt.ref(slot << 56 | epoch << 32, 0, False, None, "system")

    def _own_ref(self, actor: int) -> Any:
        hosted = self._host.actors[actor]
        description = hosted.description
        restartable = hosted.restart != "never"
        return self._rt.ref(
            actor, window_of(description), restartable, hosted.name, description.name
        )

    # Finding.

    async def find(
        self, name: str, timeout: float | None = None, policy: str | None = None, key: Any = None
    ) -> Any:
        """The ref of a public actor, or None; with `timeout` it waits for the name to appear.

        Several nodes may have the name. `policy` says which is taken: "local_first" (the default:
        this node's, else the others in turn), "round_robin", "random", "least_loaded" (the fewest
        messages at this moment; each is asked, for a second at most), or "hash" (the same one for
        the same `key`, as long as it is there).
        """
        self._check()
        check_name(name)
        choice = _names.Choice(policy, key)
        reply = await self._rt.name_find(name, wait_ms(timeout), _names.PUBLIC)
        if reply[0] != 0:
            return None
        if choice.local_first:
            return _names.ref_of(self._rt, name, reply)
        refs = await self.find_all(name)
        if choice.by_load and len(refs) > 1:
            return choice.lightest(refs, await self._loads(refs))
        return choice.take(name, refs, self._turns)

    async def _loads(self, refs: list[Any]) -> list[Any]:
        """The load of each, or why it is not known."""
        loads = (asyncio.wait_for(self._load(ref), LOAD_WAIT_S) for ref in refs)
        return await asyncio.gather(*loads, return_exceptions=True)

    async def _load(self, ref: Any) -> int:
        """How many messages an actor has, waiting and in work."""
        if ref._far is not None:
            return await _far.load(self._rt, ref)
        place = await self._home(ref)
        return 0 if place is None else await self._system_ref(*place).load(ref._id)

    async def _find(self, name: str, timeout: float | None = None) -> tuple | None:
        """What is registered on this node, public or private."""
        self._check()
        check_name(name)
        reply = await self._rt.name_find(name, wait_ms(timeout))
        return reply if reply[0] == 0 else None

    async def resolve(self, name: str, timeout: float | None = None, **options: Any) -> Any:
        """As `find`, but raises ActorNotFound."""
        ref = await self.find(name, timeout, **options)
        if ref is None:
            raise not_found(name)
        return ref

    async def find_all(self, name: str) -> list[Any]:
        """The refs of all replicas of a name: this node's first, if it has one."""
        self._check()
        check_name(name)
        here = await self._rt.name_find(name, 0, _names.PUBLIC | _names.LOCAL)
        others = await self._rt.name_find(name, 0, _names.FAR)
        return _names.refs_of(self._rt, name, here, others)

    async def has_actor(self, name: str) -> bool:
        """Whether an actor has that name: one of this node, public or private, or a public one of
        another."""
        self._check()
        check_name(name)
        return (await self._rt.name_find(name, 0, 0))[0] == 0

    async def actor_ref(self, other: Any) -> Any:
        """The ref of an actor by its id, on whichever node, or of one of this node by its name;
        private ones included."""
        if isinstance(other, str):
            reply = await self._find(other)
            if reply is None:
                raise ActorNotFound(f"no actor of this node is called {other!r}")
            return _names.ref_of_entry(self._rt, other, reply)
        if not isinstance(other, ActorId):
            raise TypeError(f"expected a name or an ActorId, got {other!r}")
        return _far.ref_of_id(self._rt, other)

    def actors(self) -> list[dict[str, Any]]:
        """The actors of this process: id, name, class, messages queued and running."""
        return self._host.listing()

    def workers(self) -> list[dict[str, Any]]:
        """The workers of this node: index (None: dedicated), pid, how many actors each has, and for
        how many seconds a plain method has held it up."""
        return worker_listing(self._rt)

    def local_actor_names(self) -> list[str]:
        """The names of this process's actors."""
        return [h.name for h in self._host.actors.values() if h.name is not None]

    async def all_named_actors(self) -> list[dict[str, Any]]:
        """The public names of this node, each with its actor's id and class."""
        self._check()
        return _names.rows_of(self._rt, await self._rt.names_list())

    async def get_named_instances(self, name: str) -> list[dict[str, Any]]:
        """The replicas of a name: where each lives."""
        return _names.instances_of(await self.find_all(name), await self.members())

    async def resolve_named(self, name: str, node_id: Any = None) -> Any:
        """`resolve`, on a node if one is given."""
        if node_id is None:
            return await self.resolve(name)
        return _names.on_node(await self.find_all(name), name, node_id)

    def dead_letters(self) -> dict[str, int]:
        """How many messages reached nobody, as this process saw it, by reason.

        `died` counts what this process told actors of processes that were killed before they began
        it; asks are not among them."""
        return self._rt.dead_letters()

    # Watching and ending.

    async def watch(self, ref: Any) -> str:
        """Waits until an actor stops or dies; returns why, naming the pid after a death."""
        if ref._far is not None:
            return await _far.watch(self._rt, ref)
        place = await self._home(ref)
        while place is not None:
            try:
                return await self._system_ref(*place).watch(ref._id)
            except ActorDied as error:
                if not await self._left_in_turn(place, error):
                    return await last_words(error)
            place = await self._next_home(ref, place)
        return "it has been stopped"

    async def link(self, a: Any, b: Any) -> None:
        """From now on the end of one, by a stop or a death, ends the other; messages that wait for
        it fail with ActorDied. They may be of different nodes, then with a cluster key: the loss of
        one's node counts as its end."""
        self._check()
        for one, other in _far.first((a, b), (b, a)):
            if one._far is not None:
                await _far.follow(self._rt, one, other)
                continue
            place = await self._home(one)
            if place is None:
                continue  # it is gone: the other one learns so from its own side
            try:
                await self._system_ref(*place).follow(one._id, other)
            except ActorDied:
                continue

    def events(self) -> Events:
        """What happens from now on, as an async iterator of dicts with the key `event`.

        Nodes: `joined`, `suspect`, `alive` (a suspect answered), `dead`, `left` (with `node_id`,
        `addr`); the first one is this node, then come those that are known already. Of this node
        itself: `isolated` (it has lost the many), `regained`, `name_lost` (`name`: a unique name of
        this node is the other's now). What nobody handled, in this process
        and in workers: `actor_failed` (`actor`, `error`, `traceback`), `dead_letters` (`reason`,
        `count`). A reader that is more than 1024 events
        behind gets `missed` (`count`) for the oldest ones.
        """
        self._check()
        events = self._host.supervision.events()
        events.put(self._node_event("joined"))
        self._cluster.introduce(events)
        return events

    def _node_event(self, event: str) -> dict[str, Any]:
        return {"event": event, "node_id": str(self.node_id), "addr": self.addr}

    async def _home(self, ref: Any) -> tuple[int, int] | None:
        """Where an actor lives now: (slot, epoch)."""
        actor = ref._id
        birthplace = (actor >> 56, actor >> 32 & 0xFFFFFF)
        if ref._place == birthplace:
            return birthplace
        reply = await self._rt.actor_find(actor)
        return (reply[1], reply[2]) if reply[0] == 0 else None

    async def _next_home(self, ref: Any, left: tuple[int, int]) -> tuple[int, int] | None:
        """Where an actor lives whose worker has made room for a fresh one; None: nowhere."""
        for _ in range(LEFT_LOOKS_MAX):
            reply = await self._rt.actor_find(ref._id)
            if reply[0] != 0:
                break
            if (reply[1], reply[2]) != left and not reply[5] & ACTOR_REBUILDING:
                return reply[1], reply[2]
            await asyncio.sleep(LEFT_PAUSE_S)
        return None

    async def stop(self, actor: Any, now: bool = False, timeout: float | None = None) -> None:
        """Ends an actor, by name or ref: what was accepted is handled first, unless `now`."""
        self._check()
        if isinstance(actor, str):
            reply = await self._find(actor)
            if reply is None:
                return
            actor = _names.ref_of_entry(self._rt, actor, reply)
        await self._stop_ref(actor, now, timeout)

    async def _stop_ref(self, ref: Any, now: bool, timeout: float | None) -> None:
        if ref._far is not None:
            await _far.stop(self._rt, ref, now, timeout)
            return
        place = await self._home(ref)
        while place is not None:
            try:
                await self._system_ref(*place).stop(ref._id, now, timeout)
                return
            except ActorDied:
                pass  # it may be on its way to another process
            place = await self._next_home(ref, place)

    async def shutdown(self) -> None:
        """Drains, runs `on_stop`, ends node and workers; safe to call twice."""
        if self._ending is not None:
            await asyncio.shield(self._ending)
            return
        self._ending = self._loop.create_future()
        try:
            await self._end()
        finally:
            self._ending.set_result(None)

    async def _end(self) -> None:
        limit = self.config.stop_timeout
        rt = self._rt
        try:
            await asyncio.wait_for(self._host.end_all(limit), limit + 1)
            if self._node is not None:
                await rt.shutdown_node(int(limit * 1000) + 200)
        except (PulsingError, asyncio.TimeoutError):
            pass  # the node is gone, or an actor does not end: the kill below is left
        self._host.supervision.close(self._node_event("left"))
        self._close()
        if self._node is not None:
            while not _core.node_wait(*self._node, 0):
                await asyncio.sleep(0.002)

    def _close(self) -> None:
        _live.discard(self)
        if self._rt.control_fd >= 0:
            self._unlisten()
        self._rt.close()

    def _on_shutdown(self, seconds: float) -> None:
        self._host.background(self.shutdown())

    def _on_node_gone(self, text: str) -> None:
        ending = self._ending is not None  # then it goes because it was asked to
        self._host.supervision.close(self._node_event("left" if ending else "dead"))
        if self._rt.control_fd >= 0:
            self._loop.remove_reader(self._rt.control_fd)
            self._loop.remove_writer(self._rt.control_fd)

    def _check(self) -> None:
        if self._ending is not None:
            raise SystemClosed("the system has been shut down")

    # The cluster.

    async def members(self) -> list[dict[str, Any]]:
        """The nodes of the cluster, this one included: `node_id`, `addr`, `name`, `status`.

        The status is `Alive`, `Suspect`, `Dead` or `Left`; nodes that have gone are remembered for
        a while.
        """
        self._check()
        return await self._cluster.members()

    async def joined(self, timeout: float | None = None) -> None:
        """Waits until a seed has answered; at once without seeds.

        NodeUnreachable, which says what each seed has answered, when the time is over first.
        """
        self._check()
        await self._cluster.joined(timeout)

    async def isolated(self) -> bool:
        """Whether this node has lost touch with the many, and so cannot tell who lives."""
        self._check()
        return await self._cluster.isolated()


def left_in_turn(rt: Any, place: tuple[int, int], error: BaseException) -> bool | None:
    """Whether a worker did not do something because it made room for a fresh one; None: the kernel
    does not tell yet how it ended."""
    if isinstance(error, WorkerLeaving):
        return True
    facts = rt.death(*place)
    if facts is None:
        # Without a line in the directory nobody will learn more; with one, its end is still coming.
        here = [line[2] for line in rt.directory() if line[:2] == place]
        return None if here and ALIVE not in here else False
    return facts[0].endswith("recycled")


def worker_listing(rt: Any) -> list[dict[str, Any]]:
    """One line for each worker that lives."""
    return [
        {
            "index": line[5] if line[5] >= 0 else None,
            "pid": line[4],
            "actors": line[6],
            "held": round(line[8], 3) if line[8] > HELD_S else None,
        }
        for line in rt.directory()
        if line[3] == ROLE_WORKER and line[2] == ALIVE
    ]


def wait_ms(timeout: float | None) -> int:
    """Milliseconds for the node of a `timeout` in seconds; None does not wait."""
    check_seconds(timeout)
    return 0 if timeout is None else int(min(timeout * 1000, WAIT_FOREVER - 1))


def place_of(reply: tuple) -> tuple[int, int]:
    """(slot, epoch) of a place request's answer, or what went wrong with the worker."""
    if reply[0] == 0:
        return reply[1], reply[2]
    raise PulsingError(f"no worker could be started: {reply[6] or 'the node refused'}")


async def create_actor_system(config: SystemConfig | None = None) -> ActorSystem:
    """Starts a system: an embedded node with its workers, or an attachment to a running one."""
    config = SystemConfig() if config is None else config
    if not isinstance(config, SystemConfig):
        raise TypeError(f"expected a SystemConfig, got {config!r}")
    loop = asyncio.get_running_loop()
    node = None
    if config.attach_to is not None:
        control = _core.connect(config.attach_to)
    else:
        control, pid, pidfd = launch_node(config)
        node = (pid, pidfd)
    rt = attach_runtime(control, node, config, loop)
    system = ActorSystem(rt, config, node, loop)
    system._listen()
    if config.worker_warm:
        try:
            await system.warm()
        except BaseException:
            await system.shutdown()
            raise
    return system


class WorkerSystem(ActorSystem):
    """The system as actors in a worker see it. It ends with its node."""

    def _listen(self) -> None:
        # The selector itself takes messages in.
        self._loop.add_reader(self._rt.control_fd, self._on_control)

    def _on_shutdown(self, seconds: float) -> None:
        self._host.background(self._leave(seconds))

    async def _leave(self, seconds: float) -> None:
        try:
            await self._host.end_all(max(0.1, seconds - 0.2))
        finally:
            self._loop.stop()

    def _on_node_gone(self, text: str) -> None:
        os._exit(1)

    async def shutdown(self) -> None:
        """Only the process that made the system can end it."""
        raise RuntimeError(
            "a worker does not end its system: call shutdown() where the system was created"
        )


for _kind in (ActorSystem, WorkerSystem):
    _core.register_system(_kind)
