# SPDX-License-Identifier: Apache-2.0
"""Calls that wait: whether a task is suspended until one of them ends, and the log of slow ones.

A task waits for a future if the future's end wakes it: at once, or by way of other tasks and of
what asyncio builds of futures (`gather`, `wait`, `wait_for`, `shield`, task groups). What is not
known to be such a way is none: a call that merely runs beside a handler holds nothing up.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Iterator
from typing import Any

from ._errors import AskCancelled, SystemClosed

log = logging.getLogger("pulsing")

# Futures looked at: more are between a call and its handler in no program that is read by people.
_STEPS_MAX = 256
_WORKER = 2
# Exceptions that nobody took: logged in a second.
_UNREAD_MAX = 20
_unread_from = 0.0
_unread = 0


def _free_variables(function: Any) -> dict[str, Any]:
    code = getattr(function, "__code__", None)
    if code is None or not function.__closure__:
        return {}
    values = {}
    for name, cell in zip(code.co_freevars, function.__closure__, strict=True):
        try:
            values[name] = cell.cell_contents
        except ValueError:
            continue  # not yet bound
    return values


def _woken_by(callback: Any) -> Iterator[Any]:
    """The futures that a done-callback may complete or wake."""
    while isinstance(callback, functools.partial):
        yield from (one for one in callback.args if asyncio.isfuture(one))
        callback = callback.func
    owner = getattr(callback, "__self__", None)
    if asyncio.isfuture(owner):
        yield owner
    elif (group_end := getattr(owner, "_on_completed_fut", None)) is not None:
        yield group_end
    free = _free_variables(callback)
    if free.get("return_when") == asyncio.FIRST_COMPLETED:
        return  # asyncio.wait() for whichever comes first: another one may
    yield from (one for one in free.values() if asyncio.isfuture(one))


def wakes_any(future: Any, tasks: list[Any]) -> bool:
    """Whether one of `tasks` is suspended until `future` is done.

    None stands for the task that runs now, False for one that stepped aside for a turn of the loop.
    """
    if future is False:
        return any(getattr(task, "_fut_waiter", future) is None for task in tasks)
    todo = [asyncio.current_task() if future is None else future]
    seen: set[int] = set()
    while todo and len(seen) < _STEPS_MAX:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        if any(one is task for task in tasks):
            return True
        seen.add(id(one))
        for entry in getattr(one, "_callbacks", None) or ():
            todo.extend(_woken_by(entry[0] if isinstance(entry, tuple) else entry))
    return False


def report_unread(label: str | None, words: str, error: BaseException) -> None:
    """Logs the exception of a call that nobody awaited; a flood of them is cut short."""
    global _unread_from, _unread
    if isinstance(error, (SystemClosed, AskCancelled)):
        return
    now = time.monotonic()
    if now - _unread_from > 1:
        if _unread > _UNREAD_MAX:
            log.error("%d more exceptions of calls that nobody awaited", _unread - _UNREAD_MAX)
        _unread_from, _unread = now, 0
    _unread += 1
    if _unread <= _UNREAD_MAX:
        cause = error.__cause__
        log.error(
            "%s of actor %s failed and nobody has awaited the call:\n%s",
            f"{label}()" if label else "a message",
            words,
            f"{type(error).__name__}: {error}" if cause is None else str(cause).rstrip(),
        )


def report(runtime: Any, label: str | None, words: str, seconds: float, slot: int, epoch: int):
    """Logs a call that has waited for long, with whom it waits for."""
    what = f"{label}()" if label else "a message"
    log.warning(
        "%s of %s has not been answered for %.3g s; it waits for %s",
        what,
        words if words == "the system" else f"actor {words}",
        seconds,
        _place(runtime, slot, epoch),
    )


def _place(runtime: Any, slot: int, epoch: int) -> str:
    if slot == runtime.slot:
        return "this process"
    for line in runtime.directory():
        if line[0] == slot and line[1] == epoch:
            kind = "process"
            if line[3] == _WORKER:
                kind = f"worker {line[5]}" if line[5] >= 0 else "a dedicated worker"
            return f"{kind} (pid {line[4]})"
    return "a process that is gone"
