# SPDX-License-Identifier: Apache-2.0
"""The one tree of errors. Each says what happened, to what, and what can be done."""

from __future__ import annotations

import asyncio
import re
from typing import Any

__all__ = [
    "ActorDied",
    "ActorError",
    "ActorExists",
    "ActorFailed",
    "ActorNotFound",
    "AskCancelled",
    "AskTimeout",
    "AuthenticationError",
    "CodecError",
    "DeadlockError",
    "MailboxFull",
    "NodeUnreachable",
    "PulsingError",
    "RemoteTraceback",
    "StreamClosed",
    "SystemClosed",
]


class PulsingError(Exception):
    """The root of every error that Pulsing itself raises."""


class ActorNotFound(PulsingError):
    """No actor has that name or id, or it is not visible from here."""


class ActorExists(PulsingError):
    """The name is taken on this node; the text says by which actor."""


class ActorDied(PulsingError):
    """The actor, its process or its node is gone; the text says which one, and how it ended.

    While the kernel is still tearing the process down the text says `dying`; it is filled in when
    the text is read again later.
    """

    _death: Any = None

    def __str__(self) -> str:
        text = super().__str__()
        if self._death is not None and ", dying)" in text:
            runtime, slot, epoch = self._death
            words = runtime.death(slot, epoch)
            if words is not None and "dying" not in words:
                text = re.sub(r"\(pid \d+, dying\)", f"({words})", text)
                self.args = (text,)
                self._death = None
        return text

    def __reduce__(self):
        return (type(self), (str(self),))


class ActorFailed(PulsingError):
    """Raised by a handler: its actor's state is no longer good. The restart policy decides."""


class ActorError(PulsingError):
    """A handler raised an exception that cannot be rebuilt here; the text says which."""


class MailboxFull(PulsingError):
    """The mailbox was full and its policy rejects, or a limit of this process is reached."""


# From Python 3.11 on, asyncio's own is the builtin one.
_TIMEOUTS = tuple(dict.fromkeys((asyncio.TimeoutError, TimeoutError)))


class AskTimeout(PulsingError, *_TIMEOUTS):  # type: ignore[misc]
    """The deadline of an ask has passed; the text says how far the request had come."""


class AskCancelled(PulsingError):
    """The handler was cancelled before it could answer."""


class DeadlockError(PulsingError):
    """The ask would wait for itself; the text names the cycle."""


class StreamClosed(PulsingError):
    """The other end of the stream is gone."""


class NodeUnreachable(PulsingError):
    """The node cannot be reached; the text says what is known of the request."""


class AuthenticationError(PulsingError):
    """The node refused us, or we it."""


class SystemClosed(PulsingError):
    """The system has been shut down, or its node process has died; the text says which."""


class CodecError(PulsingError, TypeError):
    """Something cannot be sent, or bytes cannot be read; the text names it and the remedy."""


class RemoteTraceback(Exception):
    """The cause of an exception that a handler raised: `str()` is the traceback over there."""
