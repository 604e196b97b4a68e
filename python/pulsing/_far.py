# SPDX-License-Identifier: Apache-2.0
"""Actors of other nodes: watching and stopping them, and building them there.

A ref to an actor of another node is used like any other. What goes through the process that hosts
an actor here goes through some process of the other node there, which knows where its actors live.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from ._errors import ActorDied, ActorNotFound, NodeUnreachable
from ._host import MAILBOX_DEFAULT, class_payload
from ._ids import ActorId, NodeId

if TYPE_CHECKING:
    from ._system import ActorSystem

# The number that means: whichever process of the node is there.
ANY_PROCESS = 0
PROCESS_LOST_PAUSE_S = 0.05
PROCESS_LOST_TRIES = 20


def node_ref(rt: Any, node: bytes) -> Any:
    """Who answers for another node."""
    return rt.ref(ANY_PROCESS, 0, False, None, "node", node)


def ref_of_id(rt: Any, actor: ActorId) -> Any:
    """The ref of an actor of any node."""
    node = bytes(actor.node_id)
    if node == rt.node_id:
        return rt.ref(actor.number, 0, False, actor.name, "actor")
    return rt.ref(actor.number, MAILBOX_DEFAULT, False, actor.name, "actor", node)


def refuse_link(*refs: Any) -> None:
    """A link is kept by the processes of one node."""
    if any(ref._far is not None for ref in refs):
        raise ValueError("link() joins actors of this node; watch() sees those of others")


async def _ask(rt: Any, node: bytes, method: str, *args: Any) -> Any:
    """Asks a node; a process there that dies meanwhile is not the one that is asked about."""
    tries = 0
    while True:
        try:
            return await getattr(node_ref(rt, node), method)(*args)
        except ActorDied:
            tries += 1
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
