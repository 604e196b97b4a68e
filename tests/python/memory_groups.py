# SPDX-License-Identifier: Apache-2.0
"""Cgroups that limit memory, for tests in which the kernel kills for want of it."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest


def _own_group():
    """The directory of this process's cgroup in the hierarchy that limits memory, or None."""
    lines = [line.rstrip("\n").split(":", 2) for line in open("/proc/self/cgroup")]
    mounts = [line.split() for line in open("/proc/mounts")]
    for controllers, kind in (("memory", "cgroup"), ("", "cgroup2")):
        for _, names, path in lines:
            if controllers not in names.split(","):
                continue
            for _, point, found, options, *_ in mounts:
                if found == kind and (kind == "cgroup2" or "memory" in options.split(",")):
                    return Path(point + path)
    return None


@contextlib.contextmanager
def memory_group(name, bytes_max):
    """A fresh cgroup whose processes may use that much memory, and no swap; gone when they are.
    Skips the test where none can be made."""
    own = _own_group()
    if own is None:
        pytest.skip("no cgroup hierarchy limits memory here")
    group = own / f"pulsing-{name}-{os.getpid()}"
    try:
        group.mkdir()
        limit = group / "memory.limit_in_bytes"
        (limit if limit.exists() else group / "memory.max").write_text(str(bytes_max))
        swap = group / "memory.swap.max"
        if swap.exists():
            swap.write_text("0")
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"a cgroup with a memory limit cannot be made here: {error}")
    try:
        yield group
    finally:
        end = time.monotonic() + 10
        while True:
            try:
                group.rmdir()
                break
            except OSError:
                assert time.monotonic() < end, "the cgroup does not become empty"
                time.sleep(0.05)
