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
from click.core import ParameterSource

from . import _core, _names, _node_file
from ._blocking import BlockingSystem, connect
from ._config import SystemConfig, _address, _is_key
from ._errors import PulsingError
from ._message import StreamMessage
from ._stubs import main as stubs
from ._system import become_node, wait_ms

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")
_TIMEOUT = click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds to wait for an answer."
)


_ON = click.option(
    "--on", metavar="MEMBER", help="Another node that has the actor: its name, address or id."
)


class _Address(click.ParamType):
    """host:port; a list of them in an environment variable is separated by commas."""

    name = "host:port"
    envvar_list_splitter = ","

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            return _address(param.name, value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


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


def _elsewhere(system: BlockingSystem, actor: str) -> list[dict[str, Any]]:
    """The public actors of a name on other nodes, of which no more is known here than where."""
    nodes = {row["node_id"]: row for row in system.members()}
    rows = []
    for ref in system.find_all(actor):
        node_id = str(ref.actor_id.node_id)
        if node_id == system.node_id:
            continue
        member = nodes.get(node_id, {})
        rows.append(
            {
                "node": member.get("name") or node_id,
                "node_id": node_id,
                "name": actor,
                "class": None,
                "id": f"{ref.actor_id.number:x}",
                "public": True,
                "worker": None,
                "pid": None,
            }
        )
    return rows


_COLUMNS = ["name", "class", "worker", "pid", "public", "id"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_core.__version__, prog_name="pulsing")
def main() -> None:
    """Actors for Python inference services.

    NODE is the name that a node was started with, or the path of its socket.
    """


def _read_config(ctx: click.Context, _: Any, path: str | None) -> None:
    """What the file says is taken where neither a flag nor the environment says anything."""
    if path is not None:
        try:
            ctx.default_map = _node_file.read(path)
        except ValueError as error:
            raise click.ClickException(str(error)) from None


def _key_file(ctx: click.Context, param: Any, value: str | None) -> str | None:
    """Other users of the host see a program's arguments, and may read its configuration."""
    hidden = ctx.get_parameter_source(param.name) == ParameterSource.ENVIRONMENT
    if value is not None and not hidden and _is_key(os.path.basename(value)):
        raise click.BadParameter("expected the path of a file, as `pulsing keygen` writes it")
    return value


def _setting(flag: str, variable: str, **options: Any) -> Any:
    return click.option(flag, envvar=f"PULSING_{variable}", show_envvar=True, **options)


@main.command()
@_setting("--name", "NAME", required=True, help="Others attach by it (or a path with a '/').")
@_setting("--addr", "ADDR", type=_Address(), help="Where to listen for other nodes; port 0: any.")
@_setting("--advertise", "ADVERTISE", type=_Address(), help="The address that others are told.")
@_setting("--seeds", "SEEDS", type=_Address(), multiple=True, help="A node to join; repeatable.")
@_setting("--cluster-key", "CLUSTER_KEY", metavar="FILE", callback=_key_file, help="Its secret.")
@_setting("--workers", "WORKERS", type=click.IntRange(0, 254), help="Default: the CPUs.")
@_setting(
    "--memory", "MEMORY_BYTES", type=click.IntRange(min=1 << 20), help="Payload bytes per process."
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    help="TOML, with a key for each of these; flags and environment go before it.",
)
def node(memory: int | None, **settings: Any) -> None:
    """Run a node in the foreground. SIGTERM and Ctrl-C drain it and leave."""
    # Modules are found from where the node was started, as by `python -m`; not beside this script.
    sys.path[0] = os.getcwd()
    try:
        become_node(SystemConfig(memory_bytes=memory, **settings))
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
def members(node: str, as_json: bool) -> None:
    """List the nodes of the cluster, as NODE sees them, itself included."""
    with _attached(node) as system:
        rows = sorted(system.members(), key=lambda row: (row["name"] or "", row["node_id"]))
        _show(rows, ["name", "addr", "status", "node_id"], as_json)


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
    """Show where ACTOR lives, on NODE or another node; exit code 1 if nobody has the name."""
    with _attached(node) as system:
        reply = system._rt.name_find(actor, wait_ms(wait), 0)
        if reply[0] != 0:
            raise _unknown(node, actor)
        own = {"node": node, "node_id": str(system.node_id)}
        rows = [{**own, **row} for row in _entries(system) if row["name"] == actor]
        rows += _elsewhere(system, actor)
        _show(rows, ["node", *_COLUMNS], as_json)


def _unknown(node: str, actor: str) -> click.ClickException:
    return click.ClickException(f"no actor of node {node!r} or its cluster is called {actor!r}")


def _member(system: BlockingSystem, text: str) -> str:
    """The id of the node that somebody means."""
    rows = [row for row in system.members() if row["status"] in ("Alive", "Suspect")]
    found = [row for row in rows if text in (row["name"], row["addr"], row["node_id"])]
    if len(found) != 1:
        known = ", ".join(sorted(row["name"] or row["node_id"] for row in rows))
        raise click.ClickException(f"no node is called {text!r}; there are {known}")
    return found[0]["node_id"]


def _ref(system: BlockingSystem, node: str, actor: str, on: str | None) -> Any:
    """The ref of an actor: of NODE, else of another node; or of the one that `--on` names."""
    if on is not None and system.node_id != (member := _member(system, on)):
        for ref in system.find_all(actor):
            if ref.actor_id.node_id == member:
                return ref
        raise click.ClickException(f"no public actor of node {on!r} is called {actor!r}")
    reply = system._rt.name_find(actor, 0, 0 if on is None else _names.LOCAL)
    if reply[0] != 0:
        raise _unknown(node, actor)
    return _names.ref_of(system._rt, actor, reply)


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
@_ON
def call(
    node: str,
    actor: str,
    method: str,
    args: tuple[str, ...],
    timeout: float | None,
    on: str | None,
) -> None:
    """Call METHOD of ACTOR with ARGS, each a JSON value; print its result as JSON.

    ACTOR is NODE's, else that of another node. The items of a stream are printed a line each.
    """
    values = [_argument(text) for text in args]
    with _attached(node) as system:
        endpoint = getattr(_ref(system, node, actor, on), method)
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
@_ON
def stop(node: str, actor: str, now: bool, timeout: float | None, on: str | None) -> None:
    """Stop ACTOR of NODE; an unknown name is no error. One of another node is stopped --on it."""
    with _attached(node) as system:
        if on is not None:
            system.stop(_ref(system, node, actor, on), now=now, timeout=timeout)
        elif system._find(actor) is None and (there := _elsewhere(system, actor)):
            names = ", ".join(row["node"] for row in there)
            raise click.ClickException(
                f"{actor!r} is no actor of node {node!r}, but of {names}; say which: --on NAME"
            )
        else:
            system.stop(actor, now=now, timeout=timeout)


main.add_command(stubs)


if __name__ == "__main__":
    main()
