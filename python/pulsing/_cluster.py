# SPDX-License-Identifier: Apache-2.0
"""The nodes of the cluster, as a process sees them through its own node."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ._errors import NodeUnreachable, PulsingError
from ._ids import NodeId

if TYPE_CHECKING:
    from ._supervision import Events
    from ._system import ActorSystem

STATUS = {1: "Alive", 2: "Suspect", 3: "Dead", 4: "Left"}
EVENTS = {
    1: "joined",
    2: "suspect",
    3: "alive",
    4: "dead",
    5: "left",
    6: "isolated",
    7: "regained",
    8: "conflict",
    9: "name_lost",
}
JOINED, ISOLATED = 1, 2
ALIVE = ("joined", "alive")
GONE = ("dead", "left")


def rows(rt: Any, data: bytes) -> list[dict[str, Any]]:
    """The nodes in an answer or a notice."""
    return [
        {"node_id": str(NodeId(node)), "addr": addr, "name": name, "status": STATUS[status]}
        for status, node, _, name, addr in rt.members_parse(data)
    ]


def listing(rt: Any, reply: tuple) -> list[dict[str, Any]]:
    """The answer to members_list(), with this node in it in any case."""
    own = {"node_id": str(NodeId(rt.node_id)), "addr": rt.address, "name": None, "status": "Alive"}
    return rows(rt, reply[7]) or [own]


def check_seconds(timeout: Any) -> None:
    """ValueError for a `timeout` that is none."""
    if timeout is None:
        return
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or not timeout >= 0:
        raise ValueError(f"timeout: expected seconds, got {timeout!r}")


def not_joined(timeout: float, reply: tuple) -> NodeUnreachable:
    """The error of joined()."""
    return NodeUnreachable(f"no seed has answered within {timeout:g} s ({reply[6]})")


class Cluster:
    """What this process knows of other nodes. It asks its node to be told of changes when somebody
    wants to know them, and not before."""

    def __init__(self, system: ActorSystem):
        self._system = system
        self._rt = system._rt
        self._following: asyncio.Task | None = None
        self._known: dict[str, dict[str, Any]] | None = None  # of others that live, once told
        self._waiting: set[asyncio.Future] = set()

    async def members(self) -> list[dict[str, Any]]:
        """All nodes, those that have gone among them."""
        return listing(self._rt, await self._rt.members_list(False))

    async def isolated(self) -> bool:
        """Whether this node has lost the many."""
        return bool((await self._rt.members_list(False))[5] & ISOLATED)

    async def joined(self, timeout: float | None) -> None:
        """Waits until another node is known, or none is looked for."""
        check_seconds(timeout)
        await asyncio.shield(self._follow())
        arrival = asyncio.get_running_loop().create_future()
        self._waiting.add(arrival)
        try:
            reply = await self._rt.members_list(False)
            if not reply[5] & JOINED:
                await asyncio.wait_for(arrival, timeout)
        except asyncio.TimeoutError:
            assert timeout is not None
            raise not_joined(timeout, await self._rt.members_list(False)) from None
        finally:
            self._waiting.discard(arrival)

    def introduce(self, events: Events) -> None:
        """Tells a new reader who is known already."""
        if self._known is None:
            self._follow()
            return
        for row in self._known.values():
            events.put(_event("joined", row))

    def _follow(self) -> asyncio.Task:
        if self._following is None:
            self._following = self._system._host.background(self._ask())
        return self._following

    async def _ask(self) -> None:
        try:
            reply = await self._rt.members_list(True)
        except PulsingError:
            return  # the system ends, and says so itself
        # Notices that came after this answer may have been taken in before it.
        known = self._known = {} if self._known is None else self._known
        own = str(self._system.node_id)
        for row in rows(self._rt, reply[7]):
            fresh = row["node_id"] != own and row["node_id"] not in known
            if fresh and row["status"] in ("Alive", "Suspect"):
                known[row["node_id"]] = row
                self._system._host.supervision.publish(_event("joined", row))

    def on_member(self, number: int, data: bytes, name: bytes) -> None:
        """The node's notice of a change."""
        event = EVENTS.get(number)
        found = rows(self._rt, data)
        if event == "name_lost":
            lost = {"name": name.decode(errors="replace")}
            self._system._host.supervision.publish({**_event(event, found[0]), **lost})
            return
        if event is None or not found:
            return
        row = found[0]
        own = row["node_id"] == str(self._system.node_id)
        if own and event not in ("isolated", "regained", "conflict"):
            return  # its own start and end are told by the system itself
        known = self._known = {} if self._known is None else self._known
        if event in GONE:
            known.pop(row["node_id"], None)
        elif event in ALIVE:
            known[row["node_id"]] = row
            for arrival in self._waiting:
                if not arrival.done():
                    arrival.set_result(None)
        self._system._host.supervision.publish(_event(event, row))


def _event(event: str, row: dict[str, Any]) -> dict[str, Any]:
    return {"event": event, "node_id": row["node_id"], "addr": row["addr"]}
