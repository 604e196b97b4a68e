# SPDX-License-Identifier: Apache-2.0
"""The codec's values: what arrives equals what was sent, and bytes that do not follow the format
are refused, whatever they are."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import gc
import math
import pathlib
import struct
import subprocess
import sys
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import codec_build

harness = codec_build.load()

from pulsing._errors import CodecError  # noqa: E402

ALLOW_PICKLE = 1
NO_BUFFERS = 2
KEYLESS = 0


def through(value, flags=ALLOW_PICKLE, start=4096):
    return harness.decode(*harness.encode(value, flags, start), flags)


def same(left, right):
    """Equality that looks at types, at NaN and at the sign of zero."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return struct.pack("d", left) == struct.pack("d", right)
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, (set, frozenset)):
        return left == right and collections.Counter(map(type, left)) == collections.Counter(
            map(type, right)
        )
    return left == right


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 3


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Record:
    name: str
    data: object = None


class Names(dict):
    pass


class Items(list):
    pass


class Count(int):
    pass


UTC = datetime.timezone.utc
PLAIN = [
    None,
    True,
    False,
    0,
    -0.0,
    math.inf,
    -math.inf,
    math.nan,
    5e-324,
    *[
        sign * (2**power + delta)
        for power in (5, 7, 8, 15, 16, 31, 32, 63, 64, 65, 4000)
        for delta in (-1, 0, 1)
        for sign in (1, -1)
    ],
    "",
    "a" * 31,
    "a" * 32,
    "a" * 255,
    "a" * 256,
    "a" * 2048,
    "a" * 2049,
    "a" * 70000,
    "ä€😀" * 100,
    "ä€😀" * 5000,
    "\x00",
    "lone \ud800 surrogate",
    "\udfff" * 5000,
    b"",
    b"x" * 255,
    b"x" * 256,
    b"x" * 2048,
    b"x" * 2049,
    b"x" * 70000,
    bytearray(),
    bytearray(b"abc"),
    bytearray(b"abc" * 3000),
    [],
    [1] * 15,
    [1] * 16,
    [1] * 70000,
    (),
    (1,),
    ((), ((),)),
    tuple(range(300)),
    {},
    {"a": 1, 2: "b", None: 3, (1, 2): 4, frozenset({1}): 5, b"k": 6, 1.5: 7, "\ud800": 8},
    {index: str(index) for index in range(20)},
    {"k" * 40: 1, "ä": 2, "": 3},
    set(),
    {1, "a", (2,)},
    frozenset(),
    frozenset(range(100)),
    complex(-0.0, math.nan),
    range(0),
    range(2**70, 5, -3),
    slice(None),
    slice(1, "a", [2]),
    ...,
    NotImplemented,
    datetime.date.min,
    datetime.date.max,
    datetime.datetime.min,
    datetime.datetime.max,
    datetime.datetime(2024, 2, 29, 1, 2, 3, 4, UTC),
    datetime.datetime(2024, 10, 27, 2, 30, fold=1),
    datetime.datetime(
        2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=-5, seconds=7), "here")
    ),
    datetime.time.max,
    datetime.time(1, 2, 3, 4, UTC, fold=1),
    datetime.timedelta.min,
    datetime.timedelta.max,
    UTC,
    datetime.timezone(datetime.timedelta(minutes=1)),
    Colour.RED,
    Level.LOW,
    Point(1, [2]),
    Record("a", {"b": (1,)}),
    Names(a=1),
    Items([1, 2]),
    Count(7),
    collections.OrderedDict(b=1, a=2),
    collections.defaultdict(list, a=[1]),
    collections.deque([1, 2], maxlen=2),
    print,
    dict,
    pathlib.PurePosixPath("/a"),
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:40])
def test_what_arrives_equals_what_was_sent(value):
    assert same(through(value), value)
    assert same(through([value, (value,)]), [value, (value,)])
    assert same(through(value, start=0), value)


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: repr(value)[:40])
def test_everything_can_stay_in_the_stream(value):
    stream, region = harness.encode(value, ALLOW_PICKLE | NO_BUFFERS)
    assert region == b""
    assert same(harness.decode(stream, b""), value)


def test_fold_and_zone_name_survive():
    moment = datetime.datetime(
        2024, 10, 27, 2, 30, tzinfo=datetime.timezone(datetime.timedelta(0), "Z"), fold=1
    )
    arrived = through(moment)
    assert arrived.fold == 1
    assert arrived.tzname() == "Z"
    assert through(UTC) is UTC


def test_dict_keeps_its_order():
    value = dict.fromkeys("zyxabc")
    assert list(through(value)) == list(value)


def test_numbers_are_msgpack():
    import msgpack

    value = {"a": [1, -1, 2**40, 1.5, None, True, "text", b"bytes"], "b": {"c": -(2**63)}}
    stream, _ = harness.encode(value)
    assert msgpack.unpackb(stream, strict_map_key=False) == value
    assert harness.decode(msgpack.packb(value), b"") == value
    assert harness.decode(msgpack.packb(1.5, use_single_float=True), b"") == 1.5


# Bytes that older processes and programs in C may hold: a change here is a new format.
FORMAT = [
    ((1, [-1, None, True]), "c9 00000006 01 92 01 93 ff c0 c3"),
    ({"a": 1.5}, "81 a1 61 cb 3ff8000000000000"),
    (b"ab", "c4 02 6162"),
    (bytearray(b"ab"), "c7 02 06 6162"),
    (2**64, "c7 09 04 000000000000000001"),
    (1j, "c7 10 05 0000000000000000 000000000000f03f"),
    ({5}, "c9 00000002 02 91 05"),
    (frozenset(), "c9 00000001 03 90"),
    ("\ud800", "c7 03 08 eda080"),
    (range(1, 2), "c9 00000003 09 01 02 01"),
    (slice(None, 3), "c9 00000003 0a c0 03 c0"),
    (..., "c7 00 0b"),
    (datetime.date(2024, 2, 29), "c7 04 0d e807 02 1d"),
    (
        datetime.datetime(2024, 2, 29, 1, 2, 3, 4, fold=1),
        "c9 0000000d 0c e807 02 1d 01 02 03 01 04000000 c0",
    ),
    (
        datetime.time(1, 2, tzinfo=UTC),
        "c9 0000001b 0e 01 02 00 00 00000000 c9 0000000d 10 000000000000000000000000 c0",
    ),
    (datetime.timedelta(-1, 2, 3), "c7 0c 0f ffffffff 02000000 03000000"),
    (memoryview(b"ab"), "c9 0000000e 07 42 01 0200000000000000 c4 02 6162"),
    (bytes(3000), "c7 0d 14 00 00000000 b80b000000000000"),
    (bytearray(3000), "c7 0d 14 01 00000000 b80b000000000000"),
    ("a" * 3000, "c7 0d 14 02 00000000 b80b000000000000"),
]


@pytest.mark.parametrize("value, bytes_in_hex", FORMAT, ids=lambda one: repr(one)[:30])
def test_the_format_does_not_change(value, bytes_in_hex):
    assert harness.encode(value)[0].hex() == bytes_in_hex.replace(" ", "")


def test_the_format_of_a_call_does_not_change():
    assert harness.encode_call(1, k="x")[0].hex() == "0101ce00000002a16b01a178"


# Without NaN, which is not equal to itself inside of sets.
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.text(alphabet=st.characters())
    | st.binary()
    | st.integers(2040, 2060).map(bytes)
    | st.dates()
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.times()
    | st.timedeltas()
)
hashables = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=6,
)
values = st.recursive(
    hashables | st.floats() | st.complex_numbers() | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(hashables, inner)
        | st.sets(hashables)
    ),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(values)
def test_any_value_arrives_as_it_was(value):
    assert same(through(value, KEYLESS), value)
    assert same(through(value, KEYLESS, start=7), value)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(values, max_size=14),
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values, max_size=6),
)
def test_any_call_arrives_as_it_was(args, kwargs):
    stream, region = harness.encode_call(*args, **kwargs)
    got_args, got_kwargs = harness.decode_call(stream, region)
    assert same(got_args, tuple(args))
    assert same(got_kwargs, kwargs)
    again_args, again_kwargs = harness.decode_call(stream, region)
    assert same((again_args, again_kwargs), (got_args, got_kwargs))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=100))
def test_any_bytes_are_a_value_or_refused(stream, region):
    for read in (harness.decode, harness.decode_call, harness.decode_exception):
        try:
            read(stream, region, KEYLESS)
        except CodecError:
            pass


def nested(kind, depth):
    value = kind([1]) if kind is not dict else {"a": 1}
    for _ in range(depth - 1):
        value = kind([value]) if kind is not dict else {"a": value}
    return value


def depth_of(value):
    depth = 0
    while isinstance(value, (list, tuple, dict)):
        depth += 1
        value = value["a"] if isinstance(value, dict) else value[0]
    return depth


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_depth_512_needs_no_pickle_and_one_more_does(kind):
    stream, region = harness.encode(nested(kind, 512), KEYLESS)
    assert depth_of(harness.decode(stream, region, KEYLESS)) == 512
    with pytest.raises(CodecError, match=r"nested deeper than 512.*cluster key"):
        harness.encode(nested(kind, 513), KEYLESS)
    stream, region = harness.encode(nested(kind, 513), ALLOW_PICKLE)
    assert depth_of(harness.decode(stream, region)) == 513
    with pytest.raises(CodecError, match="pickled object arrived"):
        harness.decode(stream, region, KEYLESS)


@pytest.mark.parametrize("head", [b"\x91", b"\x81\xc0", b"\x81\x91"])
def test_deeper_bytes_are_refused(head):
    with pytest.raises(CodecError, match="nested deeper than 512"):
        harness.decode(head * 513 + b"\xc0" * 600, b"")
    depth, body = 0, b"\xc0"
    while depth < 513:
        body = b"\xc9" + struct.pack(">IB", len(body) + 1, 1) + b"\x91" + body
        depth += 1
    with pytest.raises(CodecError, match="nested deeper than 512"):
        harness.decode(body, b"")


def test_deeper_than_pickle_can_go_is_an_error_and_no_crash():
    with pytest.raises(CodecError, match="too deeply"):
        harness.encode(nested(list, 100_000))


def test_values_at_the_deepest_level_fit_both_ways():
    for leaf in (
        1j,
        ...,
        b"x" * 5000,
        bytearray(5),
        "\ud800",
        2**90,
        datetime.date.min,
        {1},
        range(3),
    ):
        for depth in (510, 511, 512):
            value = leaf
            for _ in range(depth):
                value = [value]
            stream, region = harness.encode(value)
            assert depth_of(harness.decode(stream, region)) == depth


def test_a_structure_that_contains_itself_keeps_its_shape():
    loop = [1]
    loop.append({"me": loop})
    arrived = through(loop)
    assert arrived[1]["me"] is arrived
    with pytest.raises(CodecError, match="contains itself"):
        harness.encode(loop, KEYLESS)
    args, kwargs = harness.decode_call(*harness.encode_call(5, loop, key=loop))
    assert args[0] == 5 and args[1][1]["me"] is args[1] and kwargs["key"][1]["me"] is kwargs["key"]


def test_a_small_graph_that_unfolds_without_end_stays_small():
    value = [1, 2]
    for _ in range(40):
        value = [value, value]
    stream, region = harness.encode(value)
    assert len(stream) + len(region) < 4096
    arrived = harness.decode(stream, region)
    assert arrived[0] is arrived[1]


@pytest.mark.parametrize(
    "head, tail",
    [
        (b"\xdd\xff\xff\xff\xff", b""),
        (b"\xdf\xff\xff\xff\xff", b""),
        (b"\xdb\xff\xff\xff\xff", b""),
        (b"\xc6\xff\xff\xff\xff", b""),
        (b"\xc9\xff\xff\xff\xff\x01", b""),
        (b"\xdd\x00\x0f\xff\xff" * 500, b"\xc0" * 0x100000),
        (b"\xdf\x00\x07\xff\xff\xc0" * 500, b"\xc0" * 0x100000),
    ],
)
def test_a_claim_larger_than_the_bytes_is_refused_before_memory_is_made(head, tail):
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            harness.decode(head + tail, b"")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * len(head + tail) + 100_000


def test_large_plain_memory_stays_out_of_the_stream():
    value = [b"a" * 3000, bytearray(b"b" * 3001), "c" * 3002, memoryview(b"d" * 3003), b"small"]
    stream, region = harness.encode(value)
    assert len(stream) < 200
    assert region[:3000] == b"a" * 3000
    assert region[3008 - 8 : 3008] == bytes(8), "padding is zero"
    assert region[3008 : 3008 + 3001] == b"b" * 3001, "the next multiple of 64"
    assert same(harness.decode(stream, region), value)


def test_many_buffers_keep_their_order():
    value = [bytes([index]) * (2049 + index) for index in range(50)]
    assert through(value) == value


@pytest.mark.parametrize("with_block", [True, False])
def test_a_memoryview_arrives_read_only_with_its_format(with_block):
    for size in (0, 12, 6000):
        view = memoryview(bytearray(range(12)) * (size // 12))
        forms = ["B", "b", "H", "i", "f", "?", "c"] if size else ["B", "d"]
        for form in forms:
            sent = view.cast(form)
            arrived = harness.decode(*harness.encode(sent), ALLOW_PICKLE, with_block)
            assert arrived.readonly and arrived.format == form and arrived.shape == sent.shape
            assert arrived.tobytes() == sent.tobytes()
    grid = memoryview(bytearray(range(24))).cast("B", (2, 3, 4))
    arrived = through(grid)
    assert arrived == grid and arrived.shape == (2, 3, 4)
    assert through(memoryview(b"abcdef")[::2]) == b"ace"
    scalar = memoryview(b"\x01\x02").cast("H", ())
    assert through(scalar).shape == () and through(scalar)[()] == scalar[()]


def test_a_memoryview_of_the_block_stays_valid_alone():
    stream, region = harness.encode(memoryview(b"xyz" * 2000))
    view = harness.decode(stream, region)
    del stream, region
    gc.collect()
    assert view.obj.__class__ is harness.Block
    assert view == b"xyz" * 2000
    with pytest.raises(TypeError):
        view[0] = 1


def test_a_bytearray_is_held_while_it_is_out_and_free_afterwards():
    value = bytearray(5000)
    harness.encode(value)
    value.append(1)
    value = bytearray(5000)
    with pytest.raises(CodecError):
        harness.encode([value, (x for x in ())])
    value.append(1)


def test_a_released_memoryview_is_an_error():
    view = memoryview(b"abc")
    view.release()
    with pytest.raises(ValueError):
        harness.encode(view)


CORPUS = [
    harness.encode(value)
    for value in [
        *PLAIN[:60],
        {"a": [1, (2, {3}), b"x" * 3000, "y" * 3000], "b": {"c": bytearray(3000)}},
        [
            datetime.datetime.now(UTC),
            datetime.timedelta(1),
            datetime.time(1),
            datetime.date.max,
            UTC,
        ],
        [memoryview(b"abcd").cast("H"), range(5), slice(1, 2), 1j, ..., frozenset({1})],
        Record("a", b"z" * 5000),
    ]
]


def test_every_prefix_is_refused():
    for stream, region in CORPUS:
        if len(stream) > 500:
            continue
        for end in range(len(stream)):
            with pytest.raises(CodecError):
                harness.decode(stream[:end], region)


def test_bytes_after_the_value_are_refused():
    for stream, region in CORPUS[:70]:
        with pytest.raises(CodecError, match="1 bytes follow"):
            harness.decode(stream + b"\xc0", region)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_bytes_never_do_more_than_raise(seed):
    refused = harness.fuzz(CORPUS, seed, 20_000, KEYLESS)
    assert 5_000 < refused < 20_000


def reference(kind, index, length):
    return b"\xc7\x0d\x14" + struct.pack("<BIQ", kind, index, length)


@pytest.mark.parametrize(
    "stream, match",
    [
        (reference(0, 1, 10), "buffer 1 is named where 0 is next"),
        (reference(0, 0, 101), "outside"),
        (reference(0, 0, 2**64 - 1), "outside"),
        (b"\x92" + reference(0, 0, 100) + reference(0, 1, 1), "outside"),
        (b"\x92" + reference(0, 0, 5) + reference(0, 0, 5), "buffer 0 is named where 1"),
        (reference(9, 0, 10), "unknown kind"),
        (reference(2, 0, 100), "not UTF-8"),
        (b"\xc1", "0xc1"),
        (b"\xc7\x00\x32", "extension code 50 is unknown"),
        (b"\xc7\x00\x41", "extension code 65 is unknown"),
        (b"\xc7\x00\xff", "extension code -1 is unknown"),
        (b"\xc7\x02\x0b\x00\x00", "longer than its content"),
        (b"\xc7\x02\x01\x91\x01" + b"\x00", "follow"),
        (b"\xc7\x03\x01\x90\x01\x01", "longer than its content"),
        (b"\xc7\x01\x01\x01", "array is missing"),
        (b"\xc7\x01\x02\x91", "claims 1 values"),
        (b"\xc7\x03\x02\x91\x90\x00", "hashable|longer"),
        (b"\xc7\x02\x02\x91\x90", "not hashable"),
        (b"\x81\x90\x01", "key is not hashable"),
        (b"\xa1\xff", "UTF-8"),
        (b"\x81\xa1\xff\x00", "UTF-8"),
        (b"\xc7\x03\x09\x00\x01\x00", "step zero"),
        (b"\xc7\x03\x09\x00\xc0\x01", "not made of integers"),
        (b"\xc7\x04\x0d\x00\x00\x0d\x01", "out of its range"),
        (b"\xc7\x04\x0d\x10\x27\x01\x01", "out of its range"),
        (b"\xc7\x0c\x0f" + struct.pack("<iii", 2**31 - 1, 0, 0), "out of its range"),
        (b"\xc7\x0d\x10" + struct.pack("<iii", 0, 0, 0) + b"\x01", "name is not a string"),
        (b"\xc7\x09\x0e" + struct.pack("<BBBBI", 1, 1, 1, 2, 0) + b"\xc0", "out of its range"),
        (b"\xc7\x09\x0e" + struct.pack("<BBBBI", 1, 1, 1, 0, 0) + b"\x05", "out of its range"),
        (b"\xc7\x04\x07Q\x01\x00\x00", "end in the middle"),
        (b"\xc7\x02\x07@\x01", "unknown format"),
        (b"\xc7\x0d\x07d\x01" + struct.pack("<Q", 1) + b"\xc4\x01a", "do not fit"),
        (b"\xc7\x15\x07B\x02" + struct.pack("<QQ", 2**63, 2) + b"\xc4\x01a", "do not fit"),
    ],
)
def test_what_is_wrong_is_named(stream, match):
    with pytest.raises(CodecError, match=match):
        harness.decode(stream, b"\xff" * 100)


@pytest.mark.parametrize(
    "stream, match",
    [
        (b"", "end in the middle"),
        (b"\x01", "end in the middle"),
        (b"\xa1a\x00", "not an unsigned"),
        (b"\x02\x00\x01", "claims"),
        (b"\xce\xff\xff\xff\xff\x00", "claims"),
        (b"\xcf" + b"\xff" * 8 + b"\x00", "impossible number"),
        (b"\x00\x01\x02\xa1a", "claims 1 values where 0"),
        (b"\x00\x01\xcf" + b"\xff" * 8, "end in the middle"),
        (b"\x00\x02\x04\xa1a\xa1a\x01\x02", "damaged"),
        (b"\x00\x02\x03\xa1a\x01\x01\x02", "not a string"),
        (b"\x00\x01\x04\xa1a\xa1b\x01", "damaged"),
        (b"\x00\x01\x02\xa1\xff\x01", "UTF-8"),
        (b"\x00\x03\x02\xa1a\x01", "more keywords than it names"),
        (b"\x00\x00\x01", "1 bytes follow the arguments"),
        (b"\x01\x00\x01\x01", "1 bytes follow"),
    ],
)
def test_what_is_wrong_with_a_call_is_named(stream, match):
    with pytest.raises(CodecError, match=match):
        harness.decode_call(stream, b"")


def test_keyword_names_are_the_same_objects_in_every_call():
    stream, region = harness.encode_call(1, alpha=2, beta=3)
    _, first = harness.decode_call(stream, region)
    _, second = harness.decode_call(stream, region)
    assert [id(name) for name in first] == [id(name) for name in second]
    assert next(iter(first)) is sys.intern("alpha")


def test_names_of_equal_length_are_told_apart():
    names = [f"name{number:04}" for number in range(5000)]
    for name in names + names[:600]:
        assert through({name: 1}) == {name: 1}
        assert harness.decode_call(*harness.encode_call(**{name: 1})) == ((), {name: 1})


def test_a_call_with_many_arguments_arrives():
    args = tuple(range(200))
    kwargs = {f"name_{index}": index for index in range(200)}
    assert harness.decode_call(*harness.encode_call(*args, **kwargs)) == (args, kwargs)


class Meddler:
    """Runs code in the middle of an encode."""

    def __init__(self, action):
        self.action = action

    def __reduce__(self):
        self.action()
        return int, ()


@pytest.mark.parametrize("action", ["clear", "append", "pop"])
def test_a_list_that_changes_while_it_is_sent_is_an_error(action):
    items: list = []
    items.extend(
        [
            Meddler(
                lambda: (
                    items.clear()
                    if action == "clear"
                    else items.append(1)
                    if action == "append"
                    else items.pop()
                )
            ),
            object(),
            3,
        ]
    )
    with pytest.raises(RuntimeError, match="changed its size"):
        harness.encode(items)


def test_a_dict_or_set_that_changes_while_it_is_sent_is_an_error():
    mapping: dict = {}
    mapping["a"] = Meddler(lambda: mapping.__setitem__(len(mapping), 1))
    with pytest.raises(RuntimeError, match="changed its size"):
        harness.encode(mapping)
    mapping.clear()
    mapping.update(a=Meddler(mapping.clear), b=object())
    with pytest.raises(RuntimeError, match="changed its size"):
        harness.encode(mapping)
    group: set = set()
    group.update({Meddler(group.clear), 1, 2, 3})
    with pytest.raises(RuntimeError, match="hange"):
        harness.encode(group)


def test_nothing_leaks():
    good = [
        {
            "a": [1, (2, {3}), b"x" * 3000, "y" * 3000],
            "b": bytearray(3000),
            "c": memoryview(b"q" * 3000),
        },
        [2**80, 1j, ..., range(4), slice(1), datetime.datetime.now(UTC), "\ud800", "ä" * 3000],
        Record("a", b"z" * 5000),
    ]
    bad = [[1, {"a": (x for x in ())}], {"k": [b"x" * 3000, open]}, nested(list, 100_000)]

    def everything():
        for value in good:
            stream, region = harness.encode(value)
            harness.decode(stream, region)
            for end in range(0, len(stream), 7):
                with pytest.raises(CodecError):
                    harness.decode(stream[:end], region)
            args, kwargs = harness.decode_call(*harness.encode_call(value, *range(12), key=value))
            assert len(args) == 13 and len(kwargs) == 1
        for value in bad[:1]:
            with pytest.raises(CodecError):
                harness.encode(value)

    for _ in range(3):
        everything()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(30):
        everything()
    gc.collect()
    assert sys.getallocatedblocks() - before < 200


def test_plain_messages_import_nothing():
    code = f"""
import sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
import importlib.util, types
spec = importlib.util.spec_from_file_location("codec_harness", {harness.__file__!r})
harness = importlib.util.module_from_spec(spec)
spec.loader.exec_module(harness)
before = set(sys.modules)
value = [1, "a", b"b" * 5000, {{"k": (1.5, None, {{2}})}}, 2**99]
assert harness.decode(*harness.encode(value)) == value
assert harness.decode_call(*harness.encode_call(1, key=value))
assert set(sys.modules) == before, set(sys.modules) - before
"""
    subprocess.run([sys.executable, "-c", code], check=True)
