# SPDX-License-Identifier: Apache-2.0
"""From names to refs: what the node answers about a name, and which of several actors is taken."""

from __future__ import annotations

import hashlib
import math
import random
from typing import Any

from ._host import MAILBOX_DEFAULT, NAME_PUBLIC, not_found
from ._ids import ActorId

# What name_find() is asked for: this node's alone, no private ones, or all of other nodes.
LOCAL, PUBLIC, FAR = 1, 2, 4
# What it answers: the actor is another node's.
IS_FAR = 8
POLICIES = ("local_first", "round_robin", "random", "least_loaded", "hash")
FAR_ENTRY_BYTES = 24
# Names of which a system remembers whose turn it is.
TURNS_MAX = 4096


def ref_of_entry(rt: Any, name: str, reply: tuple) -> Any:
    """The ref for an actor of this node that name_find() found."""
    _, slot, epoch, actor, _, _, class_name, metadata = reply
    window = int.from_bytes(metadata[:4], "little")
    restartable = len(metadata) > 4 and metadata[4] == 1
    ref = rt.ref(actor, window, restartable, name, class_name)
    if (actor >> 56, actor >> 32 & 0xFFFFFF) != (slot, epoch) and restartable:
        rt.route(actor, slot, epoch)
    return ref


def far_ref(rt: Any, name: str, actor: int, node: bytes) -> Any:
    """The ref of another node's actor."""
    return rt.ref(actor, MAILBOX_DEFAULT, False, name, "actor", node)


def ref_of(rt: Any, name: str, reply: tuple) -> Any:
    """The ref for whatever name_find() found."""
    if reply[5] & IS_FAR:
        return far_ref(rt, name, reply[3], reply[7])
    return ref_of_entry(rt, name, reply)


def refs_of(rt: Any, name: str, here: tuple, others: tuple) -> list[Any]:
    """The refs of all replicas."""
    refs = [ref_of_entry(rt, name, here)] if here[0] == 0 else []
    data = others[7] if others[0] == 0 else b""
    for at in range(0, len(data), FAR_ENTRY_BYTES):
        actor = int.from_bytes(data[at : at + 8], "little")
        refs.append(far_ref(rt, name, actor, data[at + 8 : at + FAR_ENTRY_BYTES]))
    return refs


def rows_of(rt: Any, reply: tuple) -> list[dict[str, Any]]:
    """The public actors of this node, of the reply to names_list()."""
    return [
        {"name": name, "actor_id": ActorId(rt.node_id, actor, name), "class": class_name}
        for name, actor, _, _, flags, class_name, _ in rt.names_parse(reply[7])
        if flags & NAME_PUBLIC
    ]


def instances_of(refs: list[Any], members: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where each replica lives."""
    addresses = {row["node_id"]: row["addr"] for row in members}
    return [
        {
            "node_id": str(ref.actor_id.node_id),
            "addr": addresses.get(str(ref.actor_id.node_id)),
            "actor_id": ref.actor_id,
        }
        for ref in refs
    ]


def on_node(refs: list[Any], name: str, node_id: Any) -> Any:
    """The replica on a node; raises ActorNotFound."""
    for ref in refs:
        if ref.actor_id.node_id == node_id:
            return ref
    raise not_found(name)


class Choice:
    """Which of several replicas is taken."""

    def __init__(self, policy: str | None, key: Any):
        self.policy = "local_first" if policy is None else policy
        self.key = key
        if self.policy not in POLICIES:
            raise ValueError(f"policy: expected one of {', '.join(POLICIES)}, got {policy!r}")
        if (self.policy == "hash") != (key is not None):
            raise ValueError("policy='hash' goes with key=..., and key=... with it")

    @property
    def local_first(self) -> bool:
        """Whether the node itself chooses."""
        return self.policy == "local_first"

    @property
    def by_load(self) -> bool:
        """Whether the replicas are asked for their load, and `lightest` chooses."""
        return self.policy == "least_loaded"

    def take(self, name: str, refs: list[Any], turns: dict[str, int]) -> Any:
        """One of the replicas; None when none is left."""
        if not refs:
            return None
        if self.policy == "random":
            return random.choice(refs)
        if self.policy == "hash":
            return max(refs, key=self._weight)
        refs.sort(key=lambda ref: str(ref.actor_id))
        turn = turns.pop(name, 0)
        while len(turns) >= TURNS_MAX:
            turns.pop(next(iter(turns)))
        turns[name] = turn + 1
        return refs[turn % len(refs)]

    @staticmethod
    def lightest(refs: list[Any], loads: list[Any]) -> Any:
        """The replica with the fewest messages, any of several; those that did not answer (their
        load is an exception) come last."""
        weights = [math.inf if isinstance(load, BaseException) else load for load in loads]
        least = min(weights, default=0)
        equal = [ref for ref, weight in zip(refs, weights, strict=True) if weight == least]
        return random.choice(equal) if equal else None

    def _weight(self, ref: Any) -> bytes:
        # The highest hash of key and replica: when one goes, only its own keys move.
        seed = self.key if isinstance(self.key, bytes) else str(self.key).encode()
        return hashlib.blake2b(seed + b"\0" + str(ref.actor_id).encode()).digest()
