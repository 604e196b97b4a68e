# SPDX-License-Identifier: Apache-2.0
"""What a test may have left behind: processes with this run's mark in their environment, and what
this process holds of the kernel's things."""

from __future__ import annotations

import os
import pathlib
import re
import secrets
import stat
import tempfile
from collections import Counter

MARK = f"PULSING_TEST_MARK={secrets.token_hex(8)}"
os.environ.update([MARK.split("=")])
# The test of this file has a folder of its own, so that test runs beside it see nothing.
SHM = pathlib.Path(os.environ.get("PULSING_TEST_SHM", "/dev/shm"))


class Holdings:
    """What this process holds of the kernel's things."""

    def __init__(self):
        self.fds = Counter()
        for fd in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{fd}")
            except OSError:
                continue
            self.fds[re.sub(r":\[\d+\]$", "", target)] += 1
        self.fds.pop(f"/proc/{os.getpid()}/fd", None)
        maps = pathlib.Path("/proc/self/maps").read_text()
        self.maps = Counter(re.findall(r"(/memfd:\S*)", maps))
        self.shm = set(os.listdir(SHM))
        self.sockets = bound_sockets()
        self.socket_files = socket_files(tempfile.gettempdir()) | socket_files(os.getcwd())

    def more_than(self, other: Holdings) -> list[str]:
        more = [f"{count} descriptors of {what}" for what, count in (self.fds - other.fds).items()]
        more += [f"{count} mappings of {what}" for what, count in (self.maps - other.maps).items()]
        return more


def bound_sockets() -> dict[str, int]:
    """Names of bound Unix sockets, abstract ones with a leading @, and an inode of each."""
    lines = pathlib.Path("/proc/net/unix").read_text().splitlines()[1:]
    fields = [line.split(maxsplit=7) for line in lines]
    return {entry[7]: int(entry[6]) for entry in fields if len(entry) == 8}


def socket_files(folder: str | os.PathLike[str]) -> set[str]:
    """Sockets that have a name in this folder, whether anybody still listens there or not."""
    found = set()
    for entry in os.scandir(folder):
        try:
            if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                found.add(entry.path)
        except OSError:
            continue
    return found


def strangers_sockets() -> set[int]:
    """Inodes of sockets that living processes hold which are neither this one nor marked."""
    own = {os.getpid(), *marked_processes()}
    held: set[int] = set()
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        if int(process.name) in own:
            continue
        try:
            links = " ".join(os.readlink(fd) for fd in (process / "fd").iterdir())
        except OSError:
            continue
        held.update(map(int, re.findall(r"socket:\[(\d+)\]", links)))
    return held


def sockets_left(before: Holdings, now: Holdings) -> list[str]:
    names = now.sockets.keys() - before.sockets.keys()
    files = now.socket_files - before.socket_files
    if not names and not files:
        return []
    strange = strangers_sockets()
    left = {name for name in names if now.sockets[name] not in strange}
    left |= {file for file in files if now.sockets.get(file) not in strange}
    return [f"the socket {name}" for name in sorted(left)]


def marked_processes() -> dict[int, str]:
    """Living processes that some test has started, with their command lines."""
    found = {}
    mark = MARK.encode()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb", buffering=0) as file:
                environment = file.readall()
            if mark in environment and mark in environment.split(b"\0"):
                command = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes()
                found[int(entry)] = command.replace(b"\0", b" ").decode(errors="replace")[:200]
        except OSError:
            continue
    return found


def dead_child() -> int | None:
    """The pid of an ended child that nobody has waited for."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if ended is None else ended.si_pid


def held_files() -> set[str]:
    """Names of shared memory files that a living process has open or mapped."""
    held: set[str] = set()
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            held.update(re.findall(rf"{re.escape(str(SHM))}/(\S+)", (process / "maps").read_text()))
            held.update(os.readlink(fd).rpartition("/")[2] for fd in (process / "fd").iterdir())
        except OSError:
            continue
    return held


def leftovers(before: Holdings, whole: bool) -> list[str]:
    """What is still there that was not there before; `whole`: this process's own things as well."""
    left = [f"process {pid}: {command}" for pid, command in marked_processes().items()]
    if not whole:
        return left
    now = Holdings()
    left += now.more_than(before)
    left += sockets_left(before, now)
    child = dead_child()
    if child is not None:
        left.append(f"the ended child {child}, which nobody has waited for")
    new = now.shm - before.shm
    if new:  # else nobody's maps have to be read
        left += [str(SHM / name) for name in new - held_files() if (SHM / name).exists()]
    return left
