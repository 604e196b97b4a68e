# SPDX-License-Identifier: Apache-2.0
"""A worker process: an event loop whose selector takes in messages before it sleeps."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import sys
import traceback
from typing import Any

from . import _core
from ._config import SystemConfig
from ._system import WorkerSystem


class _Selector(selectors.EpollSelector):
    """Looks at the ring for a moment, and handles messages, before the loop sleeps."""

    def __init__(self):
        super().__init__()
        self.before_sleep: Any = None

    def select(self, timeout=None):
        if self.before_sleep is not None:
            timeout = self.before_sleep(timeout)
        return super().select(timeout)


def _setup(info: dict[str, Any]) -> dict[str, Any]:
    settings = _core.decode(info["setup"]) if info["setup"] else {}
    function = settings.get("setup")
    if function is not None:
        function()
    return settings


def main(control: int, info: dict[str, Any]) -> int:
    """Runs a worker until its node ends it; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        settings = _setup(info)
    except BaseException:
        traceback.print_exc()
        return 1
    selector = _Selector()
    loop = asyncio.SelectorEventLoop(selector)
    asyncio.set_event_loop(loop)
    rt = _core.Runtime(control, worker=True, loop=loop, hooked=True)
    config = SystemConfig(stop_timeout=settings.get("stop_timeout", 10.0), workers=0)
    system = asyncio_run_soon(loop, rt, config)
    selector.before_sleep = rt.before_sleep
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


def asyncio_run_soon(loop: Any, rt: Any, config: SystemConfig) -> WorkerSystem:
    """The system, made before the loop runs."""
    system = WorkerSystem(rt, config, None, loop)
    system._listen()
    return system
