# SPDX-License-Identifier: Apache-2.0
"""The mypy plugin: what mypy makes of programs that use actors, with it and without it."""

from __future__ import annotations

import pytest
from typechecked import mypy, unmet

ACTORS = """
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar, overload

from pulsing.actor import Actor, ActorContext, Message, StreamMessage, as_actor, batch
from pulsing import remote

T = TypeVar("T")


@as_actor
class Calculator:
    def __init__(self, initial: int = 0) -> None:
        self.value = initial

    def add(self, n: int, *, times: int = 1) -> int:
        self.value += n * times
        return self.value

    async def words(self, text: str) -> list[str]:
        return text.split()

    def count(self, n: int) -> Iterator[int]:
        yield from range(n)

    def each(self, items: list[bytes]) -> Iterable[bytes]:
        yield from items

    def squares(self) -> Iterator[int]:
        return (n * n for n in range(3))

    def _hidden(self) -> int:
        return 1

    async def letters(self, text: str) -> AsyncIterator[str]:
        for letter in text:
            yield letter

    async def tokens(self) -> StreamMessage[bytes]:
        message, _ = StreamMessage.create("tokens")
        return message

    def first(self, items: list[T]) -> T:
        return items[0]

    @overload
    def same(self, x: int) -> int: ...
    @overload
    def same(self, x: str) -> str: ...
    def same(self, x: int | str) -> int | str:
        return x

    def untyped(self, x):  # type: ignore[no-untyped-def]
        return x

    @staticmethod
    def half(x: float) -> float:
        return x / 2

    @property
    def doubled(self) -> int:
        return 2 * self.value

    @batch(max_size=8)
    async def embed(self, texts: list[str]) -> list[float]:
        return [float(len(text)) for text in texts]


@as_actor(restart="always")
@dataclass
class Point:
    x: int
    label: str = ""

    def where(self) -> tuple[int, str]:
        return self.x, self.label


@remote
class Plain:
    def title(self) -> str:
        return "plain"


class More(Calculator):
    def more(self) -> bytes:
        return b""


class Echo(Actor):
    async def on_start(self, ctx: ActorContext) -> None: ...

    async def receive(self, msg: Message) -> Message:
        return msg

    def extra(self, n: int) -> int:
        return n
"""

USE = """
import asyncio

from actors import Calculator, Echo, More, Plain, Point

import pulsing
from pulsing import ActorSystem, Ref


async def calls(system: ActorSystem) -> None:
    calc = await Calculator.local(system, initial=1, name="calc", placement="dedicated")
    reveal_type(calc)  # -> pulsing._core.Ref[actors.Calculator]
    reveal_type(calc.add)  # -> def (n: int, *, times: int =) -> pulsing._core.Call[int]
    reveal_type(await calc.add(1))  # -> int
    reveal_type(await calc.add(1, times=2))  # -> int
    reveal_type(await calc.words("a b"))  # -> list[str]
    reveal_type(await calc.first([b""]))  # -> bytes
    reveal_type(await calc.same(1))  # -> int
    reveal_type(await calc.same("a"))  # -> str
    reveal_type(await calc.untyped(1))  # -> Any
    reveal_type(await calc.half(1.0))  # -> float
    reveal_type(await calc.embed("text"))  # -> float
    reveal_type(await calc.add.options(timeout=1.0)(1))  # -> int
    reveal_type(await calc.add.tell(1))  # -> None
    reveal_type(await calc.ask("message"))  # -> Any
    reveal_type(calc.actor_id)  # -> Any
    reveal_type(await asyncio.wait_for(calc.add(1), 1))  # -> int
    reveal_type(await asyncio.gather(calc.add(1), calc.words("")))  # -> tuple[int, list[str]]
    reveal_type(await asyncio.create_task(calc.words("")))  # -> list[str]


async def streams(calc: Ref[Calculator]) -> None:
    async for number in calc.count(3):
        reveal_type(number)  # -> int
    async for item in calc.each([b""]):
        reveal_type(item)  # -> bytes
    async for number in calc.squares():
        reveal_type(number)  # -> int
    async for letter in calc.letters("abc"):
        reveal_type(letter)  # -> str
    stream = await calc.letters("abc")
    reveal_type(stream)  # -> pulsing._message.StreamMessage[str]
    async for letter in stream.stream_reader():
        reveal_type(letter)  # -> str
    async for token in calc.tokens():
        reveal_type(token)  # -> bytes


async def makers(system: ActorSystem, calc: Ref[Calculator] | None) -> None:
    point = await Point.remote(system, 1, label="a", public=False)
    reveal_type(await point.where())  # -> tuple[int, str]
    reveal_type(await Point.spawn(1, "a"))  # -> pulsing._core.Ref[actors.Point]
    reveal_type(await Point.resolve("p", timeout=1))  # -> pulsing._core.Ref[actors.Point]
    reveal_type(await (await Plain.local(system)).title())  # -> str
    more = await More.local(system, 3)
    reveal_type(await more.more())  # -> bytes
    reveal_type(await more.add(3))  # -> int
    echo = await system.spawn(Echo(), "echo", public=True)
    reveal_type(await echo.extra(1))  # -> int
    reveal_type(await system.spawn("other", Echo()))  # -> pulsing._core.Ref[actors.Echo]
    if calc is not None:
        reveal_type(await calc.add(1))  # -> int


def blocking() -> None:
    with pulsing.connect() as system:
        calc = Calculator.local(system, 1)
        reveal_type(calc.add(1))  # -> int
        reveal_type(calc.words("a"))  # -> list[str]
        for number in calc.count(3):
            reveal_type(number)  # -> int
        calc.add.tell(1)
        reveal_type(system.spawn(Echo()).extra(1))  # -> int


def ordinary(cls: type[Calculator], system: ActorSystem) -> None:
    calculator = Calculator(3)
    reveal_type(calculator.add(1))  # -> int
    reveal_type(calculator.doubled)  # -> int
    wide: Ref[Calculator]
    narrow: Ref[More]
    wide = narrow  # a ref of a subclass is one of its base


async def mistakes(system: ActorSystem, calc: Ref[Calculator], point: Ref[Point] | None) -> None:
    calc.subtract(1)  # !! A ref of "Calculator" has no attribute "subtract"
    calc.value  # !! has no attribute "value": it is not a method
    calc.doubled  # !! has no attribute "doubled": it is not a method
    calc._hidden()  # !! has no attribute "_hidden"
    calc.on_start()  # !! has no attribute "on_start"
    point.where()  # !! Item "None" of "Ref[Point] | None" has no attribute "where"
    await calc.add("1")  # !! Argument 1 to "add" of "Calculator" has incompatible type "str"
    await calc.add.tell("1")  # !! incompatible type "str"; expected "int"
    await calc.add.options(timeout=1)("1")  # !! incompatible type "str"; expected "int"
    await calc.words()  # !! Missing positional argument "text" in call to "words"
    await calc.embed(["a"])  # !! incompatible type "list[str]"; expected "str"
    await Calculator.local(system, initial="1")  # !! Argument "initial" to "local" of "Calculator"
    await Calculator.local(system, start=1)  # !! Unexpected keyword argument "start" for "local"
    await Point.local(system)  # !! Missing positional argument "x" in call to "local" of "Point"
    await Point.local("system", 1)  # !! incompatible type "str"; expected "ActorSystem"
    text: str = await calc.add(1)  # !! expression has type "int", variable has type "str"
    async for x in calc.add(1):  # !! "Call[int]" has no attribute "__aiter__"
        pass
    with pulsing.connect() as blocking:
        Calculator.local(blocking, 1).add("1")  # !! incompatible type "str"; expected "int"
"""

WITHOUT = """
from actors import Calculator, Echo

from pulsing import ActorSystem, Ref


async def calls(system: ActorSystem, calc: Ref[Calculator]) -> None:
    reveal_type(await calc.add(1))  # -> Any
    reveal_type(await calc.no_such_method())  # -> Any
    reveal_type(await (await system.spawn(Echo())).extra(1))  # -> Any
    reveal_type(await system.find("calc"))  # -> Any
    reveal_type(Calculator(1).add(1))  # -> int
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("typed")
    (made / "actors.py").write_text(ACTORS)
    return made


def test_refs_have_the_methods_of_their_classes_and_mistakes_are_found(folder):
    (folder / "use.py").write_text(USE)
    output = mypy(folder, "use.py", "actors.py", plugin=True)
    assert unmet(folder, "use.py", output) == []
    assert "actors.py" not in output


def test_what_mypy_keeps_in_its_cache_gives_the_same(folder):
    (folder / "again.py").write_text(USE)
    mypy(folder, "again.py", plugin=True)
    (folder / "again.py").write_text(USE + "\n")
    assert unmet(folder, "again.py", mypy(folder, "again.py", plugin=True)) == []


def test_without_the_plugin_a_refs_methods_are_any(folder):
    (folder / "without.py").write_text(WITHOUT)
    output = mypy(folder, "without.py", "actors.py", strict=True)
    assert unmet(folder, "without.py", output) == []
    assert "actors.py" not in output
