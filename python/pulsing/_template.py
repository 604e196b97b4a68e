# SPDX-License-Identifier: Apache-2.0
"""The warm process from which workers are forked.

The node runs this file as a script. It imports what a worker needs, tells the node that it is
ready, and forks a worker for each request that comes over its socket. The worker is the child of a
process that ends at once, so that the node adopts it: the template's own end is then nobody's loss.

Nothing here may start a thread or a loop: both would be copied into every worker half alive.
"""

import os
import sys

# As in node/process/template.h.
SOCKET_FD = 3
SETTINGS_FD = 4
INFO_FD = 5
REQUEST_BYTES_MAX = 65536
REQUEST_FDS = 3

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


def _settings():
    """What the node wrote for us: the system's name, the node's pid, sys.path."""
    name, node, path = "", 0, []
    for field in _read_all(SETTINGS_FD).split(b"\0"):
        key, _, value = field.partition(b"=")
        if key == b"name":
            name = os.fsdecode(value)
        elif key == b"node":
            node = int(value)
        elif key == b"path":
            path.append(os.fsdecode(value))
    return name, node, path


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


def _worker_info(fields, name, setup):
    _, slot, _epoch, index, cpus, *environment = fields
    if cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(b",")})
    for entry in environment:
        key, equals, value = entry.partition(b"=")
        if equals:
            os.environb[key] = value
        elif key:
            os.environb.pop(key, None)
    label = b"pulsing-w" + index if index else b"pulsing-d" + slot
    _prctl(PR_SET_NAME, label[:15] + b"\0")
    return {
        "index": int(index) if index else None,
        "dedicated": not index,
        "name": name,
        "setup": setup,
    }


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


def main():
    import gc

    gc.disable()
    name, node, path = _settings()
    sys.path[:] = path or sys.path[1:]
    if "distutils" in sys.argv[1:] and sys.flags.no_site:
        import _distutils_hack  # type: ignore[import-untyped]

        _distutils_hack.add_shim()
    _site_builtins()
    setup = _read_all(INFO_FD)
    import asyncio  # noqa: F401  (warm for every worker)

    import pulsing._worker as worker

    _preload(os.environ.pop("PULSING_PRELOAD", ""))
    sys.argv[:] = [""]
    gc.freeze()
    work = _serve(node)
    if work is None:
        return 0
    gc.enable()
    fields, control = work
    # Lines reach the node when they are printed, though its end is a pipe.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return worker.main(control, _worker_info(fields, name, setup))


if __name__ == "__main__":
    sys.exit(main())
