# SPDX-License-Identifier: Apache-2.0
"""Seeded mutation of message bytes: `codec_fuzz.py [--seed N] [--seconds S]`.

Each mutant is read as a value, a call or an exception, without permission to unpickle. A mutant is
a value or a CodecError; anything else ends the run and names the seed."""

from __future__ import annotations

import argparse
import datetime
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import codec_build

_UTC = datetime.timezone.utc
_ROUNDS = 20_000
_KEYLESS = 0


def corpus(harness):
    plain = [
        *(
            None,
            True,
            False,
            0,
            1,
            -1,
            200,
            -200,
            70_000,
            -70_000,
            2**40,
            -(2**40),
            2**64 - 1,
            2**200,
            -(2**64),
        ),
        *(
            1.5,
            1j,
            "",
            "text",
            "ä" * 40,
            "x" * 300,
            "\ud800",
            b"",
            b"bytes",
            b"x" * 300,
            bytearray(b"abc"),
        ),
        *(
            [],
            [1, [2, [3]]],
            (),
            (1, (2, (3,))),
            {},
            {"a": 1, 2: "b"},
            {1, 2},
            frozenset({"a"}),
            ...,
        ),
        *(range(1, 10, 2), slice(1, None, "x"), list(range(20)), {str(n): n for n in range(20)}),
        *(
            datetime.date.max,
            datetime.datetime.now(_UTC),
            datetime.time(1, 2, 3, 4, _UTC),
            datetime.timedelta(1, 2, 3),
        ),
        *(
            datetime.timezone(datetime.timedelta(hours=1), "zone"),
            memoryview(b"abcd"),
            memoryview(b"abcd").cast("H", (2, 1)),
        ),
        [b"x" * 3000, "y" * 3000, bytearray(3000), memoryview(b"z" * 3000), "\ud800" * 3000],
        {"nested": [{"deeper": ({"set": frozenset({1, (2, 3)})},)}] * 3},
    ]
    try:
        import numpy as np
    except ImportError:
        np = None
    if np is not None:
        grid = np.arange(600.0).reshape(20, 30)
        plain += [
            grid,
            grid.T,
            np.arange(5),
            np.array(["a", "bc"]),
            np.zeros((0, 3)),
            np.array(["NaT"], "M8[ns]"),
        ]
        plain += [np.float32(1), np.datetime64("2024-01-01"), np.array(5)]
    entries = [harness.encode(value, _KEYLESS) for value in plain]
    entries.append(harness.encode_call(1, "a", [2], b"x" * 3000))
    entries.append(harness.encode_call(1, key=2, other=[3], **{f"k{n}": n for n in range(12)}))
    try:
        raise ValueError("text", {"a": 1})
    except ValueError as error:
        entries.append(harness.encode_exception(error, _KEYLESS))
    entries.append(harness.encode(Unlisted()))
    return entries


class Unlisted:
    """Pickled, so that refused pickles are in the corpus."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    harness = codec_build.load()
    entries = corpus(harness)
    deadline = time.monotonic() + options.seconds
    seed, mutants, refused = options.seed, 0, 0
    while time.monotonic() < deadline:
        try:
            refused += harness.fuzz(entries, seed, _ROUNDS, _KEYLESS)
        except BaseException:
            print(f"seed {seed} fails", file=sys.stderr)
            raise
        mutants += _ROUNDS
        seed += 1
    print(f"{mutants} mutants, {refused} refused, seeds {options.seed} to {seed - 1}")


if __name__ == "__main__":
    main()
