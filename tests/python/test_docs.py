# SPDX-License-Identifier: Apache-2.0
"""The pages for users, run: each part of docs/guide.md as a notebook would run it, with a real node
and real workers; results that comments state are compared."""

from __future__ import annotations

import ast
import asyncio
import pathlib
import re
import subprocess
import sys
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guide.md").read_text()
BEGINNING, *PARTS = re.split(r"^## ", GUIDE, flags=re.MULTILINE)
PARTS = {part.split("\n", 1)[0]: part for part in PARTS}
_FENCE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def blocks(text):
    """The code of a part: (what runs in it, programs by their file's name)."""
    found = _FENCE.findall(text)
    programs = {}
    for block in found:
        named = re.match(r"# (\w+\.py)\n", block)
        if named:
            programs[named[1]] = block
    return [block for block in found if block not in programs.values()], programs


class _Noting(ast.NodeTransformer):
    """Behind a statement whose comment states a result, a look at what it was."""

    def __init__(self, source):
        self.lines = source.splitlines()
        self.stated = []

    def visit(self, node):
        node = super().generic_visit(node)
        if not isinstance(node, (ast.Expr, ast.Assign)):
            return node
        comment = re.search(r"  # (.+)$", self.lines[node.end_lineno - 1])
        try:
            value = ast.literal_eval(comment[1]) if comment else None
        except (ValueError, SyntaxError):
            comment = None
        if comment is None:
            return node
        self.stated.append((node.lineno, value))
        note = ast.parse(f"_found[{node.lineno}] = _").body
        if isinstance(node, ast.Expr):
            node = ast.Assign([ast.Name("_", ast.Store())], node.value)
        else:
            note = ast.parse(f"_found[{node.lineno}] = {ast.unparse(node.targets[0])}").body
        return [ast.copy_location(n, self.anchor(note)) for n in (node, *note)]

    @staticmethod
    def anchor(note):
        return note[0]


async def play(source, space):
    """Runs code with awaits at its top; the stated results that are not what was found."""
    noting = _Noting(source)
    tree = ast.fix_missing_locations(noting.visit(ast.parse(source)))
    code = compile(tree, "guide", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    found = space["_found"] = {}
    result = types.FunctionType(code, space)()
    if result is not None:
        await result
    return [
        f"{source.splitlines()[line - 1]}  -- found {found.get(line, 'nothing')!r}"
        for line, value in noting.stated
        if line not in found or found[line] != value
    ], len(noting.stated)


@pytest.mark.parametrize("name", PARTS)
async def test_a_part_of_the_guide_runs_and_its_results_are_those_it_states(name, tmp_path):
    code, programs = blocks(PARTS[name])
    assert code or programs, "a part without code"
    stated = 0
    if code:
        space = {"__name__": "guide"}
        (beginning,), _ = blocks(BEGINNING)
        await play(beginning, space)
        try:
            if name != "Actors":
                await play("\n".join(_classes("Actors", "Messages")), space)
            for block in code:
                wrong, count = await play(block, space)
                assert wrong == []
                stated += count
        finally:
            await space["system"].shutdown()
    for file, program in programs.items():
        (tmp_path / file).write_text(program)
        command = [sys.executable, file]
        done = await asyncio.to_thread(
            subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        said = re.findall(r"print\(.*\)  # (.*)", program)
        assert done.stdout.splitlines() == said
        stated += len(said)
    assert stated > 0, "a part that states no result"


def _classes(*names):
    """What other parts use of the first ones: their classes."""
    for name in names:
        for block in blocks(PARTS[name])[0]:
            for node in ast.parse(block).body:
                if isinstance(node, ast.ClassDef) and node.name in ("Counter", "Journal"):
                    yield ast.unparse(node)


def test_a_wrong_result_is_seen():
    wrong, count = asyncio.run(play("x = 1 + 1  # 3\nx  # 2\nif x:\n    x  # 5\n", {}))
    assert count == 3 and [line.split("  --")[0] for line in wrong] == [
        "x = 1 + 1  # 3",
        "    x  # 5",
    ]


CALLS = """
    ActorSystem.create create_actor_system SystemConfig.standalone SystemConfig.attach with_workers
    with_addr with_seeds with_ask_timeout system.spawn system.find system.resolve system.has_actor
    system.stop system.shutdown system.watch system.actor_ref .local( as_actor Actor ActorContext
    receive Message.single Message( Message.from_json to_json Message.stream msg_type payload
    .ask( .tell( .options( StreamMessage.create writer.write writer.close writer.error
    stream_reader buffer_size actor_id node_id worker_id is_cancelled cancel_token deadline sender
    ctx.actor_ref ctx.schedule current_context public=True public=False on_start on_stop metadata
    restart= max_restarts min_backoff max_backoff ActorFailed ActorDied ActorExists ActorNotFound
    AskTimeout DeadlockError MailboxFull StreamClosed mailbox= overflow= max_concurrency thread=True
    placement= detached=True env= setup= @batch max_size max_wait Pool.create policy= resize Group
    Topic pulsing.connect dead_letters system.link system.events members() joined( isolated()
    with_advertise with_cluster_key context_stays
"""


def test_the_guide_shows_every_call():
    calls = [call.removeprefix("system.") for call in CALLS.split()]
    assert len(calls) > 80 and [call for call in calls if call not in GUIDE] == []


def test_every_option_of_as_actor_is_explained():
    from pulsing import as_actor

    with pytest.raises(TypeError) as caught:
        as_actor(no_such_option=1)
    options = str(caught.value).partition("it has: ")[2].split(", ")
    assert len(options) >= 8 and [o for o in options if f"{o}=" not in GUIDE] == []
