# SPDX-License-Identifier: Apache-2.0
"""A worker that leaves for a fresh one after a number of messages.

The node starts the fresh worker at once and places new actors there. This worker waits for a moment
in which none of its actors handles a message or writes a stream, and ends in it; the node builds
its actors again, and their senders, which have kept what was not started, send it again. So nothing
is lost, and nothing is handled twice.

Where such a moment does not come by itself, new messages are held back for a while. The while is
bounded, since a message that is being handled may wait for an answer of an actor that is held; it
doubles from try to try.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

log = logging.getLogger("pulsing")

_LOOK_S = 0.001
_FREELY_S = 0.5
_HELD_FIRST_S = 0.1
_HELD_MAX_S = 5.0
_LOUD_S = 60.0


class Recycler:
    """Counts for one worker, and takes it away."""

    def __init__(self, system: Any, after: int):
        self._system = system
        self._host = system._host
        self._host.recycles = True
        self._after = after
        self._task: asyncio.Task | None = None

    def look(self) -> None:
        """Called between two turns of the loop."""
        if self._task is None and self._system._rt.handled_count >= self._after:
            # What waits in the rings is not started any more if this moment will do.
            self._host.hold_all(self._host.idle())
            self._task = self._system._loop.create_task(self._leave())

    async def _leave(self) -> None:
        host = self._host
        host.leaving = True
        self._system._rt.recycle()
        await self._quiet()
        await host.leave(self._system.config.stop_timeout)
        self._system._loop.stop()

    async def _quiet(self) -> None:
        """Returns in a moment in which this process can go, with all its actors held."""
        if self._host.idle():
            self._host.hold_all(True)
            return
        clock = self._system._loop.time
        loud_at = clock() + _LOUD_S
        held_s = _HELD_FIRST_S
        while True:
            for hold, seconds in ((False, _FREELY_S), (True, held_s)):
                end = clock() + seconds
                self._host.hold_all(hold)
                while clock() < end:
                    if self._host.idle():
                        self._host.hold_all(True)
                        return
                    await asyncio.sleep(_LOOK_S)
            held_s = min(held_s * 2, _HELD_MAX_S)
            if clock() > loud_at:
                loud_at = clock() + _LOUD_S
                log.warning("a worker that shall be recycled is never idle: %s", self._busy())

    def _busy(self) -> str:
        busy = [h.label for h in self._host.actors.values() if h.cell.running > 0]
        return f"{', '.join(busy)} handle messages" if busy else "streams are being written"
