# SPDX-License-Identifier: Apache-2.0
"""Actors of other nodes: watching, linking and stopping them, and building them there.

A ref to an actor of another node is used like any other. What goes through the process that hosts
an actor here goes through some process of the other node there, which knows where its actors live.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

from ._errors import ActorDied, ActorNotFound, NodeUnreachable, PulsingError, SystemClosed
from ._host import MAILBOX_DEFAULT, class_payload
from ._ids import ActorId, NodeId

if TYPE_CHECKING:
    from ._system import ActorSystem

# The number that means: whichever process of the node is there.
ANY_PROCESS = 0
PROCESS_LOST_PAUSE_S = 0.05
PROCESS_LOST_TRIES = 20
PROCESS_LOST_CALM_S = 1.0


def node_ref(rt: Any, node: bytes) -> Any:
    """Who answers for another node."""
    return rt.ref(ANY_PROCESS, 0, False, None, "node", node)


def ref_of_id(rt: Any, actor: ActorId) -> Any:
    """The ref of an actor of any node."""
    node = bytes(actor.node_id)
    if node == rt.node_id:
        return rt.ref(actor.number, 0, False, actor.name, "actor")
    return rt.ref(actor.number, MAILBOX_DEFAULT, False, actor.name, "actor", node)


def first(*halves: tuple[Any, Any]) -> list[tuple[Any, Any]]:
    """The halves of a link, in the order in which they are made: another node may refuse its own,
    and then nothing has been done."""
    return sorted(halves, key=lambda half: half[0]._far is None)


async def _ask(rt: Any, node: bytes, method: str, *args: Any) -> Any:
    """Asks a node; a process there that dies meanwhile is not the one that is asked about."""
    tries = 0
    while True:
        begun = time.monotonic()
        try:
            return await getattr(node_ref(rt, node), method)(*args)
        except ActorDied:
            # What has waited for long may do so again: only deaths in a row count.
            tries = 1 if time.monotonic() - begun > PROCESS_LOST_CALM_S else tries + 1
            if tries == PROCESS_LOST_TRIES:
                raise
            await asyncio.sleep(PROCESS_LOST_PAUSE_S)


async def watch(rt: Any, ref: Any) -> str:
    """Waits for the end of an actor; returns why it ended."""
    try:
        return await _ask(rt, ref._far, "watch_here", ref._id)
    except NodeUnreachable as error:
        return str(error).partition(": ")[2]


async def load(rt: Any, ref: Any) -> int:
    """How many messages an actor has, waiting and in work."""
    return await _ask(rt, ref._far, "load_here", ref._id)


async def last_end(rt: Any, ref: Any, own: Any) -> str:
    """Waits for the end of an actor that is not built again, and stays linked to `own` while it is;
    returns why. What can be waited for no longer counts as ended."""
    try:
        return await _ask(rt, ref._far, "last_end_here", ref._id, own)
    except NodeUnreachable as error:
        return str(error).partition(": ")[2]
    except SystemClosed:
        raise
    except PulsingError as error:
        return f"nobody there can tell of it ({error})"


async def follow(rt: Any, ref: Any, other: Any) -> None:
    """From now on the actor ends when the other one has; of a lost node there is nothing to end."""
    try:
        await _ask(rt, ref._far, "follow_here", ref._id, other)
    except NodeUnreachable:
        pass


async def stop(rt: Any, ref: Any, now: bool, timeout: float | None) -> None:
    """Ends an actor; of a lost node there is nothing to end."""
    try:
        await _ask(rt, ref._far, "stop_here", ref._id, now, timeout)
    except NodeUnreachable:
        pass


async def _some_node(system: ActorSystem) -> bytes:
    own = str(system.node_id)
    others = [
        row["node_id"]
        for row in await system.members()
        if row["status"] == "Alive" and row["node_id"] != own
    ]
    if not others:
        raise ActorNotFound(
            "placement='remote': this node knows no other node; join a cluster with "
            "SystemConfig.with_addr(...).with_seeds([...])"
        )
    return bytes.fromhex(random.choice(others))


async def spawn(
    system: ActorSystem, node: NodeId | None, cls: type, args: tuple, kwargs: dict, named: tuple
) -> Any:
    """Builds an actor in a worker of another node; gives its ref."""
    there = await _some_node(system) if node is None else bytes(node)
    ref = node_ref(system._rt, there)
    return await ref.build(class_payload(cls), args, kwargs, *named)
