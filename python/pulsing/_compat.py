# SPDX-License-Identifier: Apache-2.0
"""Names that earlier programs use, each built on today's call: see docs/compatibility.md."""

from __future__ import annotations

import json
from typing import Any

from ._config import SystemConfig
from ._errors import SystemClosed
from ._message import Message

__all__ = ["REF_EXTRAS", "ask_with_timeout", "get_system", "init", "shutdown"]


async def _ask_json(ref: Any, msg_type: str, obj: Any, timeout: float | None = None) -> Any:
    """Ask with `obj` as JSON; the answer's payload is read as JSON."""
    answer = await ref.ask(Message.from_json(msg_type, obj), timeout=timeout)
    return answer.to_json() if isinstance(answer, Message) else answer


def _tell_json(ref: Any, msg_type: str, obj: Any) -> Any:
    """Tell with `obj` as JSON."""
    return ref.tell(Message.from_json(msg_type, obj))


def _send(ref: Any, msg: Any) -> Any:
    """Another name of `tell`."""
    return ref.tell(msg)


class _AskStream:
    """A call that gives a stream: awaitable, and usable with `async for`."""

    def __init__(self, call: Any):
        self._call = call

    def __await__(self):
        return self._open().__await__()

    async def _open(self) -> Any:
        answer = await self._call
        return answer.stream_reader()

    def __aiter__(self):
        return self._call.__aiter__()


def _ask_stream(ref: Any, msg: Any) -> _AskStream:
    """Ask for a stream: `await` gives its reader, `async for` its items."""
    return _AskStream(ref.ask(msg))


REF_EXTRAS = {
    "send": _send,
    "ask_json": _ask_json,
    "tell_json": _tell_json,
    "ask_stream": _ask_stream,
}


async def ask_with_timeout(ref: Any, msg: Any, timeout: float) -> Any:
    """`ref.ask(msg, timeout=timeout)`."""
    return await ref.ask(msg, timeout=timeout)


_global: Any = None


async def init(addr: str | None = None, seeds: list[str] | None = None) -> Any:
    """Starts the global system that `Cls.spawn` and `Cls.resolve` use."""
    global _global
    from ._system import create_actor_system

    if _global is not None:
        raise RuntimeError("pulsing.init() was called already: await pulsing.shutdown() first")
    config = SystemConfig() if addr is None else SystemConfig.with_addr(addr)
    if seeds:
        config = config.with_seeds(seeds)
    _global = await create_actor_system(config)
    return _global


async def shutdown() -> None:
    """Ends the global system; nothing happens without one."""
    global _global
    system, _global = _global, None
    if system is not None:
        await system.shutdown()


def get_system() -> Any:
    """The global system."""
    if _global is None:
        raise SystemClosed("there is no global system: await pulsing.init() first")
    return _global


async def class_spawn(cls: type, *args: Any, **kwargs: Any) -> Any:
    """`Cls.local` on the global system."""
    return await cls.local(get_system(), *args, **kwargs)  # type: ignore[attr-defined]


async def class_resolve(cls: type, name: str, timeout: float | None = None) -> Any:
    """`resolve` on the global system."""
    return await get_system().resolve(name, timeout=timeout)


def write_json(writer: Any, obj: Any) -> Any:
    """Writes an item that the reader gets as the JSON bytes."""
    return writer.write(json.dumps(obj).encode())
