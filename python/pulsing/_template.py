# SPDX-License-Identifier: Apache-2.0
"""The warm process from which workers are forked.

The node runs this file as a script. It imports what a worker needs, tells the node that it is
ready, and forks a worker for each request that comes over its socket. The worker is the child of a
process that ends at once, so that the node adopts it: the template's own end is then nobody's loss.

Some variables are read when a process starts, or when a library is loaded that the template has
loaded already. A worker that gets one of them runs this file again, in the same process, with the
word `worker` behind: it keeps its pid, so nobody else notices.

Nothing here may start a thread or a loop: both would be copied into every worker half alive.
"""

from __future__ import annotations

import os
import sys

# As in node/process/template.h.
SOCKET_FD = 3
SETTINGS_FD = 4
INFO_FD = 5
REQUEST_BYTES_MAX = 65536
REQUEST_FDS = 3

# As in node/process/environment.c.
THREAD_NAMES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# Read by the loader, the allocator or the interpreter at its start.
_EXEC_PREFIXES: tuple[str, ...] = ("LD_", "GLIBC_", "MALLOC_", "PYTHON", "LC_")
_EXEC_NAMES = ("LANG", "LANGUAGE")
# Read when a library is loaded, of which the template may have loaded some.
_LIBRARY_PREFIXES = ("OMP_", "GOMP_", "KMP_", "OPENBLAS_", "MKL_", "BLIS_", "NUMEXPR_", "VECLIB_")

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
SIGKILL = 9


def argv():
    """The command line with which a node should start the template of the running interpreter.

    `-S` saves the work of `site`, which is most of an interpreter's start in a well-filled
    environment. The workers get this process's `sys.path`, so it is missed only where something
    hooked the import system or the start itself, and then it is not used.
    """
    import subprocess

    stock = ("BuiltinImporter", "FrozenImporter", "PathFinder", "DistutilsMetaFinder")
    names = [getattr(finder, "__name__", type(finder).__name__) for finder in sys.meta_path]
    plain = (
        all(name in stock for name in names)
        and "sitecustomize" not in sys.modules
        and "usercustomize" not in sys.modules
    )
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    if plain and "-S" not in flags:
        flags.append("-S")
    hack = ["distutils"] if "DistutilsMetaFinder" in names else []
    return [sys.executable, *flags, os.path.abspath(__file__), *hack]


def _read_all(fd):
    parts = []
    at = 0
    while part := os.pread(fd, 1 << 20, at):
        parts.append(part)
        at += len(part)
    os.close(fd)
    return b"".join(parts)


def _prctl(option, argument):
    """prctl(2) without the cost of importing ctypes."""
    import _ctypes

    address = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # type: ignore[arg-type]
    return _ctypes.call_function(address, (option, argument, 0, 0, 0))


def _start_settings():
    """What the node wrote for us: the system's name, the node's pid, sys.path; and the bytes."""
    name, node, path = "", 0, []
    data = _read_all(SETTINGS_FD)
    for field in data.split(b"\0"):
        key, _, value = field.partition(b"=")
        if key == b"name":
            name = os.fsdecode(value)
        elif key == b"node":
            node = int(value)
        elif key == b"path":
            path.append(os.fsdecode(value))
    return name, node, path, data


def _site_builtins():
    """With -S the names that `site` adds to builtins are still there for user code."""
    if sys.flags.no_site:
        import site

        site.setquit()
        site.setcopyright()
        site.sethelper()


def _worker_begin(node, middle, fds):
    """In the forked worker: tie it to the node, give it its output, drop what is not its own."""
    while os.getppid() == middle:
        os.sched_yield()
    _prctl(PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() != node:
        os._exit(1)
    control, out, err = fds
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    os.close(SOCKET_FD)
    return control


def _environment(index, fields, settings):
    """What this worker gets beside the template's environment: {name: value or None}."""
    changes: dict[str, str | None] = {}
    cpus = settings["cpus"][index] if settings["cpus"] and index is not None else None
    if cpus is not None:
        changes.update((name, str(len(cpus))) for name in settings["threads"])
    changes.update(settings["every"] or {})
    if settings["env"] and index is not None:
        changes.update(settings["env"][index])
    for entry in fields:
        name, equals, value = entry.partition(b"=")
        if name:
            changes[os.fsdecode(name)] = os.fsdecode(value) if equals else None
    return {name: value for name, value in changes.items() if os.environ.get(name) != value}


def _needs_exec(changes, settings):
    prefixes = _EXEC_PREFIXES
    if "numpy" in sys.modules or settings["preload"] is not None:
        prefixes += _LIBRARY_PREFIXES
    return settings["exec"] or any(
        name.startswith(prefixes) or name in _EXEC_NAMES for name in changes
    )


def _apply(fields, settings):
    """Gives a worker its CPUs and environment; (its index, whether it has to be run anew)."""
    index_text, cpus, environment = fields[3], fields[4], fields[5:]
    index = int(index_text) if index_text else None
    if settings["cpus"] and index is not None and settings["cpus"][index] is not None:
        os.sched_setaffinity(0, settings["cpus"][index])
    if cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(b",")})
    changes = _environment(index, environment, settings)
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    return index, _needs_exec(changes, settings)


def _parked(fd):
    """The same descriptor out of the way of those with fixed numbers."""
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16)


def _memfd(data):
    made = os.memfd_create("pulsing-worker", os.MFD_CLOEXEC)
    with open(made, "wb", closefd=False) as file:
        file.write(data)
    return _parked(made)


def _exec(control, index, slot, start, info):
    """Runs this file again, as the same process, with the environment that it has now."""
    kept = (_parked(control), _memfd(start), _memfd(info))
    for fd, fixed in zip(kept, (SOCKET_FD, SETTINGS_FD, INFO_FD), strict=True):
        os.dup2(fd, fixed)
    command = [part for part in sys.orig_argv if part != "distutils"]
    hack = ["distutils"] if len(command) < len(sys.orig_argv) else []
    text = "" if index is None else str(index)
    os.execv(sys.executable, [*command, *hack, "worker", text, os.fsdecode(slot)])


def _worker_info(index, slot, name):
    label = f"pulsing-d{slot}" if index is None else f"pulsing-w{index}"
    _prctl(PR_SET_NAME, os.fsencode(label)[:15] + b"\0")
    return {"index": index, "dedicated": index is None, "name": name}


def _serve(node):
    """Fork for each request; gives (fields, control fd) in a worker, None when the node is gone."""
    import socket

    channel = socket.socket(fileno=SOCKET_FD)
    channel.send(b"ready\0")
    while True:
        data, fds, flags, _ = socket.recv_fds(channel, REQUEST_BYTES_MAX, REQUEST_FDS)
        if not data:
            return None
        if len(fds) != REQUEST_FDS or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise SystemExit("pulsing: a request for a worker arrived incomplete")
        for fd in fds:
            os.set_inheritable(fd, False)
        fields = data.split(b"\0")
        fields = fields if fields[-1] else fields[:-1]
        middle = os.fork()
        if middle == 0:
            me = os.getpid()
            worker = os.fork()
            if worker == 0:
                channel.detach()
                return fields, _worker_begin(node, me, fds)
            # Before this process ends and the worker becomes the node's child.
            channel.send(b"forked\0%s\0%s\0%d\0" % (fields[1], fields[2], worker))
            os._exit(0)
        for fd in fds:
            os.close(fd)
        os.waitpid(middle, 0)


def _preload(names):
    """Imports what the program has imported and every worker would import again by itself."""
    import importlib

    for module in filter(None, names.split(",")):
        try:
            importlib.import_module(module)
        except ImportError:
            pass  # whoever needs it gets the error where it is needed


def _begin():
    """What template and fresh workers do first: (name, node, start bytes, info bytes)."""
    name, node, path, start = _start_settings()
    sys.path[:] = path or sys.path[1:]
    if "distutils" in sys.argv[1:] and sys.flags.no_site:
        import _distutils_hack  # type: ignore[import-untyped]

        _distutils_hack.add_shim()
    _site_builtins()
    return name, node, start, _read_all(INFO_FD)


def _fresh(index, slot):
    """The worker that has been run anew: everything is set, and nothing is loaded yet."""
    name, _, _, info = _begin()
    control = _parked(SOCKET_FD)
    os.close(SOCKET_FD)
    sys.argv[:] = [""]
    import pulsing._worker as worker

    settings = worker.settings_of(info)
    return _run(worker, control, settings, _worker_info(int(index) if index else None, slot, name))


def _run(worker, control, settings, info):
    # Lines reach the node when they are printed, though its end is a pipe.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return worker.main(control, settings, info)


def main():
    import gc

    if "worker" in sys.argv[1:]:
        return _fresh(*sys.argv[-2:])
    gc.disable()
    name, node, start, packed = _begin()
    import asyncio  # noqa: F401  (warm for every worker)

    import pulsing._worker as worker

    _preload(os.environ.pop("PULSING_PRELOAD", ""))
    sys.argv[:] = [""]
    settings = worker.settings_of(packed)
    if not settings["exec"]:
        worker.preload(settings)
    gc.freeze()
    work = _serve(node)
    if work is None:
        return 0
    gc.enable()
    fields, control = work
    index, anew = _apply(fields, settings)
    if anew:
        _exec(control, index, fields[1], start, packed)
    settings["preload"] = None
    return _run(worker, control, settings, _worker_info(index, os.fsdecode(fields[1]), name))


if __name__ == "__main__":
    sys.exit(main())
