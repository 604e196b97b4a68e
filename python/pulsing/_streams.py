# SPDX-License-Identifier: Apache-2.0
"""What streams need of Python: driving an async generator into a writer."""

from __future__ import annotations

import asyncio
from typing import Any

from ._errors import StreamClosed

_tasks: set[Any] = set()


def keep(loop: Any, coroutine: Any) -> Any:
    """A task that lives until it is done, whoever forgets it."""
    task = loop.create_task(coroutine)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


async def pump(generator: Any, writer: Any) -> None:
    """Writes what an async generator yields; closes it when the reader is gone.

    One that waits for its next item then is cancelled where it waits, so that its `finally` runs at
    once; one that has an item learns it by the write of that.
    """
    task = asyncio.current_task()
    left = False

    def leave() -> None:
        nonlocal left
        if generator.ag_running and task is not None:
            left = True
            task.cancel()

    writer.on_gone = leave
    try:
        async for item in generator:
            await writer.write(item)
    except StreamClosed:
        await generator.aclose()
    except BaseException as error:
        if left and isinstance(error, asyncio.CancelledError):
            return
        writer.error(error)
        await generator.aclose()
        if not isinstance(error, Exception):
            raise
    else:
        writer.close()
    finally:
        writer.on_gone = None
