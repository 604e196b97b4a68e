# SPDX-License-Identifier: Apache-2.0
"""`pulsing stubs`: what it writes types a program without any plugin."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner
from typechecked import mypy, unmet

from pulsing._cli import main

SHOP = '''
"""What a module may hold."""

from __future__ import annotations

import asyncio
import enum
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar, overload

import pulsing
from pulsing import Actor, Message, StreamMessage, as_actor, batch

if TYPE_CHECKING:
    from pulsing import Ref

try:
    import json
except ImportError:
    json = None

T = TypeVar("T")
Price = int | float
LIMIT = 10
NAMES = ["a"]
if sys.version_info >= (3, 8):
    EXTRA = "x"
else:
    EXTRA = 3


class Kind(enum.Enum):
    RED = 1
    BLUE = "b"


class Place(NamedTuple):
    x: int
    y: int = 0


def helper(a: int, b: str = "x", *rest: int, key: bool = True, **more: str) -> list[int]:
    return [a]


async def numbers() -> AsyncIterator[int]:
    yield 1


class Sized:
    def size_of(self, n: int) -> int:
        return n


@as_actor
class Calculator(Sized):
    unit: str = "m"

    def __init__(self, initial: int = 0, *, other: str = "") -> None:
        self.value = initial
        self.history: list[str] = []
        self.count_of = 3

    def add(self, n: int, *, times: int = 1) -> int:
        return n

    async def words(self, text: str) -> list[str]:
        return text.split()

    def count(self, n: int) -> Iterator[int]:
        yield from range(n)

    async def letters(self, text: str) -> AsyncIterator[str]:
        yield text

    async def tokens(self) -> StreamMessage[int]:
        message, _ = StreamMessage.create("x")
        return message

    def first(self, items: list[T]) -> T:
        return items[0]

    @overload
    def same(self, x: int) -> int: ...
    @overload
    def same(self, x: str) -> str: ...
    def same(self, x: int | str) -> int | str:
        return x

    def untyped(self, x):
        return x

    @staticmethod
    def half(x: float) -> float:
        return x / 2

    @classmethod
    def title(cls, x: int) -> str:
        return ""

    @property
    def doubled(self) -> int:
        return 1

    @batch(max_size=3)
    async def embed(self, texts: list[str]) -> list[float]:
        return [1.0] * len(texts)

    def join(self, other: Ref[Calculator] | None) -> None: ...

    def _private(self) -> None: ...


@pulsing.as_actor(restart="always")
@dataclass
class Point:
    x: int
    label: str = ""

    def where(self) -> str:
        return self.label


@as_actor
class More(Calculator):
    def __init__(self, name: str) -> None:
        super().__init__(1)

    def add(self, n: int, *, times: int = 1, third: int = 3) -> int:
        return n

    def more(self) -> bytes:
        return b""


@as_actor
class Echo(Actor):
    async def receive(self, msg: Message) -> Message:
        return msg

    def extra(self, n: int) -> int:
        return n


@as_actor
class Open(asyncio.Event):
    def own(self) -> int:
        return 1


if __name__ == "__main__":
    only_as_a_program = 1
    raise SystemExit("the module is read, not run")
'''

USE = """
from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shop import LIMIT, Calculator, Echo, Kind, More, Open, Place, Point, helper, json, numbers

import pulsing
import shop
from pulsing import ActorSystem, Ref

if TYPE_CHECKING:
    from shop import CalculatorRef


async def calls(system: ActorSystem) -> None:
    calc = await Calculator.local(system, initial=1, name="x")
    reveal_type(calc)  # -> shop.CalculatorRef
    reveal_type(await calc.add(1))  # -> int
    reveal_type(await calc.words("x"))  # -> list[str]
    reveal_type(await calc.first([1]))  # -> int
    reveal_type(await calc.same(1))  # -> int
    reveal_type(await calc.same("s"))  # -> str
    reveal_type(await calc.untyped("s"))  # -> Any
    reveal_type(await calc.half(1))  # -> float
    reveal_type(await calc.title(1))  # -> str
    reveal_type(await calc.embed("x"))  # -> float
    reveal_type(await calc.size_of(2))  # -> int
    reveal_type(await calc.add.options(timeout=1)(1))  # -> int
    reveal_type(await calc.add.tell(1, times=3))  # -> None
    reveal_type(await asyncio.create_task(calc.add(1)))  # -> int
    await calc.join(calc)
    async for number in calc.count(3):
        reveal_type(number)  # -> int
    stream = await calc.letters("x")
    async for letter in stream.stream_reader():
        reveal_type(letter)  # -> str


async def makers(system: ActorSystem) -> None:
    point = await Point.local(system, 1, label="x", placement="dedicated")
    reveal_type(await point.where())  # -> str
    more = await More.remote(system, "v")
    reveal_type(await more.more())  # -> bytes
    reveal_type(await more.add(1, third=3))  # -> int
    reveal_type(await more.words(""))  # -> list[str]
    reveal_type(await (await Echo.spawn()).extra(1))  # -> int
    reveal_type(await More.resolve("m"))  # -> shop.MoreRef
    opened = await Open.local(system)
    reveal_type(await opened.own())  # -> int
    opened.is_set()
    narrow: CalculatorRef = more
    wide: Ref[Calculator] = narrow
    with pulsing.connect() as blocking:
        calc = Calculator.local(blocking, 1)
        reveal_type(calc.add(1))  # -> int
        for number in calc.count(2):
            reveal_type(number)  # -> int


async def the_rest() -> None:
    reveal_type(Calculator(1).value)  # -> int
    reveal_type(Calculator(1).history)  # -> list[str]
    kind: Kind = Kind.RED
    reveal_type(Place(1).y)  # -> int
    reveal_type(helper(1, key=False, more="x"))  # -> list[int]
    reveal_type(LIMIT)  # -> int
    json.dumps([])
    async for number in numbers():
        reveal_type(number)  # -> int


async def mistakes(system: ActorSystem, calc: CalculatorRef) -> None:
    shop.only_as_a_program  # !! Module has no attribute "only_as_a_program"
    calc.subtract()  # !! "CalculatorRef" has no attribute "subtract"
    calc.value  # !! "CalculatorRef" has no attribute "value"
    calc.doubled  # !! "CalculatorRef" has no attribute "doubled"
    calc._private()  # !! "CalculatorRef" has no attribute "_private"
    await calc.add("x")  # !! incompatible type "str"; expected "int"
    await calc.add.tell("x")  # !! incompatible type "str"; expected "int"
    await calc.words()  # !! Missing positional argument "text"
    await Point.local(system, "x")  # !! No overload variant of "local" of "Point"
    await Point.local()  # !! All overload variants of "local" of "Point" require
    with pulsing.connect() as blocking:
        Calculator.local(blocking).add("x")  # !! incompatible type "str"; expected "int"
"""


def pulsing_stubs(*arguments):
    return CliRunner().invoke(main, ["stubs", *map(str, arguments)])


@pytest.fixture
def shop(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text(SHOP)
    monkeypatch.chdir(folder)
    return folder


def test_stubs_type_a_program_without_a_plugin_and_pass_a_strict_check(shop):
    done = pulsing_stubs("shop")
    assert done.exit_code == 0, done.output
    (shop / "use.py").write_text(USE)
    output = mypy(shop, "shop.pyi", "use.py", strict=True)
    assert unmet(shop, "use.py", output) == []
    # What the module itself leaves open is its own affair.
    of_the_stub = [line for line in output.splitlines() if line.startswith("shop.pyi")]
    assert len(of_the_stub) == 1 and "def untyped(self, x):" in stub_line(shop, of_the_stub[0])


def stub_line(shop, message):
    return (shop / "shop.pyi").read_text().splitlines()[int(message.split(":")[1]) - 1]


@pytest.mark.skipif(
    importlib.util.find_spec("basedpyright") is None,
    reason="pyright is not in the extra `tests`: it brings a JavaScript engine of 300 MB",
)
def test_pyright_accepts_the_same_stubs(shop):
    assert pulsing_stubs("shop").exit_code == 0
    (shop / "use.py").write_text(USE)
    (shop / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    program = shutil.which("basedpyright", path=sys.exec_prefix + "/bin")
    done = subprocess.run(
        [program, "--pythonpath", sys.executable, "use.py", "shop.pyi"],
        cwd=shop,
        capture_output=True,
        text=True,
        timeout=110,
    )
    found = {int(n) for n in re.findall(r"use\.py:(\d+):\d+ - error", done.stdout)}
    lines = enumerate(USE.splitlines(), 1)
    assert found == {number for number, line in lines if "# !!" in line}, done.stdout
    assert "shop.pyi:" not in done.stdout


def test_the_module_is_not_run(shop):
    (shop / "shop.py").write_text("raise SystemExit(3)\n" + SHOP.replace("from __future__", "#"))
    done = pulsing_stubs("shop")
    assert done.exit_code == 0, done.output


def test_a_package_gets_a_stub_for_each_module_with_actors(shop):
    package = shop / "inner" / "deep"
    package.mkdir(parents=True)
    (shop / "inner" / "__init__.py").write_text("")
    (package / "__init__.py").write_text(SHOP)
    (package / "plain.py").write_text("x = 1\n")
    (package / "other.py").write_text(SHOP)
    done = pulsing_stubs("inner")
    assert done.exit_code == 0, done.output
    made = {str(path.relative_to(shop)) for path in shop.rglob("*.pyi")}
    assert made == {"inner/deep/__init__.pyi", "inner/deep/other.pyi"}


def test_a_folder_for_the_output_and_a_path_as_the_module(shop, tmp_path):
    out = tmp_path / "typings"
    assert pulsing_stubs("shop", "-o", out).exit_code == 0
    assert pulsing_stubs(shop / "shop.py").exit_code == 0
    assert (out / "shop.pyi").read_text() == (shop / "shop.pyi").read_text()


def test_check_says_what_is_out_of_date_and_writes_nothing(shop):
    done = pulsing_stubs("shop", "--check")
    assert done.exit_code == 1 and "shop.pyi is out of date" in done.output
    assert not (shop / "shop.pyi").exists()
    assert pulsing_stubs("shop").exit_code == 0
    assert pulsing_stubs("shop", "--check").exit_code == 0
    (shop / "shop.py").write_text(SHOP.replace("n: int, *, times", "n: float, *, times"))
    assert pulsing_stubs("shop", "--check").exit_code == 1


def test_a_stub_by_hand_is_not_overwritten(shop):
    (shop / "shop.pyi").write_text("LIMIT: int\n")
    done = pulsing_stubs("shop")
    assert done.exit_code == 1 and "move it away" in done.output
    assert (shop / "shop.pyi").read_text() == "LIMIT: int\n"


@pytest.mark.parametrize(
    ("name", "source", "text"),
    [
        ("nosuch", None, "nosuch cannot be found"),
        ("plain", "x = 1\n", "plain has no class with @as_actor"),
        ("broken", "x = (\n", "broken, line 1"),
        ("sys", None, "sys cannot be found as Python source"),
        ("no/such.py", None, "there is no file no/such.py"),
    ],
)
def test_what_has_no_stub_is_said_in_one_line(shop, name, source, text):
    if source is not None:
        (shop / f"{name}.py").write_text(source)
    done = pulsing_stubs(name)
    assert done.exit_code == 1 and text in done.output
    assert len(done.output.splitlines()) == 1


def test_stubs_parse_on_the_oldest_python(shop):
    assert pulsing_stubs("shop").exit_code == 0
    ast.parse((shop / "shop.pyi").read_text(), feature_version=(3, 10))
