# SPDX-License-Identifier: Apache-2.0
"""The one tree of errors. Each says what happened, to what, and what can be done."""

from __future__ import annotations

import asyncio
import re
import signal
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from ._ids import ActorId

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


class WorkerLeaving(PulsingError):
    """A worker that makes room for a fresh one takes no new actors; whoever asked asks again."""


class ActorDied(PulsingError):
    """The actor, its process or its node is gone; the text says which one, and how it ended.

    While the kernel is still tearing the process down the text says `dying`; it is filled in when
    the text or an attribute is read again later. Where an actor was stopped, and no process died,
    the attributes keep their defaults.
    """

    _fields: ClassVar[dict[str, Any]] = {
        "actor": None,
        "pid": None,
        "exit_code": None,
        "signal": None,
        "out_of_memory": False,
        "method": None,
        "output": "",
    }
    _death: Any = None
    _known: dict[str, Any] | None = None

    @property
    def actor(self) -> ActorId | None:
        """The actor that the message was for."""
        return self._field("actor")

    @property
    def pid(self) -> int | None:
        """The process that died."""
        return self._field("pid")

    @property
    def exit_code(self) -> int | None:
        """What it exited with, if it exited."""
        return self._field("exit_code")

    @property
    def signal(self) -> signal.Signals | int | None:
        """What killed it, if it was killed."""
        number = self._field("signal")
        try:
            return None if number is None else signal.Signals(number)
        except ValueError:
            return number

    @property
    def out_of_memory(self) -> bool:
        """Whether it was killed because memory ran out, as far as the kernel's counters tell."""
        return self._field("out_of_memory")

    @property
    def method(self) -> str | None:
        """The actor's method that was running; else the one that had the process's thread."""
        return self._field("method")

    @property
    def output(self) -> str:
        """The last lines that the process printed, its traceback if it had one."""
        return self._field("output")

    def _field(self, name: str) -> Any:
        self._look()
        return (self._known or self._fields).get(name, self._fields[name])

    def _look(self) -> None:
        if self._death is not None:
            runtime, slot, epoch = self._death
            facts = runtime.death(slot, epoch)
            if facts is not None:
                self._death = None
                self._learn(facts)

    def _learn(self, facts: tuple) -> None:
        words, pid, how, code, hints, runs, output = facts
        known = dict(self._known or {})
        actor = known.get("actor")
        number = None if actor is None else actor.number
        known.update(
            pid=pid,
            exit_code=code if how == _ENDED_EXIT else None,
            signal=code if how == _ENDED_SIGNAL else None,
            out_of_memory=bool(hints & _HINTS_MEMORY),
            method=_method_of(number, runs),
            output=output,
        )
        self._known = known
        text = re.sub(r"\(pid \d+, dying\)", f"({words})", str(self.args[0]))
        if number is not None and number & 0xFFFFFFFF:
            text += _last_words(known["method"], output)
        self.args = (text, *self.args[1:])

    def __str__(self) -> str:
        self._look()
        return super().__str__()

    def __reduce__(self):
        text = str(self)  # takes in what is known by now
        state = {name: value for name, value in vars(self).items() if name != "_death"}
        return type(self), (text, *self.args[1:]), state


_ENDED_EXIT = 1
_ENDED_SIGNAL = 2
_HINTS_MEMORY = 1 | 4
_LINES_MAX = 10
_LINE_CHARS_MAX = 200


def _method_of(actor: int | None, runs: list[tuple[int, bool, str]]) -> str | None:
    own = [method for number, _, method in runs if number == actor and method]
    others = [method for _, on_stack, method in runs if on_stack and method]
    return next(iter(own or others), None)


def _last_words(method: str | None, output: str) -> str:
    text = f"; {method}() was running" if method else ""
    lines = [line[:_LINE_CHARS_MAX] for line in output.splitlines()[-_LINES_MAX:]]
    if lines:
        text += "\nthe last that it printed:\n" + "\n".join(f"  {line}" for line in lines)
    return text


def tell_death(error: ActorDied, runtime: Any, actor: Any, slot: int, epoch: int) -> None:
    """Says of what process, and of what actor, the error speaks."""
    error._known = {"actor": actor}
    facts = runtime.death(slot, epoch)
    if facts is not None:
        error._learn(facts)
    elif ", dying)" in str(error):
        error._death = (runtime, slot, epoch)


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
