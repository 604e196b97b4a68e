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
from collections.abc import Iterator
from typing import Any

log = logging.getLogger("pulsing")

# Futures looked at: more are between a call and its handler in no program that is read by people.
_STEPS_MAX = 256
_WORKER = 2


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
    """Whether one of `tasks` is suspended until `future` is done; None: the task that runs now."""
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
