# SPDX-License-Identifier: Apache-2.0
"""Who belongs to whom, who ends with whom, and who is told of what nobody handled.

One `Supervision` for each process with actors. An actor ends with another one because the process
that hosts it watches the other: so it holds in whatever way the other one goes. What nobody handles
in a worker is told to the programs that are attached to the node, where `system.events()` gives it.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import time
import traceback
import weakref
from typing import TYPE_CHECKING, Any

from ._errors import ActorDied, PulsingError

if TYPE_CHECKING:
    from ._host import Host, Hosted

log = logging.getLogger("pulsing")

# Events that a reader may be behind; older ones are dropped, and it is told how many.
_EVENTS_MAX = 1024
# Events that one process tells others in a second.
_TOLD_MAX = 100
_ROLE_HOST = 1
_ALIVE = 2
ACTOR_REBUILDING = 1


# How often to look how a process ended that the kernel is still tearing down.
_LOOKS_MAX = 500
_LOOK_PAUSE_S = 0.01

# How often to ask whether an actor that is being built again lives.
_RISE_PAUSE_S = 0.005
_RISE_PAUSE_S_MAX = 0.5


async def last_words(error: ActorDied) -> str:
    """The text of a death, once it is known how the process ended; after 5 s what is known."""
    for _ in range(_LOOKS_MAX):
        if ", dying)" not in str(error):
            break
        await asyncio.sleep(_LOOK_PAUSE_S)
    return str(error)


class Events:
    """What happens to a system, as an async iterator of dicts; every reader sees all of it."""

    def __init__(self) -> None:
        self._queue: collections.deque[dict[str, Any]] = collections.deque()
        self._missed = 0
        self._waiter: asyncio.Future | None = None
        self._over = False

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while not self._queue:
            if self._over:
                raise StopAsyncIteration
            if self._waiter is None or self._waiter.done():
                self._waiter = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._waiter)
        if self._missed:
            missed, self._missed = self._missed, 0
            return {"event": "missed", "count": missed}
        return self._queue.popleft()

    @property
    def closed(self) -> bool:
        """Whether no more events come."""
        return self._over

    def left_over(self) -> dict[str, Any] | None:
        """The oldest event that nobody has read, without waiting."""
        return self._queue.popleft() if self._queue else None

    def close(self) -> None:
        """No more events: the iteration ends after those that are there."""
        self._over = True
        self._wake()

    def put(self, event: dict[str, Any]) -> None:
        """Adds an event; the oldest makes room."""
        if self._over:
            return
        if len(self._queue) >= _EVENTS_MAX:
            self._queue.popleft()
            self._missed += 1
        self._queue.append(event)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Supervision:
    """What a process knows of the bonds of its actors."""

    def __init__(self, host: Host):
        self.host = host
        self.rt = host.rt
        self._events: weakref.WeakSet[Events] = weakref.WeakSet()
        self._letters: dict[str, int] = {}
        self._told_from = 0.0
        self._told = 0

    # Ending together.

    def follow(self, hosted: Hosted, other: Any, words: str) -> None:
        """From now on the actor ends when the other one, or its process, has ended."""
        self._bind(hosted, self.host.system.watch, other, words)

    def link(self, hosted: Hosted, other: Any) -> None:
        """From now on the actor ends when the other one has ended for good."""
        hosted.links.add(other)
        own = self.host.system._own_ref(hosted.cell.id)

        def end(other: Any) -> Any:
            return self.last_end(other, own)

        self._bind(hosted, end, other, "the actor to which it was linked,")

    def _bind(self, hosted: Hosted, end: Any, other: Any, words: str) -> None:
        task = asyncio.get_running_loop().create_task(self._end_with(hosted, end, other, words))
        hosted.bonds.add(task)
        task.add_done_callback(hosted.bonds.discard)

    async def last_end(self, other: Any, own: Any) -> str:
        """Why an actor has ended; one that is built again has not, and stays linked to `own`."""
        if other._far is not None:
            from . import _far

            return await _far.last_end(self.rt, other, own)
        system = self.host.system
        place = await system._home(other)
        while place is not None:
            try:
                reason = await system._system_ref(*place).watch(other._id)
            except ActorDied as error:
                reason = await last_words(error)
            risen = await self._risen(other, place)
            if risen is None:
                return reason
            place = risen
            try:
                # It knows so from the node, if what it is built of was not too large for that.
                await system._system_ref(*place).follow(other._id, own)
            except ActorDied:
                continue
        return "it has been stopped"

    async def _risen(self, other: Any, place: tuple[int, int] | None) -> tuple[int, int] | None:
        """Where an actor that had ended at `place` lives again; None: nowhere, ever. It lasts as
        long as its restart policy takes."""
        pause = _RISE_PAUSE_S
        while True:
            reply = await self.rt.actor_find(other._id)
            if reply[0] != 0:
                return None
            if not reply[5] & ACTOR_REBUILDING:
                risen = (reply[1], reply[2])
                return risen if risen != place else None
            await asyncio.sleep(pause)
            pause = min(2 * pause, _RISE_PAUSE_S_MAX)

    async def _end_with(self, hosted: Hosted, end: Any, other: Any, words: str) -> None:
        try:
            reason = await end(other)
        except PulsingError:
            return  # the system ends, and this actor with it
        hosted.bonds.discard(asyncio.current_task())
        label = other.name or f"{other._class_name} {other._id:x}"
        await self.host.end(hosted, True, None, f"{words} {label} has ended: {reason}")

    def adopt(self, parent: Any, ref: Any) -> None:
        """`ref` was made by the actor of the context `parent`, and belongs to it."""
        parent._children[ref._id] = ref
        hosted = self.host.actors.get(ref._id)
        if hosted is not None:
            hosted.parent = self.host.system._own_ref(parent._actor)

    def gone(self, hosted: Hosted) -> None:
        """The actor has ended: nothing binds it any more, and its parent forgets it."""
        for task in list(hosted.bonds):
            task.cancel()
        parent = hosted.parent
        if parent is None:
            return
        try:
            self.host.system._system_ref(*parent._place).disown.tell(parent._id, hosted.cell.id)
        except PulsingError:
            pass  # the parent is gone, too

    async def end_children(self, hosted: Hosted, now: bool, timeout: float) -> None:
        """Ends what the actor has made, all at the same time."""
        children = list(hosted.cell.context._children.values())
        hosted.cell.context._children.clear()
        stop = self.host.system._stop_ref
        await asyncio.gather(*[stop(child, now, timeout) for child in children])

    # Telling.

    def events(self) -> Events:
        """A new reader of what happens from now on."""
        events = Events()
        self._events.add(events)
        return events

    def publish(self, event: dict[str, Any]) -> None:
        """Gives an event to the readers of this process."""
        for events in list(self._events):
            events.put(event)

    def close(self, event: dict[str, Any]) -> None:
        """The last event."""
        self.publish(event)
        for events in list(self._events):
            events.close()

    def tell(self, event: dict[str, Any]) -> None:
        """Gives an event to the readers of this process and of every attached program."""
        event = {**event, "slot": self.rt.slot}
        self.publish(event)
        now = time.monotonic()
        if now - self._told_from > 1:
            self._told_from, self._told = now, 0
        self._told += 1
        if self._told > _TOLD_MAX:
            return
        for line in self.rt.directory():
            if line[3] == _ROLE_HOST and line[2] == _ALIVE and line[0] != self.rt.slot:
                try:
                    self.host.system._system_ref(line[0], line[1]).reported.tell(event)
                except PulsingError:
                    continue  # it has just gone

    def failed(self, hosted: Hosted, error: BaseException) -> None:
        """A message failed, and nobody waits for its answer: said once, with the traceback."""
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
        log.error("a message to %s failed and nobody waits for its answer:\n%s", hosted.label, text)
        self.tell(
            {
                "event": "actor_failed",
                "actor": hosted.label,
                "error": f"{type(error).__name__}: {error}",
                "traceback": text,
            }
        )

    def on_dead_letters(self) -> None:
        """Some messages have reached nobody since the last time."""
        for reason, total in self.rt.dead_letters().items():
            count = total - self._letters.get(reason, 0)
            if count > 0:
                self._letters[reason] = total
                self.tell({"event": "dead_letters", "reason": reason, "count": count})
