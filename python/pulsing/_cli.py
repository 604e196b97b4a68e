# SPDX-License-Identifier: Apache-2.0
"""The command line: run a node, look at its actors, call them, stop them."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from . import _core
from ._blocking import BlockingSystem, connect
from ._config import SystemConfig
from ._errors import PulsingError
from ._message import StreamMessage
from ._names import ref_of_entry
from ._stubs import main as stubs
from ._system import become_node

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")
_TIMEOUT = click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds to wait for an answer."
)


@contextmanager
def _attached(node: str) -> Iterator[BlockingSystem]:
    """The running node's system; its errors become one line and exit code 1."""
    try:
        with connect(SystemConfig.attach(node)) as system:
            yield system
    except (PulsingError, ValueError, AttributeError) as error:
        raise click.ClickException(f"{type(error).__name__}: {error}") from None


def _table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Columns as wide as their widest cell, numbers to the right."""
    cells = [[column.upper() for column in columns]]
    cells += [
        ["-" if row[column] is None else str(row[column]) for column in columns] for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    right = [all(isinstance(row[column], int) for row in rows) and bool(rows) for column in columns]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    )


def _show(rows: list[dict[str, Any]], columns: list[str], as_json: bool) -> None:
    click.echo(json.dumps(rows, indent=2) if as_json else _table(rows, columns))


def _entries(system: BlockingSystem) -> list[dict[str, Any]]:
    """The named actors of the node, with the process where each lives."""
    pids = {line[0]: (line[4], line[5]) for line in system._rt.directory()}
    data = system._rt.names_list()[7]
    rows = []
    for name, actor, slot, _, flags, class_name, _ in system._rt.names_parse(data):
        pid, worker = pids.get(slot, (None, -1))
        rows.append(
            {
                "name": name,
                "class": class_name,
                "id": f"{actor:x}",
                "public": bool(flags & 1),
                "worker": worker if worker >= 0 else None,
                "pid": pid,
            }
        )
    return sorted(rows, key=lambda row: row["name"])


_COLUMNS = ["name", "class", "worker", "pid", "public", "id"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_core.__version__, prog_name="pulsing")
def main() -> None:
    """Actors for Python inference services.

    NODE is the name that a node was started with, or the path of its socket.
    """


@main.command()
@click.option("--name", required=True, help="Others attach by this name (or a path with a '/').")
@click.option("--workers", type=click.IntRange(0, 254), help="Worker processes; default: the CPUs.")
@click.option("--memory", type=click.IntRange(min=1 << 20), help="Bytes of payloads per process.")
def node(name: str, workers: int | None, memory: int | None) -> None:
    """Run a node in the foreground. SIGTERM and Ctrl-C drain it and leave."""
    # Modules are found from where the node was started, as by `python -m`; not beside this script.
    sys.path[0] = os.getcwd()
    try:
        become_node(SystemConfig(name=name, workers=workers, memory_bytes=memory))
    except (PulsingError, ValueError) as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.argument("file", type=click.Path(dir_okay=False))
def keygen(file: str) -> None:
    """Write a new cluster key into FILE, which only you may read.

    The key is 32 random bytes as 64 hexadecimal digits. Every node of a cluster gets the same one;
    who has it is a member. A FILE that exists is never overwritten.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as target:
            os.fchmod(target.fileno(), 0o600)
            target.write(secrets.token_hex(32) + "\n")
            target.flush()
            os.fsync(target.fileno())
    except FileExistsError:
        raise click.ClickException(
            f"{file} exists; nodes may be using it, so it stays as it is. Choose another file."
        ) from None
    except OSError as error:
        raise click.ClickException(f"cannot write {file}: {error.strerror}") from None


@main.command()
@click.argument("node")
@_JSON
def actors(node: str, as_json: bool) -> None:
    """List the named actors of NODE."""
    with _attached(node) as system:
        _show(_entries(system), _COLUMNS, as_json)


@main.command()
@click.argument("node")
@_JSON
def workers(node: str, as_json: bool) -> None:
    """List the workers of NODE: how many actors each has, and how long a method holds it up."""
    with _attached(node) as system:
        _show(system.workers(), ["index", "pid", "actors", "held"], as_json)


@main.command()
@click.argument("node")
@click.argument("actor")
@click.option("--wait", type=click.FloatRange(min=0), help="Seconds to wait for the name.")
@_JSON
def find(node: str, actor: str, wait: float | None, as_json: bool) -> None:
    """Show where ACTOR of NODE lives; exit code 1 if nobody has the name."""
    with _attached(node) as system:
        if system._find(actor, wait) is None:
            raise click.ClickException(f"no actor of node {node!r} is called {actor!r}")
        rows = [row for row in _entries(system) if row["name"] == actor]
        _show(rows, _COLUMNS, as_json)


def _argument(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise click.BadParameter(
            f"{text!r} is not JSON; a text needs quotes of its own: '\"{text}\"'"
        ) from None


def _printable(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("node")
@click.argument("actor")
@click.argument("method")
@click.argument("args", nargs=-1)
@_TIMEOUT
def call(node: str, actor: str, method: str, args: tuple[str, ...], timeout: float | None) -> None:
    """Call METHOD of ACTOR with ARGS, each a JSON value; print its result as JSON.

    The items of a stream are printed a line each.
    """
    values = [_argument(text) for text in args]
    with _attached(node) as system:
        reply = system._find(actor)
        if reply is None:
            raise click.ClickException(f"no actor of node {node!r} is called {actor!r}")
        endpoint = getattr(ref_of_entry(system._rt, actor, reply), method)
        if timeout is not None:
            endpoint = endpoint.options(timeout=timeout)
        try:
            result = endpoint(*values)
            if isinstance(result, StreamMessage):
                for item in result.stream_reader():
                    click.echo(_printable(item))
            else:
                click.echo(_printable(result))
        except (PulsingError, AttributeError):
            raise
        except Exception as error:
            raise click.ClickException(f"{type(error).__name__}: {error}") from None


@main.command()
@click.argument("node")
@click.argument("actor")
@click.option("--now", is_flag=True, help="Do not handle the messages that wait.")
@_TIMEOUT
def stop(node: str, actor: str, now: bool, timeout: float | None) -> None:
    """Stop ACTOR of NODE; an unknown name is no error."""
    with _attached(node) as system:
        system.stop(actor, now=now, timeout=timeout)


main.add_command(stubs)


if __name__ == "__main__":
    main()
