# SPDX-License-Identifier: Apache-2.0
"""Identities as users see them: small, hashable, comparable, printable."""

from __future__ import annotations

__all__ = ["ActorId", "NodeId"]


class NodeId:
    """A node's identity: 128 random bits for each of its starts."""

    __slots__ = ("_bytes",)

    def __init__(self, raw: bytes):
        if len(raw) != 16:
            raise ValueError(f"a node id has 16 bytes, not {len(raw)}")
        self._bytes = bytes(raw)

    def __bytes__(self) -> bytes:
        return self._bytes

    def __str__(self) -> str:
        return self._bytes.hex()

    def __repr__(self) -> str:
        return f"NodeId('{self}')"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, NodeId):
            return self._bytes == other._bytes
        if isinstance(other, str):
            return str(self) == other
        return NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))


class ActorId:
    """An actor's identity: its node, its number there, and its name where it has one."""

    __slots__ = ("_node", "_number", "_name")

    def __init__(self, node: bytes, number: int, name: str | None = None):
        self._node = bytes(node)
        self._number = number
        self._name = name

    @property
    def name(self) -> str | None:
        """The actor's name, or None."""
        return self._name

    @property
    def number(self) -> int:
        """The actor's number on its node."""
        return self._number

    @property
    def node_id(self) -> NodeId:
        """The node where it was made."""
        return NodeId(self._node)

    def __str__(self) -> str:
        return f"{self._node.hex()[:12]}:{self._number:016x}"

    def __repr__(self) -> str:
        return (
            f"ActorId('{self}')"
            if self._name is None
            else f"ActorId('{self}', name={self._name!r})"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ActorId):
            return NotImplemented
        return self._number == other._number and self._node == other._node

    def __hash__(self) -> int:
        return hash((self._node, self._number))

    def __reduce__(self):
        return (ActorId, (self._node, self._number, self._name))
