# SPDX-License-Identifier: Apache-2.0
"""A worker process: an event loop whose selector takes in messages before it sleeps."""

from __future__ import annotations

import asyncio
import importlib
import logging
import math
import os
import select
import selectors
import signal
import sys
import threading
import traceback
from typing import Any

from . import _core
from ._config import SystemConfig
from ._recycle import Recycler
from ._system import WorkerSystem


class _Selector(selectors.EpollSelector):
    """Looks at the ring for a moment, and handles messages, before the loop sleeps and as soon as
    it wakes."""

    def __init__(self):
        super().__init__()
        self._runtime: Any = None
        self._event_fd = -1

    def attach(self, runtime: Any) -> None:
        """From now on the runtime's messages are taken in here."""
        self._runtime = runtime
        self._event_fd = runtime.event_fd
        self.register(self._event_fd, selectors.EVENT_READ, None)

    def select(self, timeout=None):
        timeout = self._runtime.before_sleep(timeout)
        if timeout is None:
            timeout = -1
        elif timeout > 0:
            timeout = math.ceil(timeout * 1e3) * 1e-3
        ready = []
        poll, keys = self._selector.poll, self._fd_to_key  # type: ignore[attr-defined]
        for fd, event in poll(timeout, max(len(keys), 1)):
            if fd == self._event_fd:
                self._runtime.after_sleep()
                continue
            key = keys.get(fd)
            if key is not None:
                mask = (event & ~select.EPOLLIN and selectors.EVENT_WRITE) | (
                    event & ~select.EPOLLOUT and selectors.EVENT_READ
                )
                ready.append((key, mask & key.events))
        return ready


class _RecyclingSelector(_Selector):
    """Asks before each turn whether this worker has done enough."""

    recycler: Recycler

    def select(self, timeout=None):
        self.recycler.look()
        return super().select(timeout)


def settings_of(packed: bytes) -> dict[str, Any]:
    """What the program that made the system wants of its workers; functions are still bytes."""
    return _core.decode(packed)


def preload(settings: dict[str, Any]) -> None:
    """Loads what the template shall share with its workers."""
    if settings["preload"] is None:
        return
    wanted = _core.decode(settings["preload"])
    if callable(wanted):
        wanted()
    else:
        for name in wanted:
            importlib.import_module(name)
    others = [t.name for t in threading.enumerate() if t is not threading.current_thread()]
    if others:
        raise RuntimeError(
            f"preload has left threads running ({', '.join(others)}): a fork does not copy them, "
            "so workers would wait for them in vain. Do that in setup=, or use start='exec'"
        )


def _prepare(settings: dict[str, Any]) -> None:
    level = settings["logging"]
    if level is not None:
        # As the program has it, but for where it goes: the node forwards standard error.
        logging.basicConfig(
            level=level, stream=sys.stderr, format="%(levelname)s:%(name)s:%(message)s"
        )
    preload(settings)
    if settings["setup"] is not None:
        _core.decode(settings["setup"])()


def main(control: int, settings: dict[str, Any], info: dict[str, Any]) -> int:
    """Runs a worker until its node ends it; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _prepare(settings)
    except BaseException:
        traceback.print_exc()
        return 1
    selector = _RecyclingSelector() if settings["recycle"] else _Selector()
    loop = asyncio.SelectorEventLoop(selector)
    asyncio.set_event_loop(loop)
    rt = _core.Runtime(control, worker=True, loop=loop, hooked=True)
    config = SystemConfig(
        stop_timeout=settings["stop_timeout"], slow_ask=settings["slow_ask"], workers=0
    )
    selector.attach(rt)
    system = WorkerSystem(rt, config, None, loop)
    system._listen()
    if isinstance(selector, _RecyclingSelector):
        selector.recycler = Recycler(system, settings["recycle"])
    if info["dedicated"]:
        system._host.when_empty = lambda: loop.call_later(0.05, _stop_if_empty, system, loop)
    try:
        loop.run_forever()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


def _stop_if_empty(system: WorkerSystem, loop: Any) -> None:
    if not system._host.actors:
        loop.stop()
