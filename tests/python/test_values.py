# SPDX-License-Identifier: Apache-2.0
"""What may be sent, how it arrives, and how long it stays valid."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import enum
import fractions
import gc
import os
import pathlib
import socket
import threading
import uuid
from dataclasses import dataclass

import numpy as np
import pytest
from testactors import Calculator, Echo, Log

from pulsing import CodecError
from pulsing.actor import Message, SystemConfig, as_actor, create_actor_system


@dataclass
class Point:
    x: int
    y: float = 0.5


class Colour(enum.Enum):
    RED = 1


Pair = collections.namedtuple("Pair", "left right")

VALUES = [
    None,
    True,
    0,
    -1,
    1 << 63,
    -(1 << 64),
    1 << 1000,
    1.5,
    float("inf"),
    1 + 2j,
    "",
    "text \N{GREEK SMALL LETTER ALPHA} \U0001f600",
    b"",
    b"\x00\xff" * 100,
    bytearray(b"abc"),
    (),
    (1, (2, (3,))),
    [1, [2, [3]]],
    {},
    {1: "a", "b": 2, (3, 4): None, None: [], 5.0: ()},
    {1, 2},
    frozenset({"a"}),
    Point(1),
    Colour.RED,
    Pair(1, "r"),
    datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.timezone.utc),
    datetime.timedelta(seconds=1.5),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    uuid.UUID(int=5),
    pathlib.PurePosixPath("/a/b"),
    range(1, 10, 2),
    slice(1, None, 3),
    array.array("d", [1.0, 2.0]),
    collections.OrderedDict([("z", 1), ("a", 2)]),
    collections.Counter("hello"),
    collections.deque([1, 2], maxlen=5),
    Message.single("t", b"p"),
    int,
    len,
    Point,
    Ellipsis,
    NotImplemented,
]


@pytest.mark.parametrize("place", ["worker", "here"])
async def test_what_arrives_equals_what_was_sent(system, place):
    echo = await Echo.local(system) if place == "worker" else await system.spawn(Echo())
    for value in VALUES:
        got = await echo.echo(value)
        assert got == value and type(got) is type(value), value
        assert await echo.show(value) == repr(value)
    assert await echo.echo(VALUES) == VALUES


@pytest.mark.parametrize("place", ["worker", "here"])
async def test_state_is_never_shared(system, place):
    @as_actor
    class Keeper:
        def keep(self, value):
            self.value = value

        def change(self):
            self.value.append(4)
            self.value[0]["k"] = "changed"
            return self.value

        def give(self):
            return self.value

    keeper = await Keeper.local(system) if place == "worker" else await system.spawn(Keeper())
    mine = [{"k": 1}, 2]
    await keeper.keep(mine)
    mine.append("later")
    assert await keeper.give() == [{"k": 1}, 2]
    await keeper.change()
    assert mine == [{"k": 1}, 2, "later"]
    got = await keeper.give()
    got.append("mine")
    assert await keeper.give() == [{"k": "changed"}, 2, 4]


async def test_things_that_hold_themselves_arrive(system):
    echo = await Echo.local(system)
    loop = []
    loop.append(loop)
    got = await echo.echo(loop)
    assert got[0] is got
    table = {}
    table["inside"] = [table]
    got = await echo.echo(table)
    assert got["inside"][0] is got


@pytest.mark.parametrize("size", [10, 1000, 100_000, 5_000_000])
@pytest.mark.parametrize("place", ["worker", "here"])
async def test_numpy_arrays_arrive_read_only(system, size, place):
    echo = await Echo.local(system) if place == "worker" else await system.spawn(Echo())
    sent = np.arange(size, dtype=np.float64)
    got = await echo.echo(sent)
    assert got.dtype == sent.dtype and (got == sent).all()
    if size >= 1000:
        assert not got.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            got[0] = 1
    sent[0] = -1
    assert got[0] == 0


async def test_numpy_arrays_of_every_shape_arrive_equal(system):
    echo = await Echo.local(system)
    for sent in (
        np.zeros((0, 3)),
        np.array(3.5),
        np.arange(24).reshape(2, 3, 4),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(20)[::3],
        np.arange(12).reshape(3, 4).T,
        np.array(["a", "bcd"]),
        np.array([b"x", b"yz"]),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array([1, None, "x"], dtype=object),
        np.array(["2026-01-01"], dtype="M8[D]"),
        np.arange(3, dtype=">i4"),
        np.array([True, False]),
        np.arange(100_000, dtype=np.int16).reshape(100, 1000),
    ):
        got = await echo.echo(sent)
        assert got.dtype == sent.dtype and got.shape == sent.shape
        assert (got == sent).all()
    assert await echo.echo(np.float32(1.5)) == np.float32(1.5)
    mixed = {"a": np.ones(5000), "b": [np.zeros(3), (b"x" * 9000, "t")]}
    got = await echo.echo(mixed)
    assert (got["a"] == 1).all() and got["b"][1] == (b"x" * 9000, "t")


async def test_a_received_array_is_not_a_copy(system):
    """Its memory is the shared one: mapped from a memfd, which a copy would not be."""
    echo = await Echo.local(system)
    got = await echo.echo(np.ones(1 << 20, np.uint8))
    address = got.__array_interface__["data"][0]
    where = ""
    for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(x, 16) for x in line.split()[0].split("-"))
        if low <= address < high:
            where = line
    assert "memfd:" in where


async def test_64_megabytes_there_and_back(system):
    echo = await Echo.local(system)
    sent = np.random.default_rng(1).integers(0, 255, 64 << 20, dtype=np.uint8)
    for _ in range(3):
        got = await echo.echo(sent)
        assert (got == sent).all()
        del got
    text = "x" * (64 << 20)
    assert await echo.echo(text) == text
    data = bytes(range(256)) * (1 << 18)
    assert await echo.echo(data) == data


async def test_bytes_like_things(system):
    echo = await Echo.local(system)
    for size in (3, 5000, 3_000_000):
        data = os.urandom(size)
        assert await echo.echo(data) == data
        got = await echo.echo(bytearray(data))
        assert type(got) is bytearray and got == data
        got[0] ^= 1
        view = await echo.echo(memoryview(data))
        assert type(view) is memoryview and bytes(view) == data and view.readonly


async def test_what_was_received_outlives_the_system_and_the_sender():
    system = await create_actor_system(SystemConfig.standalone())
    echo = await Echo.local(system, placement="dedicated")
    pid = await echo.pid()
    big = await echo.echo(np.full(3_000_000, 7, np.uint8))
    small = await echo.echo(np.full(3000, 8, np.uint8))
    view = await echo.echo(memoryview(b"9" * 100_000))
    os.kill(pid, 9)
    await system.watch(echo)
    assert (big == 7).all() and (small == 8).all() and view[-1] == ord("9")
    other = await Echo.local(system)
    more = [await other.echo(np.full(1_000_000, i, np.uint8)) for i in range(20)]
    await system.shutdown()
    gc.collect()
    assert (big == 7).all() and (small == 8).all() and bytes(view) == b"9" * 100_000
    assert all((x == i).all() for i, x in enumerate(more))
    with pytest.raises(ValueError):
        more[0][0] = 1


async def test_an_array_that_an_actor_keeps_stays_what_it_was(system):
    """Its block may not be used again while the actor holds the array."""

    @as_actor
    class Keeper:
        def __init__(self):
            self.kept = []

        def keep(self, a):
            self.kept.append(a)

        def sums(self):
            return [int(a[0]) + int(a[-1]) for a in self.kept]

    keeper = await Keeper.local(system)
    for i in range(100):
        a = np.full(50_000, i, np.uint8)
        await keeper.keep(a)
        await keeper.keep.tell(a)
    assert await keeper.sums() == [2 * i for i in range(100) for _ in range(2)]


async def test_blocks_come_back_when_nobody_holds_them(system):
    """4 GB through a budget that is far smaller."""
    echo = await Echo.local(system)
    sent = np.ones(8 << 20, np.uint8)
    for _ in range(256):
        got = await echo.echo(sent)
    assert got.sum() == 8 << 20


async def test_unsendable_arguments_name_themselves_and_the_remedy(system):
    echo = await Echo.local(system)
    with socket.socket() as sock, open(__file__) as file:
        for thing, name in (
            (threading.Lock(), "lock"),
            (sock, "socket"),
            (file, "TextIOWrapper"),
            ((x for x in ()), "generator"),
        ):
            with pytest.raises(CodecError, match=name) as caught:
                await echo.echo(thing)
            assert ":" in str(caught.value), "no remedy"
            with pytest.raises(CodecError, match=name):
                await echo.echo({"deep": [thing]})
            with pytest.raises(CodecError, match=name):
                await echo.echo.tell(thing)
    assert await echo.echo(1) == 1


async def test_an_unsendable_result_is_an_error_at_the_caller(system):
    @as_actor
    class Bad:
        def lock(self):
            return threading.Lock()

        def fine(self):
            return 1

    bad = await Bad.local(system)
    with pytest.raises(Exception, match="lock") as caught:
        await bad.lock()
    assert "CodecError" in f"{type(caught.value).__name__} {caught.value}"
    assert await bad.fine() == 1


async def test_a_value_that_breaks_while_it_is_rebuilt_is_an_error_not_a_hang(system):
    echo = await Echo.local(system)
    with pytest.raises(Exception, match="cannot be rebuilt here"):
        await echo.echo(Grenade())
    assert await echo.echo(2) == 2


class Grenade:
    def __reduce__(self):
        return _explode, ()


def _explode():
    raise RuntimeError("cannot be rebuilt here")


async def test_deep_structures(system):
    echo = await Echo.local(system)
    deep = []
    for _ in range(500):
        deep = [deep]
    got = await echo.echo(deep)
    depth = 0
    while got:
        got = got[0]
        depth += 1
    assert depth == 500
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises((CodecError, RecursionError)):
        await echo.echo(deep)
    while deep:
        deep = deep[0]
    assert await echo.echo(3) == 3


async def test_replies_do_not_rewrite_the_callers_classes(system):
    class Local:
        count = 0

    echo = await Echo.local(system)
    thing = await echo.echo(Local())
    assert type(thing) is Local
    again = await echo.echo(Local())
    assert type(again) is Local


# -- refs and systems in messages ------------------------------------------------------------------


async def test_a_ref_travels_and_is_bound_again(system):
    @as_actor
    class User:
        async def use(self, refs, n):
            return [await ref.add(n) for ref in refs]

        def hold(self, ref):
            self.ref = ref

        def give(self):
            return self.ref

    calc = await Calculator.local(system, placement=0)
    here = await system.spawn(Calculator(100))
    user = await User.local(system, placement=1)
    assert await user.use([calc, here, calc], 1) == [1, 101, 2]
    await user.hold({"nested": (calc, here)})
    back = await user.give()
    assert back == {"nested": (calc, here)}
    assert hash(back["nested"][0]) == hash(calc)
    assert await back["nested"][0].add(1) == 3
    assert await back["nested"][1].add(1) == 102


async def test_refs_are_hashable_comparable_and_printable(system):
    calc = await Calculator.local(system, name="calc")
    other = await Calculator.local(system)
    found = await system.find("calc")
    assert found == calc and hash(found) == hash(calc) and found != other
    assert len({calc, found, other}) == 2
    assert "calc" in repr(calc) and "Calculator" in repr(other)
    assert calc.actor_id == found.actor_id and calc.actor_id != other.actor_id
    assert calc.actor_id.name == "calc"
    assert calc != 1 and calc != "calc"
    assert not calc.is_local()
    assert (await system.spawn(Calculator())).is_local()


async def test_a_system_travels_as_the_receivers_own(system):
    @as_actor
    class Spawner:
        async def grow(self, system, name):
            self.log = await Log.local(system, name=name, detached=True)
            return os.getpid(), str(system.node_id)

    spawner = await Spawner.local(system)
    pid, node = await spawner.grow(system, "grown")
    assert pid != os.getpid() and node == str(system.node_id)
    assert await (await system.resolve("grown")).note("hello") == 1


async def test_functions_and_classes_of_this_module_and_of_tests_travel(system):
    echo = await Echo.local(system)
    secret = 41

    class Local:
        def value(self):
            return secret + 1

    assert await echo.call(lambda x: x + secret, 1) == 42
    assert (await echo.echo(Local())).value() == 42
    assert await echo.kind(Local()) == f"{__name__}.{Local.__qualname__}"
    assert await echo.call(os.path.basename, "/a/b") == "b"
