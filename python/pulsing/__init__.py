# SPDX-License-Identifier: Apache-2.0
"""Pulsing: actors for Python inference services."""

from pulsing import _stranger

_stranger.refuse()

from . import _core  # noqa: E402
from ._actor import Actor, ActorContext, as_actor, current_context  # noqa: E402
from ._compat import REF_EXTRAS, ask_with_timeout, get_system, init, shutdown  # noqa: E402
from ._config import SystemConfig  # noqa: E402
from ._context import context_stays  # noqa: E402
from ._errors import (  # noqa: E402
    ActorDied,
    ActorError,
    ActorExists,
    ActorFailed,
    ActorNotFound,
    AskCancelled,
    AskTimeout,
    AuthenticationError,
    CodecError,
    DeadlockError,
    MailboxFull,
    NodeUnreachable,
    PulsingError,
    StreamClosed,
    SystemClosed,
)
from ._ids import ActorId, NodeId  # noqa: E402
from ._message import Message, StreamMessage, _restore  # noqa: E402

__version__ = _core.__version__
Ref = _core.Ref

_core.register_python(Message, StreamMessage, _restore, ActorId, REF_EXTRAS)

from ._batch import batch  # noqa: E402
from ._blocking import BlockingSystem, connect  # noqa: E402
from ._pool import Group, Pool, Topic  # noqa: E402
from ._system import ActorSystem, create_actor_system  # noqa: E402

remote = as_actor

__all__ = [
    "Actor",
    "ActorContext",
    "ActorDied",
    "ActorError",
    "ActorExists",
    "ActorFailed",
    "ActorId",
    "ActorNotFound",
    "ActorSystem",
    "AskCancelled",
    "AskTimeout",
    "AuthenticationError",
    "BlockingSystem",
    "CodecError",
    "DeadlockError",
    "Group",
    "MailboxFull",
    "Message",
    "NodeId",
    "NodeUnreachable",
    "Pool",
    "PulsingError",
    "Ref",
    "StreamClosed",
    "StreamMessage",
    "SystemClosed",
    "SystemConfig",
    "Topic",
    "as_actor",
    "ask_with_timeout",
    "batch",
    "connect",
    "context_stays",
    "create_actor_system",
    "current_context",
    "get_system",
    "init",
    "remote",
    "shutdown",
]
