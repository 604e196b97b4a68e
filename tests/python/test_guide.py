# SPDX-License-Identifier: Apache-2.0
"""The users' guide, run: every snippet is cut out of the text and executed; results that its
comments state are asserted.

The text has lost its indentation, so each snippet here brings the depth of each of its lines; a
text that has changed no longer fits and fails. What the guide leaves to its reader (imports,
classes that it only names) is supplied beside the snippet.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib.util
import io
import json
import logging
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

import pulsing
from pulsing.actor import Actor, ActorSystem, Message, SystemConfig, as_actor, create_actor_system

GUIDE = pathlib.Path(__file__).resolve().parents[3] / "shared" / "spec" / "guide.txt"
pytestmark = pytest.mark.skipif(
    not GUIDE.exists(), reason="the guide's text is not beside this checkout"
)

# name: (the first line, which of its occurrences, the depth of each line)
SNIPPETS = {
    "create": ("from pulsing.actor import ActorSystem, SystemConfig", 0, "00000"),
    "init": ("class DataProcessor:", 0, "012222"),
    "calculator": (
        "from pulsing.actor import as_actor, SystemConfig, create_actor_system",
        0,
        "00011221222212222122122011111111",
    ),
    "echo": (
        "from pulsing.actor import Actor, Message, SystemConfig, create_actor_system",
        0,
        "0011212223234230111111",
    ),
    "async methods": ("@as_actor", 1, "00112122234441222332"),
    "ask": ("# Using @as_actor", 0, "0000"),
    "tell": ("# Fire and forget", 0, "0000"),
    "token stream": ("from pulsing.actor import StreamMessage", 0, "000012234432200011"),
    "order": ("await actor.method1(arg1) # Message M1", 0, "0000"),
    "context": ("from pulsing.actor import Actor, ActorContext", 0, "001222223222"),
    "same API": ("# Local actor", 0, "0000000"),
    "public": ("# Public actor - can be found by other nodes", 0, "0000"),
    "request": ("@as_actor", 3, "0012232222"),
    "session": ("@as_actor", 4, "0012122233322121232212332"),
    "pool": ("@as_actor", 5, "001221223312222122322"),
    "pipeline": ("@as_actor", 6, "0012122223212200000"),
    "llm": ("@as_actor", 7, "0011222122221222212223"),
    "good and bad": ("# ✅ Good: All state in __init__", 0, "0001221222000012"),
    "errors": ("@as_actor", 10, "0012332332333"),
    "optimized": ("@as_actor", 11, "001222122232222"),
    "testing": ("import pytest", 0, "0001122222222212"),
    "quick": (
        "from pulsing.actor import as_actor, create_actor_system, SystemConfig",
        0,
        "000121201111",
    ),
    "messages": ("# Single message", 0, "0000"),
    "operations": ("# Spawn local actor", 0, "000000000000"),
}

# Run on one host only: these need an address to listen on, and a second node that joins.
NOT_RUN_YET = {
    "seed node": ("# Node 1: Start seed node", 0, "00000"),
    "joining": ("# Node 2: Join cluster", 0, "0011000000"),
    "quick seed": ("# Seed node", 0, "0000"),
    "quick joining": ("# Joining node", 0, "0000"),
}


def _lines(which):
    text = [line.strip() for line in GUIDE.read_text().splitlines()]
    first, occurrence, depths = which
    starts = [i for i, line in enumerate(text) if line == first]
    start = starts[occurrence]
    return start, [int(d) for d in depths], text[start : start + len(depths)]


def snippet(name):
    """The snippet's source, indented."""
    _, depths, lines = _lines(SNIPPETS[name])
    return "".join("    " * d + line + "\n" for d, line in zip(depths, lines, strict=True))


def supply(**names):
    """A namespace as a reader's program would have it; it is no module that could be imported."""
    return {
        "__name__": "guide",
        "asyncio": asyncio,
        "time": time,
        "logger": logging.getLogger("guide"),
        "Actor": Actor,
        "ActorSystem": ActorSystem,
        "Message": Message,
        "SystemConfig": SystemConfig,
        "as_actor": as_actor,
        "create_actor_system": create_actor_system,
        **names,
    }


def _noting(lines):
    """After each line whose comment states a result, a line that compares it."""
    for line in lines:
        yield line
        found = re.match(r"(\s*)(?:(\w+) = .*|print\((.*)\)) # (.+)$", line)
        if not found:
            continue
        try:
            ast.literal_eval(found[4])
        except (ValueError, SyntaxError):
            continue
        yield f"{found[1]}_noted.append(({found[2] or found[3]}, {found[4]}))"


async def play(source, space):
    """Runs statements that may await; returns their variables and the count of results compared."""
    noted = space["_noted"] = []
    body = "".join(f"    {line}\n" for line in _noting(source.splitlines()))
    exec(compile(f"async def _played():\n{body}    return locals()\n", "guide", "exec"), space)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        variables = await space["_played"]()
    for got, stated in noted:
        assert got == stated
    return {**variables, "_results": len(noted), "_printed": out.getvalue()}


async def play_main(source, space):
    """Defines what the snippet defines, and runs the body of its `main()`."""
    definitions, main = source.split("async def main():\n")
    exec(compile(definitions, "guide", "exec"), space)
    return await play("".join(line[4:] for line in main.splitlines(keepends=True)), space)


def test_the_snippets_are_all_of_the_guides_code():
    covered = set()
    for which in (*SNIPPETS.values(), *NOT_RUN_YET.values()):
        start, depths, _ = _lines(which)
        covered |= set(range(start, start + len(depths)))
    code = re.compile(r"(await|import|from \w|async|@|class \w+.*:$|def |return|raise|self\.)\b")
    outside = [
        f"{i + 1}: {line}"
        for i, line in enumerate(GUIDE.read_text().splitlines())
        if code.match(line.strip()) and i not in covered
    ]
    assert outside == []


class MyActor(Actor):
    async def receive(self, msg):
        return msg

    def process(self, data):
        return ("processed", data)


async def test_create():
    got = await play(snippet("create"), supply(MyActor=MyActor))
    assert got["actor_ref"].name == "my-actor"
    assert await got["actor_ref"].ask(b"x") == b"x"
    await got["system"].shutdown()


async def test_init(system):
    space = supply()
    exec(snippet("init") + "    def size(self):\n        return self.buffer_size\n", space)
    ref = await as_actor(space["DataProcessor"]).local(system, 64)
    assert await ref.size() == 64


@pytest.mark.both_loops
async def test_calculator():
    got = await play_main(snippet("calculator"), supply())
    assert got["_results"] == 3
    assert got["value"] == 120


@pytest.mark.both_loops
async def test_echo():
    got = await play_main(snippet("echo"), supply())
    assert got["_results"] == 1 and got["_printed"] == "b'hello'\n"


async def test_async_methods(system):
    from aiohttp import web

    async def answer(request):
        return web.json_response({"path": request.path})

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    space = supply()
    exec(snippet("async methods"), space)
    worker = await space["AsyncWorker"].local(system)
    assert await worker.fetch_data(f"http://127.0.0.1:{port}/model") == {"path": "/model"}
    assert await worker.process_batch(["a", "b"]) == ["A", "B"]
    await runner.cleanup()


async def test_ask_and_tell(system):
    space = supply()
    exec(snippet("calculator").split("async def main")[0], space)

    class Notified(Actor):
        def __init__(self):
            self.seen = []

        async def receive(self, msg):
            self.seen.append(msg)
            return Message.single("done", msg.payload)

    notified = Notified()
    actor_ref = await system.spawn(notified)
    calc = await space["Calculator"].local(system)
    did = []
    space.update(calc=calc, actor_ref=actor_ref, data=b"d", do_other_work=lambda: did.append(1))
    got = await play(snippet("ask"), space)
    assert got["result"] == 10 and got["response"].payload == b"d"
    await play(snippet("tell"), space)
    assert did == [1]
    await actor_ref.ask(Message.single("last"))
    assert [m.msg_type for m in notified.seen] == ["operation", "notify", "last"]


@pytest.mark.both_loops
async def test_token_stream(system):
    definition, use = snippet("token stream").split("# Client consuming the stream\n")
    space = supply()
    exec(definition, space)

    @as_actor
    class Words(space["TokenGenerator"]):
        def generate_tokens(self, prompt):
            return [prompt, ", ", "world"]

    space["generator"] = await Words.local(system)
    got = await play(use, space)
    assert got["_printed"] == "Hello, world"
    assert got["chunk"] == {"token": "world", "index": 2}


async def test_order(system):
    @as_actor
    class Three:
        def __init__(self):
            self.seen = []

        def method1(self, arg):
            self.seen.append(("M1", arg))

        def method2(self, arg):
            self.seen.append(("M2", arg))

        def method3(self, arg):
            self.seen.append(("M3", arg))

        def read(self):
            return self.seen

    actor = await Three.local(system)
    await play(snippet("order"), supply(actor=actor, arg1=1, arg2=2, arg3=3))
    assert await actor.read() == [("M1", 1), ("M2", 2), ("M3", 3)]


async def test_context(system):
    space = supply()
    exec(snippet("context"), space)
    await system.spawn(MyActor(), "other-actor")
    ref = await system.spawn(space["ContextAwareActor"](), "aware")
    answer = await ref.ask(Message.single("who", b""))
    assert answer.msg_type == "info"
    assert answer.payload.decode() == f"{ref.actor_id}@{system.node_id}"


async def test_same_api(system):
    await as_actor(type("Away", (MyActor,), {})).local(system, name="remote-worker")
    got = await play(snippet("same API"), supply(system=system, MyActor=MyActor, data=[1]))
    assert got["response1"] == got["response2"] == ("processed", [1])
    assert got["local_ref"].is_local() and not got["remote_ref"].is_local()


async def test_public_and_private(system):
    await play(snippet("public"), supply(system=system, ServiceActor=MyActor, HelperActor=MyActor))
    assert await system.find("api-service") is not None
    assert await system.find("internal-helper") is None
    assert await system.has_actor("internal-helper")


async def test_request(system):
    space = supply()
    exec(snippet("request"), space)

    @as_actor
    class Handler(space["RequestHandler"]):
        def validate(self, request):
            return "q" in request

        async def process(self, request):
            return request["q"] * 2

    handler = await Handler.local(system)
    assert await handler.handle_request({}) == {"error": "Invalid request"}
    assert await handler.handle_request({"q": 4}) == {"success": True, "data": 8}


async def test_session(system):
    space = supply()
    exec(snippet("session"), space)
    manager = await space["SessionManager"].local(system)
    key = await manager.create_session("ada")
    assert await manager.update_session(key, "k", 1) is True
    got = await manager.get_session(key)
    assert (got["user_id"], got["data"]) == ("ada", {"k": 1})
    assert await manager.delete_session(key) is True
    assert await manager.delete_session(key) is False
    assert await manager.update_session(key, "k", 1) is False
    assert await manager.get_session(key) is None


async def test_pool(system):
    @as_actor
    class Worker:
        def process(self, task):
            return os.getpid(), task

        def notify(self, message):
            return os.getpid(), message

    space = supply(Worker=Worker)
    exec(snippet("pool"), space)

    @as_actor
    class Sized(space["WorkerPool"]):
        def __init__(self, num_workers):
            super().__init__(num_workers)
            self.num_workers = num_workers

    pool = await Sized.local(system, 2)
    await pool.initialize(system)
    answers = [await pool.submit({"n": i}) for i in range(4)]
    assert [task for _, task in answers] == [{"n": i} for i in range(4)]
    assert answers[0][0] == answers[2][0] != answers[1][0] == answers[3][0]
    assert [m for _, m in await pool.broadcast({"all": 1})] == [{"all": 1}] * 2


async def test_pipeline(system):
    definition, use = snippet("pipeline").split("# Usage\n")
    space = supply(system=system, input_data={"steps": []})
    exec(definition, space)
    for i in (1, 2, 3):

        async def do_processing(self, data, i=i):
            return {"steps": [*data["steps"], i]}

        stage = type(f"Stage{i}", (space["PipelineStage"],), {"do_processing": do_processing})
        space[f"Stage{i}"] = as_actor(stage)
    got = await play(use, space)
    assert got["result"] == {"steps": [1, 2, 3]}


MAKE_MODEL = """
import json, sys, torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel
from transformers import PreTrainedTokenizerFast

folder, prompt = sys.argv[1:]
letters = ["<end>", *map(chr, range(32, 127))]
words = Tokenizer(models.WordLevel({c: i for i, c in enumerate(letters)}, unk_token="?"))
words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
words.decoder = decoders.Fuse()
PreTrainedTokenizerFast(
    tokenizer_object=words, eos_token="<end>", pad_token="<end>"
).save_pretrained(folder)
torch.manual_seed(0)
config = GPT2Config(
    vocab_size=len(letters), n_positions=64, n_embd=32, n_layer=2, n_head=2,
    bos_token_id=0, eos_token_id=0, pad_token_id=0,
)
GPT2LMHeadModel(config).save_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
inputs = tokenizer(prompt, return_tensors="pt")
out = model.generate(**inputs, max_new_tokens=8)
said = tokenizer.decode(out[0], skip_special_tokens=True)
new = [tokenizer.decode(token) for token in out[0][inputs["input_ids"].shape[1]:]]
print(json.dumps([said, new]))
"""


@pytest.fixture
def causal_model(tmp_path):
    """A small language model with random weights, saved: (folder, prompt, what it says to that)."""
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: the extra `models` brings it")
    command = [sys.executable, "-c", MAKE_MODEL, str(tmp_path / "model"), "Hello"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return str(tmp_path / "model"), "Hello", *json.loads(done.stdout.splitlines()[-1])


async def test_llm(system, causal_model):
    folder, prompt, said, tokens = causal_model
    space = supply()
    exec(snippet("llm"), space)

    @as_actor
    class Streaming(space["LLMService"]):
        """`generate_streaming` is no method of transformers: its reader supplies it."""

        async def load_model(self):
            await super().load_model()

            def generate_streaming(input_ids, **_):
                for _ in range(8):
                    logits = self.model(input_ids).logits
                    token = logits[:, -1:].argmax(-1)
                    input_ids = logits.new_tensor([[*input_ids[0], token[0, 0]]]).long()
                    yield token[0]

            self.model.generate_streaming = generate_streaming

        async def kinds(self):
            return type(self.model).__module__, type(self.tokenizer).__module__

    llm = await Streaming.local(system, folder)
    await llm.load_model()
    model, tokenizer = await llm.kinds()
    assert model.startswith("transformers.") and tokenizer.startswith("transformers.")
    assert await llm.generate(prompt, max_tokens=8) == said
    assert said.startswith(prompt) and len(tokens) == 8
    assert [token async for token in llm.generate_stream(prompt)] == tokens


async def test_llm_with_a_model_of_ours_in_the_place_of_transformers(system):
    """`generate_streaming` is no method of transformers: a reader supplies it in any case."""

    class Tokens(dict):
        pass

    class Tokenizer:
        def __call__(self, prompt, return_tensors):
            return Tokens(ids=[ord(c) for c in prompt])

        def decode(self, ids, skip_special_tokens=False):
            return "".join(map(chr, ids if isinstance(ids, list) else [ids]))

    class Model:
        def generate(self, ids, max_new_tokens):
            return [(ids * 2)[:max_new_tokens]]

        def generate_streaming(self, ids):
            yield from reversed(ids)

    space = supply()
    exec(snippet("llm"), space)

    @as_actor
    class Ours(space["LLMService"]):
        async def load_model(self):
            self.tokenizer, self.model = Tokenizer(), Model()

    llm = await Ours.local(system, "ours")
    await llm.load_model()
    assert await llm.generate("ab", max_tokens=3) == "aba"
    assert [token async for token in llm.generate_stream("abc")] == ["c", "b", "a"]


async def test_good_and_bad(system):
    space = supply()
    exec(snippet("good and bad"), space)
    good = await space["GoodActor"].local(system)
    assert [await good.update("x"), await good.update("y")] == [1, 2]
    bad = await space["BadActor"].local(system)
    assert await bad.update("k", 1) is None
    assert space["global_state"] == {}, "the worker's globals are its own"


async def test_errors(system, caplog):
    space = supply()
    exec(snippet("errors"), space)

    @as_actor
    class Risky(space["ResilientActor"]):
        async def process(self, data):
            if data.get("raise"):
                raise {"value": ValueError, "key": KeyError}[data["raise"]]("bad data")
            return data

    ref = await Risky.local(system)
    assert await ref.risky_operation({}) == {"success": True, "result": {}}
    assert await ref.risky_operation({"raise": "value"}) == {"success": False, "error": "bad data"}
    with pytest.raises(KeyError, match="bad data"):
        await ref.risky_operation({"raise": "key"})


async def test_optimized(system):
    space = supply()
    exec(snippet("optimized"), space)

    @as_actor
    class Counting(space["OptimizedActor"]):
        computed = 0

        def compute(self, data, buffer):
            self.computed += 1
            buffer[: len(data)] = data
            return bytes(buffer[: len(data)]) + str(self.computed).encode()

    ref = await Counting.local(system)
    assert [await ref.process(b"a"), await ref.process(b"a"), await ref.process(b"b")] == [
        b"a1",
        b"a1",
        b"b2",
    ]


async def test_testing():
    space = supply()
    exec(snippet("calculator").split("async def main")[0], space)
    exec(snippet("testing"), space)
    await space["test_calculator"]()


async def test_quick():
    got = await play_main(snippet("quick"), supply())
    assert got["_results"] == 1


async def test_messages():
    got = await play(snippet("messages"), supply())
    assert got["msg"].is_stream and (got["msg"].msg_type, got["msg"].payload) == ("type", b"data")


async def test_operations():
    system = await create_actor_system(SystemConfig.standalone())
    source = snippet("operations")
    private, rest = source.split("# Spawn public actor\n")
    await play(private, supply(system=system, MyActor=MyActor))
    with pytest.raises(pulsing.ActorExists, match="name"):
        await play(rest, supply(system=system, MyActor=MyActor))
    await system.stop("name")
    got = await play(rest, supply(system=system, MyActor=MyActor))
    assert got["actor"] is not None and got["exists"] is True


@pytest.mark.parametrize("name", NOT_RUN_YET)
def test_snippets_that_need_a_second_node_are_where_the_list_says(name):
    _, depths, lines = _lines(NOT_RUN_YET[name])
    assert any("create_actor_system(config)" in line for line in lines)
    body = "".join("    " * (d + 1) + line + "\n" for d, line in zip(depths, lines, strict=True))
    compile(f"async def _():\n{body}", "guide", "exec")
