# SPDX-License-Identifier: Apache-2.0
"""The types of refs and calls, for annotations: `def use(calc: Ref[Calculator]) -> None`.

Type checkers see more here than Python: there a blocking ref is a ref, and the decorators, which
only stubs of actors use, do nothing. `docs/typing.md` says how refs get their types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from ._core import Call, Done, Endpoint, Ref, StreamReader, StreamWriter

__all__ = [
    "BlockingRef",
    "Call",
    "Endpoint",
    "Ref",
    "StreamCall",
    "StreamReader",
    "StreamWriter",
    "blocking_endpoint",
    "blocking_stream_endpoint",
    "endpoint",
    "stream_endpoint",
]

if TYPE_CHECKING:
    from ._core import BlockingRef, StreamCall
    from ._message import StreamMessage
else:
    BlockingRef = Ref
    StreamCall = Call

_P = ParamSpec("_P")
_R = TypeVar("_R")


def endpoint(method: Callable[Concatenate[Any, _P], _R]) -> Endpoint[_P, Call[_R], Done]:
    """In a stub: a method as a ref has it."""
    return method  # type: ignore[return-value]


def stream_endpoint(
    method: Callable[Concatenate[Any, _P], _R],
) -> Endpoint[_P, StreamCall[_R], Done]:
    """In a stub: a method that streams items of its result type."""
    return method  # type: ignore[return-value]


def blocking_endpoint(method: Callable[Concatenate[Any, _P], _R]) -> Endpoint[_P, _R, None]:
    """In a stub: a method as a blocking ref has it."""
    return method  # type: ignore[return-value]


def blocking_stream_endpoint(
    method: Callable[Concatenate[Any, _P], _R],
) -> Endpoint[_P, StreamMessage[_R], None]:
    """In a stub: a method that streams, as a blocking ref has it."""
    return method  # type: ignore[return-value]
