# SPDX-License-Identifier: Apache-2.0
"""`Message`: a type and bytes. `StreamMessage`: a type and a stream of Python objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from . import _core

__all__ = ["Message", "StreamMessage"]

_T_co = TypeVar("_T_co", covariant=True)


class Message:
    """A message with a type and a payload of bytes.

    `Message.stream(type, payload)` makes a request whose reply is a stream.
    """

    __slots__ = ("_msg_type", "_payload", "_stream")

    def __init__(self, msg_type: str = "", payload: bytes = b""):
        if not isinstance(msg_type, str):
            raise ValueError(f"msg_type: expected a string, got {msg_type!r}")
        if not isinstance(payload, (bytes, bytearray, memoryview)):
            raise ValueError(
                f"payload: expected bytes, got {type(payload).__name__}; use Message.from_json"
            )
        self._msg_type = msg_type
        self._payload = payload if isinstance(payload, bytes) else bytes(payload)
        self._stream = False

    @classmethod
    def single(cls, msg_type: str, payload: bytes = b"") -> Message:
        """One message, answered by one message."""
        return cls(msg_type, payload)

    @classmethod
    def stream(cls, msg_type: str, payload: bytes = b"") -> Message:
        """A request whose reply is a stream."""
        message = cls(msg_type, payload)
        message._stream = True
        return message

    @classmethod
    def empty(cls) -> Message:
        """No type, no payload."""
        return cls("", b"")

    @classmethod
    def from_json(cls, msg_type: str, obj: Any) -> Message:
        """The payload is `obj` as JSON."""
        return cls(msg_type, json.dumps(obj).encode())

    def to_json(self) -> Any:
        """The payload, read as JSON."""
        return json.loads(self.payload)

    @property
    def msg_type(self) -> str:
        """The message's type."""
        return self._msg_type

    @property
    def payload(self) -> bytes:
        """The message's bytes."""
        return self._payload

    @property
    def is_stream(self) -> bool:
        """Whether this is, or asks for, a stream."""
        return self._stream

    def stream_reader(self) -> Any:
        """The reader of a stream that was received."""
        raise ValueError(
            f"message {self._msg_type!r} is a single message: read its payload, it has no stream"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return (self._msg_type, self._payload, self._stream) == (
            other._msg_type,
            other._payload,
            other._stream,
        )

    def __hash__(self) -> int:
        return hash((self._msg_type, self._payload))

    def __reduce__(self):
        return (_restore, (self._msg_type, self._payload, self._stream))

    def __repr__(self) -> str:
        kind = "Message.stream" if self._stream else "Message"
        return f"{kind}({self._msg_type!r}, {len(self._payload)} bytes)"


def _restore(msg_type: str, payload: bytes, stream: bool) -> Message:
    message = Message(msg_type, payload)
    message._stream = stream
    return message


class StreamMessage(Generic[_T_co]):
    """A stream of Python objects with a type. `create` gives the message to return or send, and its
    writer."""

    __slots__ = ("_msg_type", "_end")

    def __init__(self, msg_type: str, end: Any):
        self._msg_type = msg_type
        self._end = end

    @classmethod
    def create(
        cls, msg_type: str = "", buffer_size: int = 32
    ) -> tuple[StreamMessage[Any], _core.StreamWriter]:
        """Returns `(message, writer)`. The writer waits while `buffer_size` items are unread."""
        if (
            isinstance(buffer_size, bool)
            or not isinstance(buffer_size, int)
            or not 1 <= buffer_size <= 65536
        ):
            raise ValueError(
                f"buffer_size: expected a whole number from 1 to 65536, got {buffer_size!r}"
            )
        writer = _core.StreamWriter(buffer_size)
        return cls(msg_type, writer), writer

    @property
    def msg_type(self) -> str:
        """The stream's type."""
        return self._msg_type

    @property
    def is_stream(self) -> bool:
        """Always true."""
        return True

    @property
    def payload(self) -> bytes:
        """A stream has no payload."""
        raise ValueError(
            f"message {self._msg_type!r} is a stream: use stream_reader(), it has no payload"
        )

    def stream_reader(self) -> _core.StreamReader[_T_co]:
        """An async iterator over the stream's objects."""
        if not isinstance(self._end, _core.StreamReader):
            raise ValueError(
                "this end of the stream is written; its reader is where the message arrives"
            )
        return self._end

    def __aiter__(self) -> _core.StreamReader[_T_co]:
        return self.stream_reader().__aiter__()

    def __iter__(self) -> Iterator[_T_co]:
        return iter(self.stream_reader())

    def __repr__(self) -> str:
        return f"StreamMessage({self._msg_type!r})"
