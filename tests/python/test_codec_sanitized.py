# SPDX-License-Identifier: Apache-2.0
"""The codec under AddressSanitizer and UndefinedBehaviorSanitizer: its own tests, and mutants."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import codec_build

HERE = pathlib.Path(__file__).parent

pytestmark = pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""), reason="this whole run is sanitized already"
)


def sanitized(*arguments):
    codec_build.build(sanitize=True)
    return subprocess.run(
        [sys.executable, *arguments],
        env=codec_build.sanitized_environment(),
        cwd=codec_build.ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.timeout(600)
def test_mutants_do_no_harm():
    result = sanitized(
        str(HERE / "codec_fuzz.py"), "--seconds", os.environ.get("PULSING_FUZZ_SECONDS", "8")
    )
    assert result.returncode == 0, result.stderr[-5000:]
    mutants, refused = map(int, re.match(r"(\d+) mutants, (\d+) refused", result.stdout).groups())
    assert mutants >= 20_000 and refused > mutants / 4


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["test_codec.py", "test_codec_objects.py"])
def test_the_tests_pass_sanitized(name):
    # Without the ones that count memory or time.
    result = sanitized(
        *(
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-o",
            "addopts=",
            "--import-mode=importlib",
        ),
        *("-k", "not leaks and not costs_little and not claim_larger and not any_ and not torch"),
        str(HERE / name),
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-5000:]
